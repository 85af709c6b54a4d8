package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

func readyApp(t *testing.T, port int, env map[string]any) map[string]any {
	tool(t, "node")
	env["PORT"] = port
	return map[string]any{"name": "r", "script": testdata(t, "node/ready.js"), "wait_ready": true, "instances": 2, "env": env}
}

// wait_ready: listening is not enough, process.send('ready') is.
func TestNodeSaysReady(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	app := readyApp(t, port, map[string]any{"LATE": 700})
	app["cwd"] = g.dir
	g.ok("start", g.conf(app))
	for i := range 2 {
		in := g.instance("r", i)
		if wrote := g.read(filepath.Join(g.dir, fmt.Sprintf("ready-%d", i))); in.Status != api.Online || wrote != strconv.Itoa(in.PID) {
			t.Errorf("start has returned; instance %+v, said ready: %q", in, wrote)
		}
	}
	was := g.online("r", 2)
	g.ok("reload", "r")
	for i := range 2 {
		in := g.instance("r", i)
		if wrote := g.read(filepath.Join(g.dir, fmt.Sprintf("ready-%d", i))); in.PID == was[i].PID || wrote != strconv.Itoa(in.PID) {
			t.Errorf("reload has returned; instance %+v, said ready: %q", in, wrote)
		}
	}
}

// A process that never says it has failed, whatever it listens on; a reload to
// such a version keeps the old one.
func TestNobodySaysReady(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	silent := readyApp(t, port, map[string]any{})
	silent["listen_timeout"], silent["max_restarts"] = 10_000, 1 // time enough to start, and to listen
	said := g.fails("start", g.conf(silent))
	for _, want := range []string{"did not say 'ready' within listen_timeout (10s)", "instance 0 listens", "instance 1 listens"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	g.until("both have given up", func() bool {
		return !slices.ContainsFunc(g.list(), func(in api.Instance) bool { return in.Status != api.Errored })
	})
	good := readyApp(t, port, map[string]any{"LATE": 1})
	good["cwd"] = g.dir
	g.ok("start", g.conf(good))
	was := g.online("r", 2)
	said = g.fails("reload", g.conf(silent))
	if want := "did not say 'ready' within listen_timeout (10s)"; !strings.Contains(said, want) {
		t.Errorf("%q is not said:\n%s", want, said)
	}
	if now := g.online("r", 2); !slices.Equal(pids(now), pids(was)) {
		t.Errorf("the old processes were %v, now they are %v", pids(was), pids(now))
	}
}

// sd_notify: from the process itself, and from a child of a shell script.
func TestReadyBySdNotify(t *testing.T) {
	python := tool(t, "python3")
	notify := fmt.Sprintf("%s %s", python, testdata(t, "python/notify.py"))
	for name, script := range map[string]string{
		"itself": "#!/bin/sh\ntouch started\nexec " + notify + " # and ends\n",
		"child":  "#!/bin/sh\ntouch started\n" + notify + "\nexec sleep 1000\n",
		"never":  "#!/bin/sh\necho waiting for the database\nexec sleep 1000\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			app := map[string]any{
				"name": "n", "script": g.write("n.sh", script), "interpreter": "none", "wait_ready": true, "autorestart": false,
			}
			if name == "never" {
				app["listen_timeout"] = 4000
			}
			conf := g.conf(app)
			if name == "never" {
				if said := g.fails("start", conf); !strings.Contains(said, "did not say 'ready'") || !strings.Contains(said, "waiting for the database") {
					t.Errorf("reason or last lines are missing:\n%s", said)
				}
				return
			}
			g.ok("start", conf)
			ready := false
			for _, e := range g.describe("n")[0].Events {
				ready = ready || e.Kind == "online"
			}
			if !ready {
				t.Errorf("it never was online: %+v", g.describe("n")[0].Events)
			}
		})
	}
}

// Every instance has a number of its own, and keeps it.
func TestInstanceNumbers(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	g.ok("start", g.conf(map[string]any{
		"name": "n", "script": testdata(t, "node/whoami.js"), "instances": 4, "env": map[string]any{"PORT": port}, "merge_logs": false,
	}))
	first := g.numbered(port, 4)
	g.ok("scale", "n", "6")
	six := g.numbered(port, 6)
	g.keeps(first, six)
	g.ok("scale", "n", "-4")
	g.until("two are left", func() bool { return len(g.list()) == 2 })
	two := g.numbered(port, 2)
	g.keeps(two, six)
	g.ok("scale", "n", "+1")
	three := g.numbered(port, 3)
	g.keeps(two, three)
	if by := answers(t, visit(t, port, "/", 60)); len(by) != 3 {
		t.Errorf("three processes are to answer, not %v", by)
	}
}

// numbered checks that an app has n instances, each of which knows its number,
// and returns pids by number.
func (g *gpm) numbered(port, n int) map[int]int {
	g.t.Helper()
	g.listeners("n", port, n, 1)
	by := map[int]int{}
	for _, in := range g.online("n", n) {
		want := fmt.Sprintf("instance: %d\n", in.Instance)
		g.until("instance "+strconv.Itoa(in.Instance)+" has said its number", func() bool {
			return strings.HasSuffix(g.read(in.ErrorFile), want)
		})
		by[in.Instance] = in.PID
	}
	for i := range n {
		if by[i] == 0 {
			g.t.Fatalf("no instance has number %d: %v", i, by)
		}
	}
	return by
}

