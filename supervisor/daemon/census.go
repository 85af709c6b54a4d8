package daemon

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/streams"
)

const (
	censusEvery = time.Second            // of all connections
	censusClose = 250 * time.Millisecond // while a process drains
	censusShare = 30                     // of its own time between two counts: at most 3 percent of a core
	suspicious  = 5 * time.Second        // or half of hang_timeout: a queue that has not moved for this long is looked at closely
)

// census counts the connections of all processes: one dump of the kernel's
// sockets per tick for all of them. The brain gets the counts, the steering its
// loads, and what drains or hangs is told to its instance.
type census struct {
	h     *hands
	brain *supervisor.Supervisor
	log   *slog.Logger

	// Of the goroutine alone.
	counter *streams.Counter
	failed  string // the last complaint, said once
	pruned  bool
	empty   map[place]bool   // drained at the last count, but for connections without an owner
	stuck   map[place]stuck  // queues that do not move
	pids    map[string][]int // of the trees, by place
	fresh   time.Time        // when pids were read

	asked chan chan struct{} // for a close look at all, now

	mu     sync.Mutex
	queues map[uint64]int // the last reading, by inode of the listener
}

// stuck is a queue that has not moved.
type stuck struct {
	since time.Time
	told  bool
}

// person is a process at the moment of a census.
type person struct {
	*process
	at       place // where it is: process.place may change
	id       int
	key      string
	away     bool
	close    bool // it is to be counted with what is idle
	idle     time.Duration
	patience time.Duration // with a queue that does not move
}

func newCensus(h *hands, brain *supervisor.Supervisor, log *slog.Logger) *census {
	return &census{h: h, brain: brain, log: log, stuck: map[place]stuck{}, empty: map[place]bool{}, asked: make(chan chan struct{})}
}

// run is the census's goroutine.
func (c *census) run(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(c.take(false))
		case done := <-c.asked:
			timer.Reset(c.take(true))
			close(done)
		case <-stop:
			if c.counter != nil {
				c.counter.Close()
			}
			return
		}
	}
}

// closely counts everything once, with what is idle, and waits for it; not for
// long.
func (c *census) closely() {
	late := time.After(time.Second)
	done := make(chan struct{})
	select {
	case c.asked <- done:
	case <-late:
		return
	}
	select {
	case <-done:
	case <-late:
	}
}

// take counts once, closely or not, and says when the next count is due.
func (c *census) take(close bool) time.Duration {
	people := c.h.people()
	ports := c.h.holder.Ports()
	next := censusEvery
	for i := range people {
		if people[i].away {
			next = censusClose
		}
		people[i].close = people[i].away || close
	}
	if len(ports) == 0 {
		c.told(people, streams.Reading{}, nil, time.Now())
		return next
	}
	if c.counter == nil {
		counter, err := streams.New()
		if err != nil {
			c.complain("count connections", err)
			return 10 * censusEvery
		}
		c.counter = counter
	}
	c.look(people)
	mark, began := c.h.steer.Mark(), time.Now()
	r, err := c.counter.Count(c.query(ports, people))
	if err != nil {
		c.complain("count connections", err)
		return next
	}
	c.keep(r.Queued)
	queues, listeners := c.share(people, r.Queued)
	c.complain("verify the steering", c.h.holder.Verify(r.Listeners))
	if !c.pruned {
		c.h.steer.Prune() // what the daemon before left and nobody wanted
		c.pruned = true
	}
	c.complain("correct the steering", c.h.steer.Correct(mark, loads(people, r.By, r.Queued, listeners)))
	c.told(people, r, queues, began)
	return max(next, censusShare*time.Since(began))
}

// complain logs an error when it is news.
func (c *census) complain(what string, err error) {
	if err == nil || c.failed == err.Error() {
		return
	}
	c.failed = err.Error()
	c.log.Error(what, "error", err)
}

// people are all live processes.
func (h *hands) people() (r []person) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, p := range h.procs {
		if p.pid != 0 && p.tree != nil {
			r = append(r, person{process: p, at: at, id: p.id, key: at.String(), away: p.away, idle: p.app.DrainIdle.D(), patience: min(suspicious, p.app.HangTimeout.D()/2)})
		}
	}
	return r
}

// look reads who belongs to which tree, once for several counts in a row.
func (c *census) look(people []person) {
	known := !slices.ContainsFunc(people, func(p person) bool { return c.pids[p.key] == nil })
	if known && time.Since(c.fresh) < censusEvery {
		return
	}
	c.fresh, c.pids = time.Now(), map[string][]int{}
	if kind, _ := c.h.forest.Kind(); kind == proc.Cgroup {
		for _, p := range people {
			c.pids[p.key] = append(p.tree.PIDs(), p.pid)
		}
		return
	}
	all, err := proc.Snapshot() // one look at /proc for all of them
	if err != nil {
		c.complain("look at processes", err)
		return
	}
	roots, keys := map[int]int{}, map[int]string{}
	for _, p := range people {
		roots[p.pid], keys[p.pid] = p.pid, p.key
	}
	for root, pids := range trees(all, roots) {
		c.pids[keys[root]] = pids
	}
}

