package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpm/bench/load"
	"gpm/supervisor/api"
)

// streaming is the load that the sample app is for: finite streams, held ones
// and short requests, each accounted for.
func streaming(port int, rate float64) load.Options {
	o := requests(port, "/v1/models", rate)
	o.Stream, o.StreamRate, o.StreamEvents = load.Call{Path: "/stream?n=20"}, rate/10, 20 // 0.4 s each
	o.Hold, o.Held = load.Call{Path: "/stream"}, 20
	return o
}

// Reload under load: every stream ends as it should, every request is answered.
// The long version is 80 replacements at 2,000 connections per second.
func TestSoakReload(t *testing.T) {
	reloads, rate := 3, 100.0
	if *soak {
		reloads, rate = 20, 2000
	}
	g := newGPM(t)
	port := g.sseApp(4)
	was := pids(g.online("sse", 4))
	l := g.underLoad(streaming(port, rate), func() {
		for range reloads {
			g.ok("reload", "sse")
			now := pids(g.online("sse", 4))
			for _, pid := range was {
				if slices.Contains(now, pid) {
					t.Errorf("pid %d was not replaced", pid)
				}
			}
			was = now
			g.until("the old processes have let their streams finish", func() bool {
				return !slices.ContainsFunc(g.list(), func(in api.Instance) bool { return in.Draining > 0 })
			})
		}
	})
	if l.Bad() > 0 {
		t.Errorf("%d replacements:\n%v", 4*reloads, l)
	}
	t.Logf("%d replacements:\n%v", 4*reloads, l)
	if l.Count(load.Stream, load.Complete) == 0 || l.Count(load.Held, load.Told) == 0 || l.Count(load.Request, load.Complete) == 0 {
		t.Errorf("one kind has none that ended well: this proves nothing\n%v", l)
	}
}

// kill -9 of one process after another under load: nobody is refused, nobody
// waits for ever; what breaks had been accepted by a process that was killed.
func TestSoakCrash(t *testing.T) {
	kills, rate := 40, 200.0
	if *soak {
		kills, rate = 60, 2000
	}
	g, port := newGPM(t), freePort(t)
	app := goServer("go", port)
	app["instances"], app["min_uptime"] = 4, 100
	app["restart_delay"] = 10     // else so many deaths make it wait for seconds
	app["max_restarts"] = 1000000 // and chance may pick the same one often: it must not be given up
	g.ok("start", g.conf(app))
	g.online("go", 4)
	l := g.underLoad(requests(port, "/", rate), func() {
		for range kills {
			victim := g.someone("go")
			kill9(t, victim.PID)
			g.until("its successor is online", func() bool {
				now := g.instance("go", victim.Instance)
				return now.Status == api.Online && now.Generation > victim.Generation
			})
		}
	})
	broken := l.Count(load.Request, load.Reset) + l.Count(load.Request, load.Cut) + l.Count(load.Request, load.Empty)
	t.Logf("%d kills, %d broken:\n%v", kills, broken, l)
	if l.Bad() > broken {
		t.Errorf("some were lost that no dead process had accepted\n%v", l)
	}
	// Each process serves a quarter of them; one is in it for well below a
	// millisecond, or for a quarter of a second on a machine that stands still.
	if most := kills * max(5, int(rate/4/4)); broken > most {
		t.Errorf("%d broken by %d kills, at most %d were expected\n%v", broken, kills, most, l)
	}
	if l.Count(load.Request, load.Complete) < l.Sent(load.Request)/2 {
		t.Errorf("most were not complete\n%v", l)
	}
}

// someone is an online instance, by chance.
func (g *gpm) someone(app string) (in api.Instance) {
	g.t.Helper()
	g.until("an instance is online", func() bool {
		all := slices.DeleteFunc(g.list(), func(in api.Instance) bool { return in.Name != app || in.Status != api.Online })
		if len(all) > 0 {
			in = all[rand.IntN(len(all))]
		}
		return len(all) > 0
	})
	return in
}

// goodVersion is what the script says when it works.
const goodVersion = "exec node server.js"

