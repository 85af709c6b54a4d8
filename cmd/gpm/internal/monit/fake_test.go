package monit

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gpm/config"
	"gpm/supervisor/api"
)

// start is when the tests' clock begins.
var start = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// TestMain is also a monit with a fake daemon, for tests that need a process of
// their own and for a look with one's own eyes:
//
//	go test -c -o /tmp/m ./cmd/gpm/internal/monit && MONIT_FAKE=lines /tmp/m
func TestMain(m *testing.M) {
	kind := os.Getenv("MONIT_FAKE")
	if kind == "" {
		os.Exit(m.Run())
	}
	f := newFake(fleet(time.Now()))
	f.start(kind)
	if err := Run(context.Background(), f, os.Getenv("MONIT_TARGET"), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", strings.SplitN(err.Error(), "\n", 2)[0])
		os.Exit(1)
	}
}

// fake is a daemon in memory.
type fake struct {
	mu      sync.Mutex
	list    api.List
	gone    chan struct{} // closed while the daemon is away
	events  []chan api.Event
	calls   []string
	backlog []api.LogLine
	live    func(yield func(api.LogLine) bool) // after the backlog, on each stream
	act     func(ctx context.Context, verb string, targets []string) (api.Result, error)
	deaf    bool // answers no list
	panics  bool
}

func newFake(list api.List) *fake { return &fake{list: list, gone: make(chan struct{})} }

// start makes a fake that a person can play with.
func (f *fake) start(kind string) {
	f.act = f.pretend
	for i := range 60 {
		f.backlog = append(f.backlog, logLine(i))
	}
	every := 400 * time.Millisecond
	if kind == "flood" {
		every = 0
	}
	f.live = func(yield func(api.LogLine) bool) {
		for i := 60; ; i++ {
			if every > 0 {
				<-time.After(every)
			}
			if !yield(logLine(i)) {
				return
			}
		}
	}
	switch kind {
	case "flaky":
		go func() { // blinker: for the life of the process
			for {
				<-time.After(4 * time.Second)
				f.down()
				<-time.After(6 * time.Second)
				f.up()
			}
		}()
	case "panic":
		go func() { <-time.After(2 * time.Second); f.set(func() { f.panics = true }) }()
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// awaitCall waits until the daemon was called so, in real time.
func (f *fake) awaitCall(t *testing.T, call string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for count(f.called(), call) == 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-late:
			t.Fatalf("the daemon was not asked to %q; it was asked %q", call, f.called())
		}
	}
}

// down takes the daemon away: streams break, calls fail.
func (f *fake) down() {
	f.set(func() {
		close(f.gone)
		for _, c := range f.events {
			close(c)
		}
		f.events = nil
	})
}

func (f *fake) up() {
	f.set(func() {
		f.gone = make(chan struct{})
		f.list.Daemon.PID++
	})
}

// enter notes a call, and fails if the daemon is away.
func (f *fake) enter(call string) (<-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	select {
	case <-f.gone:
		return nil, api.ErrNoDaemon
	default:
		return f.gone, nil
	}
}

func (f *fake) List(ctx context.Context) (api.List, error) {
	gone, err := f.enter("list")
	if err != nil {
		return api.List{}, err
	}
	f.mu.Lock()
	list, deaf, panics := copyList(f.list), f.deaf, f.panics
	f.mu.Unlock()
	if panics {
		panic("a bug in the list")
	}
	if deaf {
		select {
		case <-ctx.Done():
			return list, ctx.Err()
		case <-gone:
			return list, api.ErrBroken
		}
	}
	return list, nil
}

func copyList(l api.List) api.List {
	l.Instances = append([]api.Instance(nil), l.Instances...)
	return l
}

func (f *fake) Events(ctx context.Context) (api.List, iter.Seq2[api.Event, error], error) {
	if _, err := f.enter("events"); err != nil {
		return api.List{}, nil, err
	}
	c := make(chan api.Event, 100)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, c)
	return copyList(f.list), func(yield func(api.Event, error) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-c:
				if !ok {
					yield(api.Event{}, api.ErrBroken)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}, nil
}

