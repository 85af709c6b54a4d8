package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/supervisor/api"
)

// steering skips a test of what only works where gpm can steer.
func steering(t *testing.T) {
	t.Helper()
	if modes()[0].steer == "none" {
		t.Skip("this machine lets gpm steer nothing")
	}
}

// endless is a Node server whose endless streams have no end, and that never
// closes an idle connection by itself.
func (g *gpm) endless(n int, more ...keys) (port int) {
	g.t.Helper()
	return g.streams(streamerOf("node"), n, append([]keys{{"env": keys{"MAX_AGE": "Infinity", "KEEP_ALIVE": "0"}}}, more...)...)
}

// keepAlive asks once and keeps the connection.
func keepAlive(t *testing.T, port int) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr(port), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.Close {
		t.Fatalf("a connection that is kept: %v, %+v", err, res)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return c
}

// Idle keep-alive connections do not hold a drain up, though nobody closes them.
func TestIdleConnectionsHoldNoDrainUp(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port := g.endless(1, keys{"drain_idle": "1s", "drain_timeout": "1h"})
	old := g.instance("srv", 0).PID
	var idle []net.Conn
	for range 5 {
		idle = append(idle, keepAlive(t, port))
	}
	// The kernel's table changes while it is read: a row may be missed.
	g.until("the process has the connections that are kept", func() bool { return len(accepted(t, tree(old))) == len(idle) })
	g.ok("reload", "srv")
	g.until("the old process is gone", func() bool { return !alive(old) })
	g.drained()
	for _, c := range idle {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an idle connection got data")
		}
	}
}

// A stream that only sends heartbeats holds a drain up, well beyond drain_idle.
func TestHeartbeatsHoldADrainUp(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port := g.endless(1, keys{"drain_idle": "4s", "drain_timeout": "1h", "env": keys{"INTERVAL": "250"}})
	s := g.tap(port, "/heartbeat")
	keepAlive(t, port)
	g.ok("reload", "srv")
	if now := g.instance("srv", 0); now.PID == s.pid {
		t.Fatalf("pid %d was not replaced", s.pid)
	}
	s.lives(28, "while it drains") // 7 s
	if !alive(s.pid) {
		t.Fatalf("pid %d has ended", s.pid)
	}
	g.until("one of its two connections is live", func() bool {
		in := g.instance("srv", 0)
		return len(in.Outgoing) == 1 && in.Outgoing[0].PID == s.pid && in.Outgoing[0].Streams == 2 && in.Outgoing[0].Live == 1
	})
	s.close()
	g.until("the old process is gone", func() bool { return !alive(s.pid) })
}

// At drain_timeout what is left is cut, and gpm says so.
func TestDrainTimeoutCuts(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port := g.endless(1, keys{"drain_timeout": "5s"}) // some counts of the streams, also on a slow machine
	s := g.tap(port, "/stream")
	began := time.Now()
	g.ok("reload", "srv")
	s.cut("drain_timeout")
	if took := time.Since(began); took < 5*time.Second {
		t.Errorf("it was cut after %s, drain_timeout is 5s", took)
	}
	g.until("the old process is gone", func() bool { return !alive(s.pid) })
	contains(t, g.ok("describe", "srv"), fmt.Sprintf("pid %d gets no new connections", s.pid), "1 live stream cut")
}

// Several generations drain at once, up to max_draining; then a rollout waits
// and says why.
func TestSeveralGenerationsDrain(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port := g.endless(1, keys{"drain_timeout": "1h", "rollout": keys{"max_draining": 2}})
	first := g.tap(port, "/stream")
	g.ok("reload", "srv")
	second := g.tap(port, "/stream")
	g.ok("reload", "srv")
	third := g.tap(port, "/stream")
	if first.pid == second.pid || second.pid == third.pid {
		t.Fatalf("streams are served by %d, %d, %d", first.pid, second.pid, third.pid)
	}
	g.until("two generations drain, a stream each", func() bool {
		out := g.instance("srv", 0).Outgoing
		return len(out) == 2 && out[0].PID == first.pid && out[0].Streams == 1 && out[1].PID == second.pid && out[1].Streams == 1
	})
	v := g.view("reload", "srv")
	v.sees("waiting: max_draining 2")
	if in := g.instance("srv", 0); in.PID != third.pid || in.Generation != 3 {
		t.Errorf("it did not wait: pid %d, generation %d", in.PID, in.Generation)
	}
	first.lives(50, "two generations later")
	second.lives(50, "one generation later")
	first.close()
	v.ends()
	if code := v.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the reload that waited: exit code %d\n%s", code, strings.Join(v.all(), "\n"))
	}
	if in := g.instance("srv", 0); in.Generation != 4 {
		t.Errorf("generation %d, 4 is expected", in.Generation)
	}
	second.lives(1, "after the reload")
	third.lives(1, "after the reload")
	second.close()
	third.close()
	g.drained()
}

