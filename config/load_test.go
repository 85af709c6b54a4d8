package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromScript(t *testing.T) {
	o := options()
	o.Overrides = map[string]any{
		"name": "web", "instances": "max", "watch": true, "max_memory_restart": "100M", "kill_timeout": "3000",
		"autorestart": false, "stop_exit_codes": "1 2", "ignore_watch": []string{"logs"}, "env": map[string]string{"A": "1"},
		"port": "8080", "log_compress": "false", "listen": "true", "restart_delay": 5, "max_restarts": int64(3), "node_args": "null",
	}
	a, err := FromScript("app.js", []string{"-x", "a b"}, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(&a); err != nil {
		t.Error(err)
	}
	want := mustParseOne(t, `{"script": "app.js", "args": ["-x", "a b"], "name": "web", "instances": 4, "watch": true, "max_memory_restart": "100M",
		"kill_timeout": 3000, "autorestart": false, "stop_exit_codes": [1, 2], "ignore_watch": ["logs"], "env": {"A": 1}, "port": 8080,
		"log_compress": false, "listen": true, "restart_delay": 5, "max_restarts": 3}`, options())
	want.File, want.Line = "", 0
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	if a, err := FromScript("npm start", nil, options()); err != nil || !a.Shell || a.Name != "npm" {
		t.Errorf("npm start: %+v, %v", a, err)
	}
}

func TestFromScriptProblems(t *testing.T) {
	o := options()
	o.Profile = "prod"
	o.Overrides = map[string]any{"kill_timeout": "soon", "instances": "abc", "out_file": "src", "no_such": 1, "treekill": false, "env": []string{"A"}, "watch": struct{}{}, "env_x": nil}
	_, err := FromScript("none.js", nil, o)
	want := `--env-x: sets no key of an app
--no-such: sets no key of an app
--watch: cannot take a struct {}
--env: the profile "prod" needs a config file with "env_prod"
--treekill: is a PM2 key that gpm does not do yet; remove it; gpm always stops the whole process tree
--instances: got the text "abc"; expected a number, "max" for one per core, or a negative number for cores less that many, at most 1024
--kill-timeout: got the text "soon"; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d"
--env: got a list; expected an object of names and values ({"PORT": 8080})
app "none": key "script": "/srv/none.js" does not exist; it is not in the PATH either
--output: "/srv/src" is a folder; expected the path of a file`
	if err == nil {
		t.Fatal("no problem")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

// Flags win over the file, in all of its apps; a bad flag is told once.
func TestOverridesOfFile(t *testing.T) {
	const text = `[{"script": "app.js", "instances": 2, "kill_timeout": 1}, {"script": "run", "watch": true}]`
	o := options()
	o.Overrides = map[string]any{"instances": "3", "kill_timeout": nil, "watch": false, "cwd": "sub"}
	for _, a := range mustParse(t, text, o) {
		if a.Instances != 3 || a.KillTimeout.D().Seconds() != 5 || a.Watch != nil || a.Cwd != "/srv/sub" {
			t.Errorf("%+v", a)
		}
	}
	o.Overrides = map[string]any{"instances": "x", "hold": "maybe"}
	if got := strings.Count(problemsOf(t, text, o), "\n"); got != 1 {
		t.Errorf("%d newlines", got)
	}
	o.Overrides = map[string]any{"name": "one"}
	if got, want := problemsOf(t, text, o), "--name: names one app, and the config has 2"; got != want {
		t.Errorf("got %s", got)
	}
}

// Load on the real file system.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := write("conf/bin/run", "#!/bin/sh\n", 0o755)
	conf := write("conf/gpm.json", `{"script": "bin/run", "out_file": "o.log"}`, 0o644)
	o := Options{Dir: dir, Home: filepath.Join(dir, "home")}
	for _, path := range []string{conf, "conf/gpm.json"} {
		apps, err := Load(path, o)
		if err != nil {
			t.Fatal(err)
		}
		a := apps[0]
		if a.Script != run || a.File != conf || a.Cwd != filepath.Join(dir, "conf") || a.OutFile != filepath.Join(dir, "conf/o.log") ||
			a.ErrorFile != filepath.Join(dir, "home/logs/run-error.log") {
			t.Errorf("%+v", a)
		}
	}
	apps, err := Parse("-", []byte(`{"script": "conf/bin/run"}`), o)
	if err != nil || apps[0].Script != run || apps[0].File != "" || apps[0].Line != 0 {
		t.Errorf("from standard input: %+v, %v", apps, err)
	}

	if _, err := Load("none.json", o); !errors.Is(err, fs.ErrNotExist) || err.Error() != `read config "none.json": no such file or directory` {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load("conf", o); err == nil || err.Error() != `read config "conf": it is a folder, not a file` {
		t.Errorf("folder: %v", err)
	}
	write("big.json", strings.Repeat(" ", maxText+1), 0o644)
	if _, err := Load("big.json", o); err == nil || !strings.HasSuffix(err.Error(), "big.json:1:1: the config is larger than 4 MiB") {
		t.Errorf("big: %v", err)
	}
	if _, err := Load("/dev/null", o); err == nil || err.Error() != `read config "/dev/null": it is not a regular file` {
		t.Errorf("device: %v", err)
	}
}

func TestDefaultOptions(t *testing.T) {
	t.Setenv("HOME", "/home/somebody")
	a, err := FromScript("sh", nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := os.Getwd()
	if a.Cwd != dir || a.OutFile != "/home/somebody/.gpm/logs/sh-out.log" || !strings.HasSuffix(a.Script, "/bin/sh") {
		t.Errorf("%+v", a)
	}
}

// Flags bring values of several types.
func TestFlagTypes(t *testing.T) {
	o := options()
	o.Overrides = map[string]any{"args": []any{"a", 1, 2.5, true, uint64(7)}, "hold": true, "port": 80.0, "stop_exit_codes": []string{"1", "2"}, "watch": "src"}
	a := mustParseOne(t, `{"script": "app.js"}`, o)
	if got := strings.Join(a.Args, " "); got != "a 1 2.5 true 7" || a.Port != 80 || len(a.StopExitCodes) != 2 || a.Watch[0] != "/srv/src" {
		t.Errorf("%+v", a)
	}
	o.Overrides = map[string]any{"args": []any{struct{}{}}}
	if got, want := problemsOf(t, `{"script": "app.js"}`, o), "--args: cannot take a []interface {}"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestOnlyNamesFew(t *testing.T) {
	var apps []string
	for _, c := range "abcdefghijkl" {
		apps = append(apps, `{"script": "run", "name": "`+string(c)+`"}`)
	}
	o := options()
	o.Only = []string{"z"}
	got := problemsOf(t, "["+strings.Join(apps, ",")+"]", o)
	if !strings.HasSuffix(got, `"i", "j" and 2 more`) {
		t.Error(got)
	}
}
