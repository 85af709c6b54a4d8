package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpm/bench/load"
)

// goodVersion is what the script says when it works.
const goodVersion = "exec node stream.js"

// brokenVersions never serve. said is what a person gets to see: the reason, and
// the last lines of the new process. Those that end have all the time for it that
// a slow machine takes.
var brokenVersions = []struct {
	name, script string
	limit        time.Duration // listen_timeout
	said         []string
}{
	{"exits", "echo cannot find the database >&2; exit 3", patience,
		[]string{"the new process exited with code 3", "cannot find the database"}},
	{"does not compile", "exec node -e 'console.log('", patience,
		[]string{"the new process exited with code 1", "SyntaxError"}},
	{"is killed", "echo one moment; kill -9 $$; sleep 1000", patience,
		[]string{"the new process killed by SIGKILL (not by gpm)", "one moment"}},
	{"never listens", "echo thinking; exec sleep 1000", 3 * time.Second,
		[]string{"it did not listen within listen_timeout (3s), as the one before it did", "thinking"}},
	{"hangs", "trap '' INT; echo in a loop; while :; do :; done", 3 * time.Second,
		[]string{"it did not listen within listen_timeout (3s), as the one before it did", "in a loop"}},
}

// versioned is an app of two instances whose version the test writes.
type versioned struct {
	*gpm
	port int
	was  []int // its processes
}

func newVersioned(t *testing.T) *versioned {
	tool(t, "node")
	v := &versioned{gpm: newGPM(t), port: freePort(t)}
	v.copied("node/stream.js")
	v.version(goodVersion)
	v.ok("start", v.config(30*time.Second))
	v.listeners("v", v.port, 2, 1)
	v.was = pids(v.online("v", 2))
	return v
}

func (v *versioned) version(script string) { v.write("version.sh", "#!/bin/sh\n"+script+"\n") }

func (v *versioned) config(limit time.Duration) string {
	return v.conf(keys{
		"name": "v", "script": "version.sh", "instances": 2, "env": keys{"PORT": v.port, "MAX_AGE": 2000},
		"listen_timeout": limit.String(), "kill_timeout": 500, "drain_timeout": "2m",
	})
}

// untouched checks that the processes of before serve, they alone, and that
// nothing is left of any other.
func (v *versioned) untouched(after string) {
	v.t.Helper()
	if now := pids(v.online("v", 2)); !slices.Equal(now, v.was) {
		v.t.Fatalf("%s: the old processes were %v, now they are %v", after, v.was, now)
	}
	if answered := answers(v.t, visit(v.t, v.port, "/", 40)); len(answered) != 2 || answered[v.was[0]] == 0 || answered[v.was[1]] == 0 {
		v.t.Fatalf("%s: %v answered, the processes are %v", after, answered, v.was)
	}
	v.until(after+": nothing is left of the new process", func() bool {
		for _, d := range v.describe("v") {
			if len(d.Tree) != 1 || d.Draining > 0 {
				return false
			}
		}
		return true
	})
}

// renewed checks that a reload has replaced both processes, whatever came before.
func (v *versioned) renewed(l *load.Ledger, o load.Options) {
	v.t.Helper()
	if best := modes()[0]; best.steer == "none" {
		v.onlyAccepted(l, 2) // such a server cannot be taken out of traffic here
	} else {
		nothingBroken(v.t, o, l, "reload to a version that works")
	}
	if now := pids(v.online("v", 2)); slices.Contains(now, v.was[0]) || slices.Contains(now, v.was[1]) {
		v.t.Errorf("the new version is not live: %v, before %v", now, v.was)
	}
	for _, in := range v.list() {
		if in.Reason != "" {
			v.t.Errorf("instance %d is online with the reason %q", in.Instance, in.Reason)
		}
	}
}

// A reload to a version that does not work changes nothing, breaks no stream,
// and says why. One to a version that only takes its time succeeds.
func TestReloadOfABrokenVersion(t *testing.T) {
	t.Parallel()
	v := newVersioned(t)
	o := streamerOf("node").load(v.port, 60)
	for _, b := range brokenVersions {
		v.version(b.script)
		var said string
		nothingBroken(t, o, v.underLoad(o, func() { said = v.fails("reload", v.config(b.limit)) }), b.name)
		for _, want := range append(b.said, "✗ v-0 online", "left as it was, because v-0 failed") {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q is not said:\n%s", b.name, want, said)
			}
		}
		v.untouched(b.name)
	}
	v.version("sleep 2; " + goodVersion) // listens late
	v.renewed(v.underLoad(o, func() { v.ok("reload", v.config(30*time.Second)); v.drained() }), o)
}

