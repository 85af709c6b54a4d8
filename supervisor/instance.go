package supervisor

import (
	"fmt"
	"slices"
	"time"

	"gpm/config"
)

const (
	exitsKept    = 10 // per instance
	outgoingMost = 10 // processes of an instance that are being ended; beyond it a reload is refused
)

// instance is one place of an app. Its fields belong to the goroutine that
// runs run; everybody else sends it commands and facts.
type instance struct {
	id, index int
	world     *World
	publish   func(Snapshot, []Event) // to the board; never blocks for long
	saved     func()                  // returns when what was published is on disk; may block
	covered   func() bool             // another instance of the app is online
	held      func(*config.App) hold  // what its app waits for

	// Without a buffer: a command is taken or refused, never left lying.
	commands chan command
	facts    chan genFact
	spawned  chan spawnResult
	probes   chan probed
	retired  chan int      // generations whose successor is on record
	done     chan struct{} // closed when run has returned

	app      *config.App
	state    State
	reason   string
	wanted   bool
	away     bool          // its user took it out of traffic
	budget   time.Duration // for the streams of what a stop ends
	leaving  bool          // deleted or scaled down: run returns once nothing is alive
	then     action        // while Stopping: rest, launch or judge
	plan     string        // the reason that goes with then; while Pending: of the launch
	vain     bool          // while Pending: nothing under way will end it
	gen      int           // the newest generation
	cur      *process
	next     *process   // candidate of a reload
	old      []*process // outgoing
	saving   bool       // a goroutine waits for a record of ours to be on disk
	died     death      // the last of the current processes that died
	fine     bool       // while Stopped: the last process ended as it was meant to
	heard    []string   // the addresses that the last ready process listened on
	listens  bool       // some generation called listen(), so the next one has to
	restarts int
	streak   streak
	created  time.Time
	nextTry  time.Time
	exits    []Exit
	waiters  []waiter
	alarms   alarms
	events   []Event // since the last publish
}

// death is what judge needs to know of one.
type death struct {
	Exit
	ready bool // it had been ready
}

// command is an order to an instance. reply has room for one answer; it is
// never nil.
type command struct {
	do     trigger
	app    *config.App // new spec, or nil
	auto   bool        // not from a person: it must not start what is not wanted
	reason string
	budget time.Duration // stop, leave: for its streams to finish; zero: none
	reply  chan<- Outcome
}

// Commands that are no triggers of the table.
const (
	doLeave  trigger = "leave"   // stop, then end the goroutine
	doStay   trigger = "stay"    // do not leave after all
	doReset  trigger = "reset"   // counters to zero
	doCount  trigger = "count"   // its app has another number of instances, nothing else is new
	doDrain  trigger = "drain"   // out of traffic
	doUndo   trigger = "undo"    // back into traffic
	doGiveUp trigger = "give up" // end the candidate of a reload
	doLook   trigger = "look"    // what the app depends on has changed
	doSeen   trigger = "seen"    // nothing: the answer says that all before it was obeyed and shown
)

// Outcome is what became of a command for one instance.
type Outcome struct {
	ID     int // -1: of the app
	Name   string
	Index  int
	State  State
	PID    int
	OK     bool
	Reason string
	Tail   []Line
	Runs   string // of Abort: the "new" or the "old" version

	NeededBy string   // nobody asked for it, but this app depends on it
	UsedBy   []string // of what was stopped: running apps that depend on it
}

func newInstance(w *World, app *config.App, id, index int, publish func(Snapshot, []Event), saved func(), covered func() bool, held func(*config.App) hold) *instance {
	return &instance{
		id: id, index: index, world: w, publish: publish, saved: saved, covered: covered, held: held,
		commands: make(chan command),
		facts:    make(chan genFact, 16),
		spawned:  make(chan spawnResult, 1),
		probes:   make(chan probed),
		retired:  make(chan int),
		done:     make(chan struct{}),
		app:      app, state: Stopped, created: time.Now(),
	}
}

// send hands c to the instance, or answers it if the instance is gone: then it
// returns false.
func (in *instance) send(c command) bool {
	select {
	case in.commands <- c:
		return true
	case <-in.done:
		c.reply <- Outcome{
			ID: in.id, Name: in.app.Name, Index: in.index, State: Stopped,
			OK: c.do == onStop || c.do == doLeave, Reason: "it has been removed",
		}
		return false
	}
}

