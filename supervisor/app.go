package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gpm/config"
)

const (
	buildTime   = 10 * time.Minute // for a build command
	memoryPause = 5 * time.Second  // between two rollouts for memory: a reading may still be of the process before
	memoryAgain = 30 * time.Second // after one that failed
	cronLook    = time.Minute      // how often a clock that may be set is looked at
)

// app is one app: its instances, its rollout, its watcher, its cron clock. The
// fields belong to the goroutine that runs run.
type app struct {
	name   string
	world  *World
	board  *Supervisor
	orders chan order // without a buffer: an order is taken or refused
	done   chan struct{}
	look   chan struct{} // what it depends on has changed

	spec      *config.App
	instances []*instance       // instances[i] has index i
	going     map[int]*instance // scaled down, by index; they may have ended
	rollout   *rollout          // nil: none
	drains    Progress          // what was said last of drains without a rollout
	resting   bool              // no instance is wanted: nothing is watched
	leaving   bool

	changed  chan []string
	unwatch  func()
	built    chan error
	building bool
	again    string // a reason to build again once this build is over
	ctx      context.Context
	cancel   context.CancelFunc // ends a build when run ends

	reserved *config.App // standbys of it are kept; nil: none
	pulse    *time.Timer // while a rollout runs
	clock    *time.Timer
	tick     time.Time // when cron_restart is next due; zero: never
	fed      time.Time // no rollout for memory before
	failed   time.Time // none for what is sick before this
}

// order is a verb for an app. indices nil means all of its instances. replies
// gets one channel for each instance touched, then is closed; whoever ordered
// waits on those, never this loop.
type order struct {
	do      trigger
	indices []int
	spec    *config.App
	count   int
	auto    bool // from a file, a clock or a limit: what is stopped stays so
	drain   drainBudget
	reason  string
	replies chan<- (<-chan Outcome)
}

// drainBudget names the time that streams get when a verb ends processes.
type drainBudget string

const (
	drainNone     drainBudget = ""
	drainDeploy   drainBudget = "deploy"   // drain_timeout
	drainShutdown drainBudget = "shutdown" // shutdown_timeout
)

func (d drainBudget) of(app *config.App) time.Duration {
	switch d {
	case drainDeploy:
		return app.DrainTimeout.D()
	case drainShutdown:
		return app.ShutdownTimeout.D()
	}
	return 0
}

const (
	doScale    trigger = "scale"
	doMemory   trigger = "memory"
	doRegister trigger = "register"
	doAbort    trigger = "abort"
	doHeal     trigger = "heal"
)

func newApp(s *Supervisor, spec *config.App) *app {
	ctx, cancel := context.WithCancel(context.Background())
	return &app{
		name: spec.Name, world: s.world, board: s, spec: spec,
		orders: make(chan order), done: make(chan struct{}), look: make(chan struct{}, 1),
		going: map[int]*instance{}, resting: true,
		changed: make(chan []string, 1), built: make(chan error, 1), ctx: ctx, cancel: cancel,
		clock: time.NewTimer(cronLook), pulse: time.NewTimer(cronLook),
	}
}

// reserve keeps the standbys that are due: none while the app rests or is
// replaced by another version, of which they would not be. They run up to their
// bind(), so the first ones come after what the app depends on.
func (a *app) reserve() {
	var want *config.App
	if !a.resting && a.rollout == nil && a.spec.Standby > 0 {
		want = a.spec
	}
	if want == a.reserved || a.reserved == nil && a.board.held(want).why != "" {
		return
	}
	a.reserved = want
	if want == nil {
		a.world.Reserve(a.spec, 0)
		return
	}
	a.world.Reserve(want, want.Standby)
}

// send hands o to the app; false if it is being deleted or ctx ends first.
func (a *app) send(ctx context.Context, o order) bool {
	select {
	case a.orders <- o:
		return true
	case <-a.done:
	case <-ctx.Done():
	}
	return false
}

// offer sends an order if the app has time for it: the board must not wait.
func (a *app) offer(o order) {
	select {
	case a.orders <- o:
	default:
	}
}

