package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpm/config"
	"gpm/supervisor/api"
)

// Every flag of start is in the app that comes of it.
func TestStartFlags(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("code/x.js", "")
	g.write("app.sh", `echo "$0 $@ in $PWD, port $PORT"; `+idle+"\n")
	g.ok("start", "app.sh", "--name", "flags", "-i", "2", "--namespace", "ns", "--cwd", "code", "--interpreter", "/bin/sh", "--interpreter-args", "-e -u",
		"--watch=.", "--ignore-watch", "*.tmp", "--watch-delay", "200ms", "--no-autorestart", "--max-restarts", "7", "--min-uptime", "2s",
		"--restart-delay", "300", "--exp-backoff-restart-delay", "400", "--max-memory-restart", "300M", "--stop-exit-codes", "3,4", "-c", "0 4 * * *",
		"--kill-signal", "TERM", "-k", "3s", "--listen-timeout", "9s", "--port", "4321", "--no-hold",
		"-o", "o.log", "-e", "e.log", "--time", "--log-type", "json", "--merge-logs", "--log-max-size", "2M", "--log-max-files", "4", "--log-max-age", "7d", "--no-log-compress", "--log-full", "block",
		"--", "--an", "argument")
	a := g.describe("flags")[0].App
	sec := func(n int) config.Duration { return config.Duration(time.Duration(n) * time.Millisecond) }
	for _, c := range []struct {
		key       string
		got, want any
	}{
		{"name", a.Name, "flags"}, {"instances", a.Instances, 2}, {"namespace", a.Namespace, "ns"}, {"cwd", a.Cwd, g.path("code")},
		{"script", a.Script, g.path("app.sh")}, {"interpreter", a.Interpreter, "/bin/sh"}, {"interpreter_args", a.InterpreterArgs, []string{"-e", "-u"}},
		{"args", a.Args, []string{"--an", "argument"}}, {"watch", a.Watch, []string{g.path("code")}}, {"ignore_watch", a.IgnoreWatch, []string{"*.tmp"}},
		{"watch_delay", a.WatchDelay, sec(200)}, {"autorestart", a.Autorestart, false}, {"max_restarts", a.MaxRestarts, 7}, {"min_uptime", a.MinUptime, sec(2000)},
		{"restart_delay", a.RestartDelay, sec(300)}, {"backoff", a.Backoff, sec(400)}, {"max_memory", a.MaxMemory, uint64(300 << 20)},
		{"stop_exit_codes", a.StopExitCodes, []int{3, 4}}, {"cron", a.CronRestart, "0 4 * * *"}, {"kill_signal", a.KillSignal, "SIGTERM"},
		{"kill_timeout", a.KillTimeout, sec(3000)}, {"listen_timeout", a.ListenTimeout, sec(9000)}, {"port", a.Port, 4321}, {"hold", a.Hold, false},
		{"out_file", a.OutFile, g.path("code/o.log")}, {"error_file", a.ErrorFile, g.path("code/e.log")}, {"date", a.LogDateFormat, "YYYY-MM-DDTHH:mm:ss"},
		{"log_type", a.LogType, "json"}, {"merge_logs", a.MergeLogs, true}, {"log_max_size", a.LogMaxSize, uint64(2 << 20)}, {"log_max_files", a.LogMaxFiles, 4},
		{"log_max_age", a.LogMaxAge, config.Duration(7 * 24 * time.Hour)}, {"log_compress", a.LogCompress, false}, {"log_full", a.LogFull, "block"},
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
			t.Errorf("%s is %v, expected was %v", c.key, c.got, c.want)
		}
	}
	g.until("it says what it was given", func() bool {
		return strings.Contains(g.read(g.path("code/o.log")), g.path("app.sh")+" --an argument in "+g.path("code")+", port 4321")
	})
	if in := g.instance("flags", 0); in.Hold != "off" || !in.Watching {
		t.Errorf("hold %q, watching %v", in.Hold, in.Watching)
	}
	// One file for both streams; a command line; flags over a config file.
	g.ok("start", "echo out; echo err >&2; exec sleep 1000", "--name", "line", "-l", "both.log")
	g.until("both are in one file", func() bool { return len(g.read(g.path("both.log"))) == len("out\nerr\n") })
	conf := g.conf(g.app("one", idle, keys{"namespace": "file", "env": keys{"WHO": "any"}, "env_production": keys{"WHO": "prod"}}), g.app("two", idle))
	g.ok("start", conf, "--only", "one", "--namespace", "flag", "--env", "production")
	if d := g.describe("one")[0]; d.App.Namespace != "flag" || g.instance("two", 0).Name != "" {
		t.Errorf("one is in %q", d.App.Namespace)
	}
	contains(t, g.ok("describe", "one", "--env"), "WHO", "prod")
	contains(t, g.fails("start", conf, "--only", "three"), "three")
	if o := g.run("start", conf, "--only", "two", "--env", "staging"); o.code != 0 || !strings.Contains(o.stderr, "warning: ") || !strings.Contains(o.stderr, "env_staging") {
		t.Errorf("an unknown profile: %v", o)
	}
}

