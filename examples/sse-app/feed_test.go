package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOnlyChoosesWhatComes(t *testing.T) {
	a, _ := small(t).two(t, func(a *app) { a.interval = time.Millisecond })
	cookie := login(t, a.url, "u")
	for _, tt := range []struct {
		only, cookie string
		status       int
		want         map[string]bool
	}{
		{"", cookie, 200, map[string]bool{"": true, "message": true, "push": true}},
		{"", "", 200, map[string]bool{"": true, "message": true}},
		{"ticks,inbox", cookie, 200, map[string]bool{"": true, "push": true}},
		{"inbox,news", cookie, 200, map[string]bool{"push": true, "message": true}},
		{"news", "", 200, map[string]bool{"message": true}},
		{"inbox", "", 401, nil},
		{"all", cookie, 400, nil},
		{"ticks,,news", cookie, 400, nil},
		{"news&n=5", cookie, 400, nil},
		{"ticks,inbox&n=5", cookie, 400, nil},
	} {
		path := a.url + "/stream?only=" + tt.only
		if tt.only == "" {
			path = a.url + "/stream"
		}
		if tt.status != 200 {
			if resp := do(t, "GET", path, "", "Cookie", tt.cookie); resp.StatusCode != tt.status {
				t.Errorf("only=%s: %s, want %d", tt.only, resp.Status, tt.status)
			}
			continue
		}
		s := tune(t, path, "Cookie", tt.cookie)
		push(t, a.url, "user=u", "x")
		tell(t, a.url, "x")
		got := map[string]bool{}
		for len(got) < len(tt.want) {
			e, err := s.event()
			if err != nil || !tt.want[e.name] {
				t.Fatalf("only=%s gives %+v, %v", tt.only, e, err)
			}
			got[e.name] = true
		}
		s.close()
	}
}

// Nothing is missed between the hello and the first event, nor between two
// connections, whichever event the client saw last.
func TestEveryEventSaysWhereToGoOn(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, func(a *app) { a.interval = time.Millisecond })
		for name, path := range map[string]string{"all": "/stream", "news alone": "/stream?only=news"} {
			s := tune(t, a.url+path)
			s.close() // after nothing but the hello
			tell(t, a.url, "one")
			s = tune(t, b.url+path, "Last-Event-ID", s.last)
			for s.next("message") != news("one") {
				t.Errorf("%s: something came before", name)
			}
			if name == "all" {
				s.next("") // a tick
			}
			s.close()
			tell(t, a.url, "two")
			tell(t, a.url, "three")
			s = tune(t, a.url+path, "Last-Event-ID", s.last)
			if two, three := s.next("message"), s.next("message"); two != news("two") || three != news("three") {
				t.Errorf("%s: went on with %s, %s", name, two, three)
			}
			s.close()
		}
	})
}

// next reads up to the next event of that name.
func (s *tuned) next(name string) string {
	s.t.Helper()
	for {
		e, err := s.event()
		if err != nil {
			s.t.Fatalf("%q is due: %v", name, err)
		}
		if e.name == name {
			return e.data
		}
	}
}

func TestMalformedPositionsAreRefused(t *testing.T) {
	a, _ := small(t).two(t, nil)
	cookie := login(t, a.url, "u")
	for _, id := range []string{"-1", "5~", "5~x~", "5~start~", "5~~u:0", "5~~u:unseen", "1~2~3", "5~n1~u:n1~"} {
		resp := do(t, "GET", a.url+"/stream", "", "Last-Event-ID", id, "Cookie", cookie)
		if resp.StatusCode != 400 {
			t.Errorf("%q: %s", id, resp.Status)
		}
	}
}

// A position in alice's inbox says nothing about bob's: he gets what he has not
// seen, though the page that he logged in on goes on after her last event.
func TestAnotherInboxBeginsWhereItsOwnerWas(t *testing.T) {
	a, _ := small(t).two(t, nil)
	alice, bob := login(t, a.url, "alice"), login(t, a.url, "bob")
	push(t, a.url, "user=bob", "for bob")
	push(t, a.url, "user=alice", "for alice")
	s := tune(t, a.url+"/stream", "Cookie", alice)
	s.hears("push")
	again := tune(t, a.url+"/stream", "Cookie", bob, "Last-Event-ID", s.last)
	if got := again.hears("push"); got != "for bob" {
		t.Errorf("bob got %q", got)
	}
}

