package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A file with many errors tells them all, in order, each where it is.
func TestAllProblemsAtOnce(t *testing.T) {
	const text = "\xef\xbb\xbf" + `// apps of the shop
{
  "apps": [
    {
      "name": "web", "script": "app.js",
      "max_restart": 3,
      "kill_timeout": "soon", /* é */ "hold": "true",
      "env": {"A": 1, "A": 2, "é": "x", "": 1},
      "instances": 2, "instances": 3,
      "watch": ["src", "nowhere", 7],
      "treekill": false,
    },
    {"name": "web", "cmd": "none.js", "script": "app.js", "port": 99999},
    {"cron_restart": "0 25 * * *", "maxRestarts": "4"},
    {"script": "plain", "exec_mode": "clustr", "interpreter_args": "-x"},
    "app.js",
    {"script": "8.js", "listen": [80, ":80", "x"], "kill_signal": "SIGTREM"},
  ],
  "deploy": {},
  "name": "shop",
  "appz": [],
}
`
	want := `
gpm.json:6:7: app "web": key "max_restart": unknown key; did you mean "max_restarts"?
gpm.json:7:23: app "web": key "kill_timeout": got the text "soon"; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d"
gpm.json:7:47: app "web": key "hold": got the text "true"; expected true or false; write true without quotes
gpm.json:8:23: app "web": key "env.A": the key is there twice, first in line 8
gpm.json:8:41: app "web": key "env": the variable "" has no name
gpm.json:9:23: app "web": key "instances": the key is there twice, first in line 9
gpm.json:10:24: app "web": key "watch": cannot watch "/srv/nowhere": it does not exist; expected a file or folder
gpm.json:10:35: app "web": key "watch": got the number 7; expected text in the list
gpm.json:11:7: app "web": key "treekill": is a PM2 key that gpm does not do yet; remove it; gpm always stops the whole process tree
gpm.json:13:14: app "web": key "name": the name "web" is taken by the app in line 4; give one of them another "name"
gpm.json:13:28: app "web": key "cmd": "/srv/none.js" does not exist; it is not in the PATH either
gpm.json:13:39: app "web": key "script": the same key as "cmd" in line 13; keep one of them
gpm.json:13:67: app "web": key "port": got the number 99999; expected a whole number from 1 to 65535
gpm.json:14:5: there is no "script"; expected the program to run
gpm.json:14:22: key "cron_restart": "0 25 * * *": bad hour "25"; expected a cron pattern of 5 fields ("0 4 * * *"), or 6 with seconds first; "0" for none
gpm.json:14:51: key "maxRestarts": got the text "4"; expected a whole number from 0 to 1000000; write 4 without quotes
gpm.json:15:16: app "plain": key "script": "/srv/plain" is not executable; set "interpreter", or make it executable (chmod +x)
gpm.json:15:38: app "plain": key "exec_mode": got the text "clustr"; expected "fork" or "cluster" or "fork_mode" or "cluster_mode"; did you mean "cluster"?
gpm.json:15:48: app "plain": key "interpreter_args": the app has no interpreter to give arguments to; set "interpreter", or use "args"
gpm.json:16:5: got the text "app.js"; expected an app, which is an object
gpm.json:17:16: app "8": key "script": the name made from it, "8", would be confused with an id; give the app a "name"
gpm.json:17:39: app "8": key "listen": ":80" is there twice
gpm.json:17:46: app "8": key "listen": got the text "x"; expected a port, "host:port", a list of these, or true for the port of the key "port"
gpm.json:17:67: app "8": key "kill_signal": got the text "SIGTREM"; expected a signal that ends a process: SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGKILL, SIGUSR1, SIGUSR2, SIGABRT, SIGALRM, SIGWINCH, SIGPWR; did you mean "SIGTERM"?
gpm.json:19:3: key "deploy": gpm does not deploy; remove it; deploy by other means, then run gpm reload
gpm.json:20:3: key "name": belongs into an app, not beside the apps
gpm.json:21:3: key "appz": unknown key; did you mean "apps"?`
	if diff := cmp.Diff(strings.TrimSpace(want), problemsOf(t, text, options())); diff != "" {
		t.Error(diff)
	}
}

func TestSyntaxProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"gpm.json", ``, `gpm.json:1:1: the config is empty; write at least {"apps": [{"script": "app.js"}]}`},
		{"gpm.json", " \n", `gpm.json:1:1: the config is empty; write at least {"apps": [{"script": "app.js"}]}`},
		{"gpm.json", `{apps: []}`, `gpm.json:1:2: not JSON: cannot read "apps"; keys and text stand in double quotes`},
		{"gpm.json", "{\n  'apps': []}", `gpm.json:2:3: not JSON: invalid character '\'' at start of value; text stands in double quotes`},
		{"gpm.json", `{"apps": [`, `gpm.json:1:11: not JSON: the text ends too early; a closing bracket or quote is missing`},
		{"gpm.json", "{\"é\": \"x\"\n\"b\": 1}", `gpm.json:2:1: not JSON: invalid character '"' after object value (expecting ',' or '}'); a comma may be missing before it, or a quote or newline inside the text`},
		{"gpm.json", `{"a": 01}`, `gpm.json:1:7: not JSON: cannot read "01"`},
		{"gpm.json", `{"a": 1} x`, `gpm.json:1:10: not JSON: invalid character 'x' after top-level value; keys and text stand in double quotes`},
		{"gpm.json", "{\"a\": \"\xff\"}", `gpm.json:1:8: a byte that is not UTF-8; save the file as UTF-8`},
		{"gpm.json", strings.Repeat("[", 1<<20), `gpm.json:1:65: nested more than 64 levels deep`},
		{"gpm.json", `["[/*", /* ] */ ` + strings.Repeat("[", 63) + `[`, `gpm.json:1:80: nested more than 64 levels deep`},
		{"gpm.json", strings.Repeat(" ", maxText+1), `gpm.json:1:1: the config is larger than 4 MiB`},
		{"x/ecosystem.config.js", `module.exports = {}`, `x/ecosystem.config.js:1:1: not JSON: cannot read "module.exports"; gpm reads JSON, not JavaScript: node -p "JSON.stringify(require('./ecosystem.config.js'))" writes it as JSON`},
		{"a.yml", "apps:\n", `a.yml:1:1: not JSON: cannot read "apps"; gpm reads JSON, not YAML`},
	} {
		_, err := Parse(c.name, []byte(c.text), options())
		if got := fmt.Sprint(err); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", excerpt(c.text), got, c.want)
		}
	}
}

