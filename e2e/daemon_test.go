package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gpm/supervisor/api"
)

// sseApp starts the sample app with n instances on a free port and returns it.
func (g *gpm) sseApp(n int) (port int) {
	g.t.Helper()
	port = freePort(g.t)
	g.ok("start", g.conf(map[string]any{
		"name": "sse", "script": filepath.Join(bin, "sse-app"), "instances": n,
		"args": []string{"-interval", "20ms"}, "env": map[string]any{"PORT": port}, "kill_timeout": 15000,
	}))
	g.online("sse", n)
	g.listeners("sse", port, n, 1)
	return port
}

func pids(list []api.Instance) (r []int) {
	for _, in := range list {
		r = append(r, in.PID)
	}
	return r
}

// openStream holds an endless stream and counts its events in n.
func openStream(t *testing.T, port int) (next func() string) {
	t.Helper()
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/stream", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	return func() string {
		for lines.Scan() {
			if s, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return s
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return ""
	}
}

// The daemon is killed: the apps do not notice, the stream goes on, and the
// next daemon knows everything.
func TestTheDaemonMayDie(t *testing.T) {
	g := newGPM(t)
	port := g.sseApp(2)
	before := pids(g.online("sse", 2))
	next := openStream(t, port)
	next()
	for range 3 {
		daemon := g.pid("gpm.pid")
		kill9(t, daemon)
		after := g.list() // waits for the next daemon: the socket is the keeper's
		if got := pids(after); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Fatalf("pids %v, before %v", got, before)
		}
		for _, in := range after {
			if in.Status != api.Online || in.Restarts != 0 || in.Hold != "held" || len(in.Listeners) != 1 {
				t.Fatalf("after the daemon's death: %+v", in)
			}
		}
		g.until("a new daemon wrote its pid", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 })
		next()
	}
	// And it still can do everything with them.
	kill9(t, before[0])
	g.until("the killed one is back", func() bool { in := g.instance("sse", 0); return in.Status == api.Online && in.PID != before[0] })
	g.ok("reload", "sse")
	if _, err := get(fmt.Sprintf("http://127.0.0.1:%d/v1/models", port)); err != nil {
		t.Fatal(err)
	}
}

func TestTheKeeperMayDie(t *testing.T) {
	for _, who := range []string{"the keeper", "keeper and daemon"} {
		t.Run(who, func(t *testing.T) {
			g := newGPM(t)
			port := g.sseApp(2)
			before := pids(g.online("sse", 2))
			next := openStream(t, port)
			next()
			if who == "the keeper" {
				keeper := g.pid("keeper.pid")
				kill9(t, keeper)
				g.until("a new keeper runs", func() bool { p := g.pid("keeper.pid"); return p != keeper && p != 0 && alive(p) })
				g.until("a new daemon answers", func() bool { return g.answers() })
			} else {
				g.killBoth()
				g.ok("resurrect")
			}
			if got := pids(g.online("sse", 2)); fmt.Sprint(got) != fmt.Sprint(before) {
				t.Fatalf("pids %v, before %v", got, before)
			}
			next()
			kill9(t, before[1])
			g.until("the killed one is back", func() bool { in := g.instance("sse", 1); return in.Status == api.Online && in.PID != before[1] })
			for range 20 {
				if _, err := get(fmt.Sprintf("http://127.0.0.1:%d/v1/models", port)); err != nil {
					t.Fatal(err)
				}
			}
			g.ok("stop", "sse")
		})
	}
}

