package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gpm/supervisor/api"
)

// diary is an app that writes into a common file when it comes up and when it
// goes down; while it is up there is a file of its name with ".up".
const diary = `#!/bin/sh
trap 'rm "$0.up"; echo "$0 down" >>"$DIARY"; exit 0' TERM
echo "$0 up" >>"$DIARY"
touch "$0.up"
while :; do sleep 1000 & wait $!; done
`

// chain is web, which depends on bus, which is ready when it is up and the file
// "go" is there.
func (g *gpm) chain() (conf string, diaryFile string, open func()) {
	g.t.Helper()
	file := filepath.Join(g.dir, "diary")
	app := func(name string, more map[string]any) map[string]any {
		a := map[string]any{
			"name": name, "script": g.write(name, diary), "interpreter": "none", "kill_signal": "SIGTERM",
			"env": map[string]any{"DIARY": file},
		}
		for k, v := range more {
			a[k] = v
		}
		return a
	}
	ready := map[string]any{"exec": "test -e bus.up && test -e go", "interval": "100ms"}
	conf = g.conf(
		app("web", map[string]any{"depends_on": []string{"bus"}}),
		app("bus", map[string]any{"ready": ready, "listen_timeout": "5m"}),
	)
	return conf, file, func() { g.write("go", "") }
}

// told is what the apps wrote, by the names of their scripts.
func (g *gpm) told(file string) string {
	return strings.ReplaceAll(g.read(file), g.dir+"/", "")
}

func (g *gpm) waits(reason string) {
	g.t.Helper()
	g.until("web "+reason, func() bool {
		in := g.instance("web", 0)
		return in.Status == api.Pending && in.Reason == reason && in.PID == 0
	})
}

// The dependency takes its time to be ready, and the daemon is killed meanwhile:
// the app is started after it, by whichever daemon. Down they go the other way
// round, whatever ends them.
func TestDependsOnOrder(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	conf, file, open := g.chain()
	started := make(chan output, 1)
	go func() { started <- g.run("start", conf) }()
	g.waits("waits for bus to be online")
	for _, app := range []string{"web", "bus"} {
		g.until(app+" is wanted on record", func() bool {
			record := strings.ReplaceAll(g.read(filepath.Join(g.home, "state", app+".json")), " ", "")
			return strings.Contains(record, `"wanted":true`) && !strings.Contains(record, `"wanted":false`)
		})
	}
	kill9(t, g.pid("gpm.pid"))
	<-started // with its daemon; what it has begun goes on
	g.waits("waits for bus to be online")
	g.until("bus is up", func() bool { return g.told(file) == "bus up\n" })
	open()
	g.online("web", 1)
	const down, up = "web down\nbus down\n", "bus up\nweb up\n"
	want := ""
	step := func(what, order string) {
		t.Helper()
		want += order
		g.until("the diary tells of "+what, func() bool { return len(g.told(file)) >= len(want) })
		if got := g.told(file); got != want {
			t.Fatalf("%s: the diary is\n%swant\n%s", what, got, want)
		}
	}
	step("start", up)
	g.ok("stop", "all")
	step("stop all", down)
	g.ok("start", "all")
	step("start all", up)
	g.ok("restart", conf)
	step("restart", "bus down\nbus up\nweb down\nweb up\n")

	keeper := g.pid("keeper.pid")
	if err := syscall.Kill(keeper, syscall.SIGTERM); err != nil { // as at a shutdown of the machine
		t.Fatal(err)
	}
	g.until("gpm has ended", func() bool { return !alive(keeper) })
	step("SIGTERM", down)
	contains(t, g.run("list").stderr, "gpm is not running") // it did not die: list does not bring it back
	g.ok("resurrect")                                       // the next gpm starts what ran
	g.online("web", 1)
	step("next boot", up)

	// What runs is not touched by the end of what it depends on, nor by the next daemon.
	was := pids(g.online("web", 1))
	if said := g.run("stop", "bus"); said.code != 0 || !strings.Contains(said.stderr, "warning: web goes on without bus") {
		t.Errorf("%v", said)
	}
	kill9(t, g.pid("gpm.pid"))
	if got := pids(g.online("web", 1)); fmt.Sprint(got) != fmt.Sprint(was) {
		t.Errorf("pids %v, before %v", got, was)
	}
	step("stop bus", "bus down\n")
	g.ok("kill")
	step("kill", "web down\n")
}

// The dependency fails: the start says so; when it comes up, the app does, too.
func TestDependencyFails(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("bus", "#!/bin/sh\ntest -e good || { echo no disk >&2; exit 1; }\nexec sleep 1000\n")
	g.write("web", "#!/bin/sh\nexec sleep 1000\n")
	good := keys{"exec": "test -e good", "interval": "100ms"} // else it would be online if it had no CPU for a second before it ends
	conf := g.conf(
		map[string]any{"name": "web", "script": "web", "interpreter": "none", "depends_on": "bus", "instances": 2},
		map[string]any{"name": "bus", "script": "bus", "interpreter": "none", "max_restarts": 2, "ready": good},
		map[string]any{"name": "other", "script": "web", "interpreter": "none"},
	)
	said := g.fails("start", conf, "--only", "web")
	for _, want := range []string{"✗ bus-0 errored: exited with code 1", "no disk", "✗ web-1 waiting: waits for bus, which is errored; gpm start bus lets it go on"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	if in := g.instance("other", 0); in.Name != "" {
		t.Errorf("nobody asked for %+v", in)
	}
	g.write("good", "")
	g.ok("start", "bus")
	g.online("web", 2)

	// By its name it brings what it needs.
	g.ok("stop", "all")
	if said := g.ok("start", "web"); !strings.Contains(said, ", because web depends on it") {
		t.Errorf("it does not say that it started bus:\n%s", said)
	}
	g.online("bus", 1)
}
