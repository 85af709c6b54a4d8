package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gpm/config"
	"gpm/supervisor/api"
)

// roller plays a daemon whose reload of "web" stands still until it is told to
// go on, and whose old processes end when asked about often enough.
type roller struct {
	mu     sync.Mutex
	news   chan api.Progress // sent to the follower of events
	finish chan struct{}     // closed: the reload is done
	old    []api.Outgoing    // of web-0
	looks  int               // lists for which old stays; then they go one by one
}

func newRoller() *roller {
	return &roller{news: make(chan api.Progress), finish: make(chan struct{})}
}

func (r *roller) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch req.URL.Path {
	case api.Find(api.RouteReload).Path:
		select {
		case <-r.finish:
		case <-req.Context().Done():
		}
		json.NewEncoder(w).Encode(api.Result{Instances: []api.Outcome{{Name: "web", OK: true, Status: api.Online, PID: 7}}})
	case api.Find(api.RouteDescribe).Path:
		json.NewEncoder(w).Encode([]api.Description{{Instance: api.Instance{Name: "web"},
			App: config.App{DrainTimeout: config.Duration(time.Hour), KillTimeout: config.Duration(time.Second)}}})
	case api.Find(api.RouteList).Path:
		json.NewEncoder(w).Encode(api.List{Instances: []api.Instance{{Name: "web", PID: 7, Status: api.Online, Outgoing: r.left()}}})
	case api.Find(api.RouteEvents).Path:
		api.WriteEvent(w, api.StreamSnapshot, api.List{})
		http.NewResponseController(w).Flush()
		for {
			select {
			case p := <-r.news:
				api.WriteEvent(w, api.StreamEvent, api.Event{Kind: "rollout", App: "web", ID: -1, Instance: -1, Progress: &p})
				http.NewResponseController(w).Flush()
			case <-req.Context().Done():
				return
			}
		}
	}
}

func (r *roller) left() []api.Outgoing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looks--; r.looks < 0 && len(r.old) > 0 {
		r.old = r.old[1:]
	}
	return r.old
}

// send gives the follower a step of the rollout.
func (r *roller) send(t *testing.T, ctx context.Context, p api.Progress) {
	t.Helper()
	select {
	case r.news <- p:
	case <-ctx.Done():
		t.Fatal("nobody follows the rollout")
	}
}

// In a pipe there is a line at first, and not one for each stream that ends.
func TestAPipeGetsFewLines(t *testing.T) {
	ctx, r, begun := patience(t), newRoller(), time.Now()
	env, out, errs := world(t, r)
	code := make(chan int)
	go func() { code <- Run(ctx, []string{"reload", "web"}, env) }()
	for n := range 50 {
		r.send(t, ctx, api.Progress{Ready: 1, Total: 4, Draining: 1, Streams: 100 - n})
	}
	if !errs.await(ctx, "web: 1/4 ready, ") {
		t.Fatalf("stderr %q", errs)
	}
	for n := range 20 {
		r.send(t, ctx, api.Progress{Ready: 2, Total: 4, Draining: 1, Streams: 50 - n, Waiting: "pause 10s"})
	}
	close(r.finish)
	c := <-code
	most := 1 + int(time.Since(begun)/linesEvery)
	if c != 0 || out.String() != "✓ web-0 online (pid 7)\n" || strings.Count(errs.String(), "\n") > most {
		t.Errorf("exit code %d, stdout %q, stderr %q", c, out, errs)
	}
}

func TestAReloadTellsWhatStillDrains(t *testing.T) {
	r := newRoller()
	until := time.Now().Add(time.Hour)
	r.looks, r.old = 100, []api.Outgoing{{PID: 4, Streams: 30, Deadline: until}, {PID: 5, Streams: 7, Deadline: until.Add(-time.Minute)}}
	close(r.finish)
	env, out, errs := world(t, r)
	if code := Run(patience(t), []string{"reload", "web"}, env); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	want := "37 streams finish in 2 old processes, until " + until.Format("15:04") + " at the latest; gpm list shows them\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("stdout %q, want %q at its end", out, want)
	}
}