// What gpm tells an app, and whose environment it gets.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.env = append(g.env, "SHELL_WORD=first", "OVER=shell", "LISTEN_FDS=3", "NOTIFY_SOCKET=/nowhere")
	g.ok("start", g.conf(g.app("env", "env > env.$NODE_APP_INSTANCE.$GPM_GENERATION; "+idle,
		keys{"instances": 2, "port": 4000, "env": keys{"OVER": "file", "NUMBER": 1, "YES": true, "OBJECT": keys{"a": 1}}})))
	read := func(instance, generation int) map[string]string {
		t.Helper()
		path := g.path(fmt.Sprintf("env.%d.%d", instance, generation))
		g.until("it wrote its environment", func() bool {
			return strings.Contains(g.read(path), "\npm_id=") && strings.HasSuffix(g.read(path), "\n")
		})
		m := map[string]string{}
		for line := range strings.Lines(g.read(path)) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			m[k] = v
		}
		return m
	}
	for i := range 2 {
		env := read(i, 1)
		for k, want := range map[string]string{
			"NODE_APP_INSTANCE": fmt.Sprint(i), "pm_id": fmt.Sprint(i), "GPM_APP": "env", "GPM_INSTANCE": fmt.Sprint(i), "GPM_HOME": g.home, "name": "env", "namespace": "default",
			"PORT": "4000", "OVER": "file", "NUMBER": "1", "YES": "true", "OBJECT": `{"a":1}`, "SHELL_WORD": "first", "PWD": g.dir,
		} {
			if env[k] != want {
				t.Errorf("instance %d has %s=%q, expected was %q", i, k, env[k], want)
			}
		}
		for _, k := range []string{"LISTEN_FDS", "NOTIFY_SOCKET"} {
			if v, ok := env[k]; ok {
				t.Errorf("instance %d has somebody else's %s=%s", i, k, v)
			}
		}
	}
	// The shell's environment is taken once, and again only if that is asked for.
	g.env = append(g.env, "SHELL_WORD=second")
	g.ok("restart", "env")
	if got := read(0, 2)["SHELL_WORD"]; got != "first" {
		t.Errorf("after a restart it is %q", got)
	}
	g.ok("reload", "env", "--update-env")
	if env := read(0, 3); env["SHELL_WORD"] != "second" || env["OVER"] != "file" {
		t.Errorf("after --update-env it is %q, %q", env["SHELL_WORD"], env["OVER"])
	}
	g.ok("restart", "env")
	if got := read(0, 4)["SHELL_WORD"]; got != "second" {
		t.Errorf("after the next restart it is %q", got)
	}
	// Secrets are not shown unless somebody asks.
	for _, args := range [][]string{{"describe", "env"}, {"describe", "env", "--json"}, {"jlist"}, {"list", "--json"}} {
		if out := g.ok(args...); strings.Contains(out, "second") || strings.Contains(strings.ReplaceAll(out, " ", ""), `"OVER":"file"`) {
			t.Errorf("%v shows values: %s", args, out)
		}
	}
	contains(t, g.ok("describe", "env", "--env", "--json"), `"OVER": "file"`)
}