// emit changes an instance and tells it.
func (f *fake) emit(e api.Event, change func(*api.Instance)) {
	f.set(func() {
		for i := range f.list.Instances {
			if f.list.Instances[i].ID == e.ID {
				change(&f.list.Instances[i])
			}
		}
		for _, c := range f.events {
			c <- e
		}
	})
}

func (f *fake) Logs(ctx context.Context, targets []string, lines int) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		gone, err := f.enter("logs " + strings.Join(targets, " "))
		if err != nil {
			yield(api.LogLine{}, err)
			return
		}
		id, _ := strconv.Atoi(targets[0])
		f.mu.Lock()
		of, live := f.list.Instances[id%len(f.list.Instances)], f.live
		backlog := append([]api.LogLine(nil), f.backlog...)
		f.mu.Unlock()
		send := func(l api.LogLine) bool {
			l.ID, l.Name, l.Instance = of.ID, of.Name, of.Instance
			select {
			case <-ctx.Done():
				return false
			case <-gone:
				return false
			default:
				return yield(l, nil)
			}
		}
		for _, l := range backlog[max(len(backlog)-lines, 0):] {
			if !send(l) {
				return
			}
		}
		if live != nil {
			live(send)
		}
		select {
		case <-ctx.Done():
		case <-gone:
			yield(api.LogLine{}, api.ErrBroken)
		}
	}
}

func (f *fake) Restart(ctx context.Context, targets []string) (api.Result, error) {
	return f.do(ctx, "restart", targets)
}

func (f *fake) Reload(ctx context.Context, targets []string) (api.Result, error) {
	return f.do(ctx, "reload", targets)
}

func (f *fake) Stop(ctx context.Context, targets []string) (api.Result, error) {
	return f.do(ctx, "stop", targets)
}

func (f *fake) do(ctx context.Context, verb string, targets []string) (api.Result, error) {
	if _, err := f.enter(verb + " " + strings.Join(targets, " ")); err != nil {
		return api.Result{}, err
	}
	if f.act == nil {
		return f.outcomes(targets), nil
	}
	return f.act(ctx, verb, targets)
}

func (f *fake) outcomes(targets []string) api.Result {
	var r api.Result
	for _, t := range targets {
		id, _ := strconv.Atoi(t)
		r.Instances = append(r.Instances, api.Outcome{ID: id, OK: true})
	}
	return r
}

// pretend does a verb slowly enough to be watched.
func (f *fake) pretend(ctx context.Context, verb string, targets []string) (api.Result, error) {
	for _, t := range targets {
		id, _ := strconv.Atoi(t)
		if id == 4 {
			return api.Result{Instances: []api.Outcome{{ID: 4, Name: "mailer", Reason: "exited with code 2: cannot read /etc/mailer.conf"}}}, nil
		}
		f.emit(api.Event{ID: id, Status: api.Stopping, Message: "asked to stop"}, func(in *api.Instance) { in.Status = api.Stopping })
		if !wait(ctx, 1500*time.Millisecond) {
			return api.Result{}, ctx.Err()
		}
		to := api.Online
		if verb == "stop" {
			to = api.Stopped
		}
		f.emit(api.Event{ID: id, App: "app", Instance: 0, Status: to, Message: verb + " by the user"}, func(in *api.Instance) {
			in.Status, in.Reason, in.PID, in.Started = to, verb+" by the user", 7000+id, time.Now()
			if to == api.Stopped {
				in.PID, in.Started = 0, time.Time{}
			}
		})
	}
	return f.outcomes(targets), nil
}

