package main

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"time"
)

// How an endless stream begins and ends. Each has other times than its
// neighbours, or the clients of an instance would come back as one herd.

// turn is done when an endless stream has to end: at its max age, or within
// the spread after the drain began. The caller calls undo when it is over.
func (a *app) turn() (turn context.Context, undo func()) {
	age := time.Duration(math.MaxInt64)
	if a.maxAge > 0 {
		age = between(a.maxAge/5*4, a.maxAge)
	}
	turn, end := context.WithTimeout(a.cutoff, age)
	forget := context.AfterFunc(a.goodbyes, func() { time.AfterFunc(between(0, a.spread), end) })
	return turn, func() { forget(); end() }
}

// hello tells the page whom it is connected to, and as whom: a browser shows an
// EventSource no headers. The wait before a reconnect differs from client to
// client, or all of them would come back in the same millisecond.
func (a *app) hello(user string) event {
	data := struct {
		Instance string  `json:"instance"`
		PID      int     `json:"pid"`
		User     *string `json:"user"`
	}{Instance: a.instance, PID: os.Getpid()}
	if user != "" {
		data.User = &user
	}
	return event{name: "hello", retry: between(time.Second, 3*time.Second), data: string(mustJSON(data))}
}

// goodbye asks the client to come back soon, to a sibling. The clean end after
// it makes an EventSource reconnect by itself, with its Last-Event-ID.
func (a *app) goodbye() event {
	return event{
		name:  "reconnect",
		retry: between(100*time.Millisecond, 2*time.Second),
		data:  string(mustJSON(map[string]string{"instance": a.instance})),
	}
}

// between is a random time, at least low and less than high.
func between(low, high time.Duration) time.Duration {
	return low + rand.N(max(high-low, 1))
}
