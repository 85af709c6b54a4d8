package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gpm/bench/load"
	"gpm/supervisor/api"
)

// goServer is the config of gosrv on a port.
func goServer(name string, port int) map[string]any {
	return map[string]any{"name": name, "script": filepath.Join(bin, "gosrv"), "env": map[string]string{"ADDR": fmt.Sprintf(":%d", port)}}
}

// Sockets that gpm opens (LISTEN_FDS): the script ends with a sentence if a
// variable is wrong, and a restart under load refuses nobody.
func TestPassedSockets(t *testing.T) {
	for _, c := range []struct{ name, script, path string }{
		{"python", "python/fd3.py", "/"},
		{"sse-app", "", "/v1/models"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, port := newGPM(t), freePort(t)
			app := map[string]any{"name": "fd", "listen": fmt.Sprintf("127.0.0.1:%d", port), "instances": 2, "kill_timeout": 15000}
			if c.script != "" {
				app["script"], app["interpreter"] = testdata(t, c.script), tool(t, "python3")
			} else {
				app["script"] = filepath.Join(bin, "sse-app")
				app["env"] = map[string]any{"PORT": freePort(t)} // where it listens if it does not take the socket
			}
			g.ok("start", g.conf(app))
			g.online("fd", 2)
			g.listeners("fd", port, 2, 1)
			g.undisturbed(port, c.path, func() {
				g.ok("restart", "fd")
				g.ok("restart", "fd")
			})
			if in := g.instance("fd", 0); in.Generation != 3 {
				t.Errorf("generation %d after two restarts", in.Generation)
			}
		})
	}
}

// undisturbed runs f while short requests come, and fails if one is lost.
func (g *gpm) undisturbed(port int, path string, f func()) {
	g.t.Helper()
	l := g.underLoad(requests(port, path, 50), f)
	if l.Bad() > 0 || l.Sent(load.Request) == 0 {
		g.t.Errorf("%v", l)
	}
}

// Two apps that want one port: the second one is told who has it.
func TestTwoAppsWantOnePort(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	first := goServer("first", port)
	g.ok("start", g.conf(first))
	g.listeners("first", port, 1, 1)

	second := goServer("second", port)
	second["max_restarts"] = 2
	g.conflict(g.conf(first, second), "second", `app "first"`, port)
	if by := g.spread(fmt.Sprintf("http://127.0.0.1:%d/", port), 20); len(by) != 1 {
		t.Errorf("only the first app may answer: %v", by)
	}

	elsewhere := freePort(t)
	g.ok("start", g.conf(first, goServer("second", elsewhere)))
	g.online("second", 1)
	g.listeners("second", elsewhere, 1, 1)
	if err := errors.Join(reachable(port), reachable(elsewhere)); err != nil {
		t.Error(err)
	}
	// The first one goes: its port is free for others at once.
	g.ok("stop", "first")
	if err := reachable(port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a stopped app's port: %v, refused is expected", err)
	}
	g.ok("start", g.conf(goServer("third", port)))
}

// A program that gpm does not know has the port.
func TestAStrangerHasThePort(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port := freePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app := goServer("late", port)
	app["max_restarts"] = 2
	g.conflict(g.conf(app), "late", fmt.Sprintf("process %d (%s)", os.Getpid(), comm(t)), port)
	l.Close()
	g.ok("restart", "late")
	g.listeners("late", port, 1, 1)
	if err := reachable(port); err != nil {
		t.Error(err)
	}
}

