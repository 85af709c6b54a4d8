// Package supervisor is the brain of gpm: it decides what happens to apps,
// instances and their processes, and touches nothing. What it wants done it
// asks of a World (env.go); what happens it learns from Facts.
//
// Goroutines: one Supervisor (the board: who exists, how they are, events),
// one for each app (verbs, rollouts, watch, cron), one for each instance (the
// state machine in state.go), a short-lived one for each spawn, build, verb of
// a caller, and takeover. Verbs go down: caller -> app -> instance. Snapshots
// and events go up: instance -> board. The board never waits for anybody, an
// instance only for the board, so nothing can wait in a circle.
package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gpm/config"
)

// Supervisor is the registry of all apps. Its methods may be called from any
// goroutine.
type Supervisor struct {
	world  *World
	orders chan func(*board)
	quit   chan struct{} // closed by Close
	done   chan struct{} // closed when run has returned
}

// New starts a supervisor. It runs until Close.
func New(w *World) *Supervisor {
	s := &Supervisor{world: w, orders: make(chan func(*board), 64), quit: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// Close ends the supervisor's own goroutine and all feeds; apps are not
// touched. To be called once, after Shutdown, or by a daemon that makes way for
// the next one.
func (s *Supervisor) Close() {
	close(s.quit)
	<-s.done
}

// Emit publishes an event of the daemon.
func (s *Supervisor) Emit(e Event) { s.emit(e) }

// Status is one instance as List shows it.
type Status struct {
	Snapshot
	Usage
	Counts   map[int]Count // connections by generation; nobody changes it
	Watching bool
}

// List is all instances, by app name and index.
func (s *Supervisor) List() []Status {
	var r []Status
	s.do(func(b *board) { r = b.list() })
	return r
}

// Spec is an app as it is wanted now.
type Spec struct {
	App    config.App
	Wanted bool // a process of it is
}

// Specs are all apps, by name. An instance that was not touched since may still
// run an older spec.
func (s *Supervisor) Specs() (r []Spec) {
	s.do(func(b *board) {
		for _, name := range slices.Sorted(maps.Keys(b.entries)) {
			e := b.entries[name]
			spec := Spec{App: *e.spec}
			for _, p := range e.places {
				spec.Wanted = spec.Wanted || p.Wanted
			}
			r = append(r, spec)
		}
	})
	return r
}

// Subscribe gives the list and, without a gap, all events after it. The caller
// ends it with Unsubscribe.
func (s *Supervisor) Subscribe() (*Feed, []Status) {
	var f *Feed
	var list []Status
	s.do(func(b *board) { f, list = b.feeds.subscribe(), b.list() })
	if f == nil { // the supervisor has ended
		c := make(chan Event)
		close(c)
		f = &Feed{C: c}
	}
	return f, list
}

// Unsubscribe ends a feed.
func (s *Supervisor) Unsubscribe(f *Feed) { s.do(func(b *board) { b.feeds.drop(f) }) }

// History is the newest n events of an instance and its app, oldest first.
func (s *Supervisor) History(app string, id, n int) (r []Event) {
	s.do(func(b *board) { r = b.feeds.of(app, id, n) })
	return r
}

// Start adds apps, or restarts those whose name is taken with the new config
// (reload: replaces them one by one). It returns when every instance is online
// or has failed, or when ctx ends. offers are apps that are only to be started
// if the others depend on them and they do not run.
func (s *Supervisor) Start(ctx context.Context, specs []config.App, reload bool, offers ...config.App) []Outcome {
	return s.inTurn(ctx, s.jobs(specs, offers, reload))
}

// Begin is Start for a caller who does not wait: when it returns the apps are
// in the list and on their way, or have their turn after others.
func (s *Supervisor) Begin(ctx context.Context, specs []config.App, reload bool, offers ...config.App) {
	jobs := s.jobs(specs, offers, reload)
	for _, j := range jobs {
		j.seen = true
	}
	s.setOff(context.WithoutCancel(ctx), jobs)
	for _, j := range jobs {
		if j.prompt {
			<-j.begun
		}
	}
	s.do(func(*board) {})
}

// Register adds apps as stopped. Names that are taken are left alone.
func (s *Supervisor) Register(specs []config.App) {
	for i := range specs {
		s.enter(&specs[i])
	}
}

// order gives o to an app and returns a function that waits for the outcomes,
// or for the end of ctx.
func (s *Supervisor) order(ctx context.Context, a *app, o order) func() []Outcome {
	replies := make(chan (<-chan Outcome), 16)
	o.replies = replies
	got := make(chan []Outcome, 1)
	go func() { // ends with the order, whatever becomes of the caller: the app must not wait
		got <- collect(ctx, a.name, replies)
		for range replies {
		}
	}()
	if !a.send(ctx, o) {
		close(replies)
		if ctx.Err() != nil {
			return refused(a.name, "no time was left to begin")
		}
		return refused(a.name, "the app is being deleted; try again when it is gone")
	}
	return func() []Outcome { return <-got }
}

// collect takes all replies at once, as fast as they are offered, then waits
// for each.
func collect(ctx context.Context, app string, replies <-chan (<-chan Outcome)) (r []Outcome) {
	late := Outcome{Name: app, ID: -1, Index: -1, Reason: "no answer before the deadline; it goes on in the background"}
	var waits []<-chan Outcome
	cut := false
	for open := true; open; {
		select {
		case c, ok := <-replies:
			if open = ok; ok {
				waits = append(waits, c)
			}
		case <-ctx.Done():
			open, cut = false, true
		}
	}
	for _, c := range waits {
		select {
		case o := <-c:
			r = append(r, o)
			continue
		default:
		}
		select {
		case o := <-c:
			r = append(r, o)
		case <-ctx.Done():
			r = append(r, late)
		}
	}
	if cut {
		r = append(r, late)
	}
	return r
}

func refused(app, why string) func() []Outcome {
	return func() []Outcome { return []Outcome{{ID: -1, Name: app, Index: -1, Reason: why}} }
}

// Verb is what Act can do to targets.
type Verb string

// The verbs.
const (
	Stop    Verb = "stop"
	Start   Verb = "start"
	Restart Verb = "restart"
	Reload  Verb = "reload"
	Delete  Verb = "delete"
	Reset   Verb = "reset"

	StopDrained   Verb = "stop --drain"
	DeleteDrained Verb = "delete --drain"
	Drain         Verb = "drain"        // out of traffic, at once; the process stays
	Undrain       Verb = "drain --undo" // back into traffic
	Abort         Verb = "abort"        // end a rollout; the outcomes say which version runs
)

var verbs = map[Verb]order{
	Stop:    {do: onStop, reason: "stopped by its user"},
	Start:   {do: onStart, reason: "started by its user"},
	Restart: {do: onRestart, reason: "restarted by its user"},
	Reload:  {do: onReload, reason: "reloaded by its user"},
	Delete:  {do: doLeave, reason: "deleted by its user"},
	Reset:   {do: doReset},

	StopDrained:   {do: onStop, reason: "stopped by its user", drain: drainDeploy},
	DeleteDrained: {do: doLeave, reason: "deleted by its user", drain: drainDeploy},
	Drain:         {do: doDrain, reason: "drained by its user"},
	Undrain:       {do: doUndo, reason: "undrained by its user"},
	Abort:         {do: doAbort, reason: "interrupted by its user"},
}

// NotFound is the error for a target that matches nothing.
type NotFound struct{ Target string }

func (e *NotFound) Error() string { return fmt.Sprintf("no app or instance matches %q", e.Target) }

// Act does a verb to all instances that targets match. respec, if not nil,
// makes the new spec of an app that is started, restarted or reloaded from its
// old one (another environment).
func (s *Supervisor) Act(ctx context.Context, v Verb, targets []string, respec func(config.App) config.App) ([]Outcome, error) {
	chosen, err := s.choose(targets)
	if err != nil {
		return nil, err
	}
	if v == Delete || v == DeleteDrained {
		if err := whole(chosen); err != nil {
			return nil, err
		}
	}
	var jobs []*job
	s.do(func(b *board) { jobs = b.plan(v, chosen) })
	for _, j := range jobs {
		if respec != nil && j.comesUp() {
			spec := respec(*j.spec)
			j.order.spec = &spec
		}
	}
	return s.inTurn(ctx, arrange(s.withNeeds(jobs, nil))), nil
}

// whole: of single instances only the highest could be deleted without leaving
// a hole, which is what Scale is for.
func whole(chosen []choice) error {
	for _, c := range chosen {
		if c.indices != nil {
			return fmt.Errorf("delete %s-%d alone: an app is deleted whole; to have fewer instances use gpm scale %s", c.app.name, c.indices[0], c.app.name)
		}
	}
	return nil
}

// Scale sets the number of instances: "4", "+2" or "-1".
func (s *Supervisor) Scale(ctx context.Context, target, count string) ([]Outcome, error) {
	chosen, err := s.choose([]string{target})
	if err != nil {
		return nil, err
	}
	if len(chosen) != 1 || chosen[0].indices != nil {
		return nil, fmt.Errorf("scale %q: name one app", target)
	}
	c := chosen[0]
	n, err := scaled(c.spec.Instances, count)
	if err != nil {
		return nil, err
	}
	r := s.order(ctx, c.app, order{do: doScale, count: n})()
	s.do(func(*board) {}) // as in inTurn
	return r, nil
}

// maxInstances of one app: beyond it something else is wrong.
const maxInstances = 1024

func scaled(now int, count string) (int, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return 0, fmt.Errorf("scale to %q: expected a number, +n or -n", count)
	}
	if strings.HasPrefix(count, "+") || n < 0 {
		n += now
	}
	if n < 1 || n > maxInstances {
		return 0, fmt.Errorf("scale to %d instances: expected 1 to %d; gpm stop or gpm delete ends an app", n, maxInstances)
	}
	return n, nil
}

type choice struct {
	app     *app
	spec    *config.App
	indices []int // nil: all
}

func (s *Supervisor) choose(targets []string) (r []choice, err error) {
	s.do(func(b *board) { r, err = b.choose(targets) })
	return r, err
}

// Match tells which instances targets mean, as List shows them.
func (s *Supervisor) Match(targets []string) (r []Status, err error) {
	s.do(func(b *board) {
		var chosen []choice
		if chosen, err = b.choose(targets); err != nil {
			return
		}
		r = slices.DeleteFunc(b.list(), func(st Status) bool {
			return !slices.ContainsFunc(chosen, func(c choice) bool {
				return c.app.name == st.App.Name && (c.indices == nil || slices.Contains(c.indices, st.Index))
			})
		})
	})
	return r, err
}

// Shutdown stops every app, and takes no new ones. keep leaves the records of
// apps that are gone as they were, but without processes: the next gpm starts what
// was wanted, and none looks for anybody who lives. Otherwise each app is forgotten
// when it is gone.
func (s *Supervisor) Shutdown(ctx context.Context, keep bool) []Outcome {
	var jobs []*job
	s.do(func(b *board) {
		b.frozen, b.keep = true, keep
		for _, name := range slices.Sorted(maps.Keys(b.entries)) {
			e := b.entries[name]
			e.last = e.record()
			jobs = append(jobs, &job{app: e.app, name: name, spec: e.spec, order: order{do: doLeave, reason: "gpm is ending", drain: drainShutdown}})
		}
		b.claim(jobs)
		for _, j := range jobs {
			j.number = 0 // no later command overrules this one
		}
	})
	return s.inTurn(ctx, arrange(jobs))
}