// gpm drain takes an instance out of traffic, and waits for its streams; --undo
// brings it back.
func TestDrainVerb(t *testing.T) {
	t.Parallel()
	steering(t)
	g := newGPM(t)
	port := g.endless(2, keys{"drain_timeout": "1h"})
	was := pids(g.online("srv", 2))
	var s *tap
	for s == nil || s.pid != was[0] { // each of the two gets one of them
		s = g.tap(port, "/stream")
	}
	drain := g.background("drain", "srv-0")
	g.until("it is away", func() bool { in := g.instance("srv", 0); return in.Traffic == api.Away })
	if by := answers(t, visit(t, port, "/", 40)); by[was[1]] != 40 {
		t.Errorf("of 40 new connections %v were served by the other one, pid %d", by, was[1])
	}
	s.lives(50, "while it drains")
	g.until("the list says so", func() bool { return strings.Contains(g.ok("list"), "draining") })
	for _, in := range g.list() {
		if in.Instance == 0 && (in.Status != api.Online || in.PID != was[0]) {
			t.Errorf("it is %+v", in)
		}
	}
	select {
	case o := <-drain:
		t.Errorf("gpm drain has not waited: %v", o)
	default:
		s.close()
		if o := <-drain; o.code != 0 {
			t.Errorf("gpm drain: %v", o)
		}
	}
	s.close()
	g.until("it has no streams", func() bool { return g.instance("srv", 0).Streams == 0 })
	contains(t, g.ok("list"), "drained", "--undo")
	g.ok("drain", "srv-0", "--undo")
	g.until("both serve again", func() bool {
		by := answers(t, visit(t, port, "/", 40))
		return by[was[0]] > 0 && by[was[1]] > 0
	})
	// One that is told not to wait does not.
	s = g.tap(port, "/stream")
	g.ok("drain", "srv", "--no-wait")
	g.ok("drain", "srv", "--undo")
	s.lives(1, "drained and back")
	if now := pids(g.online("srv", 2)); !slices.Equal(now, was) {
		t.Errorf("the processes were %v, now they are %v", was, now)
	}
}

// stop, delete and scale let streams finish if they are told to; without that a
// stop cuts them.
func TestVerbsThatDrain(t *testing.T) {
	t.Parallel()
	steering(t)
	for name, c := range map[string]struct {
		verb  []string
		drain bool
	}{
		"stop":           {[]string{"stop", "srv"}, false},
		"stop --drain":   {[]string{"stop", "--drain", "srv"}, true},
		"delete":         {[]string{"delete", "srv"}, false},
		"delete --drain": {[]string{"delete", "--drain", "srv"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			port := g.endless(2)
			path := "/stream?n=100" // 2 s
			if !c.drain {
				path = "/stream?n=10000" // what is cut must not have ended before
			}
			s, other := g.tap(port, path), g.tap(port, "/stream?n=10")
			done := g.background(c.verb...)
			if c.drain {
				other.complete(name)
				s.complete(name)
			} else {
				s.cut(name)
			}
			if o := <-done; o.code != 0 {
				t.Errorf("%s: %v", name, o)
			}
			for _, pid := range []int{s.pid, other.pid} {
				if alive(pid) {
					t.Errorf("%s has returned, pid %d lives", name, pid)
				}
			}
		})
	}
}

// Fewer instances: the others take over, nobody loses a stream.
func TestScaleDownBreaksNothing(t *testing.T) {
	t.Parallel()
	steering(t)
	g, s := newGPM(t), streamerOf("node")
	port := g.streams(s, 4)
	first := g.instance("srv", 0).PID
	o := s.load(port, 100)
	l := g.underLoad(o, func() {
		g.ok("scale", "srv", "1")
		g.until("one is left", func() bool { return len(g.list()) == 1 })
		g.ok("scale", "srv", "3")
		g.online("srv", 3)
		g.ok("scale", "srv", "2")
		g.until("two are left", func() bool { return len(g.list()) == 2 })
	})
	nothingBroken(t, o, l, "scale 4, 1, 3, 2")
	if now := g.instance("srv", 0).PID; now != first {
		t.Errorf("instance 0 was pid %d and is %d", first, now)
	}
}

