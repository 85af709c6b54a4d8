package main

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gpm/examples/sse-app/internal/bus"
)

// The bus is away in the middle of an answer: readers stay connected, and have
// all of it when it is back.
func TestBusAwayInTheMiddle(t *testing.T) {
	m := redisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	one, two := m.writer(t, "1", func(a *app) { a.delay, a.pens.away = leisure, time.Second }), m.writer(t, "2", nil)
	for _, long := range []bool{false, true} {
		g := order(t, one.url, ask("x"))
		l := listenTo(t, g, at(two.url))
		end := make(chan string, 1)
		go func() { end <- l.end() }() // until the answer ends
		wordsOf(t, two.url, g, 3)
		m.stop()
		if long {
			until(t, "the writer has given up", func() bool { return len(one.pens.taken) == 0 })
		}
		resp := do(t, "POST", one.url+"/tickets", ask("x"))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("a question without the bus: %s %v", resp.Status, resp.Header)
		}
		m.back()
		l.complete(<-end, "x")
		if l.connections != 1 {
			t.Errorf("%d connections, want one that stays open", l.connections)
		}
		until(t, "the bus is back for all", func() bool { return one.bus.Up() && two.bus.Up() })
	}
}

// A client that comes while the bus is away is not sent away for good: it is
// held, and asked to come again when the bus is back.
func TestReaderComesWhileTheBusIsAway(t *testing.T) {
	m := redisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	r := m.writer(t, "1", nil)
	g := order(t, r.url, ask("x"))
	until(t, "the answer is finished", func() bool { return stateAt(t, r.url, g).Status == "finished" })
	m.stop()
	until(t, "the bus is missed", func() bool { return !r.bus.Up() })
	l := listenTo(t, g, at(r.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	until(t, "the client is held", func() bool { return r.streams.Load() == 1 })
	m.back()
	l.complete(<-end, "x")
	if len(l.named("reconnect")) == 0 {
		t.Error("it was not asked to come again")
	}
}

// A bus loses its memory, and the writer lives: it writes all of the answer anew.
func TestTheWriterRemembersForTheBus(t *testing.T) {
	m := redisServer(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, two.url, g, 3)
	m.stop()
	m.back()
	l.complete(<-end, "x")
	if l.connections != 1 || len(l.named("takeover")) > 0 {
		t.Errorf("%d connections, taken over %q", l.connections, l.named("takeover"))
	}
}

// Nobody is left who knows the answer: that is told, with an error at the end,
// neither by silence nor by an end that looks like one.
func TestBusLosesItsMemory(t *testing.T) {
	m := redisServer(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer is lost
	wordsOf(t, two.url, g, 3)
	m.stop()
	one.cutoff.come()
	until(t, "the writer is gone", func() bool { return len(one.pens.taken) == 0 })
	m.back()
	if got := <-end; got != "error: generation_lost" || len(l.faults) > 0 || len(l.named("gap")) != 1 {
		t.Errorf("ended with %q after gap %q; %q", got, l.named("gap"), l.faults)
	}
	until(t, "the bus is back", two.bus.Up)
	if got := l.end(); got != "404" {
		t.Errorf("a reconnect got %q", got)
	}
}

// A hole in the log is never passed over.
func TestHoleInAnAnswer(t *testing.T) {
	word := func(i int) bus.Entry {
		return bus.Entry{Index: i, Kind: kindWord, Data: string(mustJSON(token{By: "a:1", Text: "x"}))}
	}
	to := &reader{q: &question{}, chunks: (&question{}).answer(), last: -1, next: 2}
	events, more, hole := to.news([]bus.Entry{word(1), word(2), word(4)})
	if len(events) != 1 || !more || !hole || to.next != 3 {
		t.Errorf("%d events, more %t, hole %t, then %d", len(events), more, hole, to.next)
	}
}

// A bus that has lost only the last moments, as a Redis that was killed between
// two saves: they are written again, and nobody gets them twice.
func TestBusLosesTheLastMoments(t *testing.T) {
	m := redisServer(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, two.url, g, 3)
	o, err := redis.ParseURL(m.url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	if err := c.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	saved := stateAt(t, two.url, g).Tokens
	wordsOf(t, two.url, g, saved+5)
	m.stop()
	m.back()
	l.complete(<-end, "x")
	again := listenTo(t, g, at(two.url))
	again.complete(again.end(), "x")
}
