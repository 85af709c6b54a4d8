package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// lastWords is how long it may take to tell everybody when time is up.
const lastWords = time.Second

// serve answers requests until a signal comes, and then leaves in the order
// that loses nothing. Leaving takes at most a.drain + lastWords; the
// supervisor's timeouts must be longer.
func (a *app) serve(ln *net.TCPListener, signals <-chan os.Signal) error {
	g := a.guests
	srv := &http.Server{
		Handler:           a.handler(),
		ConnState:         g.track,
		ErrorLog:          a.err,
		ReadHeaderTimeout: a.readTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		// No WriteTimeout: it would cut every stream. Each write has its own.
	}
	defer srv.Close()
	defer a.cutoff.come() // whoever works for all clients ends with them
	closed := make(chan error, 1)
	go func() { closed <- srv.Serve(door{ln}) }() // accept loop; ends when the door is closed
	go a.warmUp()                                 // until warm or the cutoff
	select {
	case err := <-closed:
		return fmt.Errorf("accept connections: %w", err)
	case sig := <-signals:
		a.out.Printf("%s: draining %d streams and %d WebSockets, at most %s", sig, a.streams.Load(), a.sockets.Load(), a.drain)
	}

	end := newMoment() // nothing is waited for any longer
	limit := time.AfterFunc(a.drain, a.cutoff.come)
	defer limit.Stop()
	context.AfterFunc(a.cutoff, func() {
		ln.SetDeadline(time.Now())
		time.AfterFunc(lastWords, end.come)
	})
	go func() { // until the process ends
		select {
		case sig := <-signals:
			a.out.Printf("%s again: no more waiting", sig)
			a.cutoff.come()
		case <-end.Done():
		}
	}()
	a.leave(srv, ln, closed, g, end)
	end.come()
	a.out.Printf("drained, pid %d exits", os.Getpid())
	return nil
}

// leave is the way from ready to gone.
func (a *app) leave(srv *http.Server, ln *net.TCPListener, closed <-chan error, g *guests, end moment) {
	// 1. Not ready any more. From here on every answer carries Connection: close,
	// so clients that keep connections open learn it from their next answer.
	a.leaving.come()
	a.tell("STOPPING=1")

	// 2. The port stays open until those who send us clients know, and until all
	// who already stand in the queue are in. Then it closes: new connections go
	// to the siblings, or to the queue of a supervisor who holds the port.
	// http.Server.Shutdown would not do: it drops a request that it has read but
	// not yet given to a handler, and resets who stands in the queue.
	ln.SetDeadline(time.Now().Add(min(a.linger, a.drain)))
	select {
	case <-closed:
	case <-end.Done(): // a flood: they come faster than they are let in
		ln.Close()
		<-closed
	}

	// 3. Endless streams are sent to a sibling; answers run to their end. What is
	// connected without asking anything is closed.
	a.goodbyes.come()
	srv.SetKeepAlivesEnabled(false)

	// 4. At the cutoff (-drain, or a second signal) the rest says so and ends.
	if !g.gone(a.firstWord, end.Done()) {
		a.err.Printf("cut what did not end within %s: %d streams and %d WebSockets", a.drain, a.streams.Load(), a.sockets.Load())
	}
	a.pens.collect(end.Done()) // answers that are read elsewhere, or not now
}

// guests are the open connections.
type guests struct {
	mu       sync.Mutex
	open     map[net.Conn]bool // true: it has sent a request
	speaking int               // how many of them have, and WebSockets
	changed  chan struct{}     // has a value after a change
}

func newGuests() *guests {
	return &guests{open: map[net.Conn]bool{}, changed: make(chan struct{}, 1)}
}

// stay is for who takes a connection away from the server, before he does: the
// guest stays until leave is called.
func (g *guests) stay() (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.speaking++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.speaking--
		g.note()
	}
}

// track is the server's ConnState hook.
func (g *guests) track(c net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateNew:
		g.open[c] = false
	case http.StateActive:
		if !g.open[c] {
			g.open[c] = true
			g.speaking++
		}
	case http.StateClosed, http.StateHijacked: // the server says nothing more of it; see stay
		if g.open[c] {
			g.speaking--
		}
		delete(g.open, c)
	}
	g.note()
}

func (g *guests) note() {
	select {
	case g.changed <- struct{}{}:
	default: // the change before has not been looked at; both will be at once
	}
}

func (g *guests) count() (speaking, silent int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.speaking, len(g.open) - g.speaking
}

// gone waits until all have left; those that have sent nothing yet have
// firstWord to do so. It is false if the end came first and cut somebody.
func (g *guests) gone(firstWord time.Duration, end <-chan struct{}) bool {
	patience := time.After(firstWord)
	patient := true
	for {
		speaking, silent := g.count()
		if speaking == 0 && (silent == 0 || !patient) {
			return true
		}
		select {
		case <-g.changed:
		case <-patience:
			patient = false
		case <-end:
			return speaking == 0
		}
	}
}
