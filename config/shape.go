package config

import (
	"fmt"
	"path/filepath"
)

// appNodes finds the apps in the shapes that PM2 knows: {apps: [...]},
// {apps: {...}}, the same with pm2 (package.json), one app, a list of apps.
func (l *loader) appNodes(root node) []node {
	switch root.kind {
	case kindList:
		return l.someApps(root)
	case kindObject:
		for _, m := range root.members {
			if m.name == "apps" || m.name == "pm2" {
				l.checkTwice(root, "", "")
				return l.wrapped(root)
			}
		}
		if looksLikeApp(root) || len(root.members) == 0 {
			return l.someApps(root)
		}
		for _, m := range root.members {
			l.unknownTop(m)
		}
		return nil
	}
	l.at(root.at, "", "got "+root.describe(), `{"apps": [...]}`, "")
	return nil
}

func looksLikeApp(n node) bool {
	for _, m := range n.members {
		if key, _ := findKey(m.name); key != nil {
			return true
		}
	}
	return false
}

// wrapped takes the apps out of {apps: ...} and looks at what stands beside them.
func (l *loader) wrapped(root node) []node {
	var apps *member
	for i, m := range root.members {
		switch {
		case m.name == "apps" || m.name == "pm2":
			if apps == nil {
				apps = &root.members[i]
			} else if apps.name != m.name {
				l.at(m.at, m.name, fmt.Sprintf("the same as %q in line %d", apps.name, apps.at.line()), "", "keep one of them")
			}
		case m.name == "$schema", filepath.Base(l.file) == "package.json":
		default:
			l.unknownTop(m)
		}
	}
	return l.someApps(apps.value)
}

// someApps is the apps of a list, or of one object.
func (l *loader) someApps(n node) []node {
	switch {
	case n.kind == kindObject && len(n.members) > 0:
		return []node{n}
	case n.kind != kindList && n.kind != kindObject:
		l.at(n.at, "", "got "+n.describe(), "a list of apps, or one app", "")
	case len(n.items) == 0:
		l.at(n.at, "", "there are no apps", "at least one app", "")
	}
	return n.items
}

func (l *loader) unknownTop(m member) {
	switch m.name {
	case "deploy":
		l.at(m.at, m.name, "gpm does not deploy", "", "remove it; deploy by other means, then run gpm reload")
		return
	case "static":
		l.at(m.at, m.name, "gpm does not serve static files", "", "remove it; run a file server as an app")
		return
	}
	if key, _ := findKey(m.name); key != nil {
		l.at(m.at, m.name, "belongs into an app, not beside the apps", "", "")
		return
	}
	l.unknown(m, "", append([]string{"apps", "pm2"}, spellings()...))
}

// at reports a problem outside of any app.
func (l *loader) at(at place, key, message, expected, hint string) {
	l.report.addAt(at, Problem{Key: key, Message: message, Expected: expected, Hint: hint})
}

// unknown reports a key that nobody knows, with the likely one.
func (l *loader) unknown(m member, app string, candidates []string) {
	p := Problem{App: app, Key: m.name, Message: "unknown key"}
	if !l.report.full() { // else it is only counted
		if n := nearest(m.name, candidates); n != "" {
			p.Hint = fmt.Sprintf("did you mean %q?", n)
		}
	}
	l.report.addAt(m.at, p)
}

// checkTwice reports keys that an object has twice, by their names with the
// prefix.
func (l *loader) checkTwice(n node, app, prefix string) {
	seen := make(map[string]place, len(n.members))
	for _, m := range n.members {
		first, twice := seen[m.name]
		if !twice {
			seen[m.name] = m.at
			continue
		}
		l.report.addAt(m.at, Problem{App: app, Key: prefix + m.name, Message: fmt.Sprintf("the key is there twice, first in line %d", first.line())})
	}
}
