package supervisor

import (
	"fmt"
	"slices"

	"gpm/config"
)

// hold is what keeps a process of an app from being started; without a why
// nothing does.
type hold struct {
	why  string
	vain bool // nothing that is under way will end it
}

// held tells what an app has to wait for: all that it depends on is online, or
// has ended as it was meant to. Of several reasons that without hope counts.
func (s *Supervisor) held(app *config.App) (h hold) {
	if len(app.DependsOn) > 0 {
		h = hold{"waits for the next daemon", true} // if this one has ended
		s.do(func(b *board) { h = b.hold(app, map[string]hold{}) })
	}
	return h
}

// hold is held. known has what was found out already, so that the way through
// many apps that wait for each other stays short.
func (b *board) hold(app *config.App, known map[string]hold) (h hold) {
	known[app.Name] = hold{app.Name + ", and so it would wait for itself", true}
	for _, name := range app.DependsOn {
		k, ok := known[name]
		if !ok {
			k = b.lack(name, known)
			known[name] = k
		}
		if k.why != "" && (h.why == "" || k.vain && !h.vain) {
			h = hold{"waits for " + k.why, k.vain}
		}
	}
	return h
}

// lack is what an app lacks for others to start.
func (b *board) lack(name string, known map[string]hold) hold {
	e := b.entries[name]
	switch {
	case e == nil:
		return hold{name + ", which is not in the list; start it from its config file", true}
	case e.leaving:
		return hold{name + ", which is being deleted", true}
	}
	var h hold
	for i := range e.spec.Instances {
		who := name
		if e.spec.Instances > 1 {
			who = fmt.Sprintf("%s-%d", name, i)
		}
		switch p := e.places[i]; {
		case p.up():
		case p.coming():
			h = hold{why: name + " to be online"}
		case p.State == Pending:
			if k := b.hold(p.App, known); k.vain {
				return hold{who + ", which " + k.why, true}
			}
			h = hold{why: name + " to be online"}
		case p.State == Waiting:
			return hold{who + ", which waits for its restart", true}
		default:
			return hold{fmt.Sprintf("%s, which is %s; gpm start %s lets it go on", who, p.State, who), true}
		}
	}
	return h
}

// up tells whether an instance does what others need it for. What a record says
// to be online may have died with the machine: then it has no process yet.
func (p *Snapshot) up() bool {
	return p.State == Online && p.PID != 0 || p.State == Stopped && p.Fine
}

// coming tells whether an instance is on its way to be online, and will be that
// or fail within its own deadlines.
func (p *Snapshot) coming() bool {
	return p.App == nil || p.State == Launching || p.State == Online || p.State == Stopping && p.Wanted
}

// news lets those who wait for an app look again.
func (b *board) news(name string) {
	for _, e := range b.entries {
		waits := slices.Contains(e.spec.DependsOn, name)
		for _, p := range e.places { // one may have another spec, of a rollout that has failed
			waits = waits || p.State == Pending && slices.Contains(p.App.DependsOn, name)
		}
		if waits {
			e.app.lookAgain()
		}
	}
}

// stale tells whether an instance waits for something that was true when it
// asked, and changed before the board knew that it waits.
func (b *board) stale(p Snapshot) bool {
	return p.State == Pending && b.hold(p.App, map[string]hold{}).why != p.Reason
}

// down are the places of an app that are not up.
func (e *entry) down() (r []int) {
	for i := range e.spec.Instances {
		if p := e.places[i]; !p.up() {
			r = append(r, i)
		}
	}
	return r
}

// runs tells whether a place of an app has a process; of indices, unless nil.
func (e *entry) runs(indices []int) bool {
	for i, p := range e.places {
		if p.PID != 0 && (indices == nil || slices.Contains(indices, i)) {
			return true
		}
	}
	return false
}

// users are the running apps that depend on one.
func (b *board) users(name string) (r []string) {
	for other, e := range b.entries {
		if slices.Contains(e.spec.DependsOn, name) && e.runs(nil) {
			r = append(r, other)
		}
	}
	slices.Sort(r)
	return r
}
