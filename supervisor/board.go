package supervisor

import (
	"context"
	"maps"
	"slices"
	"time"

	"gpm/config"
)

// board is what the Supervisor's goroutine owns: who exists and how they are.
// It never waits for anybody.
type board struct {
	entries map[string]*entry // by app name
	nextID  int
	feeds   feeds
	number  int  // of the last call that was about apps
	frozen  bool // gpm is ending: nobody comes any more, and records are not written
	keep    bool // gpm is ending: records stay as they are
}

type entry struct {
	app     *app
	spec    *config.App
	places  map[int]Snapshot // by index
	usage   map[int]Usage
	counts  map[int]map[int]Count // by index and generation
	leaving bool                  // it goes when its last place does
	number  int                   // of the last call that was about it
	last    Record                // as it was when gpm began to end
}

// Usage is what an instance's process tree uses.
type Usage struct {
	CPU    float64 // percent of one core
	Memory uint64  // bytes resident
}

func (s *Supervisor) run() {
	defer close(s.done)
	b := &board{entries: map[string]*entry{}, feeds: feeds{subs: map[*Feed]struct{}{}}}
	for {
		select {
		case do := <-s.orders:
			do(b)
		case <-s.quit:
			for f := range b.feeds.subs {
				b.feeds.drop(f)
			}
			return
		}
	}
}

// do runs f on the board's goroutine and waits for it.
func (s *Supervisor) do(f func(*board)) {
	ran := make(chan struct{})
	s.tell(func(b *board) { defer close(ran); f(b) })
	select {
	case <-ran:
	case <-s.done:
	}
}

// tell is do without waiting.
func (s *Supervisor) tell(f func(*board)) {
	select {
	case s.orders <- f:
	case <-s.done:
	}
}

func (s *Supervisor) emit(e Event) {
	e.At = time.Now()
	s.tell(func(b *board) { b.feeds.emit(e) })
}

// synced returns when all that was told to the board before is on disk.
func (s *Supervisor) synced() {
	s.do(func(*board) {})
	_ = s.world.Sync() // the daemon says what is wrong with the disk; nobody here could do better
}

// covered tells whether another instance of an app serves.
func (s *Supervisor) covered(a *app, index int) func() bool {
	return func() (yes bool) {
		s.do(func(b *board) {
			if e := b.entries[a.name]; e != nil {
				for i, p := range e.places {
					yes = yes || i != index && p.State == Online && !p.Away && p.Sick == ""
				}
			}
		})
		return yes
	}
}

// place makes a new instance and gives it an id.
func (s *Supervisor) place(a *app, index int) *instance {
	id := 0
	s.do(func(b *board) {
		id = b.nextID
		b.nextID++
		e := b.entries[a.name]
		e.places[index] = Snapshot{
			InstanceRecord: InstanceRecord{ID: id, Index: index, State: Stopped, Created: time.Now()}, App: a.spec,
		}
		s.save(b, e)
	})
	return newInstance(s.world, a.spec, id, index, s.publisher(a), s.synced, s.covered(a, index), s.held)
}

// publisher is how instances of an app show themselves.
func (s *Supervisor) publisher(a *app) func(Snapshot, []Event) {
	return func(snap Snapshot, events []Event) {
		s.tell(func(b *board) {
			for _, e := range events {
				b.feeds.emit(e)
			}
			e := b.entries[a.name]
			if was := e.places[snap.Index]; was.State != snap.State || was.Reason != snap.Reason || was.PID != snap.PID {
				defer b.news(a.name)
			}
			if snap.App != nil {
				e.places[snap.Index] = snap
				s.save(b, e)
				if b.stale(snap) {
					e.app.lookAgain()
				}
				if snap.Sick != "" && snap.State == Online && snap.App.Autorestart { // offered again with its next news
					e.app.offer(order{do: doHeal, indices: []int{snap.Index}, reason: snap.Sick})
				}
				return
			}
			delete(e.places, snap.Index) // its goroutine ends
			delete(e.usage, snap.Index)
			delete(e.counts, snap.Index)
			if !s.forget(b, e) {
				s.save(b, e)
			}
		})
	}
}

// farewell makes the entry of an app go with its last place, not sooner: while
// a process lives there is a record of it, and nobody else gets its name.
func (s *Supervisor) farewell(a *app) {
	s.tell(func(b *board) {
		e := b.entries[a.name]
		e.leaving = true
		defer b.news(a.name)
		if !s.forget(b, e) {
			s.save(b, e) // the next daemon has to go on with it
		}
	})
}

func (s *Supervisor) forget(b *board, e *entry) bool {
	if !e.leaving || len(e.places) > 0 {
		return false
	}
	delete(b.entries, e.app.name)
	if b.keep && !e.last.Leaving {
		s.world.Save(e.last.atRest())
		return true
	}
	s.world.Forget(e.app.name)
	b.feeds.emit(Event{At: time.Now(), Kind: "delete", App: e.app.name, ID: -1, Index: -1, Message: "deleted"})
	return true
}

