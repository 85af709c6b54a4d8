package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

// replaced waits until all n instances of an app are of a generation, online,
// and nothing is on its way any more.
func (g *gpm) replaced(app string, n, generation int) {
	g.t.Helper()
	g.until(fmt.Sprintf("all of %s are generation %d", app, generation), func() bool {
		list := slices.DeleteFunc(g.list(), func(in api.Instance) bool { return in.Name != app })
		for _, in := range list {
			if in.Generation > generation {
				g.t.Fatalf("generation %d of %s-%d: more than one reload for one change", in.Generation, app, in.Instance)
			}
			// While the newest is not ready, the process is still the one before.
			env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", in.PID))
			if in.Status != api.Online || in.Draining != 0 || !strings.Contains(string(env), fmt.Sprintf("GPM_GENERATION=%d\x00", generation)) {
				return false
			}
		}
		return len(list) == n
	})
}

// atOnce makes a change that takes several calls in no time: the daemon stands
// still meanwhile, else a slow test makes two changes of it.
func (g *gpm) atOnce(change func() error) {
	g.t.Helper()
	resume := g.pauseDaemon()
	err := change()
	resume()
	if err != nil {
		g.t.Fatal(err)
	}
}

// One change is one reload of all instances, whatever kind of change it is;
// what does not count as one is none.
func TestWatch(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	code := func(name string) string { return filepath.Join(g.dir, "code", name) }
	for _, name := range []string{"old.js", "sub/deep/x.js", "node_modules/m/index.js", ".git/index", "tmp/cache", "app.log"} {
		g.write("code/"+name, "")
	}
	path := g.conf(g.service("app", keys{
		"instances": 4, "watch": []string{"code"}, "ignore_watch": []string{"tmp", "*.txt"}, "out_file": "code/app.log", "merge_logs": true,
	}))
	g.ok("start", path)
	generation := 1
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"edit", func() error { return os.WriteFile(code("old.js"), []byte("x"), 0o644) }},
		{"edit below", func() error { return os.WriteFile(code("sub/deep/x.js"), []byte("x"), 0o644) }},
		{"create", func() error { return os.WriteFile(code("new.js"), []byte("x"), 0o644) }},
		{"rename", func() error { return os.Rename(code("new.js"), code("renamed.js")) }},
		{"delete", func() error { return os.Remove(code("renamed.js")) }},
		{"save as editors do", func() error {
			if err := os.WriteFile(code("old.js.swp"), []byte("y"), 0o644); err != nil {
				return err
			}
			return os.Rename(code("old.js.swp"), code("old.js"))
		}},
		{"create in a new folder", func() error {
			if err := os.MkdirAll(code("fresh/folder"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(code("fresh/folder/y.js"), []byte("x"), 0o644)
		}},
		{"edit in it", func() error { return os.WriteFile(code("fresh/folder/y.js"), []byte("y"), 0o644) }},
		{"a folder goes", func() error { return os.RemoveAll(code("fresh")) }},
		{"many at once", func() error {
			for i := range 100 {
				if err := os.WriteFile(code(fmt.Sprintf("sub/many%d.js", i)), []byte("x"), 0o644); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		// These are changes that do not count; if one did, there would be two reloads.
		for _, name := range []string{"node_modules/m/index.js", ".git/index", "tmp/cache", "notes.txt"} {
			if err := os.WriteFile(code(name), []byte(step.what), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		g.atOnce(step.do)
		t.Log(step.what)
		generation++
		g.replaced("app", 4, generation)
	}
	contains(t, g.ok("describe", "app-0"), "changed: ", "/many")

	// Stopped it stays stopped, whatever changes; started it is watched again.
	for _, verb := range []string{"start", "restart", "reload"} {
		g.ok("stop", "app")
		if g.instance("app", 0).Watching {
			t.Error("a stopped app is watched")
		}
		if err := os.WriteFile(code("old.js"), []byte("while stopped, before "+verb), 0o644); err != nil {
			t.Fatal(err)
		}
		g.ok(verb, "app")
		generation++
		g.replaced("app", 4, generation)
		if !g.instance("app", 0).Watching {
			t.Errorf("after %s it is not watched", verb)
		}
		g.atOnce(func() error { return os.WriteFile(code("old.js"), []byte("after "+verb), 0o644) })
		generation++
		g.replaced("app", 4, generation)
	}
}

// A build comes first; if it fails, the old version stays, and says why.
func TestBuild(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("src/word", "one")
	g.write("word", "one")
	app := g.service("app", keys{"watch": []string{"src"}, "build": "grep -v bad src/word > word.new && mv word.new word"})
	app["script"], app["interpreter"] = g.write("app.sh", "cat word; echo; exec "+filepath.Join(bin, "gosrv")+"\n"), "/bin/sh"
	g.ok("start", g.conf(app))
	pid := g.online("app", 1)[0].PID
	g.write("src/word", "bad")
	story := func() string { return g.ok("describe", "app") }
	g.until("the build has failed", func() bool { return strings.Contains(story(), "the old version stays: build after changed: ") })
	if in := g.instance("app", 0); in.PID != pid || in.Status != api.Online || in.Restarts != 0 {
		t.Errorf("it is %+v", in)
	}
	g.write("src/word", "two")
	g.replaced("app", 1, 2)
	g.until("it runs the new version", func() bool { return strings.Contains(g.read(g.log("app-out.log")), "two") })
	if s := g.read(g.log("app-out.log")); strings.Contains(s, "bad") {
		t.Errorf("it ran a version that was not built: %s", s)
	}
	// A new version that is built but does not live is not taken, either.
	was := g.instance("app", 0).PID
	g.write("app.sh", "echo broken >&2; exit 1\n")
	g.write("src/word", "three")
	g.until("the reload has failed", func() bool { return strings.Contains(story(), "rollout ended: ") })
	if in := g.instance("app", 0); in.PID != was || in.Status != api.Online {
		t.Errorf("it is %+v", in)
	}
}

func TestCronRestart(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	every := keys{"cron_restart": "* * * * * *"}
	g.ok("start", g.conf(g.service("ticks", every, keys{"instances": 2}), g.service("rests", every), g.service("calm", keys{"cron_restart": "@yearly"})))
	g.ok("stop", "rests")
	rests, calm := g.instance("rests", 0), g.instance("calm", 0)
	for i := range 2 {
		g.until("it was replaced three times", func() bool { return g.instance("ticks", i).Generation > 3 })
	}
	if in := g.instance("rests", 0); in.Status != api.Stopped || in.Generation != rests.Generation {
		t.Errorf("cron has started what was stopped: %+v", in)
	}
	if in := g.instance("calm", 0); in.PID != calm.PID {
		t.Errorf("calm is %+v", in)
	}
	contains(t, g.ok("describe", "ticks-0"), "cron_restart * * * * * *")
	// A new config without it ends it.
	g.ok("start", g.conf(g.service("ticks")))
	g.until("the last reload is over", func() bool { return g.instance("ticks", 0).Draining == 0 })
	if d := g.describe("ticks")[0]; d.App.CronRestart != "" || d.Status != api.Online {
		t.Errorf("it is %+v", d)
	}
}

// An app that leaks is replaced before it takes everything; one that does not
// is left alone.
func TestMaxMemoryRestart(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	const limit = 40 << 20
	leak := "[ -e leaked ] || { : > leaked; x=$(head -c 80000000 /dev/zero | tr '\\0' x); }; while :; do sleep 0.2; done"
	g.ok("start", g.conf(
		g.app("leaks", leak, keys{"max_memory_restart": "40M"}),
		g.app("child", "[ -e forked ] || { : > forked; sh -c 'x=$(head -c 80000000 /dev/zero | tr \"\\\\0\" x); while :; do sleep 0.2; done' & }; while :; do sleep 0.2; done", keys{"max_memory_restart": "40M"}),
		g.app("calm", idle, keys{"max_memory_restart": "40M"}),
	), "--no-wait")
	for _, name := range []string{"leaks", "child"} { // of the whole tree, not of the first process alone
		g.until(name+" was replaced", func() bool {
			in := g.instance(name, 0)
			return in.Generation == 2 && in.Status == api.Online && in.Draining == 0 && in.Memory > 0 && in.Memory < limit
		})
		contains(t, g.ok("describe", name), "memory over max_memory_restart")
	}
	if in := g.instance("calm", 0); in.Generation != 1 {
		t.Errorf("calm is %+v", in)
	}
}

// A change of the app's own config file is not a change of the app; but the
// watched folder may be the whole of cwd, logs and pid files of gpm included.
func TestWatchEverything(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	app := keys{}
	maps.Copy(app, g.service("app", keys{"watch": true, "instances": 2, "out_file": "out.log", "error_file": "err.log"}))
	app["script"], app["interpreter"] = g.write("app.sh", "echo started; echo started >&2; exec "+filepath.Join(bin, "gosrv")+"\n"), "/bin/sh"
	g.ok("start", g.conf(app))
	g.replaced("app", 2, 1)
	page := func(text string) func() error {
		return func() error { return os.WriteFile(g.path("page.html"), []byte(text), 0o644) }
	}
	g.atOnce(page("new"))
	g.replaced("app", 2, 2)
	g.atOnce(page("newer"))
	g.replaced("app", 2, 3)
}
