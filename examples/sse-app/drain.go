package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// serve answers requests until a signal comes, and then leaves in the order
// that loses nothing. The whole of it takes at most linger + drain + 1 s; the
// supervisor's kill timeout must be longer.
func (a *app) serve(ln net.Listener, stop <-chan os.Signal) error {
	srv := &http.Server{
		Handler:           a.handler(),
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
	// http.Server.Shutdown would close such a connection without an answer.
	<-time.After(a.linger)

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
