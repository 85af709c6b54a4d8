package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// Link is the daemon's side. Its methods may be called from any goroutine, also
// from within a Handler. They return ErrGone when the keeper is dead.
type Link struct {
	conn *conn
	gone chan struct{} // closed by the reader: no reply comes any more

	mu      sync.Mutex
	last    uint64                  // id of a request
	calls   map[uint64]chan message // that wait for a reply; each takes one
	pending map[uint64]*trap.Trap   // not answered
	events  []event                 // bounded by the keeper's children and traps
	news    chan struct{}           // cap 1: events has grown
}

// event is what Serve hands out.
type event struct {
	exit *Exit
	trap *trap.Trap // nil too: terminate
}

// Connect takes ownership of fd, the daemon's end of the socket (3 in a process
// started by the keeper), and waits up to 10 s for the inventory. One goroutine
// reads from then on, until the keeper is dead or Close.
func Connect(fd int) (*Link, Inventory, error) {
	c, err := newConn(fd)
	if err != nil {
		return nil, Inventory{}, fmt.Errorf("connect to the keeper, which starts the daemon: %w", err)
	}
	h, fds, err := greet(c)
	if err != nil {
		c.close()
		return nil, Inventory{}, fmt.Errorf("connect to the keeper: %w", err)
	}
	inv := Inventory{
		KeeperPID: h.PID, Protocol: h.Protocol, Children: h.Children, Files: make(map[string]*os.File, len(fds)),
		Hold: h.Hold, NoNewPrivs: h.NoNewPrivs, Terminating: h.Terminating, Foreground: h.Foreground, Exe: h.Exe,
	}
	for name, fd := range fds {
		if inv.Files[name], err = quietFile(fd, name); err != nil {
			c.close()
			return nil, Inventory{}, fmt.Errorf("connect to the keeper: %w", err)
		}
	}
	l := &Link{
		conn: c, gone: make(chan struct{}), news: make(chan struct{}, 1),
		calls: map[uint64]chan message{}, pending: map[uint64]*trap.Trap{},
	}
	go l.read()
	return l, inv, nil
}

func greet(c *conn) (hello, map[string]int, error) {
	if err := c.file.SetReadDeadline(time.Now().Add(replyLimit)); err != nil {
		return hello{}, nil, err
	}
	h, fds, err := readHello(c, msgHello)
	if err != nil {
		return hello{}, nil, err
	}
	return h, fds, c.file.SetReadDeadline(time.Time{})
}

// readHello reads a state that is handed over, and its descriptors by name.
func readHello(c *conn, want kind) (hello, map[string]int, error) {
	p, err := c.recv()
	p.close()
	switch {
	case err != nil:
		return hello{}, nil, fmt.Errorf("wait for what is kept: %w", err)
	case p.bad != nil:
		return hello{}, nil, p.bad
	case p.Type != want || p.Hello == nil:
		return hello{}, nil, fmt.Errorf("expect %q, got %q", want, p.Type)
	}
	fds := make(map[string]int, p.Hello.Files)
	for len(fds) < p.Hello.Files {
		f, err := c.recv()
		if err != nil {
			return hello{}, nil, fmt.Errorf("wait for descriptors, %d of %d are here: %w", len(fds), p.Hello.Files, err)
		}
		if f.bad != nil || f.Type != msgFiles || len(f.fds) != len(f.Names) || len(f.fds) == 0 {
			f.close()
			return hello{}, nil, errors.Join(fmt.Errorf("expect descriptors, got %q with %d", f.Type, len(f.Names)), f.bad)
		}
		for i, name := range f.Names {
			fds[name] = f.fds[i]
		}
	}
	return *p.Hello, fds, nil
}

// Close ends the reader; the keeper kills a daemon that does so and lives.
func (l *Link) Close() error { return l.conn.file.Close() }

// read is the reader goroutine.
func (l *Link) read() {
	defer close(l.gone)
	for {
		p, err := l.conn.recv()
		if err != nil {
			return
		}
		if p.bad == nil {
			l.receive(&p)
		}
		p.close()
	}
}

func (l *Link) receive(p *packet) {
	switch p.Type {
	case msgReply:
		l.replied(p.message)
	case msgExit:
		if p.Exit != nil {
			l.queue(event{exit: p.Exit})
		}
	case msgTerminate:
		l.queue(event{})
	case msgTrap:
		fd, err := p.take(0)
		if p.Trap == nil || err != nil {
			closeAll([]int{fd})
			return
		}
		if p.Trap.Socket, err = quietFile(fd, "trapped socket"); err != nil {
			return // no descriptor is free here; the next daemon gets the trap
		}
		l.mu.Lock()
		l.pending[p.Trap.Serial] = p.Trap
		l.mu.Unlock()
		l.queue(event{trap: p.Trap})
	}
}

func (l *Link) queue(e event) {
	l.mu.Lock()
	l.events = append(l.events, e)
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// replied hands a reply to whoever waits for it. A child that nobody waits for
// any more was given up by its caller: it must not live unknown.
func (l *Link) replied(m message) {
	l.mu.Lock()
	c, ok := l.calls[m.ID]
	delete(l.calls, m.ID)
	l.mu.Unlock()
	if ok {
		c <- m
		return
	}
	if m.Child != nil && !m.Child.Adopted {
		if st, err := readStat(m.Child.PID); err == nil && st.start == m.Child.Start {
			_ = unix.Kill(-m.Child.PID, unix.SIGKILL)
		}
	}
}

// Serve calls h for what happens, in order, on the caller's goroutine. It
// returns ErrGone when the keeper is dead, after the last of it. Call it once.
func (l *Link) Serve(h Handler) error {
	for {
		gone := false
		select {
		case <-l.news:
		case <-l.gone:
			gone = true // the reader has ended: events is complete
		}
		l.mu.Lock()
		events := l.events
		l.events = nil
		l.mu.Unlock()
		for _, e := range events {
			switch {
			case e.exit != nil:
				h.Exited(*e.exit)
			case e.trap != nil:
				h.Trapped(e.trap)
			default:
				h.Terminate()
			}
		}
		if gone {
			return ErrGone
		}
	}
}

// call sends a request and waits for its reply.
func (l *Link) call(ctx context.Context, m message, files ...*os.File) (message, error) {
	fds, err := duplicateAll(files)
	if err != nil {
		return message{}, err
	}
	defer closeAll(fds)
	c := make(chan message, 1)
	l.mu.Lock()
	l.last++
	m.ID = l.last
	l.calls[m.ID] = c
	l.mu.Unlock()
	if err := l.conn.send(m, fds); err != nil {
		l.forget(m.ID)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
			err = ErrGone
		}
		return message{}, err
	}
	select {
	case r := <-c:
		return r, r.Failure.error()
	case <-l.gone:
	case <-ctx.Done():
		l.forget(m.ID)
		err = context.Cause(ctx)
	}
	select { // it may have come with the last packets
	case r := <-c:
		return r, r.Failure.error()
	default:
	}
	if err == nil {
		err = ErrGone
	}
	return message{}, err
}

func (l *Link) forget(id uint64) {
	l.mu.Lock()
	delete(l.calls, id)
	l.mu.Unlock()
}

// ask is call with the usual deadline, for requests that the keeper answers at once.
func (l *Link) ask(m message, files ...*os.File) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), replyLimit,
		fmt.Errorf("ask the keeper for %q: no answer within %v", m.Type, replyLimit))
	defer cancel()
	_, err := l.call(ctx, m, files...)
	return err
}