// A writer counts as fast as it can while the daemon is killed again and
// again; every line is in the file, once, in order.
func TestNoLineIsLostWhileTheDaemonDies(t *testing.T) {
	g := newGPM(t)
	const lines = 300_000
	script := g.write("count.sh", "#!/bin/sh\nseq 1 "+fmt.Sprint(lines)+"\nprintf LAST\nexec sleep 1000\n")
	out := filepath.Join(g.dir, "count.log")
	g.ok("start", g.conf(map[string]any{"name": "count", "script": script, "out_file": out, "log_max_size": "100M"}), "--no-wait")
	for range 8 {
		g.until("a daemon runs", func() bool { return g.answers() })
		if d := g.pid("gpm.pid"); d != 0 && alive(d) {
			kill9(t, d)
		}
	}
	g.until("the last line is written", func() bool { return strings.Contains(g.read(out), fmt.Sprintf("\n%d\n", lines)) })
	n := 0
	for line := range strings.Lines(g.read(out)) {
		if line == "LAST" || line == "LAST\n" {
			break
		}
		n++
		if line != fmt.Sprintln(n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if n != lines {
		t.Fatalf("%d lines of %d", n, lines)
	}
}

func TestUpdateIsTheSamePath(t *testing.T) {
	g := newGPM(t)
	g.sseApp(2)
	before := pids(g.online("sse", 2))
	was := g.pid("gpm.pid")
	next := filepath.Join(bin, "gpm-next")
	if !exists(next) {
		next = filepath.Join(t.TempDir(), "gpm")
		c := exec.Command("go", "build", "-ldflags", "-X gpm/supervisor/api.Version=99.1.0", "-o", next, "gpm/cmd/gpm")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	o := g.finish(exec.Command(next, "update"))
	if o.code != 0 || !strings.Contains(o.stdout, "99.1.0") {
		t.Fatalf("update: %v", o)
	}
	if now := g.pid("gpm.pid"); now == was {
		t.Fatalf("the daemon is still pid %d", was)
	}
	if got := pids(g.online("sse", 2)); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Fatalf("pids %v, before %v", got, before)
	}
	// A broken binary must not take gpm down.
	broken := g.write("broken", "#!/bin/sh\nexit 1\n")
	o = g.finish(exec.Command(next, "update", "--exe", broken))
	g.until("a daemon answers", func() bool { return g.answers() })
	if got := pids(g.online("sse", 2)); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Fatalf("after a broken update (%v): pids %v, before %v", o, got, before)
	}
}

func TestFiveStartsAtOnce(t *testing.T) {
	g := newGPM(t)
	script := g.write("app.sh", "#!/bin/sh\nexec sleep 1000\n")
	var wg sync.WaitGroup
	out := make([]output, 5)
	for i := range out {
		wg.Go(func() { out[i] = g.run("start", script, "--name", fmt.Sprintf("app%d", i)) })
	}
	wg.Wait()
	for i, o := range out {
		if o.code != 0 || !strings.Contains(o.stdout, fmt.Sprintf("app%d", i)) {
			t.Errorf("start %d: %v", i, o)
		}
	}
	if l := g.list(); len(l) != 5 {
		t.Fatalf("%d apps", len(l))
	}
	keepers := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if strings.Contains(string(line), "\x00keeper") && strings.Contains(string(env), "GPM_HOME="+g.home+"\x00") {
			keepers++
		}
	}
	if keepers != 1 {
		t.Fatalf("%d keepers", keepers)
	}
}

// After a reboot there are records and nothing else. What was wanted runs
// again, what was stopped stays stopped.
func TestRecordsBringEverythingBack(t *testing.T) {
	g := newGPM(t)
	script := g.write("app.sh", "#!/bin/sh\nexec sleep 1000\n")
	g.ok("start", script, "--name", "runs", "-i", "2")
	g.ok("start", script, "--name", "rests")
	g.ok("stop", "rests")
	// SIGTERM to the keeper is what systemd does at shutdown.
	keeper := g.pid("keeper.pid")
	was := pids(g.online("runs", 2))
	if err := exec.Command("kill", fmt.Sprint(keeper)).Run(); err != nil {
		t.Fatal(err)
	}
	g.until("everything has ended", func() bool { return !alive(keeper) && !alive(was[0]) && !alive(was[1]) })
	g.ok("resurrect")
	g.online("runs", 2)
	if in := g.instance("rests", 0); in.Status != api.Stopped {
		t.Fatalf("rests: %+v", in)
	}
}

// Any of them, in any order, again and again: a daemon that took over from
// another one, and a keeper that took over from another one, may die as well.
// Every line that is written meanwhile is in the file, once; but when both die in
// the same instant, what is just between pipe and file dies with them.
func TestAnybodyMayDieAgain(t *testing.T) {
	g := newGPM(t)
	script := g.write("count.sh", "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo $i; done\n")
	out := filepath.Join(g.dir, "count.log")
	g.ok("start", g.conf(map[string]any{"name": "count", "script": script, "out_file": out, "log_max_size": "1G"}))
	pid := g.online("count", 1)[0].PID
	lines := func() int { return strings.Count(g.read(out), "\n") }
	for i, who := range []string{"daemon", "keeper", "daemon", "keeper", "keeper", "both", "daemon", "keeper", "both"} {
		keeper, daemon := g.pid("keeper.pid"), g.pid("gpm.pid")
		switch who {
		case "daemon":
			kill9(t, daemon)
		case "both":
			g.killBoth()
			g.ok("list") // brings back a gpm that died
		case "keeper":
			kill9(t, keeper)
			g.until("a new keeper runs", func() bool { p := g.pid("keeper.pid"); return p != keeper && p != 0 && alive(p) })
		}
		g.until("a daemon answers", g.answers)
		g.until("a new daemon wrote its pid", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 && alive(p) })
		if got := g.online("count", 1)[0].PID; got != pid {
			t.Fatalf("after death %d (%s) the app is pid %d, not %d", i, who, got, pid)
		}
		n := lines()
		g.until("what the app says is read", func() bool { return lines() > n })
	}
	g.ok("stop", "count")
	n, gaps, bothDied := 0, 0, 2
	for line := range strings.Lines(g.read(out)) {
		n++
		if line == fmt.Sprintln(n) {
			continue
		}
		is, err := strconv.Atoi(strings.TrimSpace(line))
		gaps++
		if err != nil || is < n || gaps > bothDied || (is-n)*len(line) > 1<<20 { // the journal is no larger than a pipe
			t.Fatalf("line %d is %q", n, line)
		}
		n = is
	}
}

