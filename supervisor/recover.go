package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Recover brings back what an earlier daemon looked after, from its records
// and from the processes that the world still has. When it returns, List shows
// what is: nobody who asks the new daemon is told that a live app is dead.
func (s *Supervisor) Recover(records []Record, alive []Survivor) {
	var known sync.WaitGroup
	var back []func()
	for i := range records {
		back = append(back, s.enlist(&records[i], alive, &known))
	}
	for _, bringBack := range back { // when all are on the board: they may depend on each other
		bringBack()
	}
	known.Wait() // no longer than it takes to look at each process
	s.do(func(b *board) {
		for _, l := range alive {
			if e := b.entries[l.App]; e == nil || e.places[l.Index].App == nil {
				b.feeds.emit(Event{
					At: time.Now(), Kind: "daemon", App: l.App, ID: -1, Index: l.Index,
					Message: fmt.Sprintf("a process of %s-%d lives, but there is no record of it; it is left alone", l.App, l.Index),
				})
			}
		}
	})
}

// enlist puts an app on the board as its record has it, and returns what brings
// it back.
func (s *Supervisor) enlist(r *Record, alive []Survivor, known *sync.WaitGroup) (bringBack func()) {
	a := newApp(s, &r.App)
	e := &entry{app: a, spec: &r.App, places: map[int]Snapshot{}, usage: map[int]Usage{}, counts: map[int]map[int]Count{}}
	a.leaving, e.leaving = r.Leaving, r.Leaving
	places := slices.Clone(r.Instances)
	s.do(func(b *board) {
		for _, ir := range places {
			b.nextID = max(b.nextID, ir.ID+1)
		}
		if !r.Leaving {
			places = b.whole(places, r.App.Instances)
		}
		for _, ir := range places { // all at once: the first one to be saved must not lose the others
			e.places[ir.Index] = Snapshot{InstanceRecord: ir, App: &r.App}
		}
		b.entries[a.name] = e
		s.forget(b, e)
	})
	return func() { s.bringBack(a, r, places, alive, known) }
}

func (s *Supervisor) bringBack(a *app, r *Record, places []InstanceRecord, alive []Survivor, known *sync.WaitGroup) {
	for _, ir := range places {
		mine := slices.DeleteFunc(slices.Clone(alive), func(l Survivor) bool { return l.App != a.name || l.Index != ir.Index })
		in := newInstance(s.world, &r.App, ir.ID, ir.Index, s.publisher(a), s.synced, s.covered(a, ir.Index), s.held)
		if ir.Wanted {
			a.resting = false
		}
		leave := r.Leaving || ir.Index >= r.App.Instances
		if leave { // the daemon ended in the middle of a delete or a scale down
			a.going[ir.Index] = in
		} else {
			a.instances = append(a.instances, in)
		}
		known.Add(1)
		go in.run(func() {
			in.reattach(ir, mine)
			in.show()
			known.Done()
			if leave {
				in.obey(command{do: doLeave, reason: "removed", reply: make(chan Outcome, 1)})
			}
		})
	}
	go a.run()
}

// whole gives the places of an app without a hole: those that a daemon had no
// time to write down are as wanted as the others.
func (b *board) whole(places []InstanceRecord, n int) []InstanceRecord {
	wanted := slices.ContainsFunc(places, func(ir InstanceRecord) bool { return ir.Wanted })
	for i := range n {
		if !slices.ContainsFunc(places, func(ir InstanceRecord) bool { return ir.Index == i }) {
			places = append(places, InstanceRecord{ID: b.nextID, Index: i, Wanted: wanted, State: Stopped, Created: time.Now()})
			b.nextID++
		}
	}
	slices.SortFunc(places, func(x, y InstanceRecord) int { return cmp.Compare(x.Index, y.Index) })
	return places
}

// reattach brings an instance back that an earlier daemon looked after: from
// its record and from what of its processes the world still has. It runs
// before the first turn of run. Ordinary start, crash of the daemon, update
// and reboot all come this way; after a reboot there are no survivors.
func (in *instance) reattach(was InstanceRecord, survivors []Survivor) {
	in.gen, in.restarts, in.streak = was.Gen, was.Restarts, was.Streak
	in.created, in.listens, in.exits, in.wanted, in.away = was.Created, was.Listens, slices.Clone(was.Exits), was.Wanted, was.Away
	for i := range in.exits {
		in.exits[i].Drained = true
	}
	slices.SortFunc(survivors, func(a, b Survivor) int { return cmp.Compare(a.Gen, b.Gen) })
	var early []genFact
	for _, s := range survivors {
		early = append(early, in.take(s, was)...)
	}
	if in.cur == nil && in.next != nil {
		in.cur, in.next = in.next, nil
	}
	in.resume(was)
	for _, f := range early {
		in.learn(f)
	}
}

