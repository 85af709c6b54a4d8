package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gpm/supervisor/api"
)

// Whatever is wrong with a config is said before anything starts: where it is,
// of which app, and what was expected.
func TestBrokenConfigs(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("ok.sh", idle+"\n")
	for _, c := range []struct {
		name, text string
		place      string // line:column, or empty
		says       []string
	}{
		{"no end", "{\n  \"apps\": [\n    {\"script\": \"ok.sh\"}\n", "4:1", nil},
		{"no comma", "{\n  \"apps\": [\n    {\"name\": \"a\" \"script\": \"ok.sh\"}\n]}", "3:18", nil},
		{"empty", "", "1:1", nil},
		{"no object", "42", "1:1", nil},
		{"no apps", `{"apps": []}`, "", []string{"app"}},
		{"typo", "{\"apps\": [\n  {\"name\": \"web\", \"script\": \"ok.sh\",\n   \"max_restart\": 5}]}", "3:4", []string{`app "web"`, `"max_restart"`, `did you mean "max_restarts"`}},
		{"unknown", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"colour\": 5}]}", "2:2", []string{`app "web"`, `"colour"`}},
		{"top level", "{\"app\": [{\"script\": \"ok.sh\"}]}", "1:2", []string{`"app"`, `did you mean "apps"`}},
		{"type", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"max_restarts\": \"five\"}]}", "2:18", []string{`app "web"`, `"max_restarts"`, "number", "five"}},
		{"range", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"kill_timeout\": -1}]}", "2:18", []string{`app "web"`, `"kill_timeout"`}},
		{"cron", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"cron_restart\": \"a b c\"}]}", "2:18", []string{`app "web"`, `"cron_restart"`, "a b c"}},
		{"signal", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"kill_signal\": \"SIGFOO\"}]}", "2:17", []string{`app "web"`, `"kill_signal"`, "SIGFOO"}},
		{"memory", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"max_memory_restart\": \"2 elephants\"}]}", "2:24", []string{`app "web"`, `"max_memory_restart"`, "elephants"}},
		{"twice", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"name\": \"web\"}]}", "2:2", []string{`"name"`}},
		{"alias twice", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"kill_timeout\": 1, \"killTimeout\": 2}]}", "2:21", []string{`"killTimeout"`, `"kill_timeout"`}},
		{"same name", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\"},\n {\"name\": \"web\", \"script\": \"ok.sh\"}]}", "2:11", []string{`"web"`}},
		{"no script", "{\"apps\": [\n {\"name\": \"web\"}]}", "2:2", []string{`app "web"`, `"script"`}},
		{"missing script", "{\"apps\": [{\"name\": \"web\",\n \"script\": \"nope.sh\"}]}", "2:12", []string{`app "web"`, `"script"`, "nope.sh", "does not exist"}},
		{"missing interpreter", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"interpreter\": \"nonesuch\"}]}", "2:17", []string{`app "web"`, `"interpreter"`, "nonesuch"}},
		{"missing cwd", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"cwd\": \"nowhere\"}]}", "2:9", []string{`app "web"`, `"cwd"`, "nowhere"}},
		{"not executable", "{\"apps\": [{\"name\": \"web\", \"interpreter\": \"none\",\n \"script\": \"ok.sh\"}]}", "2:12", []string{`app "web"`, "executable"}},
		{"refused PM2 key", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"pid_file\": \"x.pid\"}]}", "2:2", []string{`app "web"`, `"pid_file"`, "gpm describe"}},
		{"user", "{\"apps\": [{\"name\": \"web\", \"script\": \"ok.sh\",\n \"uid\": \"nosuchuser\"}]}", "2:9", []string{`app "web"`, `"uid"`, "nosuchuser"}},
		{"one bad of three", "{\"apps\": [{\"name\": \"a\", \"script\": \"ok.sh\"},\n {\"name\": \"b\", \"script\": \"nope.sh\"},\n {\"name\": \"c\", \"script\": \"ok.sh\"}]}", "2:26", []string{`app "b"`}},
		{"all at once", "{\"apps\": [{\"name\": \"a\", \"script\": \"ok.sh\", \"max_restart\": 1},\n {\"name\": \"b\", \"script\": \"nope.sh\", \"instances\": \"two\"}]}", "1:44", []string{`"max_restart"`, "2:26", "nope.sh", "2:50", "two"}},
	} {
		path := g.write("conf.json", c.text)
		for _, verb := range []string{"start", "validate"} {
			said := g.fails(verb, path)
			if c.place != "" {
				c.says = append(c.says, path+":"+c.place+":")
			}
			contains(t, c.name+": "+verb+":\n"+said, append(c.says, "error: ")...)
			if strings.Contains(said, "panic") || strings.Contains(said, "goroutine") || strings.Contains(said, "%!") {
				t.Errorf("%s: %s", c.name, said)
			}
		}
	}
	contains(t, g.fails("start", "nowhere.json"), "nowhere.json", "no such file")
	contains(t, g.fails("start", "nowhere.js"), "nowhere.js", "does not exist")
	contains(t, g.fails("start", "no-such-command"), "no-such-command", "does not exist")
	contains(t, g.fails("start", "ok.sh", "--interpreter", "nonesuch"), "nonesuch")
	contains(t, g.fails("start", "ok.sh", "-i", "many"), "many")
	contains(t, g.fails("start", "ok.sh", "--max-restart", "3"), "--max-restart")
	if err := os.Mkdir(g.path("folder.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	contains(t, g.fails("start", "folder.json"), "folder.json")
	if exists(filepath.Join(g.home, "gpm.sock")) || exists(filepath.Join(g.home, "state")) {
		t.Error("something was started")
	}
}

// A bad app is found when it cannot be started, too; the good ones run.
func TestAnAppThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	good := g.app("good", idle)
	bad := g.write("bad.sh", "#!/no/such/interpreter\n")
	said := g.fails("start", g.conf(good, keys{"name": "bad", "script": bad, "interpreter": "none", "max_restarts": 2}))
	contains(t, said, "✓ good-0 online", "✗ bad-0 ", bad, "no such file", "error: start: 1 of 2 instances failed")
	g.online("good", 1)
	// What was there yesterday is gone today.
	if err := os.Remove(g.path("good.sh")); err != nil {
		t.Fatal(err)
	}
	said = g.fails("restart", "good")
	contains(t, said, "✗ good-0 ", "good.sh")
	g.write("good.sh", idle+"\n")
	contains(t, g.ok("restart", "good"), "✓ good-0 online")
}

// A stranger has the port: whoever started the app is told who it is.
func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	port := freePort(t)
	stranger := exec.Command(filepath.Join(bin, "gosrv"))
	stranger.Env = append(os.Environ(), "ADDR="+addr(port))
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	g.until("the stranger listens", func() bool { _, err := get("http://" + addr(port)); return err == nil })

	said := g.fails("start", g.conf(keys{"name": "srv", "script": filepath.Join(bin, "gosrv"), "env": keys{"ADDR": addr(port)}, "max_restarts": 3, "ready": keys{"http": "/"}}))
	contains(t, said, "✗ srv-0 ", "in use", addr(port))
	g.until("it is given up", func() bool { return g.instance("srv", 0).Status == api.Errored })
	contains(t, g.ok("list"), "srv-0: ", addr(port)+" is in use")
	contains(t, g.ok("describe", "srv"), addr(port)+" is in use by", "gosrv")
	// One that does not mind is online, and its story tells of the port.
	g.ok("start", g.conf(g.app("calm", filepath.Join(bin, "gosrv")+" || echo never mind; "+idle, keys{"env": keys{"ADDR": addr(port)}})))
	g.until("its story tells of the port", func() bool { return strings.Contains(g.ok("describe", "calm"), addr(port)+" is in use by") })
	// The stranger was not disturbed, and when he goes the app has the port.
	if _, err := get("http://" + addr(port)); err != nil {
		t.Error(err)
	}
	_ = stranger.Process.Kill()
	_ = stranger.Wait()
	g.ok("restart", "srv")
	if _, err := get("http://" + addr(port)); err != nil {
		t.Error(err)
	}
}

