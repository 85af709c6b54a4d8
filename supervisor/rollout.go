package supervisor

import (
	"fmt"
	"slices"
	"time"
)

// rollout replaces instances one after another: the new process of one is
// ready before the next one is touched, and the first failure ends it. It is a
// part of the app's state, so that a stop cannot be overtaken by its next step.
type rollout struct {
	order
	left  []*instance  // not touched yet
	at    *instance    // the one whose turn it is
	reply chan Outcome // from at
	again *order       // asked for while this one ran, without a caller who waits
}

// outcome is where the turn's outcome comes from; nil without a rollout.
func (r *rollout) outcome() <-chan Outcome {
	if r == nil {
		return nil
	}
	return r.reply
}

// roll starts a rollout. It closes o.replies (which may be nil) when it is over.
func (a *app) roll(ins []*instance, o order) {
	if a.rollout == nil {
		if o.spec != nil && o.indices == nil { // those beyond will go: see rolledOut
			ins = ins[:min(len(ins), o.spec.Instances)]
		}
		a.rollout = &rollout{order: o, left: slices.Clone(ins)}
		a.next()
		return
	}
	if o.auto { // nobody waits: once more when this one is over
		a.rollout.again = &o
		return
	}
	o.refuse(a.name, ins, "a rollout of this app is running already; wait for it, or stop the app")
}

// next gives the next instance its turn.
func (a *app) next() {
	r := a.rollout
	if len(r.left) == 0 {
		a.rolledOut(true)
		return
	}
	r.at, r.left = r.left[0], r.left[1:]
	r.reply = make(chan Outcome, 1)
	spec := r.spec
	if spec == nil {
		spec = a.spec
	}
	r.at.send(command{do: onReload, app: spec, auto: r.auto, reason: r.reason, reply: r.reply})
}

// stepped takes the outcome of a turn.
func (a *app) stepped(o Outcome) {
	r := a.rollout
	if r.replies != nil {
		r.replies <- answered(o)
	}
	if o.OK {
		a.next()
		return
	}
	a.board.emit(Event{Kind: "reload", App: a.name, ID: o.ID, Index: o.Index, State: o.State, Message: "rollout ended: " + o.Reason})
	for _, in := range r.left {
		r.tell(answered(in.untouched(a.name, fmt.Sprintf("left as it was, because %s-%d failed", a.name, o.Index))))
	}
	a.rolledOut(false)
}

// rolledOut ends a rollout. If it went well, its spec is now live everywhere,
// so it is the app's; only then may it change the number of instances.
func (a *app) rolledOut(well bool) {
	if !well {
		a.fed = time.Now().Add(memoryAgain)
	}
	r := a.rollout
	a.rollout = nil
	if well && r.spec != nil {
		a.respec(r.spec)
		if r.spec.Instances != len(a.instances) {
			a.scale(order{count: r.spec.Instances, replies: r.replies})
		}
	}
	if r.replies != nil {
		close(r.replies)
	}
	if r.again != nil {
		a.roll(a.instances, *r.again)
	}
}

// abort ends a rollout for a verb that overrules it. The instance whose turn it
// is goes on or not, as the verb wants.
func (a *app) abort(why string) {
	r := a.rollout
	if r == nil {
		return
	}
	a.rollout = nil
	r.refuse(a.name, append([]*instance{r.at}, r.left...), "the rollout was interrupted: "+why)
}

// scaled tells a rollout that the app has another number of instances.
func (r *rollout) scaled(n int, added, gone []*instance) {
	if r == nil {
		return
	}
	r.left = slices.DeleteFunc(r.left, func(in *instance) bool { return slices.Contains(gone, in) })
	if r.spec == nil {
		return // the new ones have what it brings
	}
	r.left = append(r.left, added...)
	spec := *r.spec
	spec.Instances = n
	r.spec = &spec
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