// run is the instance: the one loop that decides for it. before, if not nil,
// is its first turn (reattach).
func (in *instance) run(before func()) {
	defer close(in.done)
	if before != nil {
		before()
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	in.show()
	for !in.leaving || !in.empty() {
		timer.Reset(in.alarms.next(time.Now()))
		select {
		case c := <-in.commands:
			in.obey(c)
		case f := <-in.facts:
			if f.Kind == Counted { // several a second: most of them change nothing
				if !in.counted(f) {
					continue
				}
				break
			}
			in.learn(f)
		case r := <-in.probes:
			in.checked(r)
		case r := <-in.spawned:
			in.arrive(r)
		case gen := <-in.retired:
			in.saving = false
			in.retire(gen)
		case <-timer.C:
			for _, a := range in.alarms.due(time.Now()) {
				in.ring(a)
			}
		}
		in.show() // first, so that whoever got an answer sees in List what he was told
		in.answer()
	}
	in.publish(Snapshot{InstanceRecord: InstanceRecord{ID: in.id, Index: in.index}}, nil) // gone
	in.farewell()
}

func (in *instance) empty() bool {
	return in.cur == nil && in.next == nil && len(in.old) == 0
}

func (in *instance) obey(c command) {
	switch {
	case c.do == doDrain || c.do == doUndo:
		in.sendAway(c)
		return
	case c.do == doGiveUp && in.next != nil:
		in.dropCandidate(c.reason)
		c.reply <- in.outcome(true, "")
		return
	case in.aside(c.do, c.app):
		c.reply <- in.outcome(true, "")
		return
	case in.leaving && c.do != doLeave && c.do != onStop:
		c.reply <- in.outcome(false, "it is being removed")
		return
	case c.auto && !in.wanted:
		c.reply <- in.outcome(true, "")
		return
	}
	want := Online
	switch c.do {
	case doLeave:
		in.leaving = true
		c.do, want = onStop, gone
	case onStop:
		want = Stopped
	}
	a := transitions[in.state][c.do]
	if a == replace && in.cur.p.Hold == Held {
		in.replace(c)
		return
	}
	if a == replace { // the new process would find the port taken by the old one
		a = endLaunch
	}
	if c.app != nil {
		in.adopt(c.app)
	}
	in.wanted = c.do != onStop
	in.budget = c.budget
	if in.wanted {
		in.streak = streak{}
	}
	in.waiters = append(in.waiters, waiter{want: want, reply: c.reply})
	in.perform(a, c.reason)
}

// aside does a command that is no trigger of the table; false: it is one.
func (in *instance) aside(do trigger, app *config.App) bool {
	switch do {
	case doReset:
		in.restarts, in.streak, in.created = 0, streak{}, time.Now()
	case doCount:
		other := *in.app
		other.Instances = app.Instances
		in.app = &other
	case doStay:
		in.leaving = false
		in.giveUp("it is wanted again", func(w waiter) bool { return w.want == gone })
	case doLook:
		if in.state == Pending {
			in.fire(onDue, in.plan)
		}
	case doSeen, doGiveUp:
	default:
		return false
	}
	return true
}

// adopt takes a new spec. Whether the next process has to listen is only known
// if it is the same program.
func (in *instance) adopt(app *config.App) {
	in.listens = in.expects(app)
	in.app = app
}

// expects tells whether a process of app has to listen to be ready.
func (in *instance) expects(app *config.App) bool {
	return in.listens && in.app.Port == app.Port && slices.Equal(in.app.Command(), app.Command()) && slices.Equal(in.app.Listen, app.Listen)
}

// fire does what the table says about t.
func (in *instance) fire(t trigger, reason string) {
	in.perform(transitions[in.state][t], reason)
}

func (in *instance) perform(a action, reason string) {
	switch a {
	case ignore, await, replace: // replace is obey's
	case launch:
		in.launch(reason)
	case again:
		in.spawn(reason)
	case end:
		in.end(rest, reason)
	case endLaunch:
		in.end(launch, reason)
	case endJudge:
		in.end(judge, reason)
	case thenStop:
		in.then, in.plan, in.reason = rest, reason, reason
		in.hurry()
	case thenLaunch:
		in.then, in.plan, in.reason = launch, reason, reason
		if in.cur != nil {
			in.letGo(in.cur, in.budget)
		}
		if in.cleared() {
			in.settle()
		}
	case goOnline:
		in.become(Online, "")
		in.cur.ready = true
		in.alarms.cancel(alarmQueue, 0)
		in.route()
		in.world.Settled(in.app.Name, in.index, in.cur.gen)
		in.event("online", fmt.Sprintf("online, pid %d", in.cur.pid()))
	case judge:
		in.judge()
	case settle:
		in.settle()
	case rest:
		in.hurry()
		in.rest(reason)
	}
}

// rest ends all plans. The listeners go: whoever connects is refused rather
// than left waiting for nobody.
func (in *instance) rest(reason string) {
	in.alarms.cancel(alarmDue, 0)
	in.alarms.cancel(alarmQueue, 0)
	if !in.empty() { // an outgoing process: "stopped" is said of the dead only
		in.then, in.plan = rest, reason
		in.become(Stopping, reason)
		return
	}
	in.world.Release(in.app.Name, in.index)
	in.become(Stopped, reason)
	in.event("stop", "stopped: "+reason)
}

// launch starts a process as soon as what the app depends on is online. A crash
// does not come this way: what has run before waits for nobody.
func (in *instance) launch(reason string) {
	h := in.held(in.app)
	if h.why == "" {
		in.spawn(reason)
		return
	}
	in.alarms.cancel(alarmDue, 0)
	if in.state == Stopping { // there is still somebody's queue
		in.limitQueue()
	}
	news := in.state != Pending || in.reason != h.why
	in.become(Pending, h.why)
	in.plan, in.vain = reason, h.vain
	if news {
		in.event("wait", h.why)
	}
}

func (in *instance) spawn(reason string) {
	in.alarms.cancel(alarmDue, 0)
	in.become(Launching, reason)
	in.limitQueue()
	in.cur = in.begin(in.app)
}

// limitQueue sets the clock for those who wait to be accepted while nobody is
// up, if it does not run yet.
func (in *instance) limitQueue() {
	if !in.alarms.has(alarmQueue, 0) {
		in.alarms.set(alarmQueue, 0, in.app.QueueTimeout.D())
	}
}

// end ends all that runs: what serves may finish its streams first, if the verb
// has a budget for that. A restart leaves alone what drains already.
func (in *instance) end(then action, reason string) {
	in.then, in.plan = then, reason
	in.become(Stopping, reason)
	if in.next != nil {
		in.dropCandidate(reason)
	}
	if in.cur.ending { // by an earlier daemon: its clocks died with that
		in.ladder(in.cur)
	}
	in.lead(then)
	in.letGo(in.cur, in.budget)
	if then == rest {
		in.hurry()
	}
}

// cleared tells whether the ladder has done its work: "stopped" is said only
// of the dead, but a restart need not wait for an outgoing generation.
func (in *instance) cleared() bool {
	return in.cur == nil && (in.then != rest || len(in.old) == 0)
}

// park gives up the listeners of an instance that will be down for long while
// others of its app serve: clients that the kernel deals to its queue would
// only wait, and those others have room. What is in the queue now is reset.
func (in *instance) park(down time.Duration) {
	if down > parkAfter && in.covered() {
		in.world.Park(in.app.Name, in.index)
		in.event("listen", "its share of new connections goes to the other instances")
	}
}

func (in *instance) settle() {
	switch in.then {
	case launch:
		in.restarts++
		in.launch(in.plan)
	case judge:
		in.judge()
	default:
		in.rest(in.plan)
	}
}

// judge decides what follows the death of the current process.
func (in *instance) judge() {
	if in.next != nil {
		in.inherit()
		return
	}
	served := in.died.Uptime
	if !in.died.ready {
		served = 0
	}
	v := judgeDeath(in.app, in.streak, in.died.Exit, served, in.world.Jitter())
	in.streak = v.Streak
	switch v.To {
	case Launching:
		in.restarts++
		in.spawn(v.Reason)
	case Waiting:
		in.restarts++
		in.become(Waiting, v.Reason)
		in.nextTry = time.Now().Add(v.Delay)
		in.alarms.set(alarmDue, 0, v.Delay)
		in.limitQueue()
		in.park(v.Delay)
	case Errored:
		in.alarms.cancel(alarmQueue, 0)
		in.world.Release(in.app.Name, in.index)
		in.become(Errored, v.Reason)
		in.event("errored", v.Reason)
	default:
		in.wanted = false
		in.rest(v.Reason)
		in.fine = v.Fine
	}
}

func (in *instance) become(s State, reason string) {
	in.state, in.reason, in.nextTry, in.fine, in.vain = s, reason, time.Time{}, false, false
}

// find is the living process of a generation, or nil.
func (in *instance) find(gen int) *process {
	for _, p := range append([]*process{in.cur, in.next}, in.old...) {
		if p != nil && p.gen == gen {
			return p
		}
	}
	return nil
}