// The same while the daemon is killed again and again: whoever asked for the
// reload may not hear what came of it, but the old processes go on.
func TestReloadOfABrokenVersionWhileTheDaemonDies(t *testing.T) {
	t.Parallel()
	v := newVersioned(t)
	o := streamerOf("node").load(v.port, 60)
	for _, b := range brokenVersions {
		v.version(b.script)
		l := v.underLoad(o, func() {
			kills := v.menaced(func() {
				if said := v.run("reload", v.config(b.limit)); said.code == 0 {
					t.Errorf("%s: reload says that it went well: %v", b.name, said)
				}
			})
			t.Logf("%s: the daemon was killed %d times", b.name, kills)
		})
		nothingBroken(t, o, l, b.name)
		v.untouched(b.name)
	}
	v.version(goodVersion)
	v.renewed(v.underLoad(o, func() { v.ok("reload", v.config(30*time.Second)); v.drained() }), o)
}

// patientServer listens when the test lets it.
const patientServer = `
const wait = setInterval(() => {
  if (!require('fs').existsSync('listen')) return;
  clearInterval(wait);
  require('http').createServer((req, res) => res.end(process.pid + '\n')).listen(%d);
}, 20);
`

// A new process that takes its time to listen: the old one serves meanwhile.
// And one reload at a time: the second is told so.
func TestReloadOfASlowApp(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	script := g.write("slow.js", fmt.Sprintf(patientServer, port))
	g.write("listen", "")
	g.ok("start", g.conf(map[string]any{"name": "slow", "script": script, "cwd": g.dir, "instances": 2}))
	g.listeners("slow", port, 2, 1)
	was := pids(g.online("slow", 2))
	undisturbed := g.undisturbed
	if modes()[0].steer == "none" {
		undisturbed = func(port int, path string, f func()) { g.onlyAccepted(g.underLoad(requests(port, path, 100), f), 2) }
	}
	if err := os.Remove(g.path("listen")); err != nil {
		t.Fatal(err)
	}
	undisturbed(port, "/", func() {
		first := g.background("reload", "slow")
		g.until("a new process is being launched", func() bool { return g.instance("slow", 0).Generation == 2 })
		if said := g.fails("reload", "slow"); !strings.Contains(said, "a rollout of this app is running already") {
			t.Errorf("why the second reload is refused is not said:\n%s", said)
		}
		if in := g.instance("slow", 1); in.PID != was[1] {
			t.Errorf("instance 1 was touched before instance 0 was ready: pid %d, before %d", in.PID, was[1])
		}
		g.write("listen", "")
		if o := <-first; o.code != 0 {
			t.Errorf("the first reload: %v", o)
		}
	})
	for i, in := range g.online("slow", 2) {
		if in.Generation != 2 || in.PID == was[i] {
			t.Errorf("instance %d: generation %d, pid %d, before %d", i, in.Generation, in.PID, was[i])
		}
	}
}

// background runs gpm in a goroutine; the channel has its output when it ends.
func (g *gpm) background(args ...string) <-chan output {
	done := make(chan output, 1)
	c := exec.Command(filepath.Join(bin, "gpm"), args...)
	go func() { done <- g.finish(c) }() // ends with the command; the test waits for it
	return done
}

// A reload with a config that says something else: the new processes have it,
// and only then the old ones go.
func TestReloadWithAnotherConfig(t *testing.T) {
	t.Parallel()
	g, port, next := newGPM(t), freePort(t), freePort(t)
	app := goServer("go", port)
	app["instances"] = 2
	g.ok("start", g.conf(app))
	g.online("go", 2)
	moved := goServer("go", next)
	moved["instances"] = 3
	g.ok("reload", g.conf(moved))
	g.listeners("go", next, 3, 1)
	if answered := answers(t, visit(t, next, "/", 60)); len(answered) != 3 {
		t.Errorf("%v answered, three processes are expected", answered)
	}
	g.until("nobody listens on the old port", func() bool { return reachable(port) != nil })
}
