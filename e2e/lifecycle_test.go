package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

// service is an app that is ready as soon as it runs, because it listens.
func (g *gpm) service(name string, more ...keys) map[string]any {
	g.t.Helper()
	app := keys{"name": name, "script": filepath.Join(bin, "gosrv"), "env": keys{"ADDR": addr(freePort(g.t))}}
	for _, k := range more {
		maps.Copy(app, k)
	}
	return app
}

// three starts an app with ids 0 and 1, and two with 2 and 3. It returns their
// config file.
func (g *gpm) three() string {
	g.t.Helper()
	path := g.conf(
		g.service("api", keys{"instances": 2, "namespace": "front"}),
		g.service("job", keys{"namespace": "back"}),
		g.service("web", keys{"namespace": "front"}),
	)
	g.ok("start", path)
	return path
}

// byID is the list by id.
func (g *gpm) byID() map[int]api.Instance {
	g.t.Helper()
	m := map[int]api.Instance{}
	for _, in := range g.list() {
		m[in.ID] = in
	}
	return m
}

// ids are those of m for which ok is true, in order.
func ids(m map[int]api.Instance, ok func(api.Instance) bool) (r []int) {
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if ok(m[id]) {
			r = append(r, id)
		}
	}
	return r
}

// Every verb takes every kind of target, and touches nothing else.
func TestTargets(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	path := g.three()
	type kind struct {
		targets string
		ids     []int
	}
	kinds := []kind{
		{"0", []int{0}},
		{"api-1", []int{1}},
		{"api", []int{0, 1}},
		{"front", []int{0, 1, 3}},
		{"/^(api|job)$/", []int{0, 1, 2}},
		{"all", []int{0, 1, 2, 3}},
		{"job 3", []int{2, 3}},
		{"api 0", []int{0, 1}},
		{path, []int{0, 1, 2, 3}},
		{path + " --only job,web", []int{2, 3}},
	}
	stopped := func(in api.Instance) bool { return in.Status == api.Stopped && in.PID == 0 }
	online := func(in api.Instance) bool { return in.Status == api.Online }
	for _, k := range kinds {
		args := strings.Fields(k.targets)
		g.ok(append([]string{"stop"}, args...)...)
		if got := ids(g.byID(), stopped); !slices.Equal(got, k.ids) {
			t.Errorf("stop %s: %v are stopped", k.targets, got)
		}
		g.ok(append([]string{"stop"}, args...)...) // again is no mistake
		g.ok(append([]string{"start"}, args...)...)
		if got := ids(g.byID(), online); len(got) != 4 {
			t.Errorf("start %s: online are %v", k.targets, got)
		}
		for _, verb := range []string{"restart", "reload"} {
			before := g.byID()
			g.ok(append([]string{verb}, args...)...)
			after := g.byID()
			got := ids(after, func(in api.Instance) bool { return in.PID != before[in.ID].PID })
			counted := ids(after, func(in api.Instance) bool { return in.Restarts == before[in.ID].Restarts+1 })
			if !slices.Equal(got, k.ids) || !slices.Equal(counted, k.ids) || len(ids(after, online)) != 4 {
				t.Errorf("%s %s: new are %v, counted %v, online %v", verb, k.targets, got, counted, ids(after, online))
			}
		}
		g.ok("restart", "all")
		if !strings.Contains(k.targets, path) { // reset, list and describe take no files
			g.ok(append([]string{"reset"}, args...)...)
			got := ids(g.byID(), func(in api.Instance) bool { return in.Restarts == 0 })
			if !slices.Equal(got, k.ids) {
				t.Errorf("reset %s: reset are %v", k.targets, got)
			}
			g.ok("restart", "all")
			var l api.List
			if err := json.Unmarshal([]byte(g.ok(append([]string{"list", "--json"}, args...)...)), &l); err != nil || len(l.Instances) != len(k.ids) {
				t.Errorf("list %s: %d instances, %v", k.targets, len(l.Instances), err)
			}
			if n := strings.Count(g.ok(append([]string{"describe"}, args...)...), "  script path"); n != len(k.ids) {
				t.Errorf("describe %s: %d instances", k.targets, n)
			}
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	path := g.three()
	contains(t, g.fails("delete", "0"), "an app is deleted whole", "gpm scale api")
	contains(t, g.fails("delete", "api-1"), "gpm scale api")
	if len(g.list()) != 4 {
		t.Fatal("something was deleted")
	}
	for i, c := range []struct {
		target string
		left   int
	}{{"job", 3}, {"front", 1}, {"/^a/", 2}, {"2", 3}, {"all", 0}, {path, 0}} {
		if i > 0 {
			g.ok("start", path)
		}
		was := g.byID()
		g.ok("delete", c.target)
		now := g.byID()
		if len(now) != c.left {
			t.Errorf("delete %s: left are %v", c.target, now)
		}
		for id, in := range was {
			if _, ok := now[id]; !ok && alive(in.PID) {
				t.Errorf("delete %s: pid %d lives", c.target, in.PID)
			}
		}
		g.run("delete", "all") // what is left, if anything
	}
}

// Without a daemon no verb that only asks starts one, and each says so.
func TestWithoutADaemon(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	for _, args := range [][]string{
		{"stop", "api"}, {"restart", "api"}, {"reload", "api"}, {"delete", "all"}, {"reset", "0"}, {"scale", "api", "2"},
		{"describe", "api"}, {"list", "api"}, {"flush"}, {"logs"}, {"save"}, {"ping"},
	} {
		o := g.run(args...)
		if o.code != 1 || !strings.Contains(o.stderr, "error: gpm is not running") || !strings.Contains(o.stderr, "hint: ") || o.stdout != "" {
			t.Errorf("%v: %v", args, o)
		}
	}
	for _, args := range [][]string{{"list"}, {"ls"}, {"jlist"}, {"list", "--json"}, {"doctor"}, {"version"}, {"--version"}, {"--help"}, {"help", "start"}, {"completion", "bash"}, {"kill"}, {"startup", "--print"}} {
		if o := g.run(args...); o.code != 0 || o.stdout == "" {
			t.Errorf("%v: %v", args, o)
		}
	}
	if got := g.ok("jlist"); got != "[]\n" {
		t.Errorf("jlist prints %q", got)
	}
	if exists(filepath.Join(g.home, "gpm.sock")) {
		t.Error("a daemon was started")
	}
}

// With one, what is unknown is said to be, and nothing else is touched.
func TestUnknownTargets(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.three()
	before := g.byID()
	for _, verb := range []string{"stop", "restart", "reload", "delete", "reset", "describe", "list"} {
		for _, target := range []string{"nope", "99", "/nope/", "api-7", "-1"} {
			args := []string{verb, target}
			if target == "-1" {
				args = []string{verb, "--", target}
			}
			contains(t, g.fails(args...), fmt.Sprintf("error: no app or instance matches %q", target), "hint: gpm list")
		}
		contains(t, g.fails(verb, "api", "nope"), `no app or instance matches "nope"`) // all or nothing
		contains(t, g.fails(verb, "/(/"), "error: parse target")
	}
	for _, verb := range []string{"stop", "restart", "reload", "delete", "reset", "describe", "scale", "validate"} {
		contains(t, g.fails(verb), "error: ", "hint: ")
	}
	contains(t, g.fails("frobnicate"), "frobnicate", "hint: ")
	contains(t, g.fails("strat", "x"), `unknown command "strat"`, "hint: did you mean: gpm start")
	contains(t, g.fails("list", "--colour"), "--colour", "hint: gpm list --help")
	if after := g.byID(); fmt.Sprint(ids(after, func(in api.Instance) bool { return in.PID == before[in.ID].PID && in.Restarts == 0 })) != "[0 1 2 3]" {
		t.Errorf("something was touched: %+v", after)
	}
}

// A config that is started twice is what the file says the second time: options
// and environment are new, nothing of the old ones is left.
func TestStartAgain(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	say := `echo "$WORD $GONE $@"; ` + idle
	app := g.app("app", say, keys{"env": keys{"WORD": "one", "GONE": "x"}, "args": "a b", "instances": 2})
	path := g.conf(app, g.app("other", idle))
	g.ok("start", path)
	for _, in := range g.online("app", 2) {
		g.until("it has spoken", func() bool { return g.read(in.OutFile) == "one x a b\n" })
	}
	other := g.instance("other", 0).PID
	maps.Copy(app, keys{"env": keys{"WORD": "two"}, "args": "c", "instances": 3, "max_restarts": 5, "namespace": "moved"})
	g.conf(app)
	g.ok("start", path)
	list := g.online("app", 3)
	for _, in := range list {
		want := "one x a b\ntwo  c\n"
		if in.Instance == 2 {
			want = "two  c\n"
		}
		g.until(fmt.Sprintf("instance %d has said %q", in.Instance, want), func() bool { return g.read(in.OutFile) == want })
		if in.Namespace != "moved" {
			t.Errorf("instance %d is in %q", in.Instance, in.Namespace)
		}
	}
	if d := g.describe("app")[0]; d.App.MaxRestarts != 5 || d.Restarts != 1 {
		t.Errorf("max_restarts %d, restarts %d", d.App.MaxRestarts, d.Restarts)
	}
	if now := g.instance("other", 0); now.PID != other {
		t.Error("an app that is not in the file any more was touched")
	}
	// Fewer instances: the highest go.
	maps.Copy(app, keys{"instances": 1})
	g.conf(app)
	g.ok("reload", path)
	g.until("one is left", func() bool { return len(g.list()) == 2 })
	if in := g.instance("app", 0); in.Status != api.Online || in.Restarts != 2 {
		t.Errorf("it is %+v", in)
	}
	// A script that runs already is not started twice by mistake.
	contains(t, g.fails("start", g.path("app.sh")), `an app "app" runs already`, "hint: gpm restart app")
	g.ok("start", g.path("app.sh"), "--name", "second")
	g.ok("stop", "app")
	g.ok("start", g.path("app.sh")) // what is stopped may be started by its script
	g.ok("start", "second")
	if in := g.instance("second", 0); in.Restarts != 1 {
		t.Errorf("it is %+v", in)
	}
	contains(t, g.fails("start", "second", "--", "new", "args"), "keeps its arguments")
}

// The counter tells how often an app was replaced since somebody started it:
// by itself or by a person; not that it was stopped.
func TestRestartCounter(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.service("app")))
	want := 0
	check := func(what string) {
		t.Helper()
		if in := g.instance("app", 0); in.Restarts != want {
			t.Errorf("after %s: %d restarts, expected were %d", what, in.Restarts, want)
		}
	}
	check("start")
	for _, step := range []struct {
		args string
		adds int
	}{{"restart app", 1}, {"reload app", 1}, {"stop app", 0}, {"start app", 0}, {"start app", 1}, {"stop app", 0}, {"restart app", 0}} {
		g.ok(strings.Fields(step.args)...)
		want += step.adds
		check(step.args)
	}
	kill9(t, g.instance("app", 0).PID)
	want++
	g.until("it is back", func() bool { in := g.instance("app", 0); return in.Status == api.Online && in.Restarts == want })
	g.ok("reset", "app")
	want = 0
	check("reset")
}

