package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpm/supervisor/api"
)

func TestAnAppThatIgnoresEverySignal(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.app("deaf", "trap '' INT TERM HUP QUIT; echo deaf; while :; do sleep 1; done", keys{"kill_timeout": 300})))
	for i, verb := range []string{"restart", "stop"} {
		g.says("deaf", strings.Repeat("deaf\n", i+1))
		pid := g.instance("deaf", 0).PID
		g.ok(verb, "deaf")
		if alive(pid) {
			t.Fatalf("after %s pid %d lives", verb, pid)
		}
		if e := g.instance("deaf", 0).LastExit; e == nil || e.PID != pid || e.Signal != "SIGKILL" || strings.Contains(e.Reason, "not by gpm") {
			t.Errorf("after %s the last exit is %+v", verb, e)
		}
	}
	contains(t, g.ok("describe", "deaf"), "did not end within 300ms, sending SIGKILL", "ended by SIGKILL")
}

// says waits until all that an app has said is this: a shell that was started a
// moment ago may count as online before it has read its first line, and what was
// said is in the file a moment later, also after an end.
func (g *gpm) says(name, want string) {
	g.t.Helper()
	g.until(fmt.Sprintf("%s has said %q", name, want), func() bool { return g.read(g.log(name+"-out.log")) == want })
}

// Whoever is told to end is told by the signal he wants, once, and has the time
// he was promised.
func TestKillSignalAndTimeout(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	note := func(sig string) string {
		return "trap 'echo got " + sig + "; sleep 0.5; echo bye; exit 0' " + sig + "; echo up; while :; do sleep 0.05; done"
	}
	g.ok("start", g.conf(
		g.app("int", note("INT"), keys{"kill_timeout": "30s"}),
		g.app("term", note("TERM"), keys{"kill_signal": "SIGTERM", "kill_timeout": "30s"}),
		g.app("usr2", note("USR2"), keys{"kill_signal": "usr2", "kill_timeout": "30s"}),
	))
	for _, name := range []string{"int", "term", "usr2"} {
		g.says(name, "up\n")
		g.ok("stop", name)
		g.says(name, "up\ngot "+strings.ToUpper(name)+"\nbye\n")
		if e := g.instance(name, 0).LastExit; e == nil || e.Code != 0 || e.Signal != "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// A process that dies takes all with it that it has started, however they have
// hidden themselves, and the port is free.
func TestNobodyIsLeftBehind(t *testing.T) {
	t.Parallel()
	srv := filepath.Join(bin, "gosrv")
	for name, script := range map[string]string{
		"child":       srv + " & echo $! > pid.tmp",
		"grandchild":  "(" + srv + " & echo $! > pid.tmp) &",
		"own session": "setsid sh -c '" + srv + " & echo $! > pid.tmp' &",
		"daemon":      "(setsid sh -c '(" + srv + " </dev/null >/dev/null 2>&1 & echo $! > pid.tmp) & exit' & exit) & wait",
		"deaf":        "(trap '' INT TERM HUP; " + srv + " & echo $! > pid.tmp) &",
	} {
		script += "\nuntil [ -s pid.tmp ]; do sleep 0.01; done; mv pid.tmp pid; until [ -e die ]; do sleep 0.02; done; exit 9"
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nobodyIsLeft(t, newGPM(t), script)
		})
		t.Run(name+", as an ordinary user", func(t *testing.T) { // without cgroups
			t.Parallel()
			g := newGPM(t)
			g.ordinary()
			nobodyIsLeft(t, g, script)
		})
	}
}

func nobodyIsLeft(t *testing.T, g *gpm, script string) {
	port := freePort(t)
	g.ok("start", g.conf(g.app("wrap", script, keys{"env": keys{"ADDR": addr(port)}, "autorestart": false, "kill_timeout": 2000})))
	for _, end := range []string{"crash", "stop", "delete"} {
		g.until("it has a child", func() bool { return exists(g.path("pid")) })
		child, err := strconv.Atoi(strings.TrimSpace(g.read(g.path("pid"))))
		if err != nil {
			t.Fatal(err)
		}
		g.until("the child answers", func() bool { _, err := get("http://" + addr(port)); return err == nil })
		if end == "crash" {
			g.write("die", "")
			g.until("it has ended", func() bool { return g.instance("wrap", 0).Status == api.Stopped })
			if e := g.instance("wrap", 0).LastExit; e.Code != 9 {
				t.Errorf("last exit %+v", e)
			}
		} else {
			g.ok(end, "wrap")
		}
		if alive(child) {
			t.Fatalf("after the %s pid %d lives", end, child)
		}
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			t.Fatalf("after the %s: %v", end, err)
		}
		l.Close()
		for _, f := range []string{"die", "pid"} {
			if err := os.RemoveAll(g.path(f)); err != nil {
				t.Fatal(err)
			}
		}
		if end != "delete" {
			g.ok("start", "wrap")
		}
	}
}