// Who ends while there is neither keeper nor daemon has died like others: it is
// judged, counted and told, and one that is not to start again does not.
func TestAnEndThatNobodySaw(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	script := g.write("app.sh", "echo run >> runs-$1; until [ -e end-$$ ]; do sleep 0.05; done")
	app := func(name string, again bool) keys {
		return keys{"name": name, "script": script, "args": []string{name}, "cwd": g.dir, "autorestart": again}
	}
	g.ok("start", g.conf(app("once", false), app("again", true)))
	once, again := g.online("once", 1)[0].PID, g.online("again", 1)[0].PID
	g.killBoth()
	for _, pid := range []int{once, again} {
		g.write(fmt.Sprint("end-", pid), "")
		g.until("it has ended", func() bool { return !alive(pid) })
	}
	g.ok("list")
	g.until("it runs again", func() bool { in := g.instance("again", 0); return in.Status == api.Online && in.Restarts == 1 })
	contains(t, g.ok("describe", "again"), fmt.Sprintf("pid %d ", again), "ended while nobody could see how")
	g.until("the other one is known to have ended", func() bool { return g.instance("once", 0).Status == api.Stopped })
	contains(t, g.ok("describe", "once"), fmt.Sprintf("pid %d ", once), "autorestart is off")
	if n := strings.Count(g.read(g.path("runs-once")), "run"); n != 1 {
		t.Errorf("what is not to start again has run %d times", n)
	}
	// After an orderly end both are started: that is what gpm was asked for.
	g.ok("save")
	g.end()
	g.ok("resurrect")
	g.online("again", 1)
	if log := g.read(filepath.Join(g.home, "gpm.log")); strings.Contains(log, "level=ERROR") {
		t.Errorf("gpm.log: %s", log)
	}
}

// Standbys do not outlive a keeper that was killed: nobody could give them a
// place any more. There are new ones, and nothing is left over.
func TestStandbysAfterTheDeathOfTheKeeper(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"keeper", "both", "daemon"} {
		t.Run(who, func(t *testing.T) {
			g := newGPM(t)
			_, app := g.moody(1, keys{"standby": 2})
			g.ok("start", g.conf(app))
			g.until("two wait", func() bool { return g.online("m", 1)[0].Standby == 2 })
			was := g.boots()
			switch who {
			case "keeper":
				kill9(t, g.pid("keeper.pid"))
			case "daemon":
				kill9(t, g.pid("gpm.pid"))
			case "both":
				g.killBoth()
			}
			g.until("a daemon answers", func() bool { return g.run("list").code == 0 })
			serves := g.online("m", 1)[0].PID
			g.until("two others wait", func() bool { return g.online("m", 1)[0].Standby == 2 })
			g.until("the old ones are gone", func() bool {
				return !slices.ContainsFunc(was, func(pid int) bool { return pid != serves && alive(pid) })
			})
			all := g.boots()
			g.ok("delete", "m")
			g.until("nothing is left", func() bool { return !slices.ContainsFunc(all, alive) })
		})
	}
}

// The listener of an app that a shell or npm starts is in a child of the process
// that gpm started; both deaths at once do not hide it.
func TestAShellsChildAfterBothDeaths(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port := freePort(t)
	script := g.write("server.js", fmt.Sprintf("require('http').createServer((q, r) => r.end('ok')).listen(%d)", port))
	g.ok("start", g.conf(keys{"name": "sh", "script": "node " + script + "; true", "instances": 2}))
	list := g.online("sh", 2)
	g.listeners("sh", port, 2, 1)
	g.killBoth()
	g.ok("list")
	for _, in := range g.online("sh", 2) {
		if len(in.Listeners) == 0 {
			t.Errorf("nothing is held for instance %d", in.Instance)
		}
	}
	kill9(t, list[0].PID)
	g.until("the dead one is back", func() bool { in := g.instance("sh", 0); return in.PID != list[0].PID && in.Status == api.Online })
	g.ok("reload", "sh")
}
