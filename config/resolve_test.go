package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// How a script becomes a command.
func TestCommands(t *testing.T) {
	for _, c := range []struct {
		app, name string
		want      []string
	}{
		{`"script": "app.js", "args": "-p 1"`, "app", []string{"/usr/bin/node", "/srv/app.js", "-p", "1"}},
		{`"script": "server.py"`, "server", []string{"/usr/bin/python3", "/srv/server.py"}},
		{`"script": "x.sh"`, "x", []string{"/usr/bin/bash", "/srv/x.sh"}},
		{`"script": "x.ts"`, "x", []string{"/usr/bin/node", "/srv/x.ts"}},
		{`"script": "x.ts", "env": {"PATH": "/opt/bin:/usr/bin"}`, "x", []string{"/opt/bin/bun", "/srv/x.ts"}},
		{`"script": "app.js", "env": {"PATH": "opt/bin::/usr/bin"}`, "app", []string{"/usr/bin/node", "/srv/app.js"}},
		{`"script": "x.jar", "interpreter_args": "-Xmx1g"`, "x", []string{"/usr/bin/java", "-Xmx1g", "-jar", "/srv/x.jar"}},
		{`"script": "x.jar", "interpreter": "java", "interpreter_args": "-jar -v"`, "x", []string{"/usr/bin/java", "-jar", "-v", "/srv/x.jar"}},
		{`"script": "run", "args": ["a b"]`, "run", []string{"/srv/run", "a b"}},
		{`"script": "lua.lua"`, "lua", []string{"/srv/lua.lua"}},
		{`"script": "plain", "interpreter": "bash"`, "plain", []string{"/usr/bin/bash", "/srv/plain"}},
		{`"script": "run", "interpreter": "none"`, "run", []string{"/srv/run"}},
		{`"script": "my app.js"`, "my app", []string{"/usr/bin/node", "/srv/my app.js"}},
		{`"script": "/srv/app.js", "node_args": ["--inspect"]`, "app", []string{"/usr/bin/node", "--inspect", "/srv/app.js"}},
		{`"script": "only.js", "cwd": "sub"`, "only", []string{"/usr/bin/node", "/srv/sub/only.js"}},
		{`"script": "app.js", "cwd": "sub"`, "app", []string{"/usr/bin/node", "/srv/app.js"}},
		{`"script": "npm", "args": "start"`, "npm", []string{"/usr/bin/npm", "start"}},
		{`"script": "npm start"`, "npm", []string{"/bin/sh", "-c", "npm start", "sh"}},
		{`"script": "A=1 node ./src/main.js --port 80", "args": "x"`, "main", []string{"/bin/sh", "-c", `A=1 node ./src/main.js --port 80 "$@"`, "sh", "x"}},
		{`"script": "A=1 /usr/bin/env B=2 ls -l"`, "env", []string{"/bin/sh", "-c", "A=1 /usr/bin/env B=2 ls -l", "sh"}},
	} {
		a := mustParseOne(t, "{"+c.app+"}", options())
		if diff := cmp.Diff(c.want, a.Command()); diff != "" {
			t.Errorf("%s: %s", c.app, diff)
		}
		if a.Name != c.name {
			t.Errorf("%s: the name is %q", c.app, a.Name)
		}
	}
}

