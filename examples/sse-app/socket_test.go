package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// speaker is a client of the chat.
type speaker struct {
	t    *testing.T
	conn *websocket.Conn
}

// enter connects to the chat. The test's end closes it.
func enter(t *testing.T, url string, headers ...string) *speaker {
	t.Helper()
	conn, resp, err := tryEnter(t, url, headers...)
	if err != nil {
		t.Fatalf("%v (%v)", err, resp)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return &speaker{t, conn}
}

func tryEnter(t *testing.T, url string, headers ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return websocket.Dial(ctx, url+"/ws", &websocket.DialOptions{HTTPHeader: h, HTTPClient: &http.Client{Transport: &http.Transport{}}})
}

func (s *speaker) says(kind websocket.MessageType, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.conn.Write(ctx, kind, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// next is what it hears, or the error that ended it.
func (s *speaker) next() (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_, text, err := s.conn.Read(ctx)
	return string(text), err
}

// hears reads the next message, which is to be this one.
func (s *speaker) hears(want string) {
	s.t.Helper()
	if got, err := s.next(); err != nil || got != want {
		s.t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

// sentAway waits for the server to close it, with this code.
func (s *speaker) sentAway(code websocket.StatusCode) {
	s.t.Helper()
	for {
		if text, err := s.next(); err != nil {
			if got := websocket.CloseStatus(err); got != code {
				s.t.Errorf("closed with %v, want %d", err, code)
			}
			return
		} else if !strings.HasSuffix(text, echoed) {
			s.t.Errorf("heard %q", text)
		}
	}
}

// handshake opens a WebSocket of which the test has the bare connection.
func handshake(t *testing.T, url string) *client {
	t.Helper()
	c := dial(t, url)
	c.conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprint(c.conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return c
}

func TestChatReachesEverybodyOnce(t *testing.T) {
	r := start(t, nil)
	var all []*speaker
	for range 5 {
		all = append(all, enter(t, r.url))
	}
	all[0].says(websocket.MessageText, "hello")
	for _, s := range all {
		s.hears("hello--返回数据")
	}
	for i, s := range all {
		s.says(websocket.MessageText, fmt.Sprintf("%d, 你好", i))
		for _, other := range all { // what it hears next is this, not "hello" once more
			other.hears(fmt.Sprintf("%d, 你好--返回数据", i))
		}
	}
}

func TestChatRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		kind  websocket.MessageType
		text  string
		times int
		code  websocket.StatusCode
	}{
		"binary":       {websocket.MessageBinary, "x", 1, 1003},
		"not UTF-8":    {websocket.MessageText, "a\xff", 1, 1007},
		"too long":     {websocket.MessageText, strings.Repeat("x", longestSaid+1), 1, 1009},
		"too many":     {websocket.MessageText, "x", 1000, 1008},
		"just so long": {websocket.MessageText, strings.Repeat("x", longestSaid), 1, 0},
		"just so many": {websocket.MessageText, "x", speakBurst, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			other := enter(t, r.url)
			s := enter(t, r.url)
			for range tt.times {
				if s.conn.Write(t.Context(), tt.kind, []byte(tt.text)) != nil {
					break // refused already
				}
			}
			if tt.code != 0 {
				s.sentAway(tt.code)
			} else {
				for range tt.times {
					other.hears(tt.text + echoed)
				}
			}
			until(t, "it is counted", func() bool { return tt.code == 0 || r.sockets.Load() == 1 })
			other.says(websocket.MessageText, "still here")
			for {
				if text, err := other.next(); err != nil {
					t.Fatal(err)
				} else if text == "still here"+echoed {
					break
				}
			}
		})
	}
}

func TestAllowanceComesBack(t *testing.T) {
	var a allowance
	now := time.Now()
	for range speakBurst {
		if !a.take(now) {
			t.Fatal("less than a burst")
		}
	}
	if a.take(now) {
		t.Error("more than a burst")
	}
	if now = now.Add(time.Second / speakRate); !a.take(now) || a.take(now) {
		t.Error("what comes back is not one message in a twentieth of a second")
	}
}

func TestChatAsksForTheOrigin(t *testing.T) {
	r := start(t, func(a *app) { a.origins = []string{"https://chat.example", "http://[::1]:3000"} })
	for origin, want := range map[string]bool{
		"": true, r.url: true, "https://chat.example": true, "http://[::1]:3000": true,
		"http://chat.example": false, "https://evil.example": false, "https://chat.example.evil.example": false, "null": false,
	} {
		var headers []string
		if origin != "" {
			headers = []string{"Origin", origin}
		}
		conn, resp, err := tryEnter(t, r.url, headers...)
		if err == nil {
			conn.CloseNow()
		}
		if (err == nil) != want || !want && resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %v", origin, resp.Status)
		}
	}
	if resp := do(t, "GET", r.url+"/ws", ""); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: %s", resp.Status)
	}
}

// Opening, leaving and being lost are written down, and the gauge follows.
func TestChatNotesWhoComesAndGoes(t *testing.T) {
	out, errs := make(chan string, 10_000), make(chan string, 10_000) // each look at the metrics is a line
	r := start(t, func(a *app) {
		a.out, a.err = log.New(lineWriter(out), "", 0), log.New(lineWriter(errs), "", 0)
	})
	open := func() string { return metric(t, r.url, `sse_app_open_streams{kind="socket"}`) }
	says := func(lines chan string, want string) {
		t.Helper()
		for {
			select {
			case line := <-lines:
				if strings.Contains(line, want) {
					return
				}
			case <-time.After(patience):
				t.Fatalf("nobody says %q", want)
			}
		}
	}
	polite := enter(t, r.url)
	says(out, "is here")
	polite.conn.Close(websocket.StatusNormalClosure, "")
	says(out, "left: 1000")

	cut := handshake(t, r.url)
	says(out, "is here")
	until(t, "one is open", func() bool { return open() == "1" }) // it drops after the line of the first
	cut.conn.(*net.TCPConn).SetLinger(0)                          // a reset, as of a process that was killed
	cut.conn.Close()
	says(errs, "lost 127.0.0.1:")
	until(t, "the gauge drops", func() bool { return open() == "0" })
	if n := metric(t, r.url, `sse_app_client_disconnects_total{kind="socket"}`); n != "2" {
		t.Errorf("%s have left", n)
	}
	hello := enter(t, r.url)
	hello.says(websocket.MessageText, "hello")
	hello.hears("hello" + echoed)
}

// A connection whose other end was unplugged says nothing, and answers no ping.
func TestDeadPeerIsFound(t *testing.T) {
	r := start(t, func(a *app) { a.ping, a.writeTimeout = 20*time.Millisecond, 50*time.Millisecond })
	handshake(t, r.url) // and never reads again
	until(t, "it is gone", func() bool { return metric(t, r.url, `sse_app_client_disconnects_total{kind="socket"}`) == "1" })
	until(t, "nobody is left", func() bool { return r.sockets.Load() == 0 })
}

func TestLivingPeerIsKept(t *testing.T) {
	r := start(t, func(a *app) { a.ping = 10 * time.Millisecond })
	c := handshake(t, r.url)
	for range 20 {
		ping := make([]byte, 2)
		if _, err := io.ReadFull(c.br, ping); err != nil || ping[0] != 0x89 || ping[1] > 2 {
			t.Fatalf("frame % x, %v", ping, err)
		}
		payload := make([]byte, ping[1])
		io.ReadFull(c.br, payload)
		c.conn.Write(append([]byte{0x8a, 0x80 | ping[1], 0, 0, 0, 0}, payload...)) // masked with zeros
	}
	if r.sockets.Load() != 1 {
		t.Error("it was sent away")
	}
}

// A client that does not read is dropped at the write deadline; the others hear
// every message.
func TestSlowListenerIsDroppedAndOthersAreNot(t *testing.T) {
	r := start(t, func(a *app) { a.writeTimeout = 3 * time.Second }) // busy ones, too, are to read within it
	handshake(t, r.url)                                              // and never reads again
	other, speaker := enter(t, r.url), enter(t, r.url)
	until(t, "all are in the room", func() bool { return r.sockets.Load() == 3 })
	long := strings.Repeat("x", longestSaid)
	for range speakBurst {
		speaker.says(websocket.MessageText, long)
		speaker.hears(long + echoed)
		other.hears(long + echoed)
	}
	until(t, "it is gone", func() bool { return r.sockets.Load() == 2 })
	if n := metric(t, r.url, `sse_app_slow_clients_total{kind="socket"}`); n != "1" {
		t.Errorf("%s slow clients are counted", n)
	}
	speaker.says(websocket.MessageText, "hello")
	other.hears("hello" + echoed)
}

// A client that reads, but less than is said, is told that it lost something.
func TestListenerThatFallsBehindIsSentAway(t *testing.T) {
	a := newApp(config{})
	a.out, a.err = log.New(io.Discard, "", 0), log.New(io.Discard, "", 0)
	hall := newRoom(nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.socket(w, r, hall) }))
	defer srv.Close()
	s := enter(t, srv.URL)
	until(t, "it sits", func() bool { hall.mu.Lock(); defer hall.mu.Unlock(); return len(hall.seats) == 1 })
	hall.mu.Lock()
	hall.next += roomMemory // all of this at once: it has read nothing of it
	hall.mu.Unlock()
	hall.hear("one more")
	s.sentAway(1013)
	until(t, "its seat is free", func() bool { hall.mu.Lock(); defer hall.mu.Unlock(); return len(hall.seats) == 0 })
}