// Tools that read pm2 jlist find what they look for.
func TestJlist(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	before := time.Now()
	g.ok("start", g.conf(g.service("api", keys{"instances": 2, "namespace": "front"}), g.app("dead", "exit 3", keys{"autorestart": false})), "--no-wait")
	g.until("it is dead", func() bool { return g.instance("dead", 0).LastExit != nil })
	g.online("api", 2)
	var rows []struct {
		PID   int            `json:"pid"`
		Name  string         `json:"name"`
		Env   map[string]any `json:"pm2_env"`
		ID    *int           `json:"pm_id"`
		Monit *struct {
			Memory *float64 `json:"memory"`
			CPU    *float64 `json:"cpu"`
		} `json:"monit"`
	}
	o := g.run("jlist")
	if err := json.Unmarshal([]byte(o.stdout), &rows); err != nil || o.stderr != "" || len(rows) != 3 {
		t.Fatalf("%v: %v", err, o)
	}
	for _, r := range rows {
		in := g.instance(r.Name, int(r.Env["NODE_APP_INSTANCE"].(float64)))
		if r.ID == nil || *r.ID != in.ID || r.PID != in.PID || r.Monit == nil || r.Monit.Memory == nil || r.Monit.CPU == nil {
			t.Errorf("row %+v of %+v", r, in)
		}
		for _, k := range []string{
			"status", "pm_uptime", "created_at", "restart_time", "unstable_restarts", "exec_mode", "exec_interpreter", "pm_exec_path", "pm_cwd",
			"pm_out_log_path", "pm_err_log_path", "pm_pid_path", "instances", "NODE_APP_INSTANCE", "node_version", "version", "namespace", "watch",
			"autorestart", "env", "args", "node_args", "username", "axm_monitor", "axm_actions", "exit_code", "unique_id", "merge_logs",
			"cron_restart", "max_memory_restart", "kill_timeout", "name", "pm_id",
		} {
			if _, ok := r.Env[k]; !ok {
				t.Errorf("%s has no pm2_env.%s", r.Name, k)
			}
		}
		created := time.UnixMilli(int64(r.Env["created_at"].(float64)))
		if created.Before(before.Add(-time.Second)) || created.After(time.Now().Add(time.Second)) {
			t.Errorf("%s was created at %v", r.Name, created)
		}
		if r.Name == "dead" && (r.Env["status"] != "stopped" || r.Env["exit_code"] != 3.0 || r.PID != 0 || r.Env["pm_uptime"] != 0.0) {
			t.Errorf("dead is %+v", r)
		}
		if r.Name == "api" && (r.Env["status"] != "online" || r.Env["namespace"] != "front" || r.Env["pm_uptime"] == 0.0 || r.Env["pm_out_log_path"] != in.OutFile) {
			t.Errorf("api is %+v", r)
		}
	}
}

