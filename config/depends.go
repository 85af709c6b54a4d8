package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxDepends bounds what one app depends on.
const maxDepends = 100

const dependsDoc = "The apps that this one needs, by their names (Compose's key; its short form). They are in the same file. " +
	"No process of the app is started before all instances of those are online, that is ready; until then it is `waiting`. " +
	"If one of them fails, or is stopped, the app goes on waiting, says for whom, and `gpm start` is exit code 1; it starts by itself when that one comes online. " +
	"An app with `\"autorestart\": false` that has ended with exit code 0 (or any with one of `stop_exit_codes`) counts as online: what prepares something may be named here, too. " +
	"Starting the app alone (`--only`, or by its name) starts what it needs and does not run. " +
	"A restart or reload of several takes what others need first, and leaves those alone if it fails; a stop takes it last. " +
	"What runs is not touched when one that it needs crashes, is restarted or is stopped, and a crash of the app itself waits for nobody."

const expectedDepends = "the name of an app of the same config"

// setDependsOn takes names. Whether there are such apps is known when all are
// read: checkDepends.
func setDependsOn(d *draft, m member) {
	d.app.DependsOn, d.dependsOn = nil, nil
	names := d.texts(m, expectedDepends+", or a list of names", nameProblem)
	if len(names) > maxDepends {
		d.refuse(m, fmt.Sprintf("names %d apps", len(names)), fmt.Sprintf("at most %d apps", maxDepends), "")
		return
	}
	for _, n := range names {
		if slices.Contains(d.app.DependsOn, n.text) {
			d.refuse(m.with(n), excerpt(n.text)+" is there twice", "", "")
			continue
		}
		d.app.DependsOn, d.dependsOn = append(d.app.DependsOn, n.text), append(d.dependsOn, n)
	}
}

// checkDepends looks at what the drafts depend on: it must be in the same
// config, because only then it is known that no circle will come of it, and
// that a start of the config is complete.
func (l *loader) checkDepends() {
	named := l.named()
	var names []string
	for _, d := range l.drafts {
		if d.app.Name != "" {
			names = append(names, d.app.Name)
		}
	}
	sound := map[string][]string{}
	for _, d := range l.drafts {
		for _, n := range d.dependsOn {
			at := d.given["depends_on"].with(n)
			switch {
			case n.text == d.app.Name:
				d.refuse(at, "an app cannot depend on itself", "", "")
			case named[n.text] == nil:
				d.refuse(at, fmt.Sprintf("there is no app %s in this config", excerpt(n.text)), expectedDepends, l.likely(n.text, names))
			default:
				sound[d.app.Name] = append(sound[d.app.Name], n.text)
			}
		}
	}
	circles(names, func(name string) []string { return sound[name] }, func(way []string) bool {
		last := len(way) - 2 // it closes the circle
		d := named[way[last]]
		i := slices.IndexFunc(d.dependsOn, func(n node) bool { return n.text == way[0] })
		d.refuse(d.given["depends_on"].with(d.dependsOn[i]), "none of them could start first: "+Way(append(way[last:last+1:last+1], way[:last+1]...)), "", "")
		return !l.report.full()
	})
}

// named is the drafts by name; of two the first.
func (l *loader) named() map[string]*draft {
	r := map[string]*draft{}
	for _, d := range l.drafts {
		if d.app.Name != "" && r[d.app.Name] == nil {
			r[d.app.Name] = d
		}
	}
	return r
}

// likely is a hint at the name that may be meant.
func (l *loader) likely(name string, names []string) string {
	if l.report.full() { // then the problem is only counted
		return ""
	}
	if n := nearest(name, names); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return "the config has " + quotedList(names)
}

// chosen is the drafts that Only names, and what they depend on.
func (l *loader) chosen() []*draft {
	if len(l.o.Only) == 0 {
		return l.drafts
	}
	named, in := l.named(), map[string]bool{}
	left := slices.Clone(l.o.Only)
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		if d := named[name]; d != nil && !in[name] {
			in[name] = true
			left = append(left, d.app.DependsOn...)
		}
	}
	return slices.DeleteFunc(slices.Clone(l.drafts), func(d *draft) bool { return !in[d.app.Name] })
}

// Circle is the first circle of names that depend on each other, with its first
// name again at the end; nil: there is none.
func Circle(names []string, depends func(name string) []string) (found []string) {
	circles(names, depends, func(way []string) bool {
		found = way
		return false
	})
	return found
}

// Way is a circle for people.
func Way(names []string) string {
	const shown = 10
	if n := len(names); n > shown {
		names = append(slices.Clone(names[:shown-1]), fmt.Sprintf("(%d more)", n-shown), names[n-1])
	}
	short := make([]string, len(names))
	for i, n := range names {
		short[i] = shorten(n)
	}
	return strings.Join(short, " -> ")
}

// circles calls found with each circle that a search through all of names comes
// to, until that returns false.
func circles(names []string, depends func(name string) []string, found func(way []string) bool) {
	depth := map[string]int{} // 1..: place on the way; -1: all behind it is known
	var way []string
	var visit func(name string) bool
	visit = func(name string) bool {
		way = append(way, name)
		depth[name] = len(way)
		for _, next := range depends(name) {
			switch at := depth[next]; {
			case at > 0:
				if !found(append(slices.Clone(way[at-1:]), next)) {
					return false
				}
			case at == 0 && !visit(next):
				return false
			}
		}
		way = way[:len(way)-1]
		depth[name] = -1
		return true
	}
	for _, name := range names {
		if depth[name] == 0 && !visit(name) {
			return
		}
	}
}