func TestRoomRemembers(t *testing.T) {
	hall := newRoom(nil)
	hall.hear("before")
	s := hall.sit()
	if text, ok, err := s.message(); ok || err != nil {
		t.Errorf("a new seat heard %q, %v", text, err)
	}
	for i := range roomMemory {
		hall.hear(fmt.Sprint(i))
	}
	for i := range roomMemory {
		<-s.ready // as long as something is left, it says so
		if text, ok, err := s.message(); !ok || err != nil || text != fmt.Sprint(i) {
			t.Fatalf("message %d is %q, %v", i, text, err)
		}
	}
	for range roomMemory + 1 {
		hall.hear("too much")
	}
	if _, _, err := s.message(); err != errMissed {
		t.Errorf("of too many messages it missed none: %v", err)
	}
}

// A process that leaves sends its WebSockets to a sibling, and waits for them.
func TestSocketsAreTold(t *testing.T) {
	p := launch(t, "-linger", "1ms", "-spread", "1ms", "-drain", "1h")
	var all []*speaker
	for range 20 {
		all = append(all, enter(t, p.url))
	}
	p.signal(syscall.SIGTERM)
	for _, s := range all {
		s.sentAway(1012)
	}
	p.ended(t)
}

func TestDrainWaitsForSockets(t *testing.T) {
	p := launch(t, "-linger", "1ms", "-spread", "24h", "-drain", "24h")
	s := enter(t, p.url)
	s.says(websocket.MessageText, "hello")
	s.hears("hello" + echoed)
	p.signal(syscall.SIGTERM)
	p.refuses(t)
	for range 10 { // the port is closed, the chat goes on
		s.says(websocket.MessageText, "still here")
		s.hears("still here" + echoed)
	}
	p.signal(syscall.SIGTERM) // no more waiting
	s.sentAway(1012)
	p.ended(t)
}

