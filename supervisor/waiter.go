package supervisor

import (
	"slices"
	"time"
)

// gone is what the caller of a delete waits for: the end of the goroutine.
const gone State = "gone"

// waiter is a caller who waits for an instance to get somewhere. His answer is
// decided the first time it can be; a failure then waits, for a bounded time,
// for the last lines of the process of generation gen.
type waiter struct {
	want  State
	reply chan<- Outcome
	out   *Outcome // decided
	gen   int
}

// answer settles the callers whose wait is over.
func (in *instance) answer() {
	in.waiters = slices.DeleteFunc(in.waiters, func(w waiter) bool { return w.out == nil && in.met(w) })
	for i := range in.waiters {
		if w := &in.waiters[i]; w.out == nil && in.missed(w.want) {
			out := in.outcome(false, in.reason)
			if w.out = &out; in.state != Pending { // else no death is to blame
				w.gen = in.died.Gen
			}
		}
	}
	in.waiters = slices.DeleteFunc(in.waiters, func(w waiter) bool {
		if w.out == nil || !in.tailKnown(w.gen) {
			return false
		}
		w.out.Tail = in.tail(w.gen)
		w.reply <- *w.out
		return true
	})
}

// met answers a caller who has got what he wants.
func (in *instance) met(w waiter) bool {
	if w.want != in.state && !(w.want == Online && in.fine) {
		return false
	}
	why := ""
	if in.fine {
		why = in.reason
	}
	if in.away && w.want == Online {
		why = "it gets no new connections until gpm drain --undo"
	}
	w.reply <- in.outcome(true, why)
	return true
}

// missed tells whether a caller has waited in vain: after the first restart,
// which is immediate, has failed, too; or because somebody else wanted
// something else.
func (in *instance) missed(want State) bool {
	switch want {
	case Online:
		return in.state == Waiting || in.state == Errored || in.state == Stopped || in.state == Pending && in.vain
	case Stopped:
		return in.state != Stopping
	}
	return false // gone: lost and farewell answer
}

// giveUp answers the callers chosen by which: what they want cannot be had.
func (in *instance) giveUp(reason string, which func(waiter) bool) {
	in.waiters = slices.DeleteFunc(in.waiters, func(w waiter) bool {
		if !which(w) {
			return false
		}
		out := in.outcome(false, reason)
		if w.out != nil && w.out.Reason != reason {
			out.Reason = w.out.Reason + "; " + reason
		}
		w.reply <- out
		return true
	})
}

// farewell answers whoever is left when the instance ends.
func (in *instance) farewell() {
	for _, w := range in.waiters {
		switch {
		case w.out != nil:
			w.out.Tail = in.tail(w.gen)
			w.reply <- *w.out
		default:
			w.reply <- in.outcome(w.want == gone || w.want == Stopped, "it has been removed")
		}
	}
}

// tailKnown tells whether the last lines of a generation have come. They get a
// bounded time: a grandchild may hold the pipes open.
func (in *instance) tailKnown(gen int) bool {
	if in.find(gen) != nil {
		return false // the ladder has its own deadlines
	}
	i := in.exit(gen)
	return i < 0 || in.exits[i].Drained
}

// tailOver ends the wait for the last lines; should they come, they are kept.
func (in *instance) tailOver(gen int) {
	if i := in.exit(gen); i >= 0 {
		in.exits[i].Drained = true
	}
}

// keepTail keeps the last lines with the exit that they belong to, which may not
// have been told yet (p.gone).
func (in *instance) keepTail(p *process, f genFact) {
	switch i := in.exit(f.gen); {
	case i >= 0:
		in.exits[i].Tail, in.exits[i].Drained = f.Tail, true
	case p != nil && p.gone != nil:
		p.gone.Tail, p.gone.Drained = f.Tail, true
	}
}

func (in *instance) tail(gen int) []Line {
	if i := in.exit(gen); i >= 0 {
		return in.exits[i].Tail
	}
	return nil
}

// exit is where the end of a generation is kept; -1: it is not.
func (in *instance) exit(gen int) int {
	return slices.IndexFunc(in.exits, func(e Exit) bool { return e.Gen == gen })
}

func (in *instance) outcome(ok bool, reason string) Outcome {
	return Outcome{ID: in.id, Name: in.app.Name, Index: in.index, State: in.state, PID: in.cur.pid(), OK: ok, Reason: reason}
}

func (in *instance) event(kind, message string) {
	in.events = append(in.events, Event{
		At: time.Now(), Kind: kind, App: in.app.Name, ID: in.id, Index: in.index, State: in.state, Message: message,
	})
}
