package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gpm/config"
)

// process is one OS process of an instance, from the order to spawn it until
// its end. p is nil until it has been spawned.
type process struct {
	app     *config.App
	gen     int
	p       *Process
	begun   time.Time
	ready   bool
	known   readiness
	ending  bool          // the stop ladder has begun, or will when it is spawned
	told    bool          // the ladder's signal was sent
	grace   time.Duration // between the signal and SIGKILL
	stuck   bool          // we said that it does not go away
	why     string        // why gpm ends it, if it is the process's fault
	fatal   string        // last refusal it got, such as a taken port
	heard   []string      // addresses that it listens on
	waited  bool          // for those of its predecessor
	dead    bool          // its end is news on the way, from before this daemon
	gone    *Exit         // it ended before we heard that it was spawned
	waiting chan<- Outcome

	traffic  Traffic
	since    time.Time // its drain began; zero: it did not
	until    time.Time // its drain is cut
	count    Count     // the last one taken
	checking bool      // a check is under way
	failures int       // health checks in a row
	trouble  error     // what the last check found
	sick     string    // why it needs a successor
}

type genFact struct {
	gen int
	Fact
}

type spawnResult struct {
	gen int
	p   *Process
	err error
}

// begin spawns the next generation from a child goroutine: the loop is never
// deaf, not even while a disk is slow to give an executable. The process is in
// one of the loop's hands until the goroutine has reported back, so the loop
// does not end before.
func (in *instance) begin(app *config.App) *process {
	in.gen++
	p := &process{app: app, gen: in.gen, begun: time.Now()}
	p.known.Expected = in.expects(app)
	l := Launch{App: app, ID: in.id, Index: in.index, Gen: p.gen, Report: in.reporter(p.gen)}
	in.alarms.set(alarmLost, p.gen, spawnDeadline)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), spawnTime)
		defer cancel()
		proc, err := in.world.Launch(ctx, l)
		in.spawned <- spawnResult{l.Gen, proc, err}
	}()
	return p
}

func (in *instance) reporter(gen int) func(Fact) {
	return func(f Fact) {
		select {
		case in.facts <- genFact{gen, f}:
		case <-in.done:
		}
	}
}

// arrive takes a spawned process, or the failure to spawn it.
func (in *instance) arrive(r spawnResult) {
	p := in.find(r.gen)
	in.alarms.forget(r.gen)
	if r.err != nil {
		in.bury(p, Exit{At: time.Now(), Spawnless: true, Drained: true, Cause: r.err.Error()})
		return
	}
	p.p = r.p
	in.event("start", fmt.Sprintf("started, pid %d", p.pid()))
	switch {
	case p.gone != nil:
		in.bury(p, *p.gone)
	case p.ending:
		in.ladder(p)
	default:
		in.watchOver(p)
	}
}

// watchOver sets the clocks of a process that is not ready yet.
func (in *instance) watchOver(p *process) {
	in.alarms.set(alarmSettle, p.gen, settleTime)
	if p.known.limited(p.app) {
		in.alarms.set(alarmLimit, p.gen, p.app.ListenTimeout.D())
	}
	if p.app.Ready != nil {
		in.alarms.set(alarmProbe, p.gen, p.app.Ready.Delay.D())
	}
	in.consider(p)
}

func (in *instance) learn(f genFact) {
	p := in.find(f.gen)
	if f.Kind == Tail {
		in.keepTail(p, f)
		return
	}
	if p == nil {
		return
	}
	switch f.Kind {
	case Listening:
		in.hears(p, f.Text)
		in.event("listen", "listens on "+f.Text)
		in.consider(p)
	case Told:
		p.known.Told = true
		in.consider(p)
	case Stalled:
		in.stalled(f)
	case Refused:
		p.fatal = f.Text
		in.event("conflict", f.Text)
	case Ended:
		if p.p == nil { // faster than the news of its start: started is said before ended, always
			p.gone = &f.Exit
			return
		}
		in.bury(p, f.Exit)
	case Tail, Counted:
	}
}

// hears takes note of an address that a process listens on. An app that has
// several may come to them one after the other: until it has those of its
// predecessor, clients of the others would find nobody, once that one is gone.
// It gets some time for that, not for ever: it may be a version without them.
func (in *instance) hears(p *process, addr string) {
	if !slices.Contains(p.heard, addr) {
		p.heard = append(p.heard, addr)
	}
	if p.ready && p == in.cur {
		in.heard = p.heard
	}
	if !p.known.Listening && p.known.Expected {
		in.alarms.set(alarmLack, p.gen, min(lackTime, p.app.ListenTimeout.D()/2))
	}
	p.known.Listening = true
	p.known.Lacking = p.known.Expected && !p.waited && slices.ContainsFunc(in.heard, func(a string) bool { return !slices.Contains(p.heard, a) })
}

// consider moves a process on that may have become ready.
func (in *instance) consider(p *process) {
	if p.known.Listening && p == in.cur {
		in.listens = true
	}
	if p.p == nil || p.ready || p.ending || !p.known.ready(p.app) {
		return
	}
	in.alarms.forget(p.gen)
	in.lookAfter(p)
	p.fatal = "" // it got over it
	in.heard = p.heard
	switch p {
	case in.cur:
		in.fire(onReady, "")
	case in.next:
		in.promote()
	}
}

