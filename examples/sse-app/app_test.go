package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpm/examples/sse-app/ssetest"
)

// patience bounds every wait in these tests; it is never reached when all is well.
const patience = 20 * time.Second

// running is the app on a port of its own.
type running struct {
	*app
	url  string
	stop chan os.Signal
	done chan error // what serve returned
	told bool       // the signal was sent
}

// leave sends the signal; ended waits for what serve makes of it.
func (r *running) leave() {
	r.told = true
	r.stop <- syscall.SIGTERM
}

func (r *running) ended(t *testing.T) {
	t.Helper()
	err := <-r.done
	r.done <- err // for the cleanup
	if err != nil {
		t.Errorf("serve: %v", err)
	}
}

// start runs the app; change may adapt it first. It is stopped with the test.
func start(t *testing.T, change func(*app)) *running {
	t.Helper()
	a := newApp(config{interval: time.Millisecond, delay: time.Millisecond, drain: patience, instance: "3"})
	a.out, a.err = log.New(io.Discard, "", 0), log.New(io.Discard, "", 0)
	if change != nil {
		change(a)
	}
	ln, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	smallBuffers(t, ln)
	if a.upstream != "" {
		relays.Store(ln.Addr().String(), true)
		t.Cleanup(func() { relays.Delete(ln.Addr().String()) })
	}
	r := &running{app: a, url: "http://" + ln.Addr().String(), stop: make(chan os.Signal, 1), done: make(chan error, 1)}
	go func() { r.done <- a.serve(ln, r.stop) }() // until the signal
	t.Cleanup(func() {
		if !r.told {
			r.cutoff.come() // nobody waits for the drain
			r.leave()
		}
		<-r.done
	})
	return r
}

// smallBuffers makes a client that does not read noticed soon. Accepted
// connections have the buffers of their listener.
func smallBuffers(t *testing.T, ln *net.TCPListener) {
	t.Helper()
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096)
	})
	if err := errors.Join(err, optErr); err != nil {
		t.Fatal(err)
	}
}

// do sends a request on a connection of its own; the test's end closes it. An
// event stream is linted while the test reads it.
func do(t *testing.T, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	resp, err := (&ssetest.Transport{T: t, Base: tr, Options: lintOptions}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// relays are the addresses of apps that pass on what an upstream says.
var relays sync.Map

// lintOptions are those of the app's routes.
func lintOptions(req *http.Request) ssetest.Options {
	_, relay := relays.Load(req.URL.Host)
	switch path := req.URL.Path; {
	case relay && strings.HasPrefix(path, "/v1/"): // whatever there is on the other side
		return ssetest.Options{Foreign: true}
	case strings.HasPrefix(path, "/v1/"):
		return ssetest.Options{OpenAI: true}
	case path == "/echo": // sends whatever it was asked for
		return ssetest.Options{Foreign: true}
	default:
		return ssetest.Options{JSON: true}
	}
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read the body: %v, after %q", err, b)
	}
	return string(b)
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

func TestClientsThatLeaveLeaveNothingBehind(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.delay, a.heartbeat = time.Hour, time.Hour, time.Hour })
	do(t, "GET", r.url+"/healthz", "").Body.Close()
	base := runtime.NumGoroutine()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	tr := &http.Transport{}
	for i := range 100 {
		req, _ := http.NewRequestWithContext(ctx, "GET", r.url+"/stream", nil)
		if i%2 == 1 {
			req, _ = http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(`{"prompt":"x","stream":true}`))
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	if n := r.streams.Load(); n != 100 {
		t.Fatalf("%d streams are open, want 100", n)
	}
	leave()
	tr.CloseIdleConnections()
	until(t, "streams are gone", func() bool { return r.streams.Load() == 0 })
	until(t, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= base+2 })
}

func TestSlowReaderIsDroppedAndOthersAreNot(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.writeTimeout = 0, 300*time.Millisecond })
	slow, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(slow, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n") // and never reads
	until(t, "slow reader is dropped", func() bool { return metric(t, r.url, `sse_app_slow_clients_total{kind="stream"}`) == "1" })
	until(t, "its stream is over", func() bool { return r.streams.Load() == 0 })
	r.writeTimeout = patience // a busy one is not taken for a slow one
	if body := read(t, do(t, "GET", r.url+"/stream?n=2000", "").Body); !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Error("a quick reader did not get the whole stream")
	}
}

func TestSharedHeadersAndPreflight(t *testing.T) {
	r := start(t, nil)
	resp := do(t, "OPTIONS", r.url+"/v1/chat/completions", "")
	if resp.StatusCode != 204 || !strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "Content-Type") {
		t.Errorf("preflight: %s %v", resp.Status, resp.Header)
	}
	for _, path := range []string{"/", "/stream?n=1", "/v1/models", "/healthz", "/nope"} {
		h := do(t, "GET", r.url+path, "").Header
		if h.Get("X-Instance") != "3" || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
	if resp := do(t, "GET", r.url+"/nope", ""); resp.StatusCode != 404 {
		t.Errorf("/nope: %s, want 404", resp.Status)
	}
}

func TestAccessLogHasOneLinePerRequest(t *testing.T) {
	lines := make(chan string, 10)
	r := start(t, func(a *app) { a.out = log.New(lineWriter(lines), "", 0) })
	read(t, do(t, "GET", r.url+"/stream?n=2", "").Body)
	if line, want := <-lines, regexp.MustCompile(`^接收到请求 127\.0\.0\.1:\d+ GET "/stream" 200 \d{3}B \S+\n$`); !want.MatchString(line) {
		t.Errorf("line %q does not match %s", line, want)
	}
	do(t, "GET", r.url+"/forged%0aline", "")
	if line := <-lines; !strings.Contains(line, `"/forged\nline" 404`) {
		t.Errorf("path is not quoted: %q", line)
	}
	do(t, strings.Repeat("M", 5000), r.url+"/"+strings.Repeat("x", 5000), "")
	if line := <-lines; len(line) > 500 {
		t.Errorf("a request wrote a line of %d bytes", len(line))
	}
	do(t, "GET", r.url+"/stream", "").Body.Close() // in the middle
	if line := <-lines; !strings.HasSuffix(line, " client left\n") {
		t.Errorf("of a client that left is said: %q", line)
	}
	if len(lines) != 0 {
		t.Errorf("further line %q", <-lines)
	}
}

type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// The page must work without any other server, and must never read text from
// outside as HTML.
func TestPageIsSelfContained(t *testing.T) {
	r := start(t, nil)
	for path, kind := range map[string]string{"/": "text/html", "/page.js": "text/javascript", "/style.css": "text/css"} {
		resp := do(t, "GET", r.url+path, "")
		body := read(t, resp.Body)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) {
			t.Errorf("%s: %s, %s", path, resp.Status, resp.Header.Get("Content-Type"))
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s has no strict policy", path)
		}
		body = strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "") // a name, not an address
		for _, bad := range []string{"http://", "https://", "innerHTML", "insertAdjacentHTML", "document.write", "eval("} {
			if strings.Contains(body, bad) {
				t.Errorf("%s contains %q", path, bad)
			}
		}
	}
}