// A client that loses its connection again and again, and comes back to either
// instance, gets everything once and in order, while more comes in.
func TestReconnectsLoseAndRepeatNothing(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		const count = 300
		a, b := m.two(t, func(a *app) { a.interval = time.Millisecond })
		cookie := login(t, a.url, "u")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		published := make(chan error, 1)
		go func() { // until all are out
			for i := range count {
				if ok, err := tryPush(ctx, a.url, "u", strconv.Itoa(i)); !ok {
					published <- fmt.Errorf("push %d: %v", i, err)
					return
				}
			}
			published <- nil
		}()
		last := ""
		for i, connection := 0, 0; i < count; connection++ {
			s := tune(t, []string{a.url, b.url}[connection%2]+"/stream", "Cookie", cookie, "Last-Event-ID", last)
			s.last = last
			for range 20 { // then the connection is lost
				e, err := s.event()
				if err != nil {
					t.Fatal(err)
				}
				if e.name != "push" {
					continue
				}
				if e.data != strconv.Itoa(i) {
					t.Fatalf("got %q, want %d, on connection %d after %q", e.data, i, connection, last)
				}
				i++
			}
			last = s.last
			s.close()
		}
		if err := <-published; err != nil {
			t.Error(err)
		}
	})
}

// Clients that never read are dropped; neither the publisher nor anybody else
// waits for them.
func TestSlowReadersHoldNobody(t *testing.T) {
	const count, size = 100, 60 << 10 // more than the sockets on the way take from who does not read
	// Nor is one dropped that reads, on a machine that stands still for a moment.
	a, b := small(t).two(t, func(a *app) { a.writeTimeout = 3 * time.Second })
	cookie := login(t, a.url, "u")
	for range 5 {
		c := dial(t, b.url)
		fmt.Fprintf(c.conn, "GET /stream HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cookie)
	}
	until(t, "the slow are connected", func() bool { return b.streams.Load() == 5 })
	s := tune(t, b.url+"/stream", "Cookie", cookie)
	got := make(chan error, 1)
	go func() { // until all have come
		for i := range count {
			if e, err := s.event(); err != nil || e.name != "push" || !strings.HasPrefix(e.data, fmt.Sprint(i, " ")) {
				got <- fmt.Errorf("%d is due, got %.20q %.20q, %v", i, e.name, e.data, err)
				return
			}
		}
		got <- nil
	}()
	rest := strings.Repeat("x", size)
	for i := range count {
		push(t, a.url, "user=u", fmt.Sprint(i, " ", rest))
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	until(t, "the slow are dropped", func() bool { return b.streams.Load() == 1 })
}

// With -gap, what comes in a hurry goes out in few writes, and all of it.
func TestGapCollects(t *testing.T) {
	const gap, count = 100 * time.Millisecond, 200
	a, b := small(t).two(t, func(a *app) { a.gap = gap })
	c := dial(t, b.url)
	fmt.Fprintf(c.conn, "GET /stream?only=news HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	for !strings.Contains(c.chunk(), "event: hello") {
	}
	start := time.Now()
	published := make(chan error, 1)
	go func() { // until all are out
		for i := range count {
			resp, err := http.Post(a.url+"/send_message", "text/plain", strings.NewReader(strconv.Itoa(i)))
			if err != nil {
				published <- err
				return
			}
			resp.Body.Close()
		}
		published <- nil
	}()
	writes, next := 0, 0
	for next < count {
		piece := c.chunk()
		for _, data := range dataOf(t, piece) {
			if data != news(strconv.Itoa(next)) {
				t.Fatalf("%d is due, got %s", next, data)
			}
			next++
			if next == count {
				break
			}
		}
		writes++
	}
	if most := int(time.Since(start)/gap) + 2; writes > most {
		t.Errorf("%d writes in %s, with a gap of %s", writes, time.Since(start), gap)
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

// chunk reads what the server wrote at once.
func (c *client) chunk() string {
	c.t.Helper()
	line, err := c.br.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(c.br, b); err != nil {
		c.t.Fatal(err)
	}
	return string(b[:size])
}

// flood pushes 0, 1, 2, ... to u, each again until it is taken, as a publisher
// does that knows Retry-After. stop ends it and says how many were taken.
func flood(t *testing.T, url string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	count, over := 0, make(chan error, 1)
	go func() { // until stop
		for ctx.Err() == nil {
			ok, err := tryPush(ctx, url, "u", strconv.Itoa(count))
			if err != nil && ctx.Err() == nil {
				over <- err
				return
			}
			if ok {
				count++
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond): // a moderate one
			}
		}
		over <- nil
	}()
	return func() int {
		t.Helper()
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		return count
	}
}

// The bus dies under load and comes back with all it knew: the streams go on,
// publishers are told, and what was taken arrives, once and in order.
func TestBusComesBackWithItsMemory(t *testing.T) {
	m := redisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b := m.two(t, func(a *app) { a.interval = time.Millisecond })
	s := tune(t, b.url+"/stream", "Cookie", login(t, a.url, "u"))
	stop := flood(t, a.url)
	next := 0
	more := func() { // reads up to the next push
		t.Helper()
		for {
			e, err := s.event()
			if err != nil || e.name == "gap" || e.name == "push" && e.data != strconv.Itoa(next) {
				t.Fatalf("push %d is due, got %+v, %v", next, e, err)
			}
			if e.name == "push" {
				next++
				return
			}
		}
	}
	more()
	m.stop()
	until(t, "it is missed", func() bool { return !a.bus.Up() && !b.bus.Up() })
	awayFor(t, a.url)
	s.next("") // a tick
	tune(t, a.url+"/stream").next("")
	m.back()
	until(t, "it is found", func() bool { return a.bus.Up() && b.bus.Up() })
	for range 50 {
		more()
	}
	for count := stop(); next < count; {
		more()
	}
}

// awayFor checks what publishers are told.
func awayFor(t *testing.T, url string) {
	t.Helper()
	for _, path := range []string{"/push?user=v", "/send_message"} {
		resp := do(t, "POST", url+path, "x")
		if body := read(t, resp.Body); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, "down") {
			t.Errorf("%s while the bus is away: %s, Retry-After %q, %s", path, resp.Status, resp.Header.Get("Retry-After"), body)
		}
	}
}

// A bus that comes back without its memory has lost what nobody had read: the
// clients are told, for both logs, and get what comes then.
func TestBusComesBackWithoutItsMemory(t *testing.T) {
	m := redisServer(t)
	a, b := m.two(t, func(a *app) { a.interval = time.Millisecond })
	cookie := login(t, a.url, "u")
	s := tune(t, b.url+"/stream", "Cookie", cookie)
	stop := flood(t, a.url)
	s.next("push")
	m.stop()
	until(t, "it is missed", func() bool { return !a.bus.Up() && !b.bus.Up() })
	s.next("")
	m.back()
	told := map[string]bool{}
	for len(told) < 2 {
		told[s.next("gap")] = true
	}
	if !told[`{"log":"news"}`] || !told[`{"log":"inbox"}`] {
		t.Errorf("gaps of %v", told)
	}
	until(t, "it is found", func() bool { return a.bus.Up() && b.bus.Up() })
	stop()
	push(t, a.url, "user=u", "the end")
	for s.next("push") != "the end" {
	}
	tell(t, a.url, "the end")
	again := tune(t, a.url+"/stream", "Cookie", cookie, "Last-Event-ID", s.last)
	if got := again.next("message"); got != news("the end") {
		t.Errorf("after the gap and a reconnect: %s", got)
	}
	if got := who(t, b.url, cookie); got != `{"user":"u"}` {
		t.Errorf("the cookie from before is %s", got)
	}
}

// A bus that hangs holds no stream up: not those that are open, nor new ones.
func TestBusThatHangs(t *testing.T) {
	m := redisServer(t)
	a, b := m.two(t, func(a *app) { a.interval, a.settle = time.Millisecond, 100*time.Millisecond })
	cookie := login(t, a.url, "u")
	s := tune(t, b.url+"/stream", "Cookie", cookie)
	push(t, a.url, "user=u", "one")
	s.next("push")
	m.send(syscall.SIGSTOP)
	for range 100 {
		s.next("") // a tick
	}
	resp := do(t, "POST", a.url+"/push?user=u&id=two", "two")
	if body := read(t, resp.Body); resp.StatusCode != 503 || !strings.Contains(body, `"id":"two"`) {
		t.Errorf("push: %s %s", resp.Status, body)
	}
	late := tune(t, b.url+"/stream", "Cookie", cookie)
	late.next("")
	m.send(syscall.SIGCONT)
	until(t, "it is found", func() bool { return a.bus.Up() && b.bus.Up() })
	push(t, a.url, "user=u&id=two", "two") // it may have been taken the first time
	push(t, a.url, "user=u", "three")
	if two, three := s.next("push"), s.next("push"); two != "two" || three != "three" {
		t.Errorf("the first stream got %q, %q", two, three)
	}
	// The new one begins with what was unseen when the bus was there again.
	for late.next("push") != "three" {
	}
}

// A stream is the server's two goroutines for a connection, and none of ours.
func TestStreamsHaveNoGoroutinesOfTheirOwn(t *testing.T) {
	const count = 100
	a, b := small(t).two(t, nil)
	cookie := login(t, a.url, "u")
	push(t, a.url, "user=u", "x")
	tune(t, b.url+"/stream", "Cookie", cookie).hears("push") // all that is made once is there
	base := runtime.NumGoroutine()
	for range count {
		c := dial(t, b.url)
		fmt.Fprintf(c.conn, "GET /stream HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cookie)
		nextLine(t, c.br, "event: hello")
	}
	if n := runtime.NumGoroutine() - base; n > 2*count+10 {
		t.Errorf("%d goroutines for %d streams", n, count)
	}
}

// Whoever comes with a cookie to a process that has never reached the bus is
// not refused, as an EventSource would not come back. He is nobody until the
// process knows its key, and then he is asked to come back.
func TestCookieBeforeTheBusIsThere(t *testing.T) {
	m := redisServer(t)
	a, _ := m.two(t, nil)
	cookie := login(t, a.url, "u")
	away := &meeting{url: "redis://127.0.0.1:1"}
	b := away.instance(t, "5", func(a *app) { a.interval = time.Millisecond })
	if resp := do(t, "POST", b.url+"/login", `{"user":"u"}`, "Content-Type", "application/json"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("login: %s", resp.Status)
	}
	streams := []*tuned{tune(t, b.url+"/stream", "Cookie", cookie), tune(t, b.url+"/stream?user=u", "Cookie", cookie)}
	for _, s := range streams {
		s.next("")
	}
	if got := who(t, b.url, cookie); got != `{"user":null}` {
		t.Errorf("he is %s", got)
	}
	away.move(m.url)
	for _, s := range streams {
		s.next("reconnect")
	}
	if got := who(t, b.url, cookie); got != `{"user":"u"}` {
		t.Errorf("he is %s now", got)
	}
}

// In a drain the followers go with their streams.
func TestDrainEndsFeeds(t *testing.T) {
	m := small(t)
	a, b := m.two(t, nil)
	cookie := login(t, a.url, "u")
	s := tune(t, b.url+"/stream", "Cookie", cookie)
	b.leave()
	s.hears("reconnect")
	if _, err := s.event(); !errors.Is(err, io.EOF) {
		t.Errorf("after the goodbye: %v", err)
	}
	b.ended(t)
	push(t, a.url, "user=u", "meanwhile")
	s = tune(t, a.url+"/stream", "Cookie", cookie, "Last-Event-ID", s.last)
	if got := s.hears("push"); got != "meanwhile" {
		t.Errorf("got %q", got)
	}
	until(t, "only one listens", func() bool { return m.listeners(t, "user:u") == 1 })
}

// HTTP/2 has no Connection header; a client may refuse the whole answer for it.
func TestNoConnectionHeaderOnHTTP2(t *testing.T) {
	a := newApp(config{interval: time.Millisecond, instance: "3"})
	a.out = start(t, nil).out // discards
	a.warm.come()
	srv := httptest.NewUnstartedServer(a.handler())
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	t.Cleanup(a.cutoff.come)
	resp, err := srv.Client().Get(srv.URL + "/stream?n=3")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body := read(t, resp.Body); resp.ProtoMajor != 2 || resp.Header.Get("Connection") != "" || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%s, Connection %q, %q", resp.Proto, resp.Header.Get("Connection"), body)
	}
}
