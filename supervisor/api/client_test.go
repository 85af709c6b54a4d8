package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers on a socket in a new home until the test ends.
func serve(t *testing.T, h http.Handler) (*Client, string) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpm") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	l, err := net.Listen("unix", filepath.Join(home, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return Dial(home), home
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set(ProtocolHeader, fmt.Sprint(Protocol))
	json.NewEncoder(w).Encode(v)
}

// hangUp closes the connection without an answer, as a daemon that dies does.
func hangUp(t *testing.T, w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryRouteHasAMethod(t *testing.T) {
	var got atomic.Pointer[http.Request]
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r)
		switch r.URL.Path {
		case Find(RouteLogs).Path:
		case Find(RouteEvents).Path:
			WriteEvent(w, StreamSnapshot, List{})
		case Find(RouteDescribe).Path, Find(RouteDoctor).Path:
			answer(w, []int{})
		default:
			answer(w, struct{}{})
		}
	}))
	ctx, leave := context.WithCancel(deadline(t))
	defer leave()
	calls := map[string]func() error{
		RoutePing:      func() error { _, err := c.Ping(ctx); return err },
		RouteList:      func() error { _, err := c.List(ctx); return err },
		RouteDescribe:  func() error { _, err := c.Describe(ctx, false); return err },
		RouteStart:     func() error { _, err := c.Start(ctx, StartRequest{}); return err },
		RouteStop:      func() error { _, err := c.Stop(ctx, ActRequest{}); return err },
		RouteRestart:   func() error { _, err := c.Restart(ctx, ActRequest{}); return err },
		RouteReload:    func() error { _, err := c.Reload(ctx, ActRequest{}); return err },
		RouteDelete:    func() error { _, err := c.Delete(ctx, ActRequest{}); return err },
		RouteScale:     func() error { _, err := c.Scale(ctx, ActRequest{}); return err },
		RouteDrain:     func() error { _, err := c.Drain(ctx, ActRequest{}); return err },
		RouteAbort:     func() error { _, err := c.Abort(ctx, ActRequest{}); return err },
		RouteReset:     func() error { _, err := c.Reset(ctx, ActRequest{}); return err },
		RouteFlush:     func() error { _, err := c.Flush(ctx, ActRequest{}); return err },
		RouteSave:      func() error { _, err := c.Save(ctx); return err },
		RouteResurrect: func() error { _, err := c.Resurrect(ctx); return err },
		RouteUpdate:    func() error { return c.Update(ctx, "/gpm") },
		RouteKill:      func() error { _, err := c.Kill(ctx); return err },
		RouteDoctor:    func() error { _, err := c.Doctor(ctx); return err },
		RouteLogs: func() error {
			for _, err := range c.Logs(ctx, LogsQuery{}) {
				return err
			}
			return nil
		},
		RouteEvents: func() error { _, _, err := c.Events(ctx); return err },
	}
	for _, r := range Routes {
		call := calls[r.Name]
		if call == nil {
			t.Errorf("route %q has no client method", r.Name)
			continue
		}
		if err := call(); err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		req := got.Load()
		if req.Method != r.Method || req.URL.Path != r.Path {
			t.Errorf("%s: sent %s %s, want %s %s", r.Name, req.Method, req.URL.Path, r.Method, r.Path)
		}
		if req.Host != WireHost || req.Header.Get(ProtocolHeader) != "1" || req.Header.Get("Origin") != "" {
			t.Errorf("%s: host %q, protocol %q, origin %q", r.Name, req.Host, req.Header.Get(ProtocolHeader), req.Header.Get("Origin"))
		}
	}
}

func TestNoDaemon(t *testing.T) {
	home := t.TempDir()
	if _, err := Dial(home).Ping(deadline(t)); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a socket: %v", err)
	}
	if _, err := Dial(filepath.Join(home, "none")).Stop(deadline(t), ActRequest{}); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a home: %v", err)
	}
	home, err := os.MkdirTemp("", "gpm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(home, SocketName)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(home).List(deadline(t)); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("on a stale socket: %v", err)
	}
}

func TestPathTooLongForASocket(t *testing.T) {
	_, err := Dial("/tmp/" + strings.Repeat("x", 120)).Ping(deadline(t))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, "too long") || e.Hint == "" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	want := &Error{Kind: KindNotFound, Message: `find app "web": no such app`, Hint: "gpm list"}
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(want.HTTPStatus())
		json.NewEncoder(w).Encode(ErrorBody{want})
	}))
	_, err := c.Stop(deadline(t), ActRequest{Targets: []string{"web"}})
	var e *Error
	if !errors.As(err, &e) || *e != *want {
		t.Errorf("stop: got %v", err)
	}
	for _, err := range c.Logs(deadline(t), LogsQuery{}) {
		if !errors.As(err, &e) || *e != *want {
			t.Errorf("logs: got %v", err)
		}
	}
}

func TestAnswerThatIsNotOurs(t *testing.T) {
	c, _ := serve(t, http.NotFoundHandler())
	_, err := c.List(deadline(t))
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}

