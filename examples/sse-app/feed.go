package main

import (
	"bytes"
	"context"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// maxPiece is how much goes out with one write deadline, or a client on a slow
// line could never get over a long absence.
const maxPiece = 64 << 10

// feed is an endless stream of one client. All of it happens on the handler's
// goroutine: ten thousand idle streams are ten thousand goroutines and no more.
type feed struct {
	*eventStream
	wish
	at          position
	news, inbox *source

	tick  *time.Timer
	pause <-chan time.Time // until something that was pushed may be written again; nil: it may
}

// source is a log that a client follows. A nil one never has anything.
type source struct {
	follower *bus.Follower
	name     string // as a gap calls it
	event    string // the name of its events
	unmarked bool   // something was given to the client and is not marked as seen yet
}

func (a *app) openSource(log, name, event, from string) (*source, error) {
	f, err := a.bus.Follow(log, from)
	if err != nil {
		return nil, err
	}
	return &source{follower: f, name: name, event: event}, nil
}

func (s *source) close() {
	if s != nil {
		s.follower.Close()
	}
}

func (s *source) ready() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.follower.Ready()
}

// run writes until the client leaves (the error) or the server wants it to.
func (f *feed) run() error {
	turn, undo := f.app.turn()
	defer undo()
	f.tick = time.NewTimer(f.app.interval)
	defer f.tick.Stop()
	if !f.ticks {
		f.tick.Stop()
	}
	if err := f.greet(); err != nil {
		return err
	}
	for {
		on, err := f.next(turn.Done())
		if err != nil {
			return err
		}
		if !on {
			return f.send(f.app.goodbye())
		}
	}
}

// next waits for the next thing to do and does it. It is false when the stream
// is to end.
func (f *feed) next(stop <-chan struct{}) (bool, error) {
	news, inbox := f.news.ready(), f.inbox.ready()
	if f.pause != nil {
		news, inbox = nil, nil
	}
	select {
	case <-f.ctx.Done():
		return false, f.ctx.Err()
	case <-stop:
		return false, nil
	case <-f.tick.C:
		f.at.tick++
		f.tick.Reset(f.app.interval)
		return !f.known(), f.send(tick(f.at))
	case <-f.beat.C:
		return !f.known(), f.comment()
	case <-f.pause:
		f.pause = nil
	case <-news:
		return true, f.pass(f.news)
	case <-inbox:
		return true, f.pass(f.inbox)
	}
	return true, nil
}

// known says that a visitor whose cookie could not be read can be told from
// others now: he is to come back as himself. For those who are known already it
// just keeps the bus from forgetting the key.
func (f *feed) known() bool {
	return (f.unsure || f.user != "") && len(f.app.keys(f.ctx)) > 0 && f.unsure
}

// greet says hello, and what there is to say already. The hello has an id if
// there is something to go on from: without it, whoever loses the connection
// before the first event would lose the news until he is back.
func (f *feed) greet() error {
	start := f.at
	var events []event
	for _, s := range f.settled() {
		events = append(events, f.take(s)...)
	}
	if len(events) == 0 {
		start = f.at
	}
	hello := f.app.hello(f.user)
	if f.news != nil || f.inbox != nil {
		hello.id = start.String()
	}
	if err := f.send(hello); err != nil {
		return err
	}
	return f.give(events)
}

// settled waits until the sources stand where they begin, but not for a bus that
// is away or slow.
func (f *feed) settled() (sources []*source) {
	limit := time.NewTimer(f.app.settle)
	defer limit.Stop()
	for _, s := range []*source{f.news, f.inbox} {
		if s == nil || !f.app.bus.Up() {
			continue
		}
		select {
		case <-s.ready():
			sources = append(sources, s)
		case <-limit.C:
			return sources
		case <-f.ctx.Done():
			return sources
		}
	}
	return sources
}

// pass gives the client what has come in a source, and in the other one, too.
func (f *feed) pass(ready *source) error {
	events := f.take(ready)
	for _, s := range []*source{f.news, f.inbox} {
		select {
		case <-s.ready():
			events = append(events, f.take(s)...)
		default:
		}
	}
	return f.give(events)
}

// take asks a source for what has come. If the bus is away there is nothing, and
// it will be ready again.
func (f *feed) take(s *source) (events []event) {
	entries, gap, err := s.follower.Next(f.ctx)
	if err != nil {
		return nil
	}
	cursor := &f.at.news
	if s == f.inbox {
		cursor = &f.at.inbox
	}
	if len(entries) == 0 {
		*cursor = s.follower.Cursor()
	}
	if gap { // before the entries, so it has the position before them
		events = append(events, event{name: "gap", id: f.at.String(), data: string(mustJSON(map[string]string{"log": s.name}))})
	}
	for _, e := range entries {
		*cursor = e.Cursor
		events = append(events, event{name: s.event, id: f.at.String(), data: e.Data})
	}
	s.unmarked = s.unmarked || len(entries) > 0
	return events
}

// give writes the events in as few writes as may be, and marks what was in the
// inbox as seen, once it is out.
func (f *feed) give(events []event) error {
	pushes := 0
	for i, e := range events {
		f.add(e)
		if e.name == "push" {
			pushes++
		}
		if i < len(events)-1 && f.buf.Len() < maxPiece {
			continue
		}
		if err := f.flush(); err != nil {
			return err
		}
	}
	f.app.metrics.delivered.Add(float64(pushes))
	if f.buf.Cap() > maxPiece/2 {
		f.buf = bytes.Buffer{} // most streams are idle most of the time
	}
	if len(events) > 0 && f.app.gap > 0 {
		f.pause = time.After(f.app.gap)
	}
	if f.inbox != nil && f.inbox.unmarked {
		// The client may leave at once: it has got it all the same.
		err := f.inbox.follower.Seen(context.WithoutCancel(f.ctx))
		f.inbox.unmarked = err != nil // then with the next ones, or when the bus is back
	}
	return nil
}