// take gives a surviving process its old role, and returns what is reported of
// it meanwhile. One that the record does not know yet was spawned in the last
// moments of the daemon before.
func (in *instance) take(s Survivor, was InstanceRecord) (early []genFact) {
	p := &process{app: in.app, gen: s.Gen}
	// Of one that has a listener it is not asked that it listens: it may have, and
	// the news died with the daemon. One that serves must not be killed for that.
	p.known.Expected = in.expects(in.app) && !s.Bound
	if s.Gen > was.Gen { // ordered after the record was written, so somebody wanted it
		in.gen, in.wanted = s.Gen, true
	}
	role := Candidate
	if i := slices.IndexFunc(was.Procs, func(k ProcessRecord) bool { return k.Gen == s.Gen }); i >= 0 {
		k := was.Procs[i]
		role, p.ready, p.told, p.ending, p.until = k.Role, k.Ready, k.Ending, k.Ending, k.Until
	}
	if s.Told {
		p.told, p.ending = true, true
	}
	p.dead, p.heard = s.Dead, s.Heard
	if p.ready && role == Current {
		in.heard = s.Heard
	}
	p.p, early = in.attach(s)
	p.begun = p.p.Started
	switch {
	case role == Current && in.cur == nil:
		in.cur = p
	case role == Candidate && in.next == nil && !p.ending:
		in.next = p
	default:
		in.old = append(in.old, p)
		in.goOn(p)
	}
	return early
}

// goOn ends an outgoing process as an earlier daemon meant to: its drain, or
// the patience with one that drains itself, has the deadline that it had.
func (in *instance) goOn(p *process) {
	if p.told {
		in.ladder(p)
		return
	}
	in.letGo(p, max(time.Until(p.until), 0))
}

// dropSuccessor ends a candidate of an earlier daemon. That may have given it
// the traffic in its last moments, so it drains like one that has served.
func (in *instance) dropSuccessor() {
	p := in.next
	in.old, in.next = append(in.old, p), nil
	in.event("reload", "reload given up: gpm was restarted during the reload")
	if in.state == Online {
		in.reason = "the last reload failed: gpm was restarted during it"
	}
	p.ready = true
	in.letGo(p, p.app.DrainTimeout.D())
}

// attach takes a process over. It takes the facts that come at once, too: there
// may be more of them than the channel holds.
func (in *instance) attach(s Survivor) (p *Process, early []genFact) {
	attached := make(chan *Process, 1)
	go func() { attached <- s.Attach(in.app, in.reporter(s.Gen)) }()
	for {
		select {
		case p = <-attached:
			return p, early
		case f := <-in.facts:
			early = append(early, f)
		}
	}
}

// resume goes on with what was wanted.
func (in *instance) resume(was InstanceRecord) {
	switch {
	case in.cur == nil && in.wanted && was.State == Errored:
		in.become(Errored, was.Reason)
	case in.cur == nil && in.wanted:
		in.launch("started again by a new daemon")
	case in.cur == nil && in.empty():
		in.become(Stopped, was.Reason)
		in.fine = was.Fine
		in.world.Release(in.app.Name, in.index) // the daemon before may not have got to it
	case in.cur == nil:
		in.rest(was.Reason)
	case !in.wanted:
		in.budget = max(time.Until(in.cur.until), 0)
		in.end(rest, was.Reason)
	case in.cur.ending:
		in.end(launch, was.Reason)
	case in.cur.dead: // what follows is decided when the news is here; its candidate is its heir
		state := Launching
		if in.cur.ready {
			state = Online
		}
		in.become(state, was.Reason)
		if in.next != nil {
			in.watchOver(in.next)
		}
		return
	case in.cur.ready:
		in.become(Online, was.Reason)
		in.route()
		in.world.Settled(in.app.Name, in.index, in.cur.gen) // the daemon before may not have got to it
		in.lookAfter(in.cur)
	default:
		in.become(Launching, was.Reason)
		in.watchOver(in.cur)
	}
	if in.next != nil {
		in.dropSuccessor()
	}
}