func TestScale(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.service("app"), g.service("other")))
	for _, c := range []struct {
		to   string
		want int
	}{{"3", 3}, {"3", 3}, {"+2", 5}, {"-1", 4}, {"2", 2}, {"1", 1}, {"max", 0}} {
		if c.want == 0 {
			contains(t, g.fails("scale", "app", c.to), "error: ", c.to)
			continue
		}
		g.ok("scale", "app", c.to)
		list := g.online("app", c.want)
		for i, in := range list {
			if in.Instance != i {
				t.Errorf("scale %s: instance %d is number %d", c.to, i, in.Instance)
			}
		}
	}
	first := g.instance("app", 0)
	if first.Restarts != 0 {
		t.Errorf("the first was touched: %+v", first)
	}
	for _, bad := range []string{"0", "-1", "-5", "x", "1.5", "100000", ""} {
		contains(t, g.fails("scale", "app", bad), "error: ")
	}
	contains(t, g.fails("scale", "nope", "2"), `no app or instance matches "nope"`)
	contains(t, g.fails("scale", "all", "2"), "name one app")
	if n := len(g.list()); n != 2 {
		t.Errorf("%d instances", n)
	}
	// The number is kept.
	g.ok("scale", "app", "2")
	g.ok("restart", "app")
	g.online("app", 2)
	daemon := g.pid("gpm.pid")
	kill9(t, daemon)
	g.until("a new daemon runs", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 })
	g.online("app", 2)
}