func TestReadsOutliveADaemonRestart(t *testing.T) {
	var calls atomic.Int32
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			hangUp(t, w)
		case 2: // half an answer
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"pid":`)
		default:
			answer(w, Daemon{PID: 7})
		}
	}))
	d, err := c.Ping(deadline(t))
	if err != nil || d.PID != 7 || calls.Load() != 3 {
		t.Errorf("got %+v, %v after %d calls", d, err, calls.Load())
	}
}

func TestReadsGiveUp(t *testing.T) {
	var calls atomic.Int32
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		hangUp(t, w)
	}))
	if _, err := c.Ping(deadline(t)); !errors.Is(err, ErrBroken) || calls.Load() != readTries {
		t.Errorf("got %v after %d calls", err, calls.Load())
	}
}

func TestABrokenActIsSentOnce(t *testing.T) {
	var calls atomic.Int32
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		hangUp(t, w)
	}))
	_, err := c.Restart(deadline(t), ActRequest{Targets: []string{"web"}})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrBroken) || !strings.Contains(e.Hint, "gpm list") {
		t.Errorf("got %v", err)
	}
	if calls.Load() != 1 {
		t.Errorf("sent %d times", calls.Load())
	}
}

func TestASilentDaemonTimesOut(t *testing.T) {
	release := make(chan struct{})
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer close(release)
	for name, call := range map[string]func(context.Context) error{
		"ping": func(ctx context.Context) error { _, err := c.Ping(ctx); return err },
		"stop": func(ctx context.Context) error { _, err := c.Stop(ctx, ActRequest{}); return err },
		"events": func(ctx context.Context) error {
			_, _, err := c.Events(ctx)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		var e *Error
		if err := call(ctx); !errors.As(err, &e) || e.Kind != KindTimeout || e.Hint == "" {
			t.Errorf("%s: got %v", name, err)
		}
		cancel()
	}
}

func TestWarnsOnceAboutAnOlderDaemon(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(ProtocolHeader, "0")
		fmt.Fprint(w, "{}")
	}))
	var warnings []string
	c.Warn = func(text string) { warnings = append(warnings, text) }
	c.Ping(deadline(t))
	c.Ping(deadline(t))
	if len(warnings) != 1 || !strings.Contains(warnings[0], "gpm update") {
		t.Errorf("got %q", warnings)
	}
}

func TestLogs(t *testing.T) {
	long := strings.Repeat("x", 300<<10) // more than the reader's buffer
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if got := fmt.Sprint(q); got != "map[lines:[3] out:[1] target:[web 2]]" {
			t.Errorf("asked for %s", got)
		}
		fmt.Fprint(w, ": alive\n\n")
		WriteEvent(w, StreamLog, LogLine{ID: 1, Text: "a\nb \u2028\u00e9"})
		fmt.Fprint(w, "event: novelty\ndata: {}\n\n")
		WriteEvent(w, StreamLog, LogLine{ID: 2, Skipped: 4})
		WriteEvent(w, StreamLog, LogLine{ID: 3, Text: long})
		fmt.Fprint(w, "event: log\ndata: {\"id\":9}\n") // cut: never happened
	}))
	var got []LogLine
	for line, err := range c.Logs(deadline(t), LogsQuery{Targets: []string{"web", "2"}, Lines: 3, Out: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	if len(got) != 3 || got[0].Text != "a\nb \u2028\u00e9" || got[1].Skipped != 4 || got[2].Text != long {
		t.Errorf("got %d lines", len(got))
	}
}

func TestAFollowedStreamThatEndsWasCut(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		WriteEvent(w, StreamLog, LogLine{Text: "one"})
		if r.URL.Query().Get("target") == "slow" {
			WriteEvent(w, StreamError, Error{Kind: KindFailed, Message: "this reader is too slow"})
		}
	}))
	last := func(target string) error {
		var last error
		for _, err := range c.Logs(deadline(t), LogsQuery{Targets: []string{target}, Follow: true}) {
			last = err
		}
		return last
	}
	if err := last("web"); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v", err)
	}
	if err := last("slow"); err == nil || err.Error() != "this reader is too slow" {
		t.Errorf("got %v", err)
	}
}

func TestLeavingAStreamClosesIt(t *testing.T) {
	left := make(chan struct{}, 2)
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		WriteEvent(w, StreamSnapshot, List{Daemon: Daemon{PID: 7}})
		WriteEvent(w, StreamLog, LogLine{Text: "one"})
		WriteEvent(w, StreamEvent, Event{Seq: 1})
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	}))
	ctx := deadline(t)
	for range c.Logs(ctx, LogsQuery{Follow: true}) {
		break
	}
	<-left
	inner, cancel := context.WithCancel(ctx)
	first, events, err := c.Events(inner)
	if err != nil || first.Daemon.PID != 7 {
		t.Fatalf("got %+v, %v", first, err)
	}
	for e, err := range events {
		if err != nil {
			t.Errorf("after cancel: %v", err)
		}
		if e.Seq == 1 {
			cancel()
		}
	}
	cancel()
	<-left
}

func TestStreamsAreBounded(t *testing.T) {
	endless := func(prefix string) error {
		r := &repeat{prefix: prefix}
		_, _, err := (&streamReader{bufio.NewReaderSize(r, 4<<10)}).next()
		return err
	}
	if err := endless("data: "); !errors.Is(err, errMalformed) {
		t.Errorf("one endless line: %v", err)
	}
	lines := &repeat{prefix: "data: ", each: "data: " + strings.Repeat("y", 1<<10) + "\n"}
	if _, _, err := newStreamReader(lines).next(); !errors.Is(err, errMalformed) {
		t.Errorf("endless data lines: %v", err)
	}
}

// repeat is a reader without an end.
type repeat struct{ prefix, each string }

func (r *repeat) Read(p []byte) (int, error) {
	if r.prefix != "" {
		n := copy(p, r.prefix)
		r.prefix = r.prefix[n:]
		return n, nil
	}
	if r.each != "" {
		r.prefix = r.each
		return 0, nil
	}
	for i := range p {
		p[i] = 'y'
	}
	return len(p), nil
}

func FuzzStream(f *testing.F) {
	f.Add("event: log\ndata: {}\n\n")
	f.Add(":\r\ndata\ndata:x\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		readStream(strings.NewReader(text), func(string, []byte) (bool, error) {
			n++
			return true, nil
		})
		if n > len(text) {
			t.Errorf("%d events in %d bytes", n, len(text))
		}
	})
}
