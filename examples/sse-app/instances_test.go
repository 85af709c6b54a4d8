package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"gpm/examples/sse-app/internal/bus"
)

// meeting is the bus of a test: where its instances meet.
type meeting struct {
	mu   sync.Mutex
	url  string
	stop func() // it is gone, without a word
	back func() // it is there again, on the same port
	send func(syscall.Signal)
}

// everyBus runs a test with each server that the app is used with.
func everyBus(t *testing.T, test func(t *testing.T, m *meeting)) {
	t.Run("miniredis", func(t *testing.T) { test(t, small(t)) })
	t.Run("redis", func(t *testing.T) { test(t, redisServer(t)) })
}

// small is the server that sse-bus runs.
func small(t testing.TB) *meeting {
	t.Helper()
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return &meeting{url: "redis://" + m.Addr()}
}

// redisServer is a Redis process. With flags it keeps what it is told to.
func redisServer(t testing.TB, flags ...string) *meeting {
	t.Helper()
	port := reserved(t)
	m := &meeting{url: "redis://127.0.0.1:" + port}
	dir := t.TempDir()
	var cmd *exec.Cmd
	m.stop = func() {
		if cmd != nil {
			cmd.Process.Kill()
			cmd.Wait()
			cmd = nil
		}
	}
	m.back = func() {
		cmd = exec.Command("redis-server", append([]string{"--bind", "127.0.0.1", "--port", port, "--save", ""}, flags...)...)

		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	m.send = func(sig syscall.Signal) { cmd.Process.Signal(sig) }
	t.Cleanup(func() { m.stop() })
	m.back()
	return m
}

// reserved is a port of the loopback that nobody else gets by chance until the end
// of the test, also while the server on it is dead: it is bound, and as nobody
// listens there, who names it may bind it, too.
func reserved(t testing.TB) (port string) {
	t.Helper()
	syscall.ForkLock.RLock() // no process is to be started with it
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(at.(*syscall.SockaddrInet4).Port)
}

func (m *meeting) where() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.url, nil
}

// move changes where the instances look for the bus.
func (m *meeting) move(url string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.url = url
}

// instance is one of the app's processes, as far as the others can tell.
func (m *meeting) instance(t *testing.T, name string, change func(*app)) *running {
	t.Helper()
	b, err := bus.Open(bus.Options{URL: m.where})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) // after the app's end
	return start(t, func(a *app) {
		a.bus, a.instance, a.interval, a.settle = b, name, time.Hour, patience
		if change != nil {
			change(a)
		}
	})
}

// two are instances that both reach the bus.
func (m *meeting) two(t *testing.T, change func(*app)) (a, b *running) {
	t.Helper()
	a, b = m.instance(t, "0", change), m.instance(t, "1", change)
	until(t, "the bus is there", func() bool { return a.bus.Up() && b.bus.Up() })
	return a, b
}

// listeners are how many processes listen to a channel.
func (m *meeting) listeners(t *testing.T, channel string) int64 {
	t.Helper()
	o, err := redis.ParseURL(m.url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	n, err := c.PubSubNumSub(t.Context(), channel).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n[channel]
}

// tuned is a client of a stream: it reads event by event.
type tuned struct {
	t    *testing.T
	resp *http.Response
	br   *bufio.Reader
	last string // id of the last event
}

// tune opens a stream and reads the hello.
func tune(t *testing.T, url string, headers ...string) *tuned {
	t.Helper()
	resp := do(t, "GET", url, "", headers...)
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %s %s", url, resp.Status, read(t, resp.Body))
	}
	s := &tuned{t: t, resp: resp, br: bufio.NewReader(resp.Body)}
	s.hears("hello")
	return s
}

// event reads the next one.
func (s *tuned) event() (e event, err error) {
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case line == "\n":
			if e.id != "" {
				s.last = e.id
			}
			e.data = strings.TrimPrefix(e.data, "\n")
			return e, nil
		case name == "event":
			e.name = value
		case name == "id":
			e.id = value
		case name == "data":
			e.data += "\n" + value
		}
	}
}

// hears reads the next event, which is to be of that name; it gives its data.
func (s *tuned) hears(name string) string {
	s.t.Helper()
	e, err := s.event()
	if err != nil || e.name != name {
		s.t.Fatalf("%q is due, got %+v, %v", name, e, err)
	}
	return e.data
}

func (s *tuned) close() { s.resp.Body.Close() }

// push sends a message to users and wants to hear that it was taken.
func push(t *testing.T, url, query, text string) (sent map[string]bool) {
	t.Helper()
	resp := do(t, "POST", url+"/push?"+query, text)
	body := read(t, resp.Body)
	var answer struct {
		ID   string
		Sent map[string]bool
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != 202 || answer.ID == "" {
		t.Fatalf("push %s: %s %s", query, resp.Status, body)
	}
	return answer.Sent
}

// tell publishes news.
func tell(t *testing.T, url, text string) {
	t.Helper()
	if resp := do(t, "POST", url+"/send_message", text); resp.StatusCode != 200 {
		t.Fatalf("send_message: %s %s", resp.Status, read(t, resp.Body))
	}
}

func news(text string) string { return fmt.Sprintf(`{"message":%q}`, text) }

// tryPush is push for a bus that may be away.
func tryPush(ctx context.Context, url, user, text string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/push?user="+user+"&id="+text, strings.NewReader(text))
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	switch {
	case resp.StatusCode == 202:
		return true, nil
	case resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "1":
		return false, nil
	}
	return false, errors.New("push: " + resp.Status + ", Retry-After " + strconv.Quote(resp.Header.Get("Retry-After")))
}