// Ids count up, and from 0 again when nothing is left.
func TestIDs(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	start := func(name string) int {
		t.Helper()
		g.ok("start", filepath.Join(bin, "gosrv"), "--name", name, "--interpreter", "none", "--port", strconv.Itoa(freePort(t)))
		return g.instance(name, 0).ID
	}
	g.env = append(g.env, "ADDR="+addr(freePort(t)))
	if id := start("a"); id != 0 {
		t.Errorf("a is %d", id)
	}
	g.ok("delete", "a")
	if id := start("b"); id != 0 {
		t.Errorf("b is %d", id)
	}
	g.ok("stop", "b")
	if id := start("c"); id != 1 {
		t.Errorf("c is %d", id)
	}
	g.ok("delete", "b")
	g.ok("stop", "c")
	if id := start("d"); id != 2 {
		t.Errorf("d is %d: a number must not mean two apps", id)
	}
	g.ok("kill")
	if id := start("e"); id != 0 {
		t.Errorf("e is %d", id)
	}
}

func TestSaveAndResurrect(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	path := g.three()
	g.ok("scale", "api", "3")
	g.ok("stop", "job")
	contains(t, g.ok("save"), "saved 3 apps in "+filepath.Join(g.home, "dump.json"))
	g.ok("start", g.write("later.sh", idle+"\n"))
	g.ok("kill")
	g.ok("resurrect")
	check := func() {
		t.Helper()
		g.online("api", 3)
		g.online("web", 1)
		if in := g.instance("job", 0); in.Status != api.Stopped || len(g.list()) != 5 {
			t.Errorf("job is %+v of %d", in, len(g.list()))
		}
	}
	check()
	was := g.byID()
	contains(t, g.ok("resurrect"), "nothing to resurrect")
	check()
	if fmt.Sprint(ids(g.byID(), func(in api.Instance) bool { return in.PID == was[in.ID].PID })) != "[0 1 2 3 4]" {
		t.Error("the second resurrect has touched something")
	}
	if d := g.describe("api")[0]; d.App.File != path || d.App.Namespace != "front" {
		t.Errorf("api is from %s in %s", d.App.File, d.App.Namespace)
	}
	// Only what is missing is brought back.
	g.ok("delete", "web")
	g.ok("resurrect")
	check()
	g.ok("start", "job")
	g.online("job", 1)
}

// A config comes from a pipe, too, and so does the list of what to stop.
func TestConfigOnStdin(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	path := g.conf(g.service("piped"))
	pipe := func(args ...string) output {
		t.Helper()
		c := exec.Command(filepath.Join(bin, "gpm"), args...)
		c.Stdin = strings.NewReader(g.read(path))
		return g.finish(c)
	}
	for _, verb := range []string{"start", "stop", "restart", "delete"} {
		if o := pipe(verb, "-"); o.code != 0 {
			t.Errorf("%s: %v", verb, o)
		}
	}
	if len(g.list()) != 0 {
		t.Error("it was not deleted")
	}
}