// brokenVersions never serve. said is what a person gets to see: the reason, and
// the last lines of the new process.
var brokenVersions = []struct {
	name, script string
	said         []string
}{
	{"exits", "echo cannot find the database >&2; exit 3",
		[]string{"the new process exited with code 3", "cannot find the database"}},
	{"does not compile", "exec node -e 'console.log('",
		[]string{"the new process exited with code 1", "SyntaxError"}},
	{"is killed", "echo one moment; kill -9 $$; sleep 1000",
		[]string{"the new process killed by SIGKILL (not by gpm)", "one moment"}},
	{"never listens", "echo thinking; exec sleep 1000",
		[]string{"it did not listen within listen_timeout (3s), as the one before it did", "thinking"}},
	{"hangs", "trap '' INT; echo in a loop; while :; do :; done",
		[]string{"it did not listen within listen_timeout (3s), as the one before it did", "in a loop"}},
}

// A reload to a version that does not work changes nothing, and says why.
func TestReloadOfABrokenVersion(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	g.copied("node/server.js")
	version := func(script string) { g.write("version.sh", "#!/bin/sh\n"+script+"\n") }
	conf := func(limit int) string {
		return g.conf(map[string]any{
			"name": "v", "script": "version.sh", "instances": 2, "env": map[string]any{"PORT": port}, "listen_timeout": limit, "kill_timeout": 500,
		})
	}
	version(goodVersion)
	g.ok("start", conf(30000))
	g.listeners("v", port, 2, 1)
	was := pids(g.online("v", 2))
	for _, b := range brokenVersions {
		version(b.script)
		var said string
		g.undisturbed(port, "/", func() { said = g.fails("reload", conf(3000)) })
		for _, want := range append(b.said, "✗ v-0 online", "left as it was, because v-0 failed") {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q is not said:\n%s", b.name, want, said)
			}
		}
		if now := pids(g.online("v", 2)); !slices.Equal(now, was) {
			t.Fatalf("%s: the old processes were %v, now they are %v", b.name, was, now)
		}
		if answered := answers(t, visit(t, port, "/", 40)); len(answered) != 2 || answered[was[0]] == 0 || answered[was[1]] == 0 {
			t.Fatalf("%s: %v answered, the processes are %v", b.name, answered, was)
		}
		g.until(b.name+": nothing is left of the new process", func() bool {
			for _, d := range g.describe("v") {
				if len(d.Tree) != 1 || d.Draining > 0 {
					return false
				}
			}
			return true
		})
	}
	version(goodVersion)
	g.onlyAccepted(g.underLoad(requests(port, "/", 100), func() { g.ok("reload", conf(30000)) }), 2)
	if now := pids(g.online("v", 2)); slices.Contains(now, was[0]) || slices.Contains(now, was[1]) {
		t.Errorf("the mended version is not live: %v, before %v", now, was)
	}
	for _, in := range g.list() {
		if in.Reason != "" {
			t.Errorf("instance %d is online with the reason %q", in.Instance, in.Reason)
		}
	}
}

// A new process that takes two seconds to listen: the old one serves meanwhile.
// And one reload at a time: the second is told so.
func TestReloadOfASlowApp(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	script := g.write("slow.js", strings.ReplaceAll(fmt.Sprintf(slowServer, port), "500)", "2000)"))
	g.ok("start", g.conf(map[string]any{"name": "slow", "script": script, "instances": 2}))
	g.listeners("slow", port, 2, 1)
	was := pids(g.online("slow", 2))
	l := g.underLoad(requests(port, "/", 100), func() {
		first := g.background("reload", "slow")
		g.until("a new process is being launched", func() bool { return g.instance("slow", 0).Generation == 2 })
		if said := g.fails("reload", "slow"); !strings.Contains(said, "a rollout of this app is running already") {
			t.Errorf("why the second reload is refused is not said:\n%s", said)
		}
		if in := g.instance("slow", 1); in.PID != was[1] {
			t.Errorf("instance 1 was touched before instance 0 was ready: pid %d, before %d", in.PID, was[1])
		}
		if o := <-first; o.code != 0 {
			t.Errorf("the first reload: %v", o)
		}
	})
	g.onlyAccepted(l, 2)
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