// lookAgain has the app look at what it waits for, soon; it never waits itself.
func (a *app) lookAgain() {
	select {
	case a.look <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// run is the app: it hands verbs to its instances and rolls reloads out.
func (a *app) run() {
	defer close(a.done)
	defer a.cancel()
	defer a.clock.Stop()
	defer a.pulse.Stop()
	a.watch()
	a.wind(time.Now())
	a.reserve()
	for !a.leaving {
		select {
		case o := <-a.orders:
			a.obey(o)
		case <-a.look:
			a.each(a.instances, order{do: doLook})
		case o := <-a.rollout.outcome():
			a.stepped(o)
		case paths := <-a.changed:
			a.filesChanged(paths)
		case err := <-a.built:
			a.buildEnded(err)
		case <-a.pulse.C:
			if a.rollout != nil {
				a.next()
			} else {
				a.drained()
			}
		case <-a.clock.C:
			a.cron()
		}
		a.reserve()
	}
	a.stopWatch()
	a.resting = true
	a.reserve()
}

func (a *app) obey(o order) {
	switch o.do {
	case onReload:
		if a.resting && o.indices == nil {
			a.resting = false
			a.watch()
		}
		a.roll(a.chosen(o.indices), o)
		return // the rollout closes o.replies
	case doAbort:
		a.interrupt(o)
		return
	case doMemory:
		a.memory(o)
	case doHeal:
		a.heal(o)
	case doScale:
		a.scale(o)
	case doRegister:
		a.resize(a.spec.Instances)
	case onStart, onRestart:
		a.start(o)
	case onStop:
		if o.indices == nil {
			a.abort("the app was stopped")
			a.resting = true // a file that changes must not bring a stopped app back
			a.stopWatch()
		}
		a.each(a.chosen(o.indices), o)
	case doLeave:
		a.abort("the app was deleted")
		a.leaving = true
		a.board.farewell(a)
		a.each(append(slices.Clone(a.instances), a.onTheWay()...), o)
	default:
		a.each(a.chosen(o.indices), o)
	}
	if o.replies != nil {
		close(o.replies)
	}
}

func (a *app) start(o order) {
	a.resting = false
	if a.reserved != nil && (o.do == onRestart || o.spec != nil) { // the program may be another one now
		a.world.Reserve(a.spec, 0)
		a.reserved = nil
	}
	if o.spec != nil || o.do == onRestart && o.indices == nil {
		a.abort("the app was " + o.reason)
	}
	if o.spec != nil {
		a.respec(o.spec)
		a.each(a.resize(o.spec.Instances), order{do: doLeave, reason: "scaled down", drain: drainDeploy})
	}
	a.watch()
	o.spec = a.spec
	a.each(a.chosen(o.indices), o)
}

// memory replaces instances that use too much. A rollout that runs already
// brings a new process anyway; one that fails is not tried again at once.
func (a *app) memory(o order) {
	now := time.Now()
	if a.rollout != nil || now.Before(a.fed) {
		return
	}
	a.fed = now.Add(memoryPause)
	a.roll(a.chosen(o.indices), order{auto: true, reason: o.reason})
}

// heal replaces an instance that is sick, unless a rollout runs (it is asked for
// again) or the last one has just failed.
func (a *app) heal(o order) {
	if a.rollout == nil && !time.Now().Before(a.failed) {
		a.roll(a.chosen(o.indices), order{auto: true, reason: o.reason})
	}
}

func (a *app) chosen(indices []int) []*instance {
	if indices == nil {
		return a.instances
	}
	var r []*instance
	for _, in := range a.instances {
		if slices.Contains(indices, in.index) {
			r = append(r, in)
		}
	}
	return r
}

// each sends the order's verb to instances and passes the replies on.
func (a *app) each(ins []*instance, o order) {
	if o.drain != drainNone && a.rollout == nil {
		a.pulse.Reset(rolloutPulse)
	}
	for _, in := range ins {
		reply := make(chan Outcome, 1)
		in.send(command{do: o.do, app: o.spec, reason: o.reason, budget: o.drain.of(a.spec), reply: reply})
		if o.replies != nil {
			o.replies <- reply
		}
	}
}

// respec takes a new config; the instances get it with their next command.
func (a *app) respec(spec *config.App) {
	if spec == a.spec {
		return
	}
	a.stopWatch()
	a.spec = spec
	a.board.respec(a, spec)
	a.wind(time.Now())
	a.watch()
}

// resize makes places up to n, or gives up the highest ones: it returns those,
// and they are to be told.
func (a *app) resize(n int) (gone []*instance) {
	for len(a.instances) < n {
		a.instances = append(a.instances, a.place(len(a.instances)))
	}
	gone = slices.Clone(a.instances[n:])
	for _, in := range gone {
		a.going[in.index] = in
	}
	a.instances = a.instances[:n:n]
	return gone
}

// place makes the instance with an index. If the one before it has not left
// yet, it is that one: two must never share a place and its listeners.
func (a *app) place(index int) *instance {
	if in := a.going[index]; in != nil {
		delete(a.going, index)
		if in.send(command{do: doStay, reply: make(chan Outcome, 1)}) {
			return in
		}
	}
	in := a.board.place(a, index)
	in.listens = a.board.listens(a) // as its siblings do
	go in.run(nil)
	return in
}

// onTheWay are the scaled down instances that have not ended yet.
func (a *app) onTheWay() (r []*instance) {
	for _, i := range slices.Sorted(maps.Keys(a.going)) {
		select {
		case <-a.going[i].done:
		default:
			r = append(r, a.going[i])
		}
	}
	return r
}

// scale changes the number of instances. New ones start with the spec that is
// proven; a rollout that runs gets to them, too.
func (a *app) scale(o order) {
	before := len(a.instances)
	spec := *a.spec
	spec.Instances = o.count
	a.respec(&spec)
	gone := a.resize(o.count)
	a.each(a.instances[:min(before, o.count)], order{do: doCount, spec: a.spec})
	a.rollout.scaled(o.count, a.instances[min(before, o.count):], gone)
	a.each(gone, order{do: doLeave, reason: "scaled down", replies: o.replies, drain: drainDeploy})
	if before < o.count {
		a.resting = false
		a.watch()
		a.each(a.instances[before:], order{do: onStart, spec: a.spec, reason: "scaled up", replies: o.replies})
	}
}

func (a *app) watch() {
	if len(a.spec.Watch) == 0 || a.resting || a.unwatch != nil {
		return
	}
	stop, err := a.world.Watch(a.spec, func(paths []string) {
		select {
		case a.changed <- paths:
		default: // one change is waiting to be seen already; it says the same
		}
	})
	if err != nil {
		a.say("watch", "cannot watch: "+err.Error())
		return
	}
	a.unwatch = stop
}

func (a *app) stopWatch() {
	if a.unwatch != nil {
		a.unwatch()
		a.unwatch = nil
	}
}

func (a *app) filesChanged(paths []string) {
	if a.resting {
		return // seen just before the stop
	}
	msg := "changed: " + strings.Join(paths[:min(len(paths), 3)], ", ")
	if n := len(paths) - 3; n > 0 {
		msg += fmt.Sprintf(" and %d more", n)
	}
	a.say("watch", msg)
	switch {
	case a.spec.Build == "":
		a.roll(a.instances, order{auto: true, reason: msg})
	case a.building:
		a.again = msg
	default:
		a.build(msg)
	}
}

// build runs in a goroutine of its own: it may take minutes.
func (a *app) build(why string) {
	a.building = true
	spec := a.spec
	go func() {
		ctx, cancel := context.WithTimeout(a.ctx, buildTime)
		defer cancel()
		err := a.world.Build(ctx, spec)
		if err == nil {
			a.built <- nil
			return
		}
		a.built <- fmt.Errorf("build after %s: %w", why, err)
	}()
}

// buildEnded: a failing build keeps the old version running. What changed
// during the build may be in it or not, so it is built again.
func (a *app) buildEnded(err error) {
	a.building = false
	why := a.again
	a.again = ""
	switch {
	case a.resting:
	case why != "":
		a.build(why)
	case err != nil:
		a.say("watch", "the old version stays: "+err.Error())
	default:
		a.roll(a.instances, order{auto: true, reason: "built after a change"})
	}
}

// wind sets the clock to the next cron_restart after t. It is looked at every
// minute, because timers do not follow a clock that is set.
func (a *app) wind(t time.Time) {
	a.tick = time.Time{}
	a.clock.Stop()
	if a.spec.CronRestart == "" {
		return
	}
	at, err := nextTick(a.spec.CronRestart, t)
	if err != nil {
		a.say("reload", err.Error())
		return
	}
	a.tick = at
	a.clock.Reset(min(time.Until(at), cronLook))
}

func (a *app) cron() {
	if a.tick.IsZero() {
		return
	}
	now := time.Now()
	if now.Before(a.tick) {
		a.clock.Reset(min(a.tick.Sub(now), cronLook))
		return
	}
	a.wind(now)
	if !a.resting {
		a.say("reload", "cron_restart "+a.spec.CronRestart)
		a.roll(a.instances, order{auto: true, reason: "cron_restart"})
	}
}

// say emits an event of the app.
func (a *app) say(kind, message string) {
	a.board.emit(Event{Kind: kind, App: a.name, ID: -1, Index: -1, Message: message})
}
