package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"
)

// finished is the id of the last event of a stream that ended. A client that
// reconnects with it gets 204, which tells an EventSource to stop.
const finished = "done"

// stream is GET /stream: a numbered message per interval. ?n=5 ends it after
// message 5 with "[DONE]"; Last-Event-ID (or ?last_event_id=) goes on after
// that message, on whichever instance the client arrives.
func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	if ticket := r.URL.Query().Get("ticket"); ticket != "" {
		a.followTicket(w, r, ticket)
		return
	}
	last, seen, err := position(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case seen == finished:
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodHead:
		eventHeaders(w.Header(), r)
		return
	}
	s, err := a.openEvents(w, r)
	if errors.Is(err, errStreaming) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err != nil {
		return // the client is gone already
	}
	defer s.close()
	a.messages(s, last.next, last.limit) // an error means: the client left
}

// messages writes message next, next+1, ... up to limit (0: no limit).
func (a *app) messages(s *eventStream, next, limit uint64) error {
	stop := a.cutoff.Done() // a stream with an end may reach it
	if limit == 0 {
		turn, undo := a.turn()
		defer undo()
		stop = turn.Done()
	}
	if err := s.send(a.hello()); err != nil {
		return err
	}
	for ; limit == 0 || next <= limit; next++ {
		on, err := s.wait(a.interval, stop)
		if err != nil {
			return err
		}
		if !on {
			return s.send(a.goodbye())
		}
		id := strconv.FormatUint(next, 10)
		if err := s.send(event{id: id, data: "ChatGPT says: Hello, this is message " + id}); err != nil {
			return err
		}
	}
	return s.send(event{id: finished, data: "[DONE]"})
}

// turn is done when an endless stream has to end: at its max age, or within
// the spread after the drain began. Each stream has another moment, or the
// clients would come back as one herd. The caller calls undo when it is over.
func (a *app) turn() (turn context.Context, undo func()) {
	age := time.Duration(math.MaxInt64)
	if a.maxAge > 0 {
		age = between(a.maxAge/5*4, a.maxAge)
	}
	turn, end := context.WithTimeout(a.cutoff, age)
	forget := context.AfterFunc(a.goodbyes, func() { time.AfterFunc(between(0, a.spread), end) })
	return turn, func() { forget(); end() }
}

// hello tells the page whom it is connected to: a browser shows an
// EventSource no headers. The wait before a reconnect differs from client to
// client, or all of them would come back in the same millisecond.
func (a *app) hello() event {
	return event{
		name:  "hello",
		retry: between(time.Second, 3*time.Second),
		data:  fmt.Sprintf(`{"instance":%q,"pid":%d}`, a.instance, os.Getpid()),
	}
}

// goodbye asks the client to come back soon, to a sibling. The clean end after
// it makes an EventSource reconnect by itself, with its Last-Event-ID.
func (a *app) goodbye() event {
	return event{
		name:  "reconnect",
		retry: between(100*time.Millisecond, 2*time.Second),
		data:  fmt.Sprintf(`{"instance":%q}`, a.instance),
	}
}

// between is a random time, at least low and less than high.
func between(low, high time.Duration) time.Duration {
	return low + rand.N(max(high-low, 1))
}

// place is where a stream starts and ends.
type place struct{ next, limit uint64 }

// position reads where the client stands. An id that this app never sent is
// refused: taking it for "from the start" would send everything twice.
func position(r *http.Request) (p place, seen string, err error) {
	if n := r.URL.Query().Get("n"); n != "" {
		if p.limit, err = strconv.ParseUint(n, 10, 32); err != nil || p.limit == 0 {
			return p, "", fmt.Errorf("n=%q is not a number of messages", n)
		}
	}
	seen = r.Header.Get("Last-Event-ID") // an EventSource keeps this one up to date
	if seen == "" {
		seen = r.URL.Query().Get("last_event_id")
	}
	if seen == "" || seen == finished {
		p.next = 1
		return p, seen, nil
	}
	last, err := strconv.ParseUint(seen, 10, 53)
	if err != nil {
		return p, "", fmt.Errorf("Last-Event-ID %q is none of this stream", seen)
	}
	if p.limit > 0 && last > p.limit {
		return p, finished, nil
	}
	p.next = last + 1
	return p, seen, nil
}