// comm is the name that the kernel has for this program.
func comm(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// conflict starts a config of which app cannot have its port, because of holder.
func (g *gpm) conflict(conf, app, holder string, port int) {
	g.t.Helper()
	said := g.fails("start", conf)
	if want := fmt.Sprintf(":%d is in use by %s", port, holder); !strings.Contains(said, want) {
		g.t.Errorf("%q is not said:\n%s", want, said)
	}
	// What the program itself wrote is shown as well.
	if want := "bind: address already in use"; !strings.Contains(said, want) {
		g.t.Errorf("%q is not shown:\n%s", want, said)
	}
	g.until(app+" has given up", func() bool { return g.instance(app, 0).Status == api.Errored })
	for _, d := range g.describe(app) {
		told := false
		for _, e := range d.Events {
			told = told || e.Kind == "conflict" && strings.Contains(e.Message, holder)
		}
		if !told || !strings.Contains(d.Reason, holder) {
			g.t.Errorf("%s is not named: reason %q, events %+v", holder, d.Reason, d.Events)
		}
	}
}

// slowServer listens half a second after its start: long enough to be caught
// down.
const slowServer = `
setTimeout(() => require('http').createServer((req, res) => res.end(process.pid + '\n')).listen(%d), 500)
`

// What holding is for: the same restart with it and without it.
func TestHoldIsWhatKeepsConnections(t *testing.T) {
	tool(t, "node")
	t.Run("on", func(t *testing.T) {
		t.Parallel()
		g, port := slow(t, nil)
		g.listeners("slow", port, 1, 1)
		g.onlyAccepted(g.underLoad(requests(port, "/", 100), func() { g.crash("slow") }), 1)
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		g, port := slow(t, map[string]any{"hold": false})
		d := g.describe("slow")[0]
		if d.Hold != "off" || len(d.Listeners) != 0 || !strings.Contains(g.ok("describe", "slow"), "off") {
			t.Errorf("hold %q, listeners %v; off is expected", d.Hold, d.Listeners)
		}
		g.unheld(port)
	})
	t.Run("unavailable", func(t *testing.T) {
		t.Parallel()
		g, port := slow(t, nil, "GPM_NO_HOLD=1")
		d := g.describe("slow")[0]
		if want := "unavailable: GPM_NO_HOLD is set"; d.Hold != want || !strings.Contains(g.ok("describe", "slow"), want) {
			t.Errorf("hold %q, want %q", d.Hold, want)
		}
		g.unheld(port)
		// Sockets that gpm opens itself need no trap.
		passed := freePort(t)
		g.ok("start", g.conf(map[string]any{
			"name": "fd", "script": testdata(t, "python/fd3.py"), "interpreter": tool(t, "python3"), "listen": passed,
		}))
		if err := reachable(passed); err != nil {
			t.Error(err)
		}
		if d := g.describe("fd")[0]; len(d.Listeners) != 1 || !d.Listeners[0].Listening {
			t.Errorf("listeners %v of an app with listen", d.Listeners)
		}
	})
}

// slow starts slowServer and waits until it answers.
func slow(t *testing.T, keys map[string]any, env ...string) (g *gpm, port int) {
	t.Helper()
	g, port = newGPM(t), freePort(t)
	g.env = append(g.env, env...)
	app := map[string]any{"name": "slow", "script": g.write("slow.js", fmt.Sprintf(slowServer, port))}
	for k, v := range keys {
		app[k] = v
	}
	g.ok("start", g.conf(app))
	g.until("it answers", func() bool { return reachable(port) == nil })
	return g, port
}

// crash kills the one process of an app and waits for its successor.
func (g *gpm) crash(name string) {
	g.t.Helper()
	was := g.instance(name, 0)
	kill9(g.t, was.PID)
	g.until("it runs again", func() bool {
		in := g.instance(name, 0)
		return in.Status == api.Online && in.Generation == was.Generation+1
	})
}

// unheld shows that without holding a crash refuses connections, and that the
// app works nevertheless.
func (g *gpm) unheld(port int) {
	g.t.Helper()
	l := g.underLoad(requests(port, "/", 100), func() {
		g.crash("slow")
		g.until("it answers again", func() bool { return reachable(port) == nil })
	})
	if l.Count(load.Request, load.Refused) == 0 {
		g.t.Errorf("nobody was refused: then this test proves nothing\n%v", l)
	}
	if l.Count(load.Request, load.Complete) == 0 {
		g.t.Errorf("the app answered nobody\n%v", l)
	}
}
