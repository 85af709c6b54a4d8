package supervisor

import (
	"fmt"
	"slices"
	"time"
)

const (
	rolloutPulse = 250 * time.Millisecond // how often a rollout that waits looks again
	drainingEach = 3                      // draining processes for each instance, unless max_draining says otherwise
	sayEvery     = time.Second            // at most, for its progress
	drainGrace   = 30 * time.Second       // beyond its deadlines, for an outgoing process to be gone
)

// rollout replaces instances, a few at a time: the new process of one is ready
// before the next one is touched, and the first failure ends it. It is a part
// of the app's state, so that a stop cannot be overtaken by its next step.
type rollout struct {
	order
	all     []*instance
	left    []*instance  // not touched yet
	at      []*instance  // those whose turn it is
	turns   chan Outcome // from at, with room for all that could ever be: nobody reads it after an abort
	fresh   map[int]bool // by index: it runs the new version
	failed  string       // why no other gets its turn
	resume  time.Time    // the pause after the last one is over
	waiting string       // what it waits for between two turns
	since   time.Time    // since when, for max_draining
	sayAt   time.Time
	again   *order  // asked for while this one ran, without a caller who waits
	aborts  []order // callers who want it to end, and to hear what runs then
}

// outcome is where the outcome of a turn comes from; nil without a rollout.
func (r *rollout) outcome() <-chan Outcome {
	if r == nil {
		return nil
	}
	return r.turns
}

// roll starts a rollout. It closes o.replies (which may be nil) when it is over.
func (a *app) roll(ins []*instance, o order) {
	if a.rollout == nil {
		if o.spec != nil && o.indices == nil { // those beyond will go: see rolledOut
			ins = ins[:min(len(ins), o.spec.Instances)]
		}
		a.rollout = &rollout{order: o, all: slices.Clone(ins), left: slices.Clone(ins), fresh: map[int]bool{}, turns: make(chan Outcome, maxInstances)}
		a.next()
		return
	}
	if o.auto { // nobody waits: once more when this one is over
		a.rollout.again = &o
		return
	}
	o.refuse(a.name, ins, "a rollout of this app is running already; wait for it, or stop the app")
}

// next gives turns to as many instances as may have one.
func (a *app) next() {
	r := a.rollout
	spec := r.spec
	if spec == nil {
		spec = a.spec
	}
	for len(r.left) > 0 && r.failed == "" && len(r.at) < max(spec.Rollout.Parallel, 1) {
		if r.waiting = a.holdUp(spec.Rollout.MaxDraining); r.waiting != "" {
			break
		}
		in := r.left[0]
		r.at, r.left = append(r.at, in), r.left[1:]
		in.send(command{do: onReload, app: spec, auto: r.auto, reason: r.reason, reply: r.turns})
	}
	a.progress(false)
	if len(r.at) == 0 && (len(r.left) == 0 || r.failed != "") {
		a.rolledOut()
		return
	}
	a.pulse.Reset(rolloutPulse)
}

// holdUp is what keeps the next instance from its turn; empty: nothing.
func (a *app) holdUp(most int) string {
	r, now := a.rollout, time.Now()
	if left := r.resume.Sub(now); left > 0 {
		return fmt.Sprintf("pause, %s", left.Round(time.Second))
	}
	if most == 0 {
		most = drainingEach * max(len(a.instances), 1)
	}
	outgoing, longest := a.board.outgoing(a)
	if outgoing < most {
		r.since = time.Time{}
		return ""
	}
	if r.since.IsZero() {
		r.since = now
	}
	if waited := now.Sub(r.since); waited > longest+drainGrace {
		r.failed = fmt.Sprintf("%d earlier processes have not ended within %s", outgoing, waited.Round(time.Second))
		r.tellLeft(a.name)
		return r.failed
	}
	return fmt.Sprintf("max_draining %d", most)
}

// stepped takes the outcome of a turn.
func (a *app) stepped(o Outcome) {
	r := a.rollout
	r.at = slices.DeleteFunc(r.at, func(in *instance) bool { return in.index == o.Index })
	if r.replies != nil {
		r.replies <- answered(o)
	}
	switch {
	case o.OK:
		r.fresh[o.Index] = true
		r.resume = time.Now().Add(a.pauseOf(r))
	case r.failed == "":
		a.board.emit(Event{Kind: "reload", App: a.name, ID: o.ID, Index: o.Index, State: o.State, Message: "rollout ended: " + o.Reason})
		a.fail(fmt.Sprintf("left as it was, because %s-%d failed", a.name, o.Index))
	}
	a.next()
}

func (a *app) pauseOf(r *rollout) time.Duration {
	if r.spec != nil {
		return r.spec.Rollout.Pause.D()
	}
	return a.spec.Rollout.Pause.D()
}

// fail ends a rollout: nobody else gets a turn, and who has one keeps the old
// process.
func (a *app) fail(why string) {
	r := a.rollout
	r.failed = why
	r.tellLeft(a.name)
	for _, in := range r.at {
		in.send(command{do: doGiveUp, reason: why, reply: make(chan Outcome, 1)})
	}
}

// tellLeft answers for those who had no turn.
func (r *rollout) tellLeft(app string) {
	for _, in := range r.left {
		r.tell(answered(in.untouched(app, r.failed)))
	}
}