// keeps checks that those of a are the same processes in b.
func (g *gpm) keeps(a, b map[int]int) {
	g.t.Helper()
	for i, pid := range a {
		if b[i] != pid {
			g.t.Errorf("instance %d was pid %d and is %d", i, pid, b[i])
		}
	}
}

// nobody is an ordinary user that every Linux has.
const nobody = 65534

// open moves the working folder to where an ordinary user can read it.
func (g *gpm) open() {
	g.t.Helper()
	dir, err := os.MkdirTemp("", "gpm-open")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	g.dir = dir
}

// copied is a file of testdata in the working folder.
func (g *gpm) copied(name string) string {
	g.t.Helper()
	b, err := os.ReadFile(testdata(g.t, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return g.write(filepath.Base(name), string(b))
}

// uid: gpm runs as root, the app as nobody, on a port that nobody may not open.
func TestAppOfAnotherUser(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g := newGPM(t)
	g.open()
	port := lowPort(t)
	app := map[string]any{
		"name": "n", "script": g.copied("node/whoami.js"), "instances": 2, "uid": "nobody",
		"env": map[string]any{"PORT": port}, "out_file": "logs/out.log", "error_file": "logs/err.log",
	}
	if os.Geteuid() != 0 {
		if said := g.fails("start", g.conf(app)); !strings.Contains(said, "root") {
			t.Errorf("why it cannot be is not said:\n%s", said)
		}
		return
	}
	g.ok("start", g.conf(app))
	by := g.numbered(port, 2)
	for _, pid := range by {
		if uids := status(t, pid, "Uid"); uids != "65534 65534 65534 65534" {
			t.Errorf("pid %d has uids %s", pid, uids)
		}
		if caps := status(t, pid, "CapEff"); strings.Trim(caps, "0") != "" {
			t.Errorf("pid %d has capabilities %s", pid, caps)
		}
	}
	for _, in := range g.list() {
		g.until("it has written through /dev/stdout", func() bool { return strings.Contains(g.read(in.OutFile), "who: ") })
		if said := g.read(in.OutFile); !strings.HasPrefix(said, "who: 65534 65534 65534 /nonexistent nobody\n") {
			t.Errorf("%s: %s", in.OutFile, said)
		}
		if in.User != "nobody" {
			t.Errorf("the list says user %q", in.User)
		}
	}
	if answered := answers(t, visit(t, port, "/", 40)); !sameKeys(answered, by) {
		t.Errorf("%v answered, the instances are %v", answered, by)
	}
	kill9(t, by[0])
	if answered := answers(t, visit(t, port, "/", 40)); sum(answered) != 40 {
		t.Errorf("%v answered", answered)
	}
	g.ok("reload", "n")
	g.numbered(port, 2)
	g.notifiesAsNobody()
}

// notifiesAsNobody: the notify socket is open to apps of other users.
func (g *gpm) notifiesAsNobody() {
	g.t.Helper()
	script := fmt.Sprintf("#!/bin/sh\n%s %s\nexec sleep 1000\n", debianPython, g.copied("python/notify.py"))
	if _, err := os.Stat(debianPython); err != nil {
		g.t.Skipf("%s is not installed", debianPython)
	}
	g.ok("start", g.conf(map[string]any{"name": "told", "script": g.write("told.sh", script), "uid": "nobody", "wait_ready": true}))
	g.online("told", 1)
}

func sameKeys(answered, by map[int]int) bool {
	return slices.Equal(slices.Sorted(maps.Keys(answered)), slices.Sorted(maps.Values(by)))
}

// status is a line of /proc/<pid>/status, its fields with one blank between.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

// lowPort is a free port below 1024; as an ordinary user any.
func lowPort(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		return freePort(t)
	}
	for port := 810; port < 870; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port below 1024")
	return 0
}

// All of gpm as an ordinary user: no capability, no cgroup, and still four
// unchanged processes on one port that lose no connection to a kill -9.
func TestGPMOfAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	g.ordinary()
	g.ok("start", g.conf(map[string]any{
		"name": "n", "script": g.copied("node/whoami.js"), "instances": 4, "env": map[string]any{"PORT": port},
	}))
	by := g.numbered(port, 4)
	if os.Geteuid() == 0 {
		for _, pid := range append(slices.Collect(maps.Values(by)), g.pid("keeper.pid"), g.pid("gpm.pid")) {
			if uids := status(t, pid, "Uid"); uids != "65534 65534 65534 65534" {
				t.Errorf("pid %d has uids %s", pid, uids)
			}
		}
	}
	if answered := answers(t, visit(t, port, "/", 200)); !sameKeys(answered, by) {
		t.Errorf("%v answered, the instances are %v", answered, by)
	}
	resume := g.pauseDaemon()
	kill9(t, by[2])
	g.until("it is dead", func() bool { return !alive(by[2]) })
	all := visit(t, port, "/", 200) // a quarter of them waits for the successor
	resume()
	answered := answers(t, all)
	now := g.numbered(port, 4)
	if answered[by[2]] > 0 || answered[now[2]] == 0 || sum(answered) != 200 {
		t.Errorf("%v answered; before the kill: %v, after: %v", answered, by, now)
	}
	g.ok("reload", "n")
	g.numbered(port, 4)
	g.ok("restart", "n")
	g.numbered(port, 4)
}
