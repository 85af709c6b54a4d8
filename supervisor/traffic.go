package supervisor

import "fmt"

// Traffic is what new connections a process gets.
type Traffic string

// The kinds of traffic.
const (
	Serving  Traffic = "serving"  // its share
	Queueing Traffic = "queueing" // only while nobody serves; they wait for it
	Away     Traffic = "away"     // none
)

// route gives the current process the traffic that is due to it.
func (in *instance) route() {
	if in.cur == nil || !in.cur.ready {
		return
	}
	t := in.traffic()
	if in.cur.traffic == t {
		return
	}
	in.cur.traffic = t
	in.world.Route(in.app.Name, in.index, in.cur.gen, t)
}

// lead takes the current process out of traffic before it is told to end: it
// will stop to accept at a moment that nobody knows. What comes then waits for
// the successor, if others do not serve, or is refused if there will be none.
func (in *instance) lead(then action) {
	t := Queueing
	if then == rest {
		t = Away
	}
	if in.cur.p != nil && in.cur.traffic != t {
		in.cur.traffic = t
		in.world.Route(in.app.Name, in.index, in.cur.gen, t)
	}
}

// traffic: sick ones are out of traffic while others are well. If all are sick,
// what ails them is somewhere else, and all go on serving. That its user wants
// one away is another matter.
func (in *instance) traffic() Traffic {
	switch {
	case in.away:
		return Away
	case in.cur.sick != "" && in.covered():
		return Away
	}
	return Serving
}

// sendAway takes the instance out of traffic, or back, on its user's word. It
// stays so over restarts and reloads.
func (in *instance) sendAway(c command) {
	if why := in.cur.unsteered(); c.do == doDrain && why != "" {
		c.reply <- in.outcome(false, "cannot be taken out of traffic: "+why)
		return
	}
	if in.away == (c.do == doDrain) {
		c.reply <- in.outcome(true, "")
		return
	}
	in.away = c.do == doDrain
	what := "gets its share of new connections again"
	if in.away {
		what = "gets no new connections any more: " + c.reason
	}
	in.event("drain", what)
	in.route()
	in.show() // before the answer: whoever gets it looks
	c.reply <- in.outcome(true, what)
}

// unsteered is why no traffic can be kept from a process; empty: it can.
func (p *process) unsteered() string {
	switch {
	case p == nil || p.p == nil:
		return "" // the next one will be
	case p.p.Hold != Held:
		return "its listeners are not held (" + p.p.Hold + ")"
	}
	return p.p.Unsteered
}

// ail: the current process does not do its work. It is taken out of traffic if
// others can do it; the board sees to a successor (publisher in board.go).
func (in *instance) ail(p *process, why string) {
	if p != in.cur || !p.ready || p.ending {
		return
	}
	if p.sick == "" {
		in.event("unhealthy", fmt.Sprintf("pid %d: %s", p.pid(), why))
	}
	p.sick = why
	in.show() // before it asks whether others serve: of two that fall sick at once each sees the other
	in.route()
}

// heal: it does its work again.
func (in *instance) heal(p *process) {
	if p.sick == "" {
		return
	}
	p.sick = ""
	in.event("healthy", fmt.Sprintf("pid %d does its work again", p.pid()))
	if p == in.cur {
		in.route()
	}
}

// queueOver: nobody came up while connections waited. They are refused from
// now on rather than left hanging.
func (in *instance) queueOver() {
	switch {
	case in.state == Waiting || in.state == Pending:
		in.world.Release(in.app.Name, in.index)
	case in.state == Launching && in.cur != nil:
		in.world.Route(in.app.Name, in.index, in.cur.gen, Away)
		in.cur.traffic = Away
	default:
		return
	}
	in.event("listen", fmt.Sprintf("not up for queue_timeout (%s): connections are not kept waiting any longer", in.app.QueueTimeout))
}
