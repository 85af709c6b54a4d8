package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gpm/bench/load"
	"gpm/supervisor/api"
)

// streamer is a streaming server as people run it. GET /stream?n=20 is 20
// numbered events and an end mark; /stream is endless, with ids that go on after
// a reconnect; all else is short. Those of testdata end endless streams after a
// few seconds, with a farewell, as a server with a maximum age does.
type streamer struct {
	name string
	// app is its config, but for what all have.
	app func(t *testing.T, g *gpm, port int) keys
	// graceful ones finish their streams by themselves after kill_signal; for
	// the others gpm has to wait, which it cannot where it does not steer.
	graceful bool
	path     string // of short requests
	held     int    // endless streams in a load; 0: it has none
	// soak is how many connections per second four of them serve for minutes on
	// two cores that also make the load.
	soak float64
}

var streamers = []streamer{
	{name: "sse-app", graceful: true, path: "/v1/models", held: 20, soak: 2100, app: func(_ *testing.T, _ *gpm, _ int) keys {
		return keys{"script": filepath.Join(bin, "sse-app"), "args": []string{"-interval", "20ms"}, "drain": "signal"}
	}},
	{name: "go", path: "/", held: 10, soak: 2100, app: func(_ *testing.T, _ *gpm, port int) keys {
		return keys{"script": filepath.Join(bin, "gosrv"), "env": keys{"ADDR": fmt.Sprintf(":%d", port)}}
	}},
	{name: "node", path: "/", held: 10, soak: 1000, app: func(t *testing.T, g *gpm, _ int) keys {
		return keys{"script": g.copied("node/stream.js"), "interpreter": tool(t, "node")}
	}},
	{name: "asyncio", path: "/", held: 10, soak: 1000, app: func(t *testing.T, g *gpm, _ int) keys {
		return keys{"script": g.copied("python/stream.py"), "interpreter": python(t)}
	}},
	// A worker of gunicorn that is told to end in its first moments does not hear
	// it (its handlers are still those of the process that forked it); gunicorn
	// kills it after the graceful timeout, which has to be less than our patience.
	{name: "gunicorn", graceful: true, path: "/", held: 10, soak: 500, app: func(t *testing.T, g *gpm, port int) keys {
		g.copied("python/streaming.py")
		return keys{
			"script": tool(t, "gunicorn"), "interpreter": "none", "cwd": g.dir, "drain": "signal", "kill_signal": "SIGTERM",
			"args": []string{"--workers", "1", "--worker-class", "gthread", "--threads", "100", "--graceful-timeout", "20",
				"--backlog", "2048", "--bind", fmt.Sprintf("0.0.0.0:%d", port), "streaming:app"},
		}
	}},
	{name: "nginx", graceful: true, path: "/", soak: 2100, app: func(t *testing.T, g *gpm, port int) keys {
		return keys{
			"script": tool(t, "nginx"), "interpreter": "none", "drain": "signal", "kill_signal": "SIGQUIT",
			"args": []string{"-c", g.write("nginx.conf", nginxStreams(g, port))},
		}
	}},
}

func streamerOf(name string) streamer {
	i := slices.IndexFunc(streamers, func(s streamer) bool { return s.name == name })
	return streamers[i]
}

// python is one that an ordinary user can run, too: that of PATH may be
// somebody's own.
func python(t *testing.T) string {
	if exists(debianPython) {
		return debianPython
	}
	return tool(t, "python3")
}

// nginxStreams is an nginx that serves streams of its own: files of events, at
// 2,000 bytes per second, so that it has something to finish.
func nginxStreams(g *gpm, port int) string {
	for _, n := range lengths() {
		var b strings.Builder
		for i := 1; i <= n; i++ {
			fmt.Fprintf(&b, "id: %d\ndata: message %d %060d\n\n", i, i, 0)
		}
		g.write(fmt.Sprintf("stream-%d", n), b.String()+"id: done\ndata: [DONE]\n\n")
	}
	user := ""
	if os.Geteuid() == 0 && g.as == nil {
		user = "user root;" // the folder is the test's alone
	}
	return fmt.Sprintf(`daemon off; %[1]s worker_processes 1; worker_rlimit_nofile 8192; pid %[2]s/nginx.pid; error_log stderr warn;
events { worker_connections 4000; }
http {
  access_log off; default_type text/event-stream; add_header X-Instance nginx; root %[2]s;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fcgi;
  uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  server {
    listen %[3]d backlog=2048;
    location = /stream { limit_rate 2000; rewrite ^ /stream-$arg_n break; }
    location / { default_type text/plain; return 200 "$pid\n"; }
  }
}
`, user, g.dir, port)
}

// lengths are those of the finite streams, in events; 50 take a second.
func lengths() []int {
	if *soak {
		return []int{5, 20, 50, 150}
	}
	return []int{5, 20, 50}
}

// load is all kinds of units: a tenth of the new connections are streams.
func (s streamer) load(port int, rate float64) load.Options {
	o := requests(port, s.path, rate*0.9)
	o.Stream, o.StreamRate, o.Lengths = load.Call{Path: "/stream?n={n}"}, rate/10, lengths()
	o.Hold, o.Held = load.Call{Path: "/stream"}, s.held
	return o
}

// rate is how many connections per second there are.
func (s streamer) rate() float64 {
	switch {
	case *soakRate > 0:
		return *soakRate
	case !*soak:
		return 100 // many tests run at once
	}
	return s.soak
}

// mode is how gpm steers, and who it runs as.
type mode struct {
	steer string // GPM_STEER
	user  bool   // an ordinary user without any privilege
}