// Nobody holds the process longer than -drain and what it takes to say so, not
// even a client that does not answer.
func TestDrainCutsSocketsThatDoNotAnswer(t *testing.T) {
	r := start(t, func(a *app) {
		a.spread, a.drain, a.writeTimeout = 24*time.Hour, 50*time.Millisecond, 24*time.Hour
	})
	c := handshake(t, r.url)
	until(t, "it is in the room", func() bool { return r.sockets.Load() == 1 })
	r.leave()
	r.ended(t)
	until(t, "no WebSocket is left", func() bool { return r.sockets.Load() == 0 })
	frame := make([]byte, 4)
	if _, err := io.ReadFull(bufio.NewReader(c.br), frame); err != nil || frame[0] != 0x88 || int(frame[2])<<8|int(frame[3]) != 1012 {
		t.Errorf("frame % x, %v, want a close with 1012", frame, err)
	}
}

func TestSocketsHaveAMaxAge(t *testing.T) {
	r := start(t, func(a *app) { a.maxAge = time.Millisecond })
	enter(t, r.url).sentAway(1001)
}

// oneRoom waits until all instances hear the room, which is some time after the
// bus has their subscription: each stands where the log ended when it looked.
// What is said for that has been heard by all when it returns.
func oneRoom(t *testing.T, instances ...*running) {
	t.Helper()
	var all []*speaker
	last := ""
	for i, r := range instances {
		last = fmt.Sprintf("%d is here", i)
		until(t, last, func() bool {
			s := enter(t, r.url)
			s.says(websocket.MessageText, last)
			all = append(all, s)
			return s.waits(last) == nil
		})
	}
	for i, s := range all {
		if i < len(all)-1 { // the last one has said it, and heard it
			s.waits(last)
		}
		s.conn.CloseNow()
	}
}

// waits reads up to a message, or to the error that came before it.
func (s *speaker) waits(want string) error {
	for {
		if got, err := s.next(); err != nil || got == want+echoed {
			return err
		}
	}
}

// Two instances, one room: everybody on both hears everything, once.
func TestChatReachesOtherInstances(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		oneRoom(t, a, b)
		on := []*speaker{enter(t, a.url), enter(t, a.url), enter(t, b.url), enter(t, b.url)}
		for i, s := range on {
			says := fmt.Sprintf("hello from %d", i)
			s.says(websocket.MessageText, says)
			for _, other := range on {
				other.hears(says + "--返回数据")
			}
		}
	})
}

// While the bus is away a message reaches nobody, and who sent it is told; who
// only listens stays, and hears what is said afterwards.
func TestChatWithoutItsBus(t *testing.T) {
	m := redisServer(t)
	a, b := m.two(t, nil)
	oneRoom(t, a, b)
	listens, speaks := enter(t, a.url), enter(t, b.url)
	speaks.says(websocket.MessageText, "before")
	speaks.hears("before" + echoed)
	listens.hears("before" + echoed)
	m.stop()
	until(t, "the bus is away", func() bool { return !b.bus.Up() })
	speaks.says(websocket.MessageText, "lost")
	speaks.sentAway(1013)
	m.back()
	again := enter(t, b.url)
	until(t, "the bus is there", func() bool { return a.bus.Up() && b.bus.Up() && m.listeners(t, chatLog) == 2 })
	again.says(websocket.MessageText, "after")
	again.hears("after" + echoed)
	listens.hears("after" + echoed)
}
