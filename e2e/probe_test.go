package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/bench/load"
	"gpm/supervisor/api"
)

// moody starts n instances of a server that is ready, or hangs, when the test
// says so. It returns when the command has been sent, not when it has ended.
func (g *gpm) moody(n int, more ...keys) (port int, app keys) {
	g.t.Helper()
	tool(g.t, "node")
	port = freePort(g.t)
	app = keys{"name": "m", "script": g.copied("node/moody.js"), "cwd": g.dir, "instances": n, "env": keys{"PORT": strconv.Itoa(port)}}
	for _, k := range more {
		for key, v := range k {
			app[key] = v
		}
	}
	return port, app
}

// boots are the pids of all that have started, in order.
func (g *gpm) boots() (all []int) {
	g.t.Helper()
	for line := range strings.Lines(g.read(g.path("boots"))) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, pid)
	}
	return all
}

// booted waits until n processes have started.
func (g *gpm) booted(n int) []int {
	g.t.Helper()
	g.until(fmt.Sprintf("%d processes have started", n), func() bool { return len(g.boots()) >= n })
	return g.boots()
}

func (g *gpm) mood(what string, pid int) { g.write(fmt.Sprintf("%s-%d", what, pid), "") }

// A process that listens and answers 503 gets no connection before it answers
// 200, each of them asked by itself on the port that all share.
func TestReadyProbe(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port, app := g.moody(2, keys{"ready": keys{"http": "/ready", "interval": "50ms"}, "listen_timeout": "10m"})
	start := g.background("start", g.conf(app))
	old := g.booted(2)
	for i := range 2 {
		if in := g.instance("m", i); in.Status != api.Launching {
			t.Errorf("instance %d answers 503 and is %s", i, in.Status)
		}
	}
	for _, pid := range old {
		g.mood("ready", pid)
	}
	if o := <-start; o.code != 0 {
		t.Fatalf("start: %v", o)
	}
	steering(t)
	old = pids(g.online("m", 2)) // by their number, as they will be replaced
	reload := g.background("reload", "m")
	for i := range 2 {
		pid := g.booted(3 + i)[2+i]
		wait(t, "the new process listens", func() bool { return len(sockets([]int{pid})) > 0 })
		if by := answers(t, visit(t, port, "/", 60)); by[pid] > 0 || len(by) != 2 || by[old[1]] == 0 {
			t.Errorf("pid %d answers 503; those who got connections are %v", pid, by)
		}
		g.mood("ready", pid)
		g.until("it serves", func() bool { return slices.Contains(pids(g.list()), pid) })
	}
	if o := <-reload; o.code != 0 {
		t.Errorf("reload: %v", o)
	}
	now := g.boots()[2:]
	if by := answers(t, visit(t, port, "/", 60)); len(by) != 2 || by[now[0]] == 0 || by[now[1]] == 0 {
		t.Errorf("the new processes are %v, those who got connections %v", now, by)
	}
}

