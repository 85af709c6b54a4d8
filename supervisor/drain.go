package supervisor

import (
	"fmt"
	"time"

	"gpm/config"
)

// emptyTime is how long an app that drains itself is given to accept what is in
// its queue before it is signalled: it will close its listener then.
const emptyTime = 2 * time.Second

// Count is what the connections of one process are.
type Count struct {
	Streams int       // established, accepted or not
	Live    int       // of these, with data within drain_idle; counted of a process that is away
	Queue   int       // of these, not accepted yet
	Oldest  time.Time // since when the oldest one is known; zero: none
	Ages    []int
	Close   bool // Live is known
}

// holding are the connections that hold a drain up.
func (c Count) holding() int {
	if c.Close {
		return c.Live + c.Queue
	}
	return c.Streams
}

// letGo ends a process whose streams may finish first, for at most budget. One
// that cannot be taken out of traffic would go on accepting new ones, so there
// is nothing to wait for; if it drains itself it gets the time all the same.
func (in *instance) letGo(p *process, budget time.Duration) {
	switch {
	case p.ending:
	case p.p == nil || !p.ready || budget <= 0:
		in.ladder(p)
	case p.unsteered() == "":
		in.drain(p, budget)
	case p.app.Drain == config.DrainSignal:
		p.until = time.Now().Add(budget)
		in.ladder(p)
	default:
		in.ladder(p)
	}
}

// drain takes a process out of traffic and waits for its streams; the world
// counts them (counted). A drain that runs already can only get shorter.
func (in *instance) drain(p *process, budget time.Duration) {
	until := time.Now().Add(budget)
	if p.draining() {
		if until.After(p.until) {
			return
		}
	} else {
		p.since = time.Now()
		in.event("drain", fmt.Sprintf("pid %d gets no new connections, its streams may finish until %s", p.pid(), until.Format(time.TimeOnly)))
	}
	p.until = until
	p.traffic = Away
	in.world.Route(in.app.Name, in.index, p.gen, Away)
	wait := budget
	if p.app.Drain == config.DrainSignal {
		wait = min(budget, emptyTime)
	}
	in.alarms.set(alarmDrain, p.gen, wait)
}

// draining tells whether a process is waited for, not told to end yet.
func (p *process) draining() bool { return !p.since.IsZero() && !p.ending }

// counted takes a count of a process's connections; false: nothing follows
// from it. A count that began before the process was taken out of traffic may
// miss the last connection that came to it.
func (in *instance) counted(f genFact) bool {
	p := in.find(f.gen)
	if p == nil {
		return false
	}
	p.count = f.Count
	if !p.draining() || f.Began.Before(p.since) || f.Count.Queue > 0 {
		return false
	}
	if p.app.Drain == config.DrainSignal {
		in.ladder(p)
		return true
	}
	if f.Count.Live > 0 {
		return false
	}
	in.event("drain", fmt.Sprintf("pid %d is drained after %s%s", p.pid(), time.Since(p.since).Round(time.Millisecond), idle(f.Count.Streams)))
	in.ladder(p)
	return true
}

func idle(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %s idle", many(n, "connection"))
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// drainOver: the time for streams is over, or that for the queue of an app that
// drains itself.
func (in *instance) drainOver(p *process) {
	if !p.draining() {
		return
	}
	if p.app.Drain != config.DrainSignal {
		cut := many(p.count.Live, "live stream")
		if p.count.Live+p.count.Queue == 0 { // a count of none had ended it sooner: there was no time for one
			cut = "its streams are"
		}
		in.event("drain", fmt.Sprintf("pid %d had until now to drain: %s cut", p.pid(), cut))
	}
	in.ladder(p)
}

// patience is how long a process gets between the signal and SIGKILL.
func (p *process) patience() time.Duration {
	d := p.app.KillTimeout.D()
	if p.app.Drain == config.DrainSignal && !p.until.IsZero() {
		d = max(d, time.Until(p.until))
	}
	return d
}

// hurry applies the budget of a verb that wants everything to end: what drains
// already has no more than that.
func (in *instance) hurry() {
	for _, p := range in.old {
		in.letGo(p, in.budget)
	}
	if in.cur != nil && in.state == Stopping {
		in.letGo(in.cur, in.budget)
	}
}
