package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// number is the value as a whole number. From a flag, text is one too.
func (n node) number() (int64, bool) {
	if n.kind != kindNumber && (n.kind != kindText || !n.loose) {
		return 0, false
	}
	if v, err := strconv.ParseInt(n.text, 10, 64); err == nil {
		return v, true
	}
	if n.kind != kindNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.text, 64) // 1e3 and 4.0 are whole, too
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// boolean is the value as a boolean. From a flag, text is one too.
func (n node) boolean() (value, ok bool) {
	if n.kind != kindBool && (n.kind != kindText || !n.loose) {
		return false, false
	}
	return n.text == "true", n.text == "true" || n.text == "false"
}

// unquoted proposes to write 4 for "4", if that is what is wrong with n.
func (n node) unquoted() string {
	if n.kind != kindText || n.loose || len(n.text) > 20 {
		return ""
	}
	_, err := strconv.ParseFloat(n.text, 64)
	if err == nil || n.text == "true" || n.text == "false" {
		return "write " + n.text + " without quotes"
	}
	return ""
}

// str is the value as text that a process can be given: execve takes no NUL.
func (n node) str() (string, bool) {
	return n.text, n.kind == kindText && !strings.Contains(n.text, "\x00")
}

func wantBool(at func(*App) *bool) setter {
	return func(d *draft, m member) {
		v, ok := m.value.boolean()
		if !ok {
			d.wrong(m, "true or false")
			return
		}
		*at(&d.app) = v
	}
}

func wantInt(least, most int, at func(*App) *int) setter {
	expected := fmt.Sprintf("a whole number from %d to %d", least, most)
	return func(d *draft, m member) {
		v, ok := m.value.number()
		if !ok || v < int64(least) || v > int64(most) {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = int(v)
	}
}

func wantDuration(least time.Duration, at func(*App) *Duration) setter {
	expected := `milliseconds as a number, or text like "5s", "1m", "2h", "7d"`
	if least > 0 {
		expected += ", at least " + least.String()
	}
	return func(d *draft, m member) {
		v, ok := durationOf(m.value)
		if !ok || v < least {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = Duration(v)
	}
}

func durationOf(n node) (time.Duration, bool) {
	if ms, ok := n.number(); ok {
		return time.Duration(ms) * time.Millisecond, ms >= 0 && ms <= maxDuration.Milliseconds()
	}
	if n.kind != kindText {
		return 0, false
	}
	if isDigits(n.text) { // "1000": only where PM2 takes it, see wantMinUptime
		return 0, false
	}
	return parseDuration(n.text)
}

// wantMinUptime also takes milliseconds as text, as PM2 does for this key alone.
func wantMinUptime(at func(*App) *Duration) setter {
	inner := wantDuration(100*time.Millisecond, at)
	return func(d *draft, m member) {
		if m.value.kind == kindText && isDigits(m.value.text) {
			m.value.kind = kindNumber
		}
		inner(d, m)
	}
}

func wantSize(least uint64, expected string, at func(*App) *uint64) setter {
	return func(d *draft, m member) {
		var v uint64
		n, ok := m.value.number()
		if ok && n >= 0 && n <= maxSize {
			v = uint64(n)
		} else {
			v, ok = 0, false
			if m.value.kind == kindText {
				v, ok = parseSize(m.value.text)
			}
		}
		if !ok || v < least {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = v
	}
}

// wantText takes text for which problem finds nothing to say.
func wantText(expected string, problem func(string) string, at func(*App) *string) setter {
	return func(d *draft, m member) {
		s, ok := m.value.str()
		if !ok {
			d.wrong(m, expected)
			return
		}
		if what := problem(s); what != "" {
			d.refuse(m, excerpt(s)+" "+what, expected, "")
			return
		}
		*at(&d.app) = s
	}
}

// wantChoice takes one of the names; each stands for its value.
func wantChoice(names, values []string, at func(*App) *string) setter {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	expected := strings.Join(quoted, " or ")
	return func(d *draft, m member) {
		i := slices.Index(names, m.value.text)
		if m.value.kind != kindText || i < 0 {
			d.wrongNear(m, expected, names)
			return
		}
		*at(&d.app) = values[i]
	}
}

// wantWords takes a list of text, or a line that is cut into words.
func wantWords(at func(*App) *[]string) setter {
	const expected = "a list of text, or text"
	return func(d *draft, m member) {
		if s, ok := m.value.str(); ok {
			words, closed := splitWords(s)
			if !closed {
				d.refuse(m, "a quote in "+excerpt(s)+" is not closed", expected, "")
				return
			}
			*at(&d.app) = words
			return
		}
		if m.value.kind != kindList {
			d.wrong(m, expected)
			return
		}
		var words []string
		for _, item := range m.value.items {
			if item.kind == kindNumber || item.kind == kindBool { // ["--port", 8080]
				item.kind = kindText
			}
			word, ok := item.str()
			if !ok {
				d.wrong(m.with(item), "text in the list")
				continue
			}
			words = append(words, word)
		}
		*at(&d.app) = words
	}
}

// with is m for one item of its list, so that a problem points at the item.
func (m member) with(item node) member {
	return member{name: m.name, at: m.at, value: item}
}

// texts is a list of text or one text, each checked by problem.
func (d *draft) texts(m member, expected string, problem func(string) string) []node {
	items := m.value.items
	if m.value.kind == kindText {
		items = []node{m.value}
	} else if m.value.kind != kindList {
		d.wrong(m, expected)
		return nil
	}
	var good []node
	for _, item := range items {
		s, ok := item.str()
		if !ok {
			d.wrong(m.with(item), "text in the list")
			continue
		}
		if what := problem(s); what != "" {
			d.refuse(m.with(item), excerpt(s)+" "+what, expected, "")
			continue
		}
		good = append(good, item)
	}
	return good
}

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