func (c *census) query(ports []uint16, people []person) streams.Query {
	q := streams.Query{Ports: ports, Closely: map[string]time.Duration{}}
	for _, p := range people {
		q.Processes = append(q.Processes, streams.Process{Key: p.key, PIDs: c.pids[p.key]})
		if s, ok := c.stuck[p.at]; p.close || ok && time.Since(s.since) > p.patience {
			q.Closely[p.key] = p.idle
		}
	}
	return q
}

// share says whose queue each listener's is: that of the newest generation that
// uses it.
func (c *census) share(people []person, queued map[uint64]int) (queues map[place]int, listeners map[place][]sock.Listener) {
	queues, listeners = map[place]int{}, map[place][]sock.Listener{}
	seen := map[place]bool{}
	for _, p := range people {
		at := place{App: p.at.App, Index: p.at.Index}
		if seen[at] {
			continue
		}
		seen[at] = true
		for _, l := range c.h.holder.Listeners(at.App, at.Index) {
			if len(l.Gens) == 0 || !l.Listening {
				continue
			}
			at.Gen = l.Gens[len(l.Gens)-1]
			queues[at] += queued[l.Inode]
			listeners[at] = append(listeners[at], l)
		}
	}
	return queues, listeners
}

// loads are what each listener's process has to carry, by cookie.
func loads(people []person, by map[string]streams.Count, queued map[uint64]int, listeners map[place][]sock.Listener) map[uint64]int {
	r := map[uint64]int{}
	for _, p := range people {
		for _, l := range listeners[p.at] {
			r[l.Cookie] = by[p.key].Streams + queued[l.Inode]
		}
	}
	return r
}

// told gives the counts to those whom they concern.
func (c *census) told(people []person, r streams.Reading, queues map[place]int, began time.Time) {
	counts := map[int]map[int]supervisor.Count{}
	for _, p := range people {
		n := r.By[p.key]
		count := supervisor.Count{Streams: n.Streams + queues[p.at], Live: n.Live, Queue: queues[p.at], Oldest: n.Oldest, Ages: n.Ages, Close: p.close}
		if counts[p.id] == nil {
			counts[p.id] = map[int]supervisor.Count{}
		}
		counts[p.id][p.at.Gen] = count
		select {
		case <-p.attached:
		default:
			continue
		}
		if p.away && c.certain(p, &count, n.Blind, r.Unowned) {
			p.report(supervisor.Fact{Kind: supervisor.Counted, Count: count, Began: began})
		}
		c.suspect(p, n, count, began)
	}
	c.brain.Counted(counts)
	c.forget(people)
}

// certain tells whether a count of nobody can be believed. A connection on its
// way from one process of a tree to another has no owner for a moment, and those
// of a process that may not be looked into never have.
func (c *census) certain(p person, n *supervisor.Count, blind bool, unowned int) bool {
	if n.Live > 0 || unowned == 0 {
		delete(c.empty, p.at)
		return true
	}
	if blind {
		n.Live = unowned
		return true
	}
	was := c.empty[p.at]
	c.empty[p.at] = true
	return was
}

// suspect watches for a queue that does not move: connections wait, and since
// some moment none was accepted and nothing was sent.
func (c *census) suspect(p person, n streams.Count, count supervisor.Count, now time.Time) {
	s, was := c.stuck[p.at]
	moves := count.Queue == 0 || n.New > 0 || was && n.Sent.After(s.since)
	switch {
	case moves && was:
		delete(c.stuck, p.at)
		if s.told {
			p.report(supervisor.Fact{Kind: supervisor.Stalled, Count: count})
		}
	case !moves && !was:
		c.stuck[p.at] = stuck{since: now}
	case !moves && now.Sub(s.since) > p.patience:
		c.stuck[p.at] = stuck{s.since, true}
		p.report(supervisor.Fact{Kind: supervisor.Stalled, Count: count, Stalled: now.Sub(s.since)})
	}
}

// forget drops what was known of processes that are gone.
func (c *census) forget(people []person) {
	dead := func(at place) bool {
		return !slices.ContainsFunc(people, func(p person) bool { return p.at == at })
	}
	maps.DeleteFunc(c.stuck, func(at place, _ stuck) bool { return dead(at) })
	maps.DeleteFunc(c.empty, func(at place, _ bool) bool { return dead(at) })
}

func (c *census) keep(queued map[uint64]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues = queued
}

// queue is how many connections wait at a listener.
func (c *census) queue(inode uint64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues[inode]
}
