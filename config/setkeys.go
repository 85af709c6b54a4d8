package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

func setInstances(d *draft, m member) {
	const expected = `a number, "max" for one per core, or a negative number for cores less that many`
	v := m.value
	if v.kind == kindText && v.text != "max" {
		v.loose = true // PM2 takes "4", too
	}
	n, ok := v.number()
	switch {
	case v.kind == kindText && v.text == "max":
		n = 0
	case !ok || n > maxInstances:
		d.refuse(m, "got "+v.describe(), expected+fmt.Sprintf(", at most %d", maxInstances), "")
		return
	}
	if n <= 0 {
		n = max(1, int64(d.l.o.Cores)+max(n, -maxInstances))
	}
	d.app.Instances = int(min(n, maxInstances))
}

func setStopExitCodes(d *draft, m member) {
	const expected = "exit codes from 0 to 255: a number or a list of numbers"
	items := m.value.items
	switch {
	case m.value.loose && m.value.kind == kindText: // --stop-exit-codes "1 2"
		items = nil
		for _, w := range strings.FieldsFunc(m.value.text, func(r rune) bool { return r == ',' || r == ' ' }) {
			items = append(items, node{kind: kindText, text: w, at: m.value.at, loose: true})
		}
	case m.value.kind == kindNumber:
		items = []node{m.value}
	case m.value.kind != kindList:
		d.wrong(m, expected)
		return
	}
	d.app.StopExitCodes = nil
	for _, item := range items {
		code, ok := item.number()
		if !ok || code < 0 || code > 255 {
			d.wrong(m.with(item), expected)
			continue
		}
		d.app.StopExitCodes = append(d.app.StopExitCodes, int(code))
	}
}

func setKillSignal(d *draft, m member) {
	name := ""
	if m.value.kind == kindText {
		name = signalName(m.value.text)
	}
	if name == "" {
		d.wrongNear(m, "a signal that ends a process: "+strings.Join(signals, ", "), signals)
		return
	}
	d.app.KillSignal = name
}

func setCron(d *draft, m member) {
	const expected = `a cron pattern of 5 fields ("0 4 * * *"), or 6 with seconds first; "0" for none`
	if n, ok := m.value.number(); ok && n == 0 || m.value.kind == kindText && m.value.text == "0" {
		d.app.CronRestart = ""
		return
	}
	s, ok := m.value.str()
	if !ok {
		d.wrong(m, expected)
		return
	}
	s = strings.Join(strings.Fields(s), " ")
	if what := cronProblem(s); what != "" {
		d.refuse(m, excerpt(s)+": "+what, expected, "")
		return
	}
	d.app.CronRestart = s
}

func setWatch(d *draft, m member) {
	if on, ok := m.value.boolean(); ok {
		d.watchAll, d.watch = on, nil
		return
	}
	d.watchAll = false
	d.watch = d.texts(m, "true, false, a path, or a list of paths", notEmpty)
}

func setIgnoreWatch(d *draft, m member) {
	d.app.IgnoreWatch = nil
	for _, item := range d.texts(m, `names or patterns ("node_modules", "**/*.log")`, globProblem) {
		d.app.IgnoreWatch = append(d.app.IgnoreWatch, item.text)
	}
}

func setListen(d *draft, m member) {
	const expected = `a port, "host:port", a list of these, or true for the port of the key "port"`
	d.app.Listen, d.listenPort = nil, false
	if on, ok := m.value.boolean(); ok {
		d.listenPort = on
		return
	}
	items := m.value.items
	switch m.value.kind {
	case kindText, kindNumber:
		items = []node{m.value}
	case kindList:
	default:
		d.wrong(m, expected)
		return
	}
	for _, item := range items {
		address, ok := listenAddress(item.text)
		if !ok || item.kind != kindText && item.kind != kindNumber {
			d.wrong(m.with(item), expected)
			continue
		}
		if slices.Contains(d.app.Listen, address) {
			d.refuse(m.with(item), excerpt(item.text)+" is there twice", "", "")
			continue
		}
		d.app.Listen = append(d.app.Listen, address)
	}
}

// wantAccount takes the name or number of a user or group.
func wantAccount(at func(*App) *string) setter {
	return func(d *draft, m member) {
		if n, ok := m.value.number(); ok && n >= 0 && n < math.MaxUint32 {
			*at(&d.app) = strconv.FormatInt(n, 10)
			return
		}
		s, ok := m.value.str()
		if !ok || notEmpty(s) != "" {
			d.wrong(m, "a name or a number")
			return
		}
		*at(&d.app) = s
	}
}

func setTime(d *draft, m member) {
	on, ok := m.value.boolean()
	if !ok {
		d.wrong(m, "true or false")
		return
	}
	d.time = on
}

// setEnv reads an env object into one of the draft's environments.
func setEnv(at func(d *draft, m member) map[string]string) setter {
	return func(d *draft, m member) {
		if m.value.kind != kindObject {
			d.wrong(m, `an object of names and values ({"PORT": 8080})`)
			return
		}
		env := at(d, m)
		for _, v := range m.value.members {
			if what := envNameProblem(v.name); what != "" {
				d.refuseKey(member{name: m.name, at: v.at}, "the variable "+excerpt(v.name)+" "+what, "", "")
				continue
			}
			if v.value.kind == kindNull {
				continue
			}
			text := v.value.plain()
			if strings.Contains(text, "\x00") {
				d.refuse(m.with(v.value), "the value of "+excerpt(v.name)+" contains a NUL character", "", "")
				continue
			}
			if _, twice := env[v.name]; !twice || v.value.loose {
				env[v.name] = text
			}
		}
	}
}

func envNameProblem(name string) string {
	switch {
	case name == "":
		return "has no name"
	case strings.ContainsAny(name, "=\x00"):
		return `contains "=" or NUL`
	}
	return ""
}