// never is a probe that finds nobody ready. Without it a process that got no CPU
// for a second would be online before it dies, and its death another one.
var never = keys{"exec": "false", "interval": "1h"}

// A program that has done its work.
func TestExitZero(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	contains(t, g.ok("start", g.conf(g.app("job", "echo done", keys{"autorestart": false, "ready": never}))), "✓ job-0 stopped")
	in := g.instance("job", 0)
	if in.Status != api.Stopped || in.Restarts != 0 || in.LastExit.Code != 0 || in.OutFile != g.log("job-out.log") {
		t.Errorf("job: %+v", in)
	}
	g.says("job", "done\n")
	contains(t, g.ok("restart", "job"), "job-0 stopped")
	contains(t, g.ok("start", g.path("job.sh"), "--name", "cli", "--no-autorestart", "--wait-ready"), "✓ cli-0 stopped")
	// With autorestart a program that is always done is as broken as any other.
	said := g.fails("start", g.conf(g.app("again", "echo done", keys{"max_restarts": 3, "ready": never})))
	contains(t, said, "✗ again-0 ", "exited with code 0", "done")
	g.until("it is given up", func() bool { return g.instance("again", 0).Status == api.Errored })
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	ready := keys{"exec": "test -e " + g.path("mended"), "interval": "100ms"} // as never, until the end
	path := g.conf(g.app("loop", "echo try; echo why >&2; exit 7", keys{"max_restarts": 4, "ready": ready}))
	for round := 1; round <= 2; round++ { // a person may try again, from the beginning
		said := g.fails("start", path)
		contains(t, said, "✗ loop-0 ", "exited with code 7", "    why\n", "error: start: 1 of 1 instance failed", "hint: gpm describe 0, gpm logs 0")
		g.until("it is given up", func() bool { return g.instance("loop", 0).Status == api.Errored })
		g.says("loop", strings.Repeat("try\n", 4*round))
		g.until("the last words of each are known", func() bool {
			return !slices.ContainsFunc(g.describe("loop")[0].Exits, func(e api.Exit) bool { return len(e.Tail) != 2 })
		})
		d := g.describe("loop")[0]
		if len(d.Exits) != min(4*round, 10) || d.PID != 0 || d.NextTry != nil {
			t.Errorf("round %d: %d exits, %+v", round, len(d.Exits), d.Instance)
		}
		for _, e := range d.Exits {
			if e.Code != 7 {
				t.Errorf("exit %+v", e)
			}
		}
		if o := g.run("list"); !strings.Contains(o.stdout, "errored") || !strings.Contains(o.stdout, "loop-0: exited with code 7; 4 times in a row it ended sooner than min_uptime (1s)") {
			t.Errorf("list: %v", o)
		}
	}
	// It is mended: a restart is all it needs.
	g.write("loop.sh", idle+"\n")
	g.write("mended", "")
	contains(t, g.ok("restart", "loop"), "✓ loop-0 online")
}

func TestStopExitCodes(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	path := g.conf(g.app("app", "until [ -s code ]; do sleep 0.02; done; c=$(cat code); rm code; exit $c", keys{"stop_exit_codes": []int{42, 0}}))
	g.ok("start", path)
	pid := g.online("app", 1)[0].PID
	g.write("code", "41")
	g.until("it is back", func() bool { in := g.instance("app", 0); return in.Status == api.Online && in.PID != pid })
	for _, code := range []string{"42", "0"} {
		g.write("code", code)
		g.until("it stays down", func() bool { return g.instance("app", 0).Status == api.Stopped })
		in := g.instance("app", 0)
		if in.Reason != "exited with code "+code+", one of stop_exit_codes" || in.Restarts != 1 {
			t.Errorf("it is %+v", in)
		}
		g.ok("start", "app")
	}
}