// rolledOut ends a rollout. If it went well, its spec is now live everywhere,
// so it is the app's; only then may it change the number of instances.
func (a *app) rolledOut() {
	r := a.rollout
	well := r.failed == ""
	if !well {
		a.fed = time.Now().Add(memoryAgain)
		a.failed = a.fed
	}
	a.progress(true)
	a.rollout = nil
	a.pulse.Reset(sayEvery)
	if well && r.spec != nil {
		a.respec(r.spec)
		if r.spec.Instances != len(a.instances) {
			a.scale(order{count: r.spec.Instances, replies: r.replies, drain: drainDeploy})
		}
	}
	if r.replies != nil {
		close(r.replies)
	}
	a.tellAborts(r)
	if r.again != nil && r.aborts == nil {
		a.roll(a.instances, *r.again)
	}
}

// tellAborts answers those who ended a rollout: what runs now.
func (a *app) tellAborts(r *rollout) {
	for _, o := range r.aborts {
		for _, in := range r.all {
			reply := make(chan Outcome, 1)
			in.send(command{do: doSeen, reply: reply})
			out := <-reply // the instance waits for nobody but the board
			out.Runs = "old"
			if r.fresh[in.index] {
				out.Runs = "new"
			}
			out.Reason = "runs the " + out.Runs + " version"
			o.tell(answered(out))
		}
		close(o.replies)
	}
}

// interrupt ends a rollout on a user's word.
func (a *app) interrupt(o order) {
	if a.rollout == nil {
		close(o.replies)
		return
	}
	a.rollout.aborts = append(a.rollout.aborts, o)
	if a.rollout.failed == "" {
		a.say("reload", "rollout ended: "+o.reason)
		a.fail("left as it was: " + o.reason)
	}
	a.next()
}

// abort ends a rollout for a verb that overrules it. The instances whose turn
// it is go on or not, as the verb wants.
func (a *app) abort(why string) {
	r := a.rollout
	if r == nil {
		return
	}
	r.failed = "the rollout was interrupted: " + why
	a.progress(true)
	a.rollout = nil
	r.refuse(a.name, append(slices.Clone(r.at), r.left...), r.failed)
	a.tellAborts(r)
}

// scaled tells a rollout that the app has another number of instances.
func (r *rollout) scaled(n int, added, gone []*instance) {
	if r == nil {
		return
	}
	left := func(in *instance) bool { return slices.Contains(gone, in) }
	r.left, r.all = slices.DeleteFunc(r.left, left), slices.DeleteFunc(r.all, left)
	if r.spec == nil {
		return // the new ones have what it brings
	}
	r.left, r.all = append(r.left, added...), append(r.all, added...)
	spec := *r.spec
	spec.Instances = n
	r.spec = &spec
}

// Progress is how far a rollout is.
type Progress struct {
	Ready    int // instances that run the new version
	Total    int
	Draining int       // outgoing processes of the app
	Streams  int       // of these
	Oldest   time.Time // since when the oldest of these streams is known; zero: none
	Deadline time.Time // when the last drain is cut; zero: none drains
	Waiting  string    // why the rollout does not go on right now
	Done     bool      // it is over; drains may go on
}

// progress tells how far the rollout is, at most once a second.
func (a *app) progress(done bool) {
	r, now := a.rollout, time.Now()
	if !done && now.Before(r.sayAt) {
		return
	}
	p := a.board.drains(a)
	p.Ready, p.Total, p.Waiting, p.Done = len(r.fresh), len(r.all), r.waiting, done
	r.sayAt = now.Add(sayEvery) // also if nothing is new: somebody may just have begun to listen
	a.board.emit(Event{Kind: "rollout", App: a.name, ID: -1, Index: -1, Message: p.Sentence(now), Progress: &p})
}

// drained tells how far drains are that no rollout speaks of any more, until
// they are over.
func (a *app) drained() {
	p := a.board.drains(a)
	if p.Draining == 0 && a.drains.Draining == 0 {
		return
	}
	a.drains, p.Done = p, true
	a.board.emit(Event{Kind: "rollout", App: a.name, ID: -1, Index: -1, Message: p.Sentence(time.Now()), Progress: &p})
	a.pulse.Reset(sayEvery)
}

// Sentence is the progress for people.
func (p Progress) Sentence(now time.Time) string {
	s := fmt.Sprintf("%d/%d ready", p.Ready, p.Total)
	switch {
	case p.Total == 0 && p.Draining == 0:
		return "drained"
	case p.Total == 0:
		s = fmt.Sprintf("%s draining in %s", many(p.Streams, "stream"), processes(p.Draining))
	case p.Draining > 0:
		s += fmt.Sprintf(", %s draining in %s", many(p.Streams, "stream"), processes(p.Draining))
	}
	if !p.Oldest.IsZero() {
		s += ", oldest " + now.Sub(p.Oldest).Round(time.Second).String()
	}
	if !p.Deadline.IsZero() {
		s += ", deadline " + p.Deadline.Format(time.TimeOnly)
	}
	if p.Waiting != "" {
		s += ", waiting: " + p.Waiting
	}
	return s
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// refuse answers an order for ins, all of it.
func (o *order) refuse(app string, ins []*instance, why string) {
	for _, in := range ins {
		o.tell(answered(in.untouched(app, why)))
	}
	if o.replies != nil {
		close(o.replies)
	}
}

func (o *order) tell(c <-chan Outcome) {
	if o.replies != nil {
		o.replies <- c
	}
}

// untouched is the outcome for an instance that was not asked.
func (in *instance) untouched(app, why string) Outcome {
	return Outcome{ID: in.id, Name: app, Index: in.index, Reason: why}
}

func answered(o Outcome) <-chan Outcome {
	c := make(chan Outcome, 1)
	c <- o
	return c
}
