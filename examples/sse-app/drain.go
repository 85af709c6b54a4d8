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

// longestLinger is how long, after the linger, accepted connections may take to
// send their first request.
const longestLinger = 2 * time.Second

// serve answers requests until a signal comes, and then leaves in the order
// that loses nothing. The whole of it takes at most linger + longestLinger +
// drain + 1 s; the supervisor's kill timeout must be longer.
func (a *app) serve(ln net.Listener, stop <-chan os.Signal) error {
	silent := newcomers{conns: map[net.Conn]struct{}{}}
	srv := &http.Server{
		Handler:           silent.welcome(a.handler()),
		ConnState:         silent.track,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:          a.err,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		// No WriteTimeout: it would cut every stream. Each write has its own.
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }() // accept loop; ends when ln is closed
	select {
	case err := <-failed:
		return fmt.Errorf("accept connections: %w", err)
	case sig := <-stop:
		a.out.Printf("%s: draining %d streams, at most %s", sig, a.streams.Load(), a.drain)
	}

	// 1. No new connections: they go to the siblings. Close only this
	// process's listener; shutdown() on it would hurt whoever shares it.
	a.leaving.Store(true)
	ln.Close()
	<-failed

	// 2. What was accepted a moment ago still has to send its request.
	// http.Server.Shutdown would close such a connection without an answer. On a
	// busy machine that takes long; a client that sends nothing must not.
	<-time.After(a.linger)
	select {
	case <-silent.none():
	case <-time.After(longestLinger):
	}

	// 3. Endless streams are sent to a sibling, answers run to their end.
	close(a.draining)
	srv.SetKeepAlivesEnabled(false)
	limit := time.AfterFunc(a.drain, func() { close(a.cutoff) })
	defer limit.Stop()

	// 4. At the limit the rest says so and ends; one second for that.
	ctx, cancel := context.WithTimeout(context.Background(), a.drain+time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		a.err.Printf("cut what did not end within %s: %d streams", a.drain, a.streams.Load())
		srv.Close()
	}
	a.out.Printf("drained, pid %d exits", os.Getpid())
	return nil
}

// newcomers are the connections that have been accepted and whose first request
// has not reached a handler yet: Shutdown drops a request even after it was
// read, as long as no handler has it.
type newcomers struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	empty chan struct{} // closed when there are none; nil: nobody waits
}

type connKey struct{} // of the net.Conn in a request's context

// track is the server's ConnState hook.
func (n *newcomers) track(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		n.mu.Lock()
		n.conns[c] = struct{}{}
		n.mu.Unlock()
	case http.StateClosed:
		n.forget(c)
	}
}

// welcome tells that a request of a connection has reached a handler.
func (n *newcomers) welcome(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			n.forget(c)
		}
		next.ServeHTTP(w, r)
	})
}

func (n *newcomers) forget(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	if len(n.conns) == 0 && n.empty != nil {
		close(n.empty)
		n.empty = nil
	}
}

// none is closed once there are no newcomers. It is called once, when no more
// can come.
func (n *newcomers) none() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	empty := make(chan struct{})
	if len(n.conns) == 0 {
		close(empty)
	} else {
		n.empty = empty
	}
	return empty
}