// A record that was damaged costs its app, and nothing else.
func TestADamagedRecord(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.app("good", idle), g.app("bad", idle), g.app("empty", idle)))
	keeper, was := g.pid("keeper.pid"), pids(g.list())
	if err := syscall.Kill(keeper, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.until("everything has ended", func() bool { return !alive(keeper) && !alive(was[0]) && !alive(was[1]) && !alive(was[2]) })
	record := func(name string) string { return filepath.Join(g.home, "state", name+".json") }
	damage(t, record("bad"), `{"version": 1, "app": {"name": "ba`)
	damage(t, record("empty"), "")
	damage(t, record("empty")+".123.tmp", "half a write")
	damage(t, record("future"), `{"version": 999, "app": {"name": "future"}}`)
	g.ok("resurrect")
	g.online("good", 1)
	if n := len(g.list()); n != 1 {
		t.Errorf("%d apps", n)
	}
	o := g.run("list")
	contains(t, o.stdout+o.stderr, "warning: record "+record("bad")+" cannot be read", "warning: record "+record("empty"), "warning: record "+record("future"), "newer gpm", "set aside")
	for _, name := range []string{"bad", "empty", "future"} {
		if exists(record(name)) || !exists(record(name)+".corrupt") {
			t.Errorf("the record of %s was not set aside", name)
		}
	}
	if exists(record("empty") + ".123.tmp") {
		t.Error("the half write is still there")
	}
	g.ok("start", g.path("bad.sh"), "--name", "bad")
	g.online("bad", 1)
}