// bury takes note of a death and says what it means.
func (in *instance) bury(p *process, e Exit) {
	in.alarms.forget(p.gen)
	if e = in.epitaph(p, e); len(in.exits) == exitsKept {
		in.exits = slices.Delete(in.exits, 0, 1)
	}
	in.exits = append(in.exits, e)
	if !e.Drained {
		in.alarms.set(alarmTail, p.gen, tailTime)
	}
	in.event("exit", e.Sentence())
	switch p {
	case in.cur:
		in.cur, in.died = nil, death{e, p.ready}
		if in.state != Stopping {
			in.fire(onDeath, "")
		}
	case in.next:
		in.candidateDied(e)
	default:
		in.old = slices.DeleteFunc(in.old, func(o *process) bool { return o == p })
	}
	if in.state == Stopping && in.cleared() {
		in.fire(onDeath, "")
	}
}

// epitaph completes what the world saw of a death with what we know.
func (in *instance) epitaph(p *process, e Exit) Exit {
	e.Gen, e.ByUs = p.gen, p.told
	if e.PID == 0 {
		e.PID = p.pid()
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if !e.Spawnless { // what never ran did not live, however long it took
		e.Uptime = max(e.At.Sub(p.p.Started), 0)
	}
	if e.Cause == "" && !e.ByUs {
		e.Cause = p.fatal
	}
	if e.ByUs && p.why != "" {
		e.Cause = p.why
	}
	return e
}

// ladder: signal, kill_timeout, SIGKILL to the tree, then the truth.
func (in *instance) ladder(p *process) {
	p.ending = true
	if p.p == nil {
		return // arrive comes back here
	}
	in.alarms.forget(p.gen)
	if !p.told { // by the daemon before this one; a second signal would cut its drain short
		p.told = true
		if err := p.p.Signal(p.app.KillSignal); err != nil {
			in.event("stop", fmt.Sprintf("send %s to pid %d: %v", p.app.KillSignal, p.pid(), err))
		}
	}
	p.grace = p.patience()
	in.alarms.set(alarmKill, p.gen, p.grace)
}

// lookAfter sets the clocks of a process that is ready.
func (in *instance) lookAfter(p *process) {
	in.alarms.set(alarmStable, p.gen, stableAfter)
	if h := p.app.Health; h != nil {
		in.alarms.set(alarmProbe, p.gen, h.Delay.D()+h.Interval.D())
	}
}

func (in *instance) ring(a alarm) {
	p := in.find(a.gen)
	switch {
	case a.kind == alarmDue:
		in.fire(onDue, in.reason)
	case a.kind == alarmTail:
		in.tailOver(a.gen)
	case a.kind == alarmQueue:
		in.queueOver()
	case p == nil: // an earlier alarm of this turn was the end of it
	case a.kind == alarmSettle:
		p.known.Settled = true
		in.consider(p)
	case a.kind == alarmLimit:
		in.notReady(p)
	case a.kind == alarmStable:
		if p == in.cur {
			in.streak = streak{}
		}
	case a.kind == alarmRetire:
		in.retire(p.gen)
	case a.kind == alarmDrain:
		in.drainOver(p)
	case a.kind == alarmLack:
		p.waited, p.known.Lacking = true, false
		in.consider(p)
	case a.kind == alarmProbe:
		in.check(p)
	case a.kind == alarmKill:
		in.event("stop", fmt.Sprintf("pid %d did not end within %s, sending SIGKILL", p.pid(), p.grace.Round(time.Millisecond)))
		in.kill(p)
	case a.kind == alarmLost:
		in.lost(p)
	}
}

func (in *instance) kill(p *process) {
	if err := p.p.Kill(); err != nil {
		in.event("stop", fmt.Sprintf("kill the tree of pid %d: %v", p.pid(), err))
	}
	in.alarms.set(alarmLost, p.gen, killDeadline)
}

// lost says the truth about a process that does not go away, or a spawn that
// does not come back, and answers everybody who waits for it; then it tries on.
func (in *instance) lost(p *process) {
	why := fmt.Sprintf("pid %d is still alive %s after SIGKILL: the kernel does not let it go", p.pid(), killDeadline)
	if p.p == nil {
		why = fmt.Sprintf("the process could neither be started nor be given up within %s", spawnDeadline)
	}
	holdsUp := p == in.cur || in.state == Stopping && in.then == rest
	if holdsUp {
		in.reason = why
	}
	if !p.stuck { // said once; it may go on for days
		in.event("stop", why)
	}
	p.stuck = true
	if p == in.next {
		in.dropCandidate(why) // what was called failed must not become current later
	}
	in.giveUp(why, func(w waiter) bool { return holdsUp && w.out == nil || w.gen == p.gen && w.out != nil })
	if p.p == nil {
		in.alarms.set(alarmLost, p.gen, spawnDeadline)
		return
	}
	in.kill(p)
}

// notReady: a timeout is a failure, never "probably fine".
func (in *instance) notReady(p *process) {
	if p.ready || p.ending {
		return // it became so in this very turn
	}
	trouble := p.trouble
	if trouble != nil && p.checking { // what was found before may not be so any more
		trouble = fmt.Errorf("the check under way has no answer yet; the one before: %w", trouble)
	}
	p.why = p.known.missing(p.app, trouble)
	if p.fatal != "" {
		p.why += " (" + p.fatal + ")"
	}
	if p == in.next {
		in.dropCandidate(p.why)
		return
	}
	in.fire(onNotReady, p.why)
}

func (p *process) pid() int {
	if p == nil || p.p == nil {
		return 0
	}
	return p.p.PID
}

func (p *process) started() time.Time {
	if p.p == nil {
		return p.begun
	}
	return p.p.Started
}