// logLine is the i-th line of an app that behaves as apps do.
func logLine(i int) api.LogLine {
	l := api.LogLine{Stream: "out", At: start}
	switch {
	case i%13 == 5:
		l.Stream, l.Text = "err", fmt.Sprintf("Error: upstream closed the stream after %d tokens", i*7)
	case i%17 == 3:
		l.Text = fmt.Sprintf("\x1b[32mGET\x1b[0m /v1/stream \x1b[2m200\x1b[0m %dms {\"model\":\"llm-7b\",\"tokens\":%d,\"session\":\"5f1c9a77-0b7e-4a43-9a3e-6a1c22b0d9f4\",\"client\":\"10.0.0.%d\"}", i%97, i*31, i%250)
	case i%29 == 7:
		l.Text = "wrecking \x1b[2J\x1b[H\x1b]0;title\x07\x1b[?1049l the screen\x07\x08\x08"
	case i%31 == 0:
		l.Stream, l.Text = "gpm", "listening on 0.0.0.0:8080"
	default:
		l.Text = fmt.Sprintf("line %d: POST /v1/chat 200 in %d ms", i, i%97)
	}
	return l
}

// fleet is a list with every state in it.
func fleet(now time.Time) api.List {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	exit := &api.Exit{At: ago(3 * time.Minute), PID: 311, Code: 1, Uptime: config.Duration(250 * time.Second), Reason: "exited with code 1"}
	next := now.Add(3200 * time.Millisecond)
	web := func(i int, mem uint64) api.Instance {
		return api.Instance{
			ID: i, Name: "web", Namespace: "default", Instance: i, Mode: "cluster", User: "www", Version: "2.3.1",
			Status: api.Online, PID: 4100 + i, Generation: 2, Started: ago(26*time.Hour + 5*time.Minute), CPU: 1.5 * float64(i+1), Memory: mem,
			Hold: "held", Listeners: []api.Listener{{Address: "0.0.0.0:8080", Listening: true}},
			Traffic: api.Serving, Streams: 1204 * i, Steering: "least (eBPF)",
			OutFile: "/home/www/.gpm/logs/web-out-" + strconv.Itoa(i) + ".log", ErrorFile: "/home/www/.gpm/logs/web-error-" + strconv.Itoa(i) + ".log",
		}
	}
	draining := web(2, 88<<20)
	draining.Generation, draining.Draining, draining.Restarts, draining.Started, draining.LastExit = 3, 1, 4, ago(40*time.Second), exit
	draining.Reason = "reloaded by the user"
	draining.Outgoing = []api.Outgoing{{PID: 4001, Generation: 2, Streams: 37, Live: 30, Oldest: ago(10 * time.Minute), Deadline: now.Add(90 * time.Second)}}
	return api.List{
		Host:   api.Host{CPU: 12.4, MemoryUsed: 3328599654, MemoryTotal: 16 << 30},
		Daemon: api.Daemon{Version: "1.4.2", Protocol: 1, PID: 900, Started: ago(time.Hour), Unsaved: true},
		Instances: []api.Instance{
			web(0, 51_400_000), web(1, 1_288_490_189), draining,
			{ID: 3, Name: "worker", Namespace: "jobs", Mode: "fork", Status: api.Waiting, Reason: "exited with code 1", NextTry: &next, Restarts: 5, Unstable: 3, Generation: 6, LastExit: exit, Hold: "off"},
			{ID: 4, Name: "mailer", Namespace: "jobs", Mode: "fork", Status: api.Errored, Reason: "gave up after 16 unstable restarts in a row", Restarts: 16, Unstable: 16, Generation: 17, LastExit: exit, LogProblem: "disk full: 12 lines dropped"},
			{ID: 5, Name: "a-rather-long-name-of-a-service-eu-west", Namespace: "default", Instance: 11, Mode: "fork", Status: api.Stopped, Reason: "stopped by the user"},
			{ID: 6, Name: "ingest", Namespace: "default", Mode: "fork", Status: api.Launching, PID: 5150, Generation: 1, Started: ago(2 * time.Second), CPU: 100, Memory: 12 << 20, Hold: "held", Listeners: []api.Listener{{Address: "[::]:9000"}}},
		},
	}
}