func TestReloadDrainedWaitsForOldProcesses(t *testing.T) {
	r := newRoller()
	r.looks, r.old = 2, []api.Outgoing{{PID: 4, Streams: 30}, {PID: 5}}
	close(r.finish)
	env, out, errs := world(t, r)
	if code := Run(patience(t), []string{"reload", "web", "--drained"}, env); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if left := r.left(); len(left) > 0 {
		t.Errorf("it returned before %+v had ended", left)
	}
	if !strings.Contains(errs.String(), "30 streams finish in ") || strings.Contains(out.String(), "finish") {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
}

func TestCtrlCLeavesOldProcessesDraining(t *testing.T) {
	ctx, press := context.WithCancelCause(patience(t))
	r := newRoller()
	r.looks, r.old = 1000, []api.Outgoing{{PID: 4, Streams: 30}}
	close(r.finish)
	env, _, errs := world(t, r)
	code := make(chan int)
	go func() { code <- Run(ctx, []string{"reload", "web", "--drained"}, env) }()
	if !errs.await(ctx, "30 streams finish in 1 old process") {
		t.Fatalf("stderr %q", errs)
	}
	press(ErrInterrupted)
	if c := <-code; c != 130 || !strings.Contains(errs.String(), "error: interrupted: the reload is done, old processes go on draining\n") {
		t.Errorf("exit code %d, stderr %q", c, errs)
	}
}

// A gpm that is told to end (SIGTERM) leaves the rollout to the daemon.
func TestOnlyCtrlCAborts(t *testing.T) {
	ctx, end := context.WithCancel(patience(t))
	r := newRoller()
	var aborted atomic.Bool
	env, _, errs := world(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == api.Find(api.RouteAbort).Path {
			aborted.Store(true)
		}
		r.ServeHTTP(w, req)
	}))
	code := make(chan int)
	go func() { code <- Run(ctx, []string{"reload", "web"}, env) }()
	r.send(t, ctx, api.Progress{Ready: 1, Total: 4}) // it is under way
	end()
	if c := <-code; c != 1 || aborted.Load() || !strings.Contains(errs.String(), "what the daemon has begun goes on") {
		t.Errorf("exit code %d, aborted %t, stderr %q", c, aborted.Load(), errs)
	}
}

func TestProgressText(t *testing.T) {
	s := newSession(Env{Stdout: newScreen(), Stderr: newScreen(), Getwd: func() (string, error) { return "/", nil }})
	s.zone = time.UTC
	full := api.Progress{Ready: 2, Total: 4, Draining: 3, Streams: 37, Oldest: noon.Add(-250 * time.Second), Deadline: noon.Add(125 * time.Minute)}
	paused, soon := full, full
	paused.Waiting = "pause 10s\x1b[2J"
	soon.Deadline = noon.Add(30 * time.Second)
	for _, c := range []struct {
		p    api.Progress
		want string
	}{
		{full, "web: 2/4 ready, 37 streams draining, oldest 4m10s, deadline 14:05"},
		{paused, "web: 2/4 ready, 37 streams draining, oldest 4m10s, deadline 14:05, waiting: pause 10s"},
		{soon, "web: 2/4 ready, 37 streams draining, oldest 4m10s, deadline 12:00:30"},
		{api.Progress{Total: 4}, "web: 0/4 ready"},
		{api.Progress{Ready: 1, Total: 1, Draining: 1}, "web: 1/1 ready, 1 old process ending"},
		{api.Progress{Draining: 1, Streams: 1}, "web: 1 stream draining"}, // gpm stop --drain
	} {
		if got := s.progressText("web", c.p, noon); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
	n := &narration{s: s, display: display{out: s.err}, rollouts: map[string]api.Progress{"web": full, "api": {Ready: 1, Total: 2}, "done": {Done: true}}}
	if got, want := n.text(noon), "api: 1/2 ready; web: 2/4 ready, 37 streams draining"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