func TestScriptProblems(t *testing.T) {
	for app, want := range map[string]string{
		`"script": "none.js"`:                            `gpm.json:1:12: app "none": key "script": "/srv/none.js" does not exist; it is not in the PATH either`,
		`"script": "./none.js"`:                          `gpm.json:1:12: app "none": key "script": "/srv/none.js" does not exist`,
		`"script": "src"`:                                `gpm.json:1:12: app "src": key "script": "/srv/src" is a folder, not a script`,
		`"script": "pipe"`:                               `gpm.json:1:12: app "pipe": key "script": "/srv/pipe" is not a regular file`,
		`"script": "game.lua"`:                           `gpm.json:1:12: app "game": key "script": "/srv/game.lua" is not executable; set "interpreter", or make it executable (chmod +x)`,
		`"script": "app.js", "interpreter": "none"`:      `gpm.json:1:12: app "app": key "script": "/srv/app.js" is not executable; set "interpreter", or make it executable (chmod +x)`,
		`"script": "x.rb"`:                               `gpm.json:1:12: app "x": key "script": cannot find the interpreter "ruby"; install it, or set "interpreter" to its path`,
		`"script": "x.ts", "env": {"PATH": "/nowhere"}`:  `gpm.json:1:12: app "x": key "script": cannot find the interpreter "bun" or "node"; install it, or set "interpreter" to its path`,
		`"script": "app.js", "interpreter": "node@18"`:   `gpm.json:1:37: app "app": key "interpreter": cannot find the interpreter "node@18"; gpm picks no version: write the path of the interpreter`,
		`"script": "app.js x", "interpreter": "node"`:    `gpm.json:1:12: app "app": key "script": "/srv/app.js x" does not exist; with an "interpreter" the script is one file; its arguments go into "args"`,
		`"script": "npm run x", "interpreter_args": "a"`: `gpm.json:1:25: app "npm": key "interpreter_args": the app has no interpreter to give arguments to; set "interpreter", or use "args"`,
		`"name": "web"`:                                  `gpm.json:1:1: app "web": there is no "script"; expected the program to run`,
		`"script": "run", "listen": true`:                `gpm.json:1:29: app "run": key "listen": true is the port of the key "port", which is not there; write the port itself, as in "listen": 8080`,
		`"script": "run", "watch": "src/*.js"`:           `gpm.json:1:28: app "run": key "watch": cannot watch "/srv/src/*.js": it does not exist; expected a file or folder; watch a folder, and name in "ignore_watch" what does not matter`,
	} {
		if got := problemsOf(t, "{"+app+"}", options()); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", app, got, want)
		}
	}
}

// A folder of the same name does not hide a program of the PATH.
func TestPathBehindFolder(t *testing.T) {
	if a := mustParseOne(t, `{"script": "npm"}`, options()); a.Script != "/usr/bin/npm" {
		t.Errorf("script is %q", a.Script)
	}
}

func TestModeAndMergeDefaults(t *testing.T) {
	for _, c := range []struct {
		app, mode string
		merge     bool
	}{
		{`"script": "app.js"`, "fork", true},
		{`"script": "app.js", "instances": 1`, "cluster", false},
		{`"script": "app.js", "instances": 4, "exec_mode": "fork"`, "fork", false},
		{`"script": "server.py", "instances": 4`, "fork", false},
		{`"script": "app.js", "exec_mode": "cluster"`, "cluster", false},
		{`"script": "app.js", "instances": 4, "merge_logs": true`, "cluster", true},
		{`"script": "app.js", "merge_logs": false`, "fork", false},
	} {
		a := mustParseOne(t, "{"+c.app+"}", options())
		if a.ExecMode != c.mode || a.MergeLogs != c.merge {
			t.Errorf("%s: %s, merge %v", c.app, a.ExecMode, a.MergeLogs)
		}
	}
}

func TestCwdAndLogs(t *testing.T) {
	a := mustParseOne(t, `{"name": "my app é", "script": "app.js", "cwd": "sub", "err": "e.log", "watch": "app.js"}`, options())
	if a.Cwd != "/srv/sub" || a.ErrorFile != "/srv/sub/e.log" || a.OutFile != "/home/u/.gpm/logs/my-app---a468-out.log" {
		t.Errorf("cwd %q, out %q, err %q", a.Cwd, a.OutFile, a.ErrorFile)
	}
	if diff := cmp.Diff([]string{"/srv/sub/app.js"}, a.Watch); diff != "" {
		t.Error(diff)
	}
}