func (m mode) String() string {
	who := "root"
	if m.user {
		who = "user"
	}
	return who + " " + m.steer
}

// modes are all that this machine can do.
func modes() (all []mode) {
	steers := []string{"none"}
	if symbols, _ := os.ReadFile("/proc/kallsyms"); bytes.Contains(symbols, []byte(" sk_reuseport_prog_free_rcu")) {
		steers = []string{"cbpf", "none"} // elsewhere a swap may crash the kernel
	}
	if os.Geteuid() == 0 {
		for _, steer := range append([]string{"ebpf"}, steers...) {
			all = append(all, mode{steer, false})
		}
	}
	for _, steer := range steers {
		all = append(all, mode{steer, true})
	}
	return all
}

// modes are those in which a reload of this server breaks nothing. Unless told
// otherwise a test takes each mode with one or two servers, and the best with all.
func (s streamer) modes() []mode {
	all := slices.DeleteFunc(modes(), func(m mode) bool { return m.steer == "none" && !s.graceful })
	if *everywhere {
		return all
	}
	short := map[string][]string{"cbpf": {"node", "sse-app"}, "none": {"nginx", "sse-app"}}
	return slices.DeleteFunc(all, func(m mode) bool { return m != all[0] && !slices.Contains(short[m.steer], s.name) })
}

// in makes g one of this mode. It comes before anything else.
func (g *gpm) in(m mode) *gpm {
	g.t.Helper()
	g.env = append(g.env, "GPM_STEER="+m.steer)
	if m.user {
		g.ordinary()
	}
	return g
}

// ordinary makes g the gpm of an ordinary user.
func (g *gpm) ordinary() {
	g.t.Helper()
	g.open()
	if os.Geteuid() != 0 {
		return
	}
	g.as = &syscall.Credential{Uid: nobody, Gid: nobody}
	for _, dir := range []string{g.home, g.dir} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			g.t.Fatal(err)
		}
	}
	g.env = append(slices.DeleteFunc(g.env, func(s string) bool { return strings.HasPrefix(s, "HOME=") }), "HOME="+g.dir)
}

// streams starts n instances of a streaming server, named srv, and waits until
// all serve.
func (g *gpm) streams(s streamer, n int, more ...keys) (port int) {
	g.t.Helper()
	port = freePort(g.t)
	g.ok("start", g.conf(g.streamer(s, port, n, more...)))
	g.online("srv", n)
	g.listeners("srv", port, n, 1)
	return port
}

// streamer is the config of a streaming server.
func (g *gpm) streamer(s streamer, port, n int, more ...keys) keys {
	g.t.Helper()
	app := s.app(g.t, g, port)
	env := keys{"PORT": strconv.Itoa(port), "MAX_AGE": "3000"}
	if own, ok := app["env"].(keys); ok {
		maps.Copy(env, own)
	}
	maps.Copy(app, keys{"name": "srv", "instances": n, "env": env, "drain_timeout": "2m", "kill_timeout": "20s"})
	for _, k := range more {
		if own, ok := k["env"].(keys); ok {
			maps.Copy(env, own)
			k = maps.Clone(k)
			delete(k, "env")
		}
		maps.Copy(app, k)
	}
	return app
}

// steered waits until connections are dealt out in the way that m says: who has
// just come back to life listens a moment later.
func (g *gpm) steered(m mode) {
	g.t.Helper()
	want := map[string]string{"ebpf": "eBPF", "cbpf": "cBPF", "none": "hash"}[m.steer]
	g.until("all serve, dealt out by "+want, func() bool {
		return !slices.ContainsFunc(g.list(), func(in api.Instance) bool {
			return !strings.Contains(in.Steering, want) || in.Traffic != api.Serving
		})
	})
}

// nothingBroken fails if one unit ended in a bad class, or if the load was none:
// a kind without a good unit, and at full load a rate that was not reached.
// Only endless streams may be sent away.
func nothingBroken(t *testing.T, o load.Options, l *load.Ledger, what string) {
	t.Helper()
	t.Logf("%s:\n%v", what, l)
	if l.Bad() > 0 {
		t.Errorf("%s: %d units broken, first of them:\n%s", what, l.Bad(), firstLosses(l.Losses))
	}
	loaded(t, o, l)
}

func loaded(t *testing.T, o load.Options, l *load.Ledger) {
	t.Helper()
	if l.Count(load.Stream, load.Complete) == 0 || l.Count(load.Request, load.Complete) == 0 || o.Held > 0 && l.Sent(load.Held) < o.Held {
		t.Error("a kind of load has none that ended well: this proves nothing")
	}
	if n := l.Count(load.Stream, load.Told) + l.Count(load.Request, load.Told); n > 0 {
		t.Errorf("%d streams that have an end were sent away before it", n)
	}
	if want := o.StreamRate + o.RequestRate; *soak && l.Rate() < 0.95*want {
		t.Errorf("%.0f connections per second were made, %.0f were to be: this proves less than it should", l.Rate(), want)
	}
}

func firstLosses(all []load.Loss) string {
	var b strings.Builder
	for i, loss := range all {
		if i == 20 {
			fmt.Fprintf(&b, "  and %d more\n", len(all)-i)
			break
		}
		fmt.Fprintf(&b, "  %s\n", loss)
	}
	return cmp.Or(b.String(), "  none\n")
}

// drained waits until nobody is left of the generations before.
func (g *gpm) drained() {
	g.t.Helper()
	g.until("the old processes have let their streams finish", func() bool {
		return !slices.ContainsFunc(g.list(), func(in api.Instance) bool { return in.Draining > 0 || len(in.Outgoing) > 0 })
	})
}
