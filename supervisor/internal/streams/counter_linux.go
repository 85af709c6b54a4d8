package streams

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Counter counts the streams of processes: one dump of the kernel's sockets for
// all of them, joined by inode with /proc/<pid>/fd. It remembers who has which
// connection, so that the latter is only read when there are new ones. What it
// remembers is bounded by the connections that exist.
//
// It sees the network namespace that it was made in. It is not safe for use by
// several goroutines at once.
type Counter struct {
	conn    *netlink.Conn      // nil after a failure
	streams map[uint64]*stream // by cookie: an inode may be that of another connection tomorrow
	owners  map[string]*owner  // by Process.Key; those of the last Query
	pids    map[int]bool       // of the last Query
	round   uint64             // of Count
}

// stream is an accepted connection.
type stream struct {
	ident
	inode uint64
	since time.Time // when it was first seen
	round uint64    // in which it was last seen
	owner *owner    // nil: nobody that we know
	place place     // where the owner had it
	tries uint8     // searches for an owner that were in vain
	next  uint64    // round of the next search
	activity
}

// owner is a Process while it is in the Query.
type owner struct {
	round uint64 // in which it was last asked for
	idle  time.Duration
	close bool // look closely
	blind bool // it could not be looked into when it was tried last
	count Count
}

// New opens a Counter. It fails with ErrUnsupported where the kernel has no
// tcp_diag, and is to be closed.
func New() (*Counter, error) {
	c := &Counter{streams: map[uint64]*stream{}}
	// Nobody listens on port 0: this only asks whether there is an answer.
	err := c.ask(question{states: allListeners, ports: []uint16{0}}, func(*socket) {})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, errors.Join(ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close closes the Counter's socket.
func (c *Counter) Close() error {
	if c.conn == nil {
		return nil
	}
	conn := c.conn
	c.conn = nil
	return conn.Close()
}

// Count counts. Processes that have ended or may not be looked into are no
// error: their connections are Unowned, unless they were known before. An error
// leaves the Counter as it was: the next call tries again.
func (c *Counter) Count(q Query) (Reading, error) {
	now := time.Now()
	c.round++
	r := Reading{Queued: map[uint64]int{}}
	if len(q.Ports) > 0 {
		states := question{states: allListeners | allStreams, info: len(q.Closely) > 0, ports: sorted(q.Ports)}
		err := c.ask(states, func(s *socket) {
			if s.state == stateListen {
				r.Listeners = append(r.Listeners, s.listener())
				r.Queued[s.inode] = int(s.queue)
			} else if s.inode != 0 {
				// Without an inode it waits in the queue of a listener, or it
				// is what is left of a closed one (FIN_WAIT): nobody has it.
				c.see(s, now)
			}
		})
		if err != nil {
			return Reading{}, fmt.Errorf("count streams: %w", err)
		}
	}
	c.forget()
	newcomers := c.list(q)
	c.attribute(q.Processes, newcomers)
	r.By, r.Unowned = c.sum(q.Processes, now)
	return r, nil
}

// ask is ask with a socket that is opened when it is needed.
func (c *Counter) ask(q question, each func(*socket)) (err error) {
	if c.conn == nil {
		if c.conn, err = dial(); err != nil {
			return err
		}
	}
	if err = ask(c.conn, q, each); err != nil {
		c.Close()
	}
	return err
}

// see notes a connection of the dump.
func (c *Counter) see(s *socket, now time.Time) {
	known := c.streams[s.cookie()]
	if known == nil {
		known = &stream{ident: s.ident, inode: s.inode, since: now}
		c.streams[s.cookie()] = known
	}
	known.round = c.round
	known.activity = s.activity()
}

// forget drops the connections that were not in the dump.
func (c *Counter) forget() {
	for cookie, s := range c.streams {
		if s.round != c.round {
			delete(c.streams, cookie)
		}
	}
}

// list takes over the processes of q and says whether one is new.
func (c *Counter) list(q Query) (newcomers bool) {
	owners, pids := map[string]*owner{}, map[int]bool{}
	for _, p := range q.Processes {
		o := c.owners[p.Key]
		if o == nil {
			o = &owner{}
		}
		idle, ok := q.Closely[p.Key]
		*o = owner{round: c.round, idle: idle, close: ok, blind: o.blind, count: Count{Ages: make([]int, len(Bounds)+1)}}
		owners[p.Key] = o
		for _, pid := range p.PIDs {
			pids[pid] = true
			newcomers = newcomers || !c.pids[pid]
		}
	}
	c.owners, c.pids = owners, pids
	return newcomers
}

// sum gives each owner what it has.
func (c *Counter) sum(processes []Process, now time.Time) (by map[string]Count, unowned int) {
	for _, s := range c.streams {
		if s.owner == nil {
			unowned++
			continue
		}
		s.owner.add(s, now)
	}
	by = make(map[string]Count, len(processes))
	for key, o := range c.owners {
		o.count.Blind = o.blind
		by[key] = o.count
	}
	return by, unowned
}

func (o *owner) add(s *stream, now time.Time) {
	n := &o.count
	n.Streams++
	if s.since.Equal(now) {
		n.New++
	}
	if n.Oldest.IsZero() || s.since.Before(n.Oldest) {
		n.Oldest = s.since
	}
	age, i := now.Sub(s.since), 0
	for i < len(Bounds) && age >= Bounds[i] {
		i++
	}
	n.Ages[i]++
	if !o.close {
		return
	}
	if s.quiet < o.idle {
		n.Live++
	}
	if sent := now.Add(-s.sent); s.ever && sent.After(n.Sent) {
		n.Sent = sent
	}
}