// What list and describe say is true, of the living and of the dead.
func TestListAndDescribe(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("package.json", `{"name": "x", "version": "1.2.3"}`)
	g.ok("start", g.conf(g.app("app", "sleep 1000 & "+idle, keys{"instances": 2, "cron_restart": "0 4 * * *", "max_memory_restart": "1G"}), g.service("srv")))
	g.until("memory was measured", func() bool { return g.instance("app", 0).Memory > 0 && g.instance("srv", 0).Memory > 1<<20 })
	d := g.describe("app")[0]
	if len(d.Tree) != 2 || d.Tree[0].PID != d.PID || d.Tree[1].Parent != d.PID || !strings.Contains(d.Tree[1].Command, "sleep 1000") {
		t.Errorf("the tree of %d is %+v", d.PID, d.Tree)
	}
	if !slices.ContainsFunc(d.Events, func(e api.Event) bool { return e.Kind == "online" }) {
		t.Errorf("its story is %+v", d.Events)
	}
	text := g.ok("describe", "app-1")
	contains(t, text, "app-1 (id 1)", "status", "online", "script path", g.path("app.sh"), "exec cwd", "out log path", g.log("app-out-1.log"),
		"max memory restart", "1.0gb", "cron restart", "0 4 * * *", "config file", g.path("gpm.conf.json")+":3", "Processes", "sleep 1000", "Events")
	srv := g.describe("srv")[0]
	if len(srv.Listeners) != 1 || !srv.Listeners[0].Listening || srv.Hold != "held" {
		t.Errorf("srv listens on %+v, %s", srv.Listeners, srv.Hold)
	}
	contains(t, g.ok("describe", "srv"), "held sockets", srv.Listeners[0].Address)
	contains(t, g.ok("list"), "app", "srv", "online", "host: cpu ")
	contains(t, g.ok("list", "-m"), "+--- app", "status : online", "memory usage : ", "error log : "+g.log("app-error-0.log"))
	g.ok("stop", "all")
	for _, in := range g.list() {
		if in.Status != api.Stopped || in.PID != 0 || in.Memory != 0 || in.CPU != 0 || len(in.Listeners) != 0 || !in.Started.IsZero() || in.Restarts != 0 {
			t.Errorf("a stopped one is %+v", in)
		}
	}
	if s := g.ok("list"); strings.Contains(s, "app-0: ") {
		t.Errorf("what was stopped needs no reason: %s", s)
	}
}

func TestCompletionDoctorStartup(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.three()
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "-n"}} {
		script := g.write("completion."+shell, g.ok("completion", shell))
		if path, err := exec.LookPath(check[0]); err == nil {
			if out, err := exec.Command(path, check[1], script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", shell, err, out)
			}
		}
	}
	contains(t, g.fails("completion", "tcsh"), "tcsh")
	contains(t, g.ok("__complete", "stop", ""), "api", "job", "web", "front", "back")
	if s := g.ok("__complete", "stop", "a"); strings.Contains(s, "job") || !strings.Contains(s, "api") {
		t.Errorf("stop a: %s", s)
	}
	contains(t, g.ok("__complete", "re"), "restart", "reload", "reset", "resurrect")
	contains(t, g.ok("__complete", "start", "--max"), "--max-restarts", "--max-memory-restart")

	var checks []api.Check
	if err := json.Unmarshal([]byte(g.ok("doctor", "--json")), &checks); err != nil || len(checks) < 5 {
		t.Errorf("doctor: %v, %+v", err, checks)
	}
	for _, c := range checks {
		if !slices.Contains([]string{"ok", "limited", "missing"}, c.State) || c.Name == "" || c.Detail == "" || c.State != "ok" && c.Fallback == "" {
			t.Errorf("doctor: %+v", c)
		}
	}
	unit := g.ok("startup", "--print")
	contains(t, unit, "[Unit]", "[Service]", "[Install]", "Type=notify", "Environment=\"GPM_HOME="+g.home+"\"", filepath.Join(bin, "gpm")+" keeper --foreground", "RestartPreventExitStatus=75")
	if path, err := exec.LookPath("systemd-analyze"); err == nil {
		file := g.write("gpm-test.service", unit)
		if out, err := exec.Command(path, "verify", "--man=no", file).CombinedOutput(); err != nil && strings.Contains(string(out), "gpm-test.service:") {
			t.Errorf("systemd: %v\n%s", err, out)
		}
	}
}