func TestEnvLayers(t *testing.T) {
	const app = `{"script": "server.py", "port": 80, "env": {"A": 1, "B": 1, "C": 1, "PORT": 1}, "env_p": {"B": 2, "C": 2}, "env_q": {"B": 3}}`
	o := options()
	o.Profile = "p"
	o.Overrides = map[string]any{"env": map[string]string{"C": "3"}}
	a := mustParseOne(t, app, o)
	want := map[string]string{"A": "1", "B": "2", "C": "3", "PORT": "80", "PYTHONUNBUFFERED": "1"}
	if diff := cmp.Diff(want, a.Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]map[string]string{"p": {"B": "2", "C": "2"}, "q": {"B": "3"}}, a.Profiles); diff != "" {
		t.Error(diff)
	}
	o = options()
	o.Inherited["PYTHONUNBUFFERED"] = ""
	if a := mustParseOne(t, `{"script": "server.py"}`, o); a.Env != nil || a.Inherited["PATH"] != "/usr/bin" {
		t.Errorf("env is %v over %v", a.Env, a.Inherited)
	}
}

func TestWarnings(t *testing.T) {
	var got []string
	o := options()
	o.Profile = "prod"
	o.Warn = func(p Problem) { got = append(got, p.Error()) }
	mustParse(t, `[{"script": "app.js", "name": "a b", "env_prod": {}, "out_file": "/x/o.log", "error_file": "/x/e.log"},
{"script": "app.js", "name": "a-b", "max_memory_restart": 200, "out_file": "/x/o.log", "error_file": "/x/e.log"}]`, o)
	want := []string{
		`gpm.json:2:1: app "a-b": key "env_prod": is not there; the app starts without this profile`,
		`gpm.json:2:1: app "a-b": writes the same log file as app "a b": "/x/o.log"`,
		`gpm.json:2:1: app "a-b": writes the same log file as app "a b": "/x/e.log"`,
		`gpm.json:2:59: app "a-b": key "max_memory_restart": 200 bytes is less than any process needs; is a unit missing, as in "200M"?`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOnly(t *testing.T) {
	const text = `[{"script": "app.js", "name": "a"}, {"script": "none.js", "name": "b"}, {"script": "run"}]`
	o := options()
	o.Only = []string{"run", "a"}
	apps := mustParse(t, text, o) // b's missing script is nobody's business now
	if len(apps) != 2 || apps[0].Name != "a" || apps[1].Name != "run" {
		t.Errorf("apps: %v", apps)
	}
	o.Only = []string{"a", "c"}
	if got, want := problemsOf(t, text, o), `--only: there is no app "c"; the config has "a", "b", "run"`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestAccountsNeedRoot(t *testing.T) {
	o := options()
	o.Geteuid = func() int { return 1000 }
	got := problemsOf(t, `{"script": "run", "uid": "root", "gid": 0}`, o)
	want := `gpm.json:1:26: app "run": key "uid": only root may run an app as somebody else; remove it, or run gpm as root
gpm.json:1:41: app "run": key "gid": only root may run an app as somebody else; remove it, or run gpm as root`
	if got != want {
		t.Error(got)
	}
}

// The example of the manual, with every default spelled out.
func TestNodeServerExample(t *testing.T) {
	a := mustParseOne(t, `{"apps": {"name": "node-server", "script": "app.js", "watch": true, "ignore_watch": ["node_modules", "logs"], "error_file": "logs/error.log", "out_file": "logs/custom.log", "log_date_format": "yyyy-MM-dd HH:mm:ss", "instances": 4}}`, options())
	if a.Instances != 4 || a.ExecMode != "cluster" || a.MergeLogs || a.OutFile != "/srv/logs/custom.log" || a.ErrorFile != "/srv/logs/error.log" ||
		a.LogDateFormat != "yyyy-MM-dd HH:mm:ss" || strings.Join(a.Watch, ",") != "/srv" || strings.Join(a.IgnoreWatch, ",") != "node_modules,logs" || a.Name != "node-server" {
		t.Errorf("%+v", a)
	}
}