func TestShapes(t *testing.T) {
	for _, text := range []string{
		`{"apps": [{"script": "app.js"}]}`, `{"apps": {"script": "app.js"}}`, `{"pm2": [{"script": "app.js"}]}`,
		`{"script": "app.js"}`, `[{"script": "app.js"}]`, "\xef\xbb\xbf[{\"script\": \"app.js\"}]",
		`{"$schema": "x", "apps": [{"script": "app.js",},],} // end`, `/* a */ {"apps": {"script": "app.js"}} // `,
	} {
		if a := mustParseOne(t, text, options()); a.Name != "app" || a.File != "/srv/gpm.json" || a.Line != 1 {
			t.Errorf("%s: %q of %s:%d", text, a.Name, a.File, a.Line)
		}
	}
	apps, err := Parse("/srv/package.json", []byte(`{"name": "shop", "version": "1.0.0", "pm2": {"script": "app.js"}}`), options())
	if err != nil || len(apps) != 1 || apps[0].Name != "app" {
		t.Errorf("package.json: %v, %v", apps, err)
	}
	for text, want := range map[string]string{
		`{}`:                                    `gpm.json:1:1: there are no apps; expected at least one app`,
		`[]`:                                    `gpm.json:1:1: there are no apps; expected at least one app`,
		`{"apps": []}`:                          `gpm.json:1:10: there are no apps; expected at least one app`,
		`{"apps": {}}`:                          `gpm.json:1:10: there are no apps; expected at least one app`,
		`{"apps": 1}`:                           `gpm.json:1:10: got the number 1; expected a list of apps, or one app`,
		`{"apps": null}`:                        `gpm.json:1:10: got null; expected a list of apps, or one app`,
		`"app.js"`:                              `gpm.json:1:1: got the text "app.js"; expected {"apps": [...]}`,
		`{"app": []}`:                           `gpm.json:1:2: key "app": unknown key; did you mean "apps"?`,
		`{"scrpt": "app.js"}`:                   `gpm.json:1:2: key "scrpt": unknown key; did you mean "script"?`,
		`{"apps": {"script":"run"}, "pm2": {}}`: `gpm.json:1:28: key "pm2": the same as "apps" in line 1; keep one of them`,
		`{"apps": {"script":"run"}, "apps": 1}`: `gpm.json:1:28: key "apps": the key is there twice, first in line 1`,
		`{"apps": {"script":"run"}, "static": []}`: `gpm.json:1:28: key "static": gpm does not serve static files; remove it; run a file server as an app`,
	} {
		if got := problemsOf(t, text, options()); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for written, want := range map[string]string{
		"max_restart": "max_restarts", "maxRestart": "maxRestarts", "max-restarts": "max_restarts", "MaxRestarts": "max_restarts",
		"nmae": "name", "intances": "instances", "kil_timeout": "kill_timeout", "envs": "env", "ignore_watched": "ignore_watch",
		"completely_else": "", "x": "", "": "", strings.Repeat("script", 1000): "",
	} {
		if got := nearest(written, spellings()); got != want {
			t.Errorf("%q: did you mean %q, want %q", written, got, want)
		}
	}
}

// A file full of mistakes is told in bounded time and space.
func TestManyProblems(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"script": "app.js"`)
	for i := range 100_000 {
		fmt.Fprintf(&b, `, "wrong_key_%d": 1`, i)
	}
	b.WriteString("}")
	lines := strings.Split(problemsOf(t, b.String(), options()), "\n")
	if len(lines) != maxProblems+1 {
		t.Fatalf("%d lines", len(lines))
	}
	if last := lines[maxProblems]; last != "gpm.json: 99900 more problems" {
		t.Errorf("last line: %s", last)
	}
}

// Long keys, names and values are cut, so that a problem stays a line.
func TestLongExcerpts(t *testing.T) {
	long := strings.Repeat("é", 10_000)
	ps := problemsOf(t, fmt.Sprintf(`{"script": "app.js", "name": "a/%s", %q: 1, "hold": %q, "port": 1%s}`, long, long, long, strings.Repeat("0", 10_000)), options())
	for line := range strings.SplitSeq(ps, "\n") {
		if len(line) > 700 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}