// births are the times at which an app wrote that it was born.
func (g *gpm) births(path string) (r []time.Time) {
	g.t.Helper()
	for line := range strings.Lines(g.read(path)) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			g.t.Fatal(err)
		}
		r = append(r, time.Unix(0, ns))
	}
	return r
}

// Between the end of a process and the next one there is at least the time that
// was asked for. Ten percent are gpm's to spread those who fell together.
func TestRestartDelays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key  keys
		gaps []time.Duration
	}{
		"restart_delay": {keys{"restart_delay": 400}, []time.Duration{400 * time.Millisecond, 400 * time.Millisecond, 400 * time.Millisecond}},
		"backoff":       {keys{"exp_backoff_restart_delay": 200}, []time.Duration{200 * time.Millisecond, 300 * time.Millisecond, 450 * time.Millisecond}},
		"default":       {keys{}, []time.Duration{0, 100 * time.Millisecond, 150 * time.Millisecond, 225 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			g.fails("start", g.conf(g.app("loop", "date +%s%N; exit 1", keys{"max_restarts": len(c.gaps) + 1, "ready": never}, c.key)))
			if name == "restart_delay" {
				g.fails("start", g.conf(g.app("late", "exit 1", keys{"restart_delay": "1h", "ready": never})))
				g.until("it waits", func() bool { in := g.instance("late", 0); return in.Status == api.Waiting && in.NextTry != nil })
			}
			g.until("it is given up", func() bool { return g.instance("loop", 0).Status == api.Errored })
			g.until("all have spoken", func() bool { return strings.Count(g.read(g.log("loop-out.log")), "\n") >= len(c.gaps)+1 })
			at := g.births(g.log("loop-out.log"))
			if len(at) != len(c.gaps)+1 {
				t.Fatalf("%d starts", len(at))
			}
			for i, want := range c.gaps {
				if got := at[i+1].Sub(at[i]); got < want*9/10 {
					t.Errorf("gap %d is %s, expected were at least %s", i, got, want*9/10)
				}
			}
		})
	}
}

// One that lives as long as min_uptime each time may die as often as it likes.
func TestMinUptime(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	dies := "echo born; sleep 1.5; exit 1"
	g.ok("start", g.conf(
		g.app("fair", dies, keys{"max_restarts": 2, "min_uptime": 200, "exp_backoff_restart_delay": 1}),
		g.app("short", dies, keys{"max_restarts": 2, "min_uptime": "1h", "exp_backoff_restart_delay": 1}),
	))
	g.until("one is given up", func() bool { return g.instance("short", 0).Status == api.Errored })
	g.until("the other goes on", func() bool { return g.instance("fair", 0).Restarts >= 3 })
	if in := g.instance("fair", 0); in.Status == api.Errored || in.Unstable != 0 {
		t.Errorf("fair is %+v", in)
	}
	g.says("short", strings.Repeat("born\n", 2))
}

// Somebody else kills it: it comes back, and gpm says that it was not gpm.
func TestKilledBySomebodyElse(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.app("app", "echo last words; "+idle, keys{"instances": 2})))
	first := g.online("app", 2)
	g.until("it has spoken", func() bool { return g.read(first[0].OutFile) == "last words\n" })
	kill9(t, first[0].PID)
	g.until("it is back", func() bool { in := g.instance("app", 0); return in.Status == api.Online && in.PID != first[0].PID })
	in, other := g.instance("app", 0), g.instance("app", 1)
	if in.Restarts != 1 || in.LastExit.Signal != "SIGKILL" || in.LastExit.Code != -1 || in.LastExit.Reason != "killed by SIGKILL (not by gpm)" {
		t.Errorf("it is %+v, %+v", in, in.LastExit)
	}
	if other.PID != first[1].PID || other.Restarts != 0 {
		t.Errorf("the other is %+v", other)
	}
	contains(t, g.ok("describe", "app-0"), fmt.Sprintf("pid %d  killed by SIGKILL (not by gpm)", first[0].PID), "    last words")
}