func damage(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedDump(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	contains(t, g.fails("resurrect"), "nothing was saved", "hint: gpm save")
	g.ok("start", g.conf(g.app("one", idle)))
	g.ok("save")
	g.ok("start", g.write("two.sh", idle+"\n"))
	g.ok("save")
	g.ok("kill")
	dump := filepath.Join(g.home, "dump.json")
	damage(t, dump, `{"version": 1, "apps": [{`)
	o := g.run("resurrect")
	if o.code != 0 {
		t.Fatal(o)
	}
	contains(t, o.stdout+o.stderr, "✓ one-0 online", "warning: ", dump, "dump.json.bak was used instead")
	g.ok("kill")
	damage(t, dump+".bak", "nonsense")
	contains(t, g.fails("resurrect"), dump, "dump.json.bak", "hint: ")
	if b := g.read(dump); b != `{"version": 1, "apps": [{` {
		t.Errorf("the dump is now %q", b)
	}
}

// What a gpm that was killed has left does not stand in the way of the next.
func TestStaleFiles(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	script := g.write("app.sh", idle+"\n")
	g.ok("start", script)
	g.ok("delete", "app")
	g.killBoth()
	if !exists(filepath.Join(g.home, "gpm.sock")) {
		t.Fatal("there is no stale socket to find")
	}
	contains(t, g.fails("ping"), "gpm is not running")
	contains(t, g.ok("kill"), "gpm is not running")
	contains(t, g.ok("start", script), "✓ app-0 online")
	g.ok("kill")
	// Nonsense in their places, and the pid of somebody who is not gpm.
	for name, text := range map[string]string{"gpm.pid": "1\n", "keeper.pid": "nonsense", "gpm.lock": "1 1\n", "gpm.sock": "a file"} {
		damage(t, filepath.Join(g.home, name), text)
	}
	contains(t, g.ok("start", script), "✓ app-0 online")
	g.ok("ping")
}

// A GPM_HOME that cannot be used is said to be so, by every verb that would
// need it.
func TestBadHomes(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	script := g.write("app.sh", idle+"\n")
	elsewhere := func(home string, args ...string) output {
		c := exec.Command(filepath.Join(bin, "gpm"), args...)
		h := &gpm{t: t, dir: g.dir, env: append(g.env, "GPM_HOME="+home)}
		return h.finish(c)
	}
	file := g.write("a-file", "")
	long := filepath.Join(g.dir, strings.Repeat("long/", 20))
	for _, c := range []struct {
		home string
		says []string
	}{
		{file, []string{file, "not a directory"}},
		{filepath.Join(file, "below"), []string{file, "not a directory"}},
		{long, []string{long, "socket", "GPM_HOME"}},
		{"/proc/gpm", []string{"/proc/gpm"}},
	} {
		for _, args := range [][]string{{"start", script}, {"resurrect"}} {
			o := elsewhere(c.home, args...)
			if o.code != 1 || !strings.HasPrefix(o.stderr, "error: ") || strings.Count(o.stderr, "error: ") != 1 {
				t.Errorf("%v in %s: %v", args, c.home, o)
			}
			contains(t, o.stderr, c.says...)
		}
		if o := elsewhere(c.home, "list"); strings.Contains(o.stdout+o.stderr, "panic") {
			t.Errorf("list in %s: %v", c.home, o)
		}
	}
}

// Another user's home.
func TestAHomeOfSomebodyElse(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	g := newGPM(t)
	g.ok("start", g.conf(g.app("app", idle)))
	nobody := func(home string, args ...string) output {
		c := exec.Command(filepath.Join(bin, "gpm"), args...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		h := &gpm{t: t, dir: "/", env: append(g.env, "GPM_HOME="+home)}
		return h.finish(c)
	}
	closed, err := os.MkdirTemp("", "g")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(closed) })
	if err := os.Chmod(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		home string
		args []string
	}{
		{closed, []string{"start", "sleep 1000"}}, {closed, []string{"resurrect"}},
		{filepath.Join(closed, "sub"), []string{"start", "sleep 1000"}},
		{g.home, []string{"list"}}, {g.home, []string{"start", "sleep 1000"}}, {g.home, []string{"stop", "app"}}, {g.home, []string{"logs"}}, {g.home, []string{"kill"}},
	} {
		o := nobody(c.home, c.args...)
		if o.code != 1 || !strings.HasPrefix(o.stderr, "error: ") || !strings.Contains(o.stderr, "permission denied") {
			t.Errorf("%v in %s: %v", c.args, c.home, o)
		}
		contains(t, o.stderr, c.home)
	}
	g.online("app", 1)
	if files, err := os.ReadDir(closed); err != nil || len(files) != 0 {
		t.Errorf("left in the closed home: %v, %v", files, err)
	}
}