// gpm kill, and a signal to gpm: streams get shutdown_timeout, not more.
func TestShutdownTimeout(t *testing.T) {
	t.Parallel()
	steering(t)
	for _, c := range []struct {
		name        string
		timeout     any
		finite, cut bool
	}{{"short streams finish", "30s", true, false}, {"long ones are cut", "1s", false, true}, {"none", 0, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			port := g.endless(2, keys{"drain_timeout": "1h", "shutdown_timeout": c.timeout})
			path := "/stream"
			switch {
			case c.finite && c.cut:
				path = "/stream?n=10000" // it must not have ended before
			case c.finite:
				path = "/stream?n=100" // 2 s
			}
			s := g.tap(port, path)
			done := g.background("kill")
			if c.cut {
				s.cut("gpm kill")
			} else {
				s.complete("gpm kill")
			}
			if o := <-done; o.code != 0 {
				t.Errorf("gpm kill: %v", o)
			}
			if alive(s.pid) {
				t.Errorf("gpm kill has returned, pid %d lives", s.pid)
			}
		})
	}
}

// What is open is counted, wherever a person or a machine looks.
func TestStreamsAreCounted(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port := g.endless(1, keys{"drain_idle": "1s"})
	for range 3 {
		g.tap(port, "/stream")
	}
	keepAlive(t, port)
	g.until("four are counted", func() bool { return g.instance("srv", 0).Streams == 4 })
	contains(t, g.ok("list"), "streams")
	var rows []struct {
		Env struct{ Gpm api.Instance } `json:"pm2_env"`
	}
	if err := json.Unmarshal([]byte(g.ok("jlist")), &rows); err != nil || len(rows) != 1 || rows[0].Env.Gpm.Streams != 4 {
		t.Errorf("jlist: %v, %+v", err, rows)
	}
	g.until("one of them is idle", func() bool { return g.describe("srv")[0].Idle == 1 })
	d := g.describe("srv")[0]
	sum := 0
	for _, a := range d.Ages {
		sum += a.Count
	}
	if sum != 4 || d.Queue != 0 {
		t.Errorf("ages %+v, queue %d", d.Ages, d.Queue)
	}
	g.until("describe tells of the idle one", func() bool { return strings.Contains(g.ok("describe", "srv"), "4, 1 idle") })
	contains(t, g.ok("describe", "srv"), "streams", "gets its share")
	// What nobody accepts is in the queue.
	pid := g.instance("srv", 0).PID
	signal(t, []int{pid}, syscall.SIGSTOP)
	waiting := visit(t, port, "/", 7)
	g.until("seven wait", func() bool { return g.instance("srv", 0).Queue == 7 && g.instance("srv", 0).Streams == 11 })
	signal(t, []int{pid}, syscall.SIGCONT)
	if by := answers(t, waiting); by[pid] != 7 {
		t.Errorf("%v answered", by)
	}
}

// Ctrl-C ends a rollout: each instance stays with the version that it has, and
// gpm says which.
func TestInterruptedReload(t *testing.T) {
	t.Parallel()
	g, s := newGPM(t), streamerOf("node")
	port := freePort(t)
	paused := g.streamer(s, port, 3, keys{"rollout": keys{"pause": "1h"}})
	g.ok("start", g.conf(paused))
	g.listeners("srv", port, 3, 1)
	was := pids(g.online("srv", 3))
	v := g.view("reload", "srv")
	v.sees("waiting: pause")
	if err := v.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	v.ends()
	if code := v.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, 130 is expected", code)
	}
	contains(t, strings.Join(v.all(), "\n"), "srv-0 runs the new version", "srv-1 runs the old version", "srv-2 runs the old version",
		"interrupted: 1 of 3 instances run the new version", "gpm reload srv")
	now := pids(g.online("srv", 3))
	if now[0] == was[0] || now[1] != was[1] || now[2] != was[2] {
		t.Errorf("the processes were %v, now they are %v", was, now)
	}
	// All three in one batch: there is nothing to pause between.
	g.ok("reload", g.conf(g.streamer(s, port, 3, keys{"rollout": keys{"pause": "1h", "parallel": 3}})))
	if after := pids(g.online("srv", 3)); slices.ContainsFunc(after, func(pid int) bool { return slices.Contains(now, pid) }) {
		t.Errorf("the processes were %v, now they are %v", now, after)
	}
}
