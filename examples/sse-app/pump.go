package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// errCutoff says that an answer may not go on, because the server leaves.
var errCutoff = errors.New("the server leaves")

// pump sends what produce yields, in pieces as it comes, with heartbeats while
// it is silent. produce runs in a goroutine of its own, because it may wait for
// others and only the handler's goroutine may write; yield blocks until its
// events are on their way, so nothing piles up. When the client leaves, or at
// the cutoff, produce's context ends; pump returns after produce has.
func (s *eventStream) pump(produce func(ctx context.Context, yield func(...event) error) error) error {
	ctx, cancel := context.WithCancel(s.ctx)
	pieces, gone := make(chan []event), make(chan struct{})
	var result error // of produce; to be read when it is gone
	defer func() {
		cancel()
		<-gone
	}()
	go func() { // until produce returns, which it does when ctx ends
		defer close(gone)
		result = produce(ctx, func(piece ...event) error {
			select {
			case pieces <- piece:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for whole := false; ; {
		var err error
		select {
		case piece := <-pieces:
			err = s.send(piece...)
			whole = whole || slices.ContainsFunc(piece, func(e event) bool { return e.data == endMark })
		case <-s.beat.C:
			err = s.comment()
		case <-gone:
			return result
		case <-s.app.cutoff.Done():
			err = errCutoff
		case <-s.ctx.Done():
			err = s.ctx.Err()
		}
		switch {
		case err != nil && whole:
			return nil // nothing belongs after the end mark
		case err != nil:
			return err
		}
	}
}

// chatError is why a chat request has no answer, or no whole one.
type chatError struct {
	status     int
	retryAfter string // what an upstream has said
	fault      *apiError
	cause      error // for the log; clients are not told who stands behind
}

func (e *chatError) Error() string {
	if e.cause != nil {
		return e.fault.Error.Message + " (" + e.cause.Error() + ")"
	}
	return e.fault.Error.Message
}

func (e *chatError) Unwrap() error { return e.cause }

func badGateway(text, code string, cause error) *chatError {
	return &chatError{status: http.StatusBadGateway, fault: serverError(text, code), cause: cause}
}

// explain makes of an error what a client is told, and logs what it is not.
func (a *app) explain(err error) *chatError {
	var e *chatError
	switch {
	case a.cutoff.over(): // that is why, whatever it looks like
		return &chatError{http.StatusServiceUnavailable, "1", restarting(), err}
	case !errors.As(err, &e):
		e = badGateway("The answer could not be finished.", "upstream_interrupted", err)
	}
	if e.cause != nil {
		a.err.Printf("no whole answer: %v", e)
	}
	return e
}

func restarting() *apiError {
	return serverError("The server restarts and could not finish this answer. Ask again.", "server_restarting")
}

// deny answers a request that has not been answered yet with an error.
func (a *app) deny(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there
	}
	e := a.explain(err)
	if e.retryAfter != "" {
		w.Header().Set("Retry-After", e.retryAfter)
	}
	e.fault.write(w, e.status)
}

// lastWord ends an answer that was begun and came to err. After a clean end
// without a word every client library takes half an answer for the whole.
func (s *eventStream) lastWord(err error, chunk func(*apiError) any) {
	if err == nil || s.ctx.Err() != nil {
		return // it is whole, or nobody is there
	}
	s.send(event{data: string(mustJSON(chunk(s.app.explain(err).fault)))})
}

func plainChunk(e *apiError) any { return e }
