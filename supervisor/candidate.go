package supervisor

import (
	"fmt"
	"slices"
	"time"
)

// replace is a reload of what is online: the current process is replaced by
// one that is ready before the old one is told to end.
func (in *instance) replace(c command) {
	switch {
	case in.next != nil:
		c.reply <- in.outcome(false, "a reload of this instance is running already")
		return
	case len(in.old) >= outgoingMost:
		c.reply <- in.outcome(false, fmt.Sprintf("%d earlier processes of this instance have not ended yet", len(in.old)))
		return
	}
	app := in.app
	if c.app != nil {
		app = c.app
	}
	in.next = in.begin(app)
	in.next.waiting = c.reply
	in.event("reload", "reload: "+c.reason)
}

// promote makes the ready candidate the current process and ends the old one.
func (in *instance) promote() {
	was := in.cur
	in.succeed()
	in.cur.ready = true
	in.streak = streak{}
	in.become(Online, "")
	in.alarms.cancel(alarmQueue, 0)
	in.route() // first the new one, then away with the old one: somebody serves at every moment
	if was.unsteered() == "" {
		was.traffic = Away
		if d := was.app.DrainTimeout.D(); d > 0 {
			was.until = time.Now().Add(d)
		}
		in.world.Route(in.app.Name, in.index, was.gen, Away)
	}
	in.world.Settled(in.app.Name, in.index, in.cur.gen)
	in.event("online", fmt.Sprintf("online, pid %d, in place of pid %d", in.cur.pid(), was.pid()))
	in.old = append(in.old, was)
	in.alarms.forget(was.gen)

	// The old one is told to end when this is on record: a daemon that dies
	// between the two must not leave one that takes the old one for the current
	// one and kills its successor.
	in.show()
	in.alarms.set(alarmRetire, was.gen, retireTime)
	if in.saving { // one at a time: a disk that hangs must not gather goroutines
		return
	}
	in.saving = true
	go func() {
		in.saved()
		select {
		case in.retired <- was.gen:
		case <-in.done:
		}
	}()
}

// retire lets a process go whose successor is on record, or had its time to be.
func (in *instance) retire(gen int) {
	if p := in.find(gen); p != nil && !p.draining() {
		in.letGo(p, p.app.DrainTimeout.D())
	}
}

// inherit: the current process died by itself while its successor was being
// launched, so the successor is the current one now, not ready yet.
func (in *instance) inherit() {
	in.succeed()
	in.become(Launching, in.died.Sentence())
	in.limitQueue()
	in.cur.traffic = Queueing
	in.world.Route(in.app.Name, in.index, in.cur.gen, Queueing)
}

// succeed makes the candidate the current process, and its spec the instance's.
func (in *instance) succeed() {
	in.cur, in.next = in.next, nil
	in.adopt(in.cur.app)
	in.listens = in.listens || in.cur.known.Listening
	in.restarts++
	if in.cur.waiting != nil {
		in.waiters = append(in.waiters, waiter{want: Online, reply: in.cur.waiting})
		in.cur.waiting = nil
	}
}

// dropCandidate ends a candidate that failed or is not wanted any more.
func (in *instance) dropCandidate(why string) {
	p := in.next
	in.old, in.next = append(in.old, p), nil
	in.ladder(p)
	in.failReload(p, why)
}

func (in *instance) candidateDied(e Exit) {
	p := in.next
	in.next = nil
	why := "the new process " + e.Sentence()
	if e.Spawnless {
		why = "the new process could not be started: " + e.Sentence()
	}
	in.failReload(p, why)
}

// failReload leaves everything as it was, and answers once the last lines of
// the failed process are there.
func (in *instance) failReload(p *process, why string) {
	in.event("reload", "reload given up: "+why)
	if in.state == Online {
		in.reason = "the last reload failed: " + why
	}
	if p.waiting == nil {
		return
	}
	out := in.outcome(false, why)
	in.waiters = append(in.waiters, waiter{reply: p.waiting, out: &out, gen: p.gen})
	p.waiting = nil
}

// show publishes the instance as it is now.
func (in *instance) show() {
	s := Snapshot{
		InstanceRecord: InstanceRecord{
			ID: in.id, Index: in.index, Wanted: in.wanted, State: in.state, Reason: in.reason, Fine: in.fine, Gen: in.gen,
			Restarts: in.restarts, Streak: in.streak, Created: in.created, Listens: in.listens, Away: in.away,
			Exits: slices.Clone(in.exits),
		},
		App: in.app, NextTry: in.nextTry, PID: in.cur.pid(), Draining: len(in.old), Health: in.health(),
	}
	if in.cur != nil {
		s.Started, s.CurGen, s.Traffic, s.Sick = in.cur.started(), in.cur.gen, in.cur.traffic, in.cur.sick
	}
	add := func(p *process, r Role) {
		if p == nil || p.p == nil {
			return
		}
		if r == Current {
			s.Hold = p.p.Hold
		}
		s.Procs = append(s.Procs, ProcessRecord{
			PID: p.p.PID, Start: p.p.Start, Boot: p.p.Boot, Tag: p.p.Tag, Gen: p.gen, Role: r, Ready: p.ready, Ending: p.told, Until: p.until, Started: p.p.Started,
		})
	}
	add(in.cur, Current)
	add(in.next, Candidate)
	for _, p := range in.old {
		add(p, Outgoing)
	}
	in.publish(s, in.events)
	in.events = nil
}