// One home, one gpm.
func TestASecondGPMForAHome(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.app("app", idle)))
	before := g.online("app", 1)
	keeper := g.pid("keeper.pid")
	for _, args := range [][]string{{"keeper"}, {"keeper", "--foreground"}} {
		o := g.run(args...)
		if o.code != 75 || !strings.Contains(o.stderr, "another keeper has it") || !strings.Contains(o.stderr, g.home) {
			t.Errorf("%v: %v", args, o)
		}
	}
	if o := g.run("daemon"); o.code != 1 || o.stderr == "" {
		t.Errorf("daemon: %v", o)
	}
	if after := g.online("app", 1); after[0].PID != before[0].PID || g.pid("keeper.pid") != keeper {
		t.Errorf("after: %+v, keeper %d; before: %+v, keeper %d", after, g.pid("keeper.pid"), before, keeper)
	}
}

// The command that ordered a start is killed: the daemon finishes the job.
func TestTheCommandLineMayDie(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	app := g.app("slow", "echo begun; until [ -e go ]; do sleep 0.05; done; exec "+filepath.Join(bin, "gosrv"), keys{"instances": 2, "env": keys{"ADDR": addr(freePort(t))}})
	path := g.conf(app)
	g.write("go", "")
	g.ok("start", path)
	if err := os.Remove(g.path("go")); err != nil {
		t.Fatal(err)
	}
	// From now on it is ready only when it listens, and that takes as long as we like.
	v := g.view("restart", "slow")
	g.until("the new ones are launching", func() bool {
		return g.instance("slow", 0).Status == api.Launching && g.instance("slow", 1).Status == api.Launching
	})
	if err := v.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	v.ends()
	if s := g.instance("slow", 0).Status; s != api.Launching {
		t.Fatalf("it is %s", s)
	}
	// Ctrl-C says what that means. A start that does not wait says that it does not.
	v = g.view("restart", "slow")
	g.until("it has begun again", func() bool { return g.instance("slow", 0).Generation > 2 })
	v.leave()
	contains(t, strings.Join(v.all(), "\n"), "error: interrupted; what the daemon has begun goes on", "hint: ")
	if code := v.ProcessState.ExitCode(); code != 1 {
		t.Errorf("interrupted: exit code %d", code)
	}
	contains(t, g.ok("start", path, "--no-wait"), "slow is being started")
	g.write("go", "")
	g.online("slow", 2)
	// The same for a reload, in the middle of the rollout.
	old := pids(g.online("slow", 2))
	if err := os.Remove(g.path("go")); err != nil {
		t.Fatal(err)
	}
	before := g.instance("slow", 0).Generation
	v = g.view("reload", "slow")
	g.until("the first new one is started", func() bool { return g.instance("slow", 0).Generation > before })
	if err := v.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	v.ends()
	g.write("go", "")
	g.until("all are new", func() bool {
		now := pids(g.online("slow", 2))
		return now[0] != old[0] && now[1] != old[1]
	})
}