func (s *Supervisor) save(b *board, e *entry) {
	if !b.frozen {
		s.world.Save(e.record())
	}
}

func (e *entry) record() Record {
	r := Record{Version: RecordVersion, App: *e.spec, Leaving: e.leaving}
	for _, i := range slices.Sorted(maps.Keys(e.places)) {
		r.Instances = append(r.Instances, e.places[i].InstanceRecord)
	}
	return r
}

func (s *Supervisor) respec(a *app, spec *config.App) {
	s.tell(func(b *board) {
		e := b.entries[a.name]
		e.spec = spec
		s.save(b, e)
		b.news(a.name) // it may have another number of instances
	})
}

func (b *board) list() []Status {
	var r []Status
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		e := b.entries[name]
		for _, i := range slices.Sorted(maps.Keys(e.places)) {
			p := e.places[i]
			st := Status{Snapshot: p, Watching: len(p.App.Watch) > 0 && p.Wanted}
			if p.PID != 0 || p.Draining > 0 { // a reading outlives the process it is of
				st.Usage, st.Counts = e.usage[i], e.counts[i]
			}
			r = append(r, st)
		}
	}
	return r
}

// enter finds an app or makes it, with all its instances, so that ids are in the
// order of the calls; nil: gpm is ending.
func (s *Supervisor) enter(spec *config.App) (a *app, isNew bool) {
	s.do(func(b *board) {
		if b.frozen {
			return
		}
		if e := b.entries[spec.Name]; e != nil {
			a = e.app
			return
		}
		if len(b.entries) == 0 {
			b.nextID = 0 // as PM2: an empty list counts from 0 again
		}
		a, isNew = newApp(s, spec), true
		b.entries[spec.Name] = &entry{app: a, spec: spec, places: map[int]Snapshot{}, usage: map[int]Usage{}, counts: map[int]map[int]Count{}}
		b.news(spec.Name)
	})
	if isNew {
		go a.run()
		s.order(context.Background(), a, order{do: doRegister})()
	}
	return a, isNew
}

// Measured takes a reading of what the instances use, by id, and acts on
// memory limits.
func (s *Supervisor) Measured(by map[int]Usage) {
	s.tell(func(b *board) {
		for _, e := range b.entries {
			var over []int
			for i, p := range e.places {
				e.usage[i] = by[p.ID]
				if overMemory(e.spec, p, by[p.ID]) {
					over = append(over, i)
				}
			}
			if over != nil {
				slices.Sort(over)
				e.app.offer(order{do: doMemory, indices: over, reason: "memory over max_memory_restart"})
			}
		}
	})
}

// Counted takes a count of the connections of all processes, by id of the
// instance and generation.
func (s *Supervisor) Counted(by map[int]map[int]Count) {
	s.tell(func(b *board) {
		for _, e := range b.entries {
			for i, p := range e.places {
				e.counts[i] = by[p.ID]
			}
		}
	})
}

// listens tells whether an instance of an app has listened. Those of another
// program count as well: respec comes with a rollout or a restart of them.
func (s *Supervisor) listens(a *app) (yes bool) {
	s.do(func(b *board) {
		if e := b.entries[a.name]; e != nil {
			for _, p := range e.places {
				yes = yes || p.Listens && p.State == Online
			}
		}
	})
	return yes
}

// outgoing is how many processes of an app are on their way out, and how long
// they may take.
func (s *Supervisor) outgoing(a *app) (n int, longest time.Duration) {
	s.do(func(b *board) {
		if e := b.entries[a.name]; e != nil {
			longest = e.spec.DrainTimeout.D() + e.spec.KillTimeout.D()
			for _, p := range e.places {
				n += p.Draining
			}
		}
	})
	return n, longest
}

// drains sums up the outgoing processes of an app.
func (s *Supervisor) drains(a *app) (p Progress) {
	s.do(func(b *board) {
		e := b.entries[a.name]
		if e == nil {
			return
		}
		for i, place := range e.places {
			for _, proc := range place.Procs {
				if proc.Role != Outgoing && (proc.Until.IsZero() || place.State != Stopping) {
					continue
				}
				c := e.counts[i][proc.Gen]
				p.Draining++
				p.Streams += c.holding()
				if !c.Oldest.IsZero() && (p.Oldest.IsZero() || c.Oldest.Before(p.Oldest)) {
					p.Oldest = c.Oldest
				}
				if proc.Until.After(p.Deadline) {
					p.Deadline = proc.Until
				}
			}
		}
	})
	return p
}

// overMemory is the verdict on a reading.
func overMemory(app *config.App, p Snapshot, u Usage) bool {
	return app.MaxMemory > 0 && u.Memory > app.MaxMemory && p.State == Online && p.Wanted
}
