package config

import (
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"unicode"
)

// draft is an app while it is read: first its keys as written, then resolved
// against the file system.
type draft struct {
	l     *loader
	at    place  // of the app
	label string // what problems call the app
	// isObject is false for an app that is not even an object: of its keys
	// nothing more needs to be said.
	isObject bool

	given map[string]member // by canonical name, flags over the file; without null
	app   App

	env         map[string]string // the key env
	envOverride *member           // variables from flags, over everything
	time        bool              // the key time
	watchAll    bool              // "watch": true
	watch       []node
	listenPort  bool // "listen": true
	dependsOn   []node
	script      location
}

// location is what became of the script.
type location struct {
	path  string
	info  fs.FileInfo
	shell bool
	why   string // why there is no path
	hint  string // what to do about it
}

// newDraft reads the keys of an app.
func (l *loader) newDraft(n node) *draft {
	d := &draft{l: l, at: n.at, given: map[string]member{}, env: map[string]string{}}
	d.app.Inherited = l.o.Inherited
	if l.file != "" {
		d.app.File, d.app.Line = l.file, n.at.line()
	}
	if d.isObject = n.kind == kindObject; !d.isObject {
		l.at(n.at, "", "got "+n.describe(), "an app, which is an object", "")
	}
	d.label = labelOf(n)
	d.checkTwiceBelow(n, "")
	d.collect(n.members)
	d.override()
	d.fill()
	d.mergeEnv()
	return d
}

// labelOf is the name of an app before it is known to be valid.
func labelOf(n node) string {
	label := ""
	for _, m := range n.members {
		key, _ := findKey(m.name)
		switch {
		case key == nil || m.value.kind != kindText:
		case key.Name == "name" && m.value.text != "":
			return m.value.text
		case key.Name == "script" && label == "":
			label = scriptName(m.value.text)
			if strings.ContainsFunc(m.value.text, unicode.IsSpace) {
				label = shellName(m.value.text)
			}
		}
	}
	return label
}

// checkTwiceBelow reports keys that n, or an object in it, has twice. The prefix
// is what such a key is called by in front of its name ("ready.headers.").
func (d *draft) checkTwiceBelow(n node, prefix string) {
	d.l.checkTwice(n, d.label, prefix)
	for _, item := range n.items {
		d.checkTwiceBelow(item, prefix)
	}
	for _, m := range n.members {
		if m.value.kind == kindList || m.value.kind == kindObject {
			// Cut, because a long key in front of many would take quadratic time.
			d.checkTwiceBelow(m.value, shorten(prefix+m.name)+".")
		}
	}
}

// collect sorts the members by their keys.
func (d *draft) collect(members []member) {
	seen := map[string]member{}
	for _, m := range members {
		key, profile := findKey(m.name)
		switch {
		case key == nil:
			d.l.unknown(m, d.label, spellings())
			continue
		case profile != "" || key.Refused != "":
			if m.value.kind != kindNull {
				key.set(d, m)
			}
			continue
		}
		if first, twice := seen[key.Name]; twice {
			if first.name != m.name { // the same spelling twice is reported already
				d.refuseKey(m, fmt.Sprintf("the same key as %q in line %d", first.name, first.at.line()), "", "keep one of them")
			}
			continue
		}
		seen[key.Name] = m
		if m.value.kind != kindNull {
			d.given[key.Name] = m
		}
	}
}

// override puts the flags over what the file gave.
func (d *draft) override() {
	for _, m := range d.l.overrides {
		key, _ := findKey(m.name)
		switch {
		case m.value.kind == kindNull:
			delete(d.given, key.Name)
		case key.Refused != "":
			key.set(d, m)
		case key.Name == "env":
			d.envOverride = &m
		default:
			d.given[key.Name] = m
		}
	}
}

// fill runs the table over the app: first each key's default, then its value.
func (d *draft) fill() {
	for _, key := range table() {
		if key.Refused != "" || key.Name == profileKey {
			continue
		}
		d.setDefault(&key)
		if m, ok := d.given[key.Name]; ok {
			key.set(d, m)
		}
	}
}

// profile is the environment that m, an env_<name>, is read into.
func (d *draft) profile(m member) map[string]string {
	_, name := findKey(m.name)
	if d.app.Profiles == nil {
		d.app.Profiles = map[string]map[string]string{}
	}
	if d.app.Profiles[name] == nil {
		d.app.Profiles[name] = map[string]string{}
	}
	return d.app.Profiles[name]
}

// mergeEnv puts the profile over env, flags over both, port over all.
func (d *draft) mergeEnv() {
	env := d.env
	maps.Copy(env, d.app.Profiles[d.l.o.Profile])
	if m := d.envOverride; m != nil {
		setEnv(func(*draft, member) map[string]string { return env })(d, *m)
	}
	if d.app.Port != 0 {
		env["PORT"] = strconv.Itoa(d.app.Port)
	}
	if len(env) > 0 {
		d.app.Env = env
	}
}

// nameMember is the key that named the app, for problems with the name.
func (d *draft) nameMember() member {
	if m, ok := d.given["name"]; ok {
		return m
	}
	return d.scriptMember()
}

// scriptMember is the key script, or the app itself if there is none.
func (d *draft) scriptMember() member {
	if m, ok := d.given["script"]; ok {
		return m
	}
	return member{at: d.at, value: node{at: d.at}}
}

// decideName names an app that was given no name. A name that was given and is
// wrong stays empty: it was reported.
func (d *draft) decideName() {
	d.script = d.locate()
	if _, ok := d.given["name"]; ok || d.app.Script == "" {
		return
	}
	name := scriptName(d.app.Script)
	if d.script.shell {
		name = shellName(d.app.Script)
	}
	if what := nameProblem(name); what != "" {
		d.refuse(d.scriptMember(), fmt.Sprintf("the name made from it, %s, %s", excerpt(name), what), "", `give the app a "name"`)
		return
	}
	d.app.Name = name
}

// refuse reports a problem with the value of m.
func (d *draft) refuse(m member, message, expected, hint string) {
	d.l.report.addAt(m.value.at, Problem{App: d.label, Key: m.name, Message: message, Expected: expected, Hint: hint})
}

// refuseKey reports a problem with the key m, whatever its value.
func (d *draft) refuseKey(m member, message, expected, hint string) {
	d.l.report.addAt(m.at, Problem{App: d.label, Key: m.name, Message: message, Expected: expected, Hint: hint})
}

// secret tells whether the value of a key may be one: it is not shown then.
func secret(key string) bool { return key == "env" || strings.HasPrefix(key, "env_") }

// wrong reports that the value of m is not what the key takes.
func (d *draft) wrong(m member, expected string) {
	if secret(m.name) {
		d.refuse(m, "got "+m.value.sort(), expected, "")
		return
	}
	d.refuse(m, "got "+m.value.describe(), expected, m.value.unquoted())
}

// wrongNear is wrong for a key that takes one of a few names.
func (d *draft) wrongNear(m member, expected string, names []string) {
	hint := ""
	if m.value.kind == kindText {
		if n := nearest(m.value.text, names); n != "" {
			hint = fmt.Sprintf("did you mean %q?", n)
		}
	}
	d.refuse(m, "got "+m.value.describe(), expected, hint)
}