// Two want to delete the same app, or to start it: both get an answer, and the
// end is as if one had come after the other.
func TestTwoCommandsAtOnce(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	script := g.write("app.sh", idle+"\n")
	for range 3 {
		both := func(args ...string) (out [4]output) {
			var wg sync.WaitGroup
			for i := range out {
				wg.Go(func() { out[i] = g.run(args...) })
			}
			wg.Wait()
			return out
		}
		g.ok("start", script, "-i", "2")
		fine := 0
		for _, o := range both("delete", "app") {
			if o.code == 0 {
				fine++
			} else if !regexp.MustCompile(`no app or instance matches "app"|it is being removed|being deleted`).MatchString(o.stdout + o.stderr) {
				t.Errorf("delete: %v", o)
			}
		}
		if l := g.list(); fine == 0 || len(l) != 0 {
			t.Fatalf("%d deletes went well, left is %+v", fine, l)
		}
		for _, o := range both("start", script, "--name", "app") {
			if o.code != 0 && !strings.Contains(o.stderr, `an app "app" runs already`) {
				t.Errorf("start: %v", o)
			}
		}
		if l := g.online("app", 1); len(g.list()) != 1 {
			t.Fatalf("left is %+v", l)
		}
		g.ok("delete", "app")
	}
}

func TestOddPathsArgumentsAndVariables(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	odd := "a b/it's \"odd\" $HOME `x` ü;&|"
	g.write(odd+"/my script.sh", "echo \"in $PWD\"; for a in \"$@\"; do printf '<%s>' \"$a\"; done; echo; printenv ODD EMPTY UTF NEWLINES; printenv HUGE | wc -c; printenv | wc -c; "+idle+"\n")
	env := keys{
		"ODD": `= ' " $HOME \ %s *`, "EMPTY": "", "UTF": "zażółć 漢字 🎉", "NEWLINES": "one\ntwo\n",
		"lower-case.and-dots": "x", "HUGE": strings.Repeat("h", 100<<10),
	}
	for i := range 9 {
		env["HUGE"+string(rune('0'+i))] = strings.Repeat("h", 100<<10)
	}
	args := []string{"", " ", "--a.b=c", "--a.b=c", "it's", `"`, "$HOME", "*", "ü", "-x", "--", "new\nline"}
	g.ok("start", g.conf(keys{"name": "odd", "script": odd + "/my script.sh", "cwd": odd, "args": args, "env": env}))
	want := "in " + g.path(odd) + "\n<" + strings.Join(args, "><") + ">\n" + env["ODD"].(string) + "\n\n" + env["UTF"].(string) + "\none\ntwo\n\n102401\n"
	g.until("it has said all", func() bool { return strings.Count(g.read(g.log("odd-out.log")), "\n") > strings.Count(want, "\n") })
	if got := g.read(g.log("odd-out.log")); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nexpected\n%s", got, want)
	}
	g.ok("restart", "odd") // 1 MB of environment is in the record, too
	daemon := g.pid("gpm.pid")
	kill9(t, daemon)
	g.until("a new daemon runs", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 })
	g.online("odd", 1)
	g.ok("restart", "odd")
	// Arguments from a command line, verbatim.
	g.ok("start", odd+"/my script.sh", "--name", "cli", "--", "--a.b=c", "--name", "x", "--a.b=c", "a b")
	g.until("it has said all", func() bool {
		return strings.Contains(g.read(g.log("cli-out.log")), "<--a.b=c><--name><x><--a.b=c><a b>\n")
	})
	// One variable of more than 128 KiB no program can have: Linux says so, and we.
	said := g.fails("start", g.conf(g.app("huge", idle, keys{"env": keys{"HUGE": strings.Repeat("h", 200<<10)}, "max_restarts": 1})))
	contains(t, said, "✗ huge-0 ", "argument list too long")
}