// Each kind of probe finds out; one that never succeeds is a failure with its
// reason, and the old process goes on.
func TestProbeKinds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		probe keys
		said  string // when it fails
	}{
		"http":  {keys{"http": "/ready"}, "503"},
		"tcp":   {keys{"tcp": true}, ""}, // whoever listens is ready
		"exec":  {keys{"exec": "test -n \"$READY\" || { echo no READY here; exit 7; }"}, "7"},
		"sse":   {keys{"sse": "/events", "timeout": "1s"}, "without an event"},
		"event": {keys{"sse": "/events", "event": "tick", "timeout": "1s"}, `without an event "tick"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			_, app := g.moody(2, keys{"ready": c.probe})
			env := app["env"].(keys)
			env["READY"] = "1"
			g.ok("start", g.conf(app))
			was := pids(g.online("m", 2))
			if c.said == "" {
				return
			}
			delete(env, "READY")
			app["listen_timeout"] = "10s" // time enough to start, and to be asked
			said := g.fails("reload", g.conf(app))
			contains(t, said, "✗ m-0", "not ready within listen_timeout (10s)", c.said)
			if now := pids(g.online("m", 2)); !slices.Equal(now, was) {
				t.Errorf("the processes were %v, now they are %v", was, now)
			}
		})
	}
}

// One that hangs is taken out of traffic, then replaced; who is served by the
// others does not notice, and neither does who waited in its queue.
func TestAHungInstanceIsReplaced(t *testing.T) {
	t.Parallel()
	steering(t)
	health := keys{"health": keys{"http": "/", "interval": "200ms", "timeout": "2s", "failures": 2}, "hang_timeout": 0}
	stall := keys{"hang_timeout": "2s"}
	for name, c := range map[string]struct {
		app    keys
		stop   bool // by SIGSTOP
		reason string
	}{
		"health, blocked":       {health, false, "health checks in a row failed"},
		"health, stopped":       {health, true, "health checks in a row failed"},
		"hang_timeout, blocked": {stall, false, "it hangs: "},
		"hang_timeout, stopped": {stall, true, "it hangs: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			port, app := g.moody(3, c.app, keys{"kill_timeout": "1s", "drain_timeout": "2s"})
			g.ok("start", g.conf(app))
			g.listeners("m", port, 3, 1)
			victim := g.online("m", 3)[1]
			o := requests(port, "/", 60)
			w := wound{from: time.Now()}
			l := g.underLoad(o, func() {
				if c.stop {
					signal(t, []int{victim.PID}, syscall.SIGSTOP)
					wait(t, "it stands still", func() bool { return !moves(victim.PID) })
				} else {
					g.mood("hang", victim.PID)
					g.until("it hangs", func() bool { return exists(g.path(fmt.Sprintf("hangs-%d", victim.PID))) })
				}
				w.peers = peersOf(t, tree(victim.PID))
				g.until("it has been replaced", func() bool {
					in := g.instance("m", 1)
					return in.Status == api.Online && in.PID != victim.PID && in.PID != 0
				})
				g.drained()
			})
			w.until = time.Now()
			t.Logf("the hung process had %d connections:\n%v", len(w.peers), l)
			others := unexplained(l, []wound{w})
			if !strings.Contains(g.run("doctor").stdout, "leaves its queue to the others") { // classic BPF, and kernels before 5.14
				others = slices.DeleteFunc(others, func(l load.Loss) bool { return l.Class == load.Reset })
			}
			if len(others) > 0 {
				t.Errorf("%d requests broke that the hung process had not accepted:\n%s", len(others), firstLosses(others))
			}
			if l.Count(load.Request, load.Complete) == 0 {
				t.Error("nobody was served")
			}
			said := g.ok("describe", "m-1")
			contains(t, said, fmt.Sprintf("pid %d: ", victim.PID), c.reason)
			if alive(victim.PID) {
				t.Errorf("pid %d lives", victim.PID)
			}
		})
	}
}

// Probes reach each of several that listen on IPv6 alone: the one that hangs is
// found and replaced, and nobody else.
func TestHealthOverIPv6(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port, app := g.moody(3, keys{"health": keys{"http": "/", "interval": "100ms", "timeout": "4s", "failures": 2}, "hang_timeout": 0, "kill_timeout": "1s", "drain_timeout": "2s"})
	app["env"].(keys)["HOST"] = "::1"
	g.ok("start", g.conf(app))
	g.listeners("m", port, 3, 1)
	was := g.online("m", 3)
	signal(t, []int{was[1].PID}, syscall.SIGSTOP)
	g.until("it has been replaced", func() bool {
		in := g.instance("m", 1)
		return in.Status == api.Online && in.PID != was[1].PID && in.PID != 0
	})
	g.drained()
	contains(t, g.ok("describe", "m-1"), fmt.Sprintf("pid %d: ", was[1].PID), "health checks in a row failed")
	for i, in := range g.online("m", 3) {
		if i != 1 && in.PID != was[i].PID {
			t.Errorf("instance %d was replaced, too", i)
		}
	}
}

// A stopped process that goes on before anybody missed it is left alone.
func TestAShortPauseIsNoHang(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port, app := g.moody(2, keys{"hang_timeout": "1h", "health": keys{"tcp": true, "interval": "100ms"}})
	g.ok("start", g.conf(app))
	g.listeners("m", port, 2, 1)
	was := pids(g.online("m", 2))
	signal(t, was[:1], syscall.SIGSTOP)
	all := visit(t, port, "/", 20)
	g.until("some wait for it", func() bool { return g.instance("m", 0).Queue > 0 })
	signal(t, was[:1], syscall.SIGCONT)
	if by := answers(t, all); sum(by) != 20 {
		t.Errorf("%v answered", by)
	}
	if now := pids(g.online("m", 2)); !slices.Equal(now, was) {
		t.Errorf("the processes were %v, now they are %v", was, now)
	}
}

// standby: a process that has started already takes the place of a dead one.
func TestStandby(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port, app := g.moody(2, keys{"standby": 1}, mortal)
	g.ok("start", g.conf(app))
	g.listeners("m", port, 2, 1)
	var times []string
	for range 3 {
		g.until("a standby waits", func() bool {
			list := g.online("m", 2)
			return list[0].Standby == 1 && list[1].Standby == 1
		})
		victim := g.instance("m", 0)
		before := g.boots()
		began := time.Now()
		kill9(t, victim.PID)
		if err := reachable(port); err != nil {
			t.Error(err)
		}
		times = append(times, time.Since(began).String())
		g.until("its place is taken", func() bool { in := g.instance("m", 0); return in.Status == api.Online && in.PID != victim.PID })
		heir := g.instance("m", 0).PID
		if !slices.Contains(before, heir) {
			t.Errorf("pid %d took the place; before the kill there were %v", heir, before)
		}
		if by := answers(t, visit(t, port, "/", 40)); by[heir] == 0 || len(by) != 2 {
			t.Errorf("%v answered, the heir is %d", by, heir)
		}
	}
	t.Logf("kill -9 to an answer (of anybody): %v", times)
	g.until("describe tells of the next one", func() bool { return strings.Contains(g.ok("describe", "m"), "standby ") })
}

// An instance that is down for long holds nobody: its share goes to the others.
// When all are down, connections wait for a while and are then refused.
func TestNobodyWaitsForTheDead(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port, app := g.moody(2, keys{"restart_delay": "1h", "queue_timeout": "2s", "autorestart": true})
	g.ok("start", g.conf(app))
	g.listeners("m", port, 2, 1)
	was := pids(g.online("m", 2))
	behead(t, was[1])
	g.until("it is down for long", func() bool { return g.instance("m", 1).Status == api.Waiting })
	if by := answers(t, visit(t, port, "/", 60)); by[was[0]] != 60 {
		t.Errorf("of 60 connections %v were served by the other one, pid %d", by, was[0])
	}
	behead(t, was[0])
	g.until("both are down", func() bool { return g.instance("m", 0).Status == api.Waiting })
	g.until("new connections are refused", func() bool {
		err := reachable(port)
		if err == nil {
			t.Fatal("somebody has answered")
		}
		return strings.Contains(err.Error(), "refused")
	})
	g.ok("restart", "m")
	g.online("m", 2)
	if err := reachable(port); err != nil {
		t.Error(err)
	}
	g.ok("stop", "m-0")
	if by := answers(t, visit(t, port, "/", 30)); len(by) != 1 {
		t.Errorf("one is stopped, %v answered", by)
	}
}
