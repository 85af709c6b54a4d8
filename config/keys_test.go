package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// good is a value that a key takes, and what becomes of it.
type good struct {
	value string
	want  any
}

// keyCases has, for each key of the table, values that it takes and values that
// it does not. Beside the key stand the keys of with.
var keyCases = map[string]cases{
	"script": {
		get:  func(a App) any { return a.Script },
		good: []good{{`"app.js"`, "/srv/app.js"}, {`"./src/../app.js"`, "/srv/app.js"}, {`"~/tool.js"`, "/home/u/tool.js"}},
		bad:  []string{`""`, `" "`, `1`, `true`, `[]`, `{}`, `"none.js"`, `"src"`, `"a\u0000b"`},
	},
	"name": {
		get:  func(a App) any { return a.Name },
		good: []good{{`"web"`, "web"}, {`"my app"`, "my app"}, {`"é-1_b.c"`, "é-1_b.c"}, {`null`, "app"}},
		bad:  []string{`""`, `"all"`, `"12"`, `"a/b"`, `"a\nb"`, `" a"`, `"-a"`, `".."`, `7`, `"` + strings.Repeat("x", maxName+1) + `"`},
	},
	"namespace": {
		get:  func(a App) any { return a.Namespace },
		good: []good{{`"prod"`, "prod"}, {`null`, "default"}},
		bad:  []string{`""`, `"all"`, `"0"`, `1`},
	},
	"args": {
		get: func(a App) any { return a.Args },
		good: []good{
			{`["a b", "--port", 8080, true]`, []string{"a b", "--port", "8080", "true"}},
			{`"--x 'a b' \"c d\" e\\ f \\d+"`, []string{"--x", "a b", "c d", "e f", `\d+`}},
			{`""`, []string(nil)}, {`[]`, []string(nil)},
		},
		bad: []string{`5`, `true`, `{}`, `[["a"]]`, `[null]`, `"'open"`, `["\u0000"]`},
	},
	"cwd": {
		get:  func(a App) any { return a.Cwd },
		good: []good{{`"sub"`, "/srv/sub"}, {`"/usr/bin"`, "/usr/bin"}, {`"~"`, "/home/u"}, {`null`, "/srv"}},
		bad:  []string{`""`, `"nowhere"`, `"app.js"`, `1`, `[]`},
	},
	"interpreter": {
		get: func(a App) any { return a.Interpreter },
		good: []good{
			{`"node"`, "/usr/bin/node"}, {`"/opt/bin/node"`, "/opt/bin/node"}, {`"venv/bin/python"`, "/srv/venv/bin/python"},
			{`"python"`, "/usr/bin/python3"}, {`null`, "/usr/bin/node"},
		},
		bad: []string{`""`, `"nonesuch"`, `"none"`, `"node@18"`, `"node --x"`, `"./nonesuch"`, `"not-a-program"`, `1`},
	},
	"interpreter_args": {
		get:  func(a App) any { return a.InterpreterArgs },
		good: []good{{`["--max-old-space-size=100"]`, []string{"--max-old-space-size=100"}}, {`"-a -b"`, []string{"-a", "-b"}}, {`""`, []string(nil)}},
		bad:  []string{`1`, `false`, `"\""`, `[{}]`},
	},
	"uid": {
		get:  func(a App) any { return a.UID },
		good: []good{{`"root"`, "root"}, {`0`, "0"}, {`"0"`, "0"}, {`null`, ""}},
		bad:  []string{`""`, `"no-such-user-here"`, `-1`, `1.5`, `true`, `[]`, `4294967295`, `4294967290`},
	},
	"gid": {
		get:  func(a App) any { return a.GID },
		good: []good{{`0`, "0"}, {`"0"`, "0"}},
		bad:  []string{`""`, `"no-such-group-here"`, `-1`, `{}`, `4294967290`},
	},
	"instances": {
		get: func(a App) any { return a.Instances },
		good: []good{
			{`3`, 3}, {`"3"`, 3}, {`"max"`, 4}, {`0`, 4}, {`"0"`, 4}, {`-1`, 3}, {`"-1"`, 3}, {`-100`, 1},
			{`2.0`, 2}, {`1e1`, 10}, {`null`, 1}, {`-9007199254740992`, 1}, {`-9223372036854775808`, 1},
		},
		bad: []string{`"many"`, `""`, `1.5`, `true`, `[]`, `1025`, `"4x"`, `1e400`},
	},
	"exec_mode": {
		get:  func(a App) any { return a.ExecMode },
		good: []good{{`"cluster"`, "cluster"}, {`"fork"`, "fork"}, {`"cluster_mode"`, "cluster"}, {`"fork_mode"`, "fork"}, {`null`, "fork"}},
		bad:  []string{`"clustr"`, `""`, `1`, `true`},
	},
	"env": {
		get: func(a App) any { return a.Env },
		good: []good{
			{`{"A": "x", "B": 8080, "C": true, "D": null, "E": 1.50}`, map[string]string{"A": "x", "B": "8080", "C": "true", "E": "1.50"}},
			{`{"A": {"b": [1, "<&>", null, ], /* c */ "d": {}}}`, map[string]string{"A": `{"b":[1,"<&>",null],"d":{}}`}},
			{`{}`, map[string]string(nil)},
		},
		bad: []string{`"A=b"`, `[]`, `1`, `{"": "x"}`, `{"A=B": "x"}`, `{"A": "\u0000"}`, `{"A": 1, "A": 2}`},
	},
	profileKey: {
		get:  func(a App) any { return a.Profiles },
		good: []good{{`{"A": 1}`, map[string]map[string]string{"production": {"A": "1"}}}, {`{}`, map[string]map[string]string{"production": {}}}},
		bad:  []string{`"x"`, `[]`, `{"": 1}`},
	},
	"port": {
		get:  func(a App) any { return fmt.Sprintf("%d %s", a.Port, a.Env["PORT"]) },
		good: []good{{`8080`, "8080 8080"}, {`null`, "0 "}},
		bad:  []string{`0`, `65536`, `-1`, `"8080"`, `1.5`, `true`},
	},
	"wait_ready":     boolCases(func(a App) any { return a.WaitReady }),
	"listen_timeout": durationCases(func(a App) any { return a.ListenTimeout.D() }, 30*time.Second, `0`),
	"kill_signal": {
		get:  func(a App) any { return a.KillSignal },
		good: []good{{`"SIGTERM"`, "SIGTERM"}, {`"TERM"`, "SIGTERM"}, {`"sigquit"`, "SIGQUIT"}, {`null`, "SIGINT"}},
		bad:  []string{`"SIGSTOP"`, `"SIGFOO"`, `""`, `15`, `"15"`, `true`},
	},
	"kill_timeout": durationCases(func(a App) any { return a.KillTimeout.D() }, 5*time.Second),
	"depends_on": { // names of other apps: TestDependsOn
		get:  func(a App) any { return a.DependsOn },
		good: []good{{`[]`, []string(nil)}, {`null`, []string(nil)}},
		bad:  []string{`"nobody"`, `["app"]`, `1`, `true`, `{}`, `{"bus": {}}`, `[1]`, `""`, `["a/b"]`, `"all"`},
	},
	"autorestart": boolCases(func(a App) any { return a.Autorestart }),
	"stop_exit_codes": {
		get:  func(a App) any { return a.StopExitCodes },
		good: []good{{`[0, 255]`, []int{0, 255}}, {`3`, []int{3}}, {`[]`, []int(nil)}},
		bad:  []string{`"3"`, `256`, `-1`, `["1"]`, `[1.5]`, `true`},
	},
	"max_restarts": {
		get:  func(a App) any { return a.MaxRestarts },
		good: []good{{`3`, 3}, {`0`, 0}, {`null`, 16}},
		bad:  []string{`-1`, `"3"`, `1.5`, `true`, `99999999999999999999`},
	},
	"min_uptime": {
		get:  func(a App) any { return a.MinUptime.D() },
		good: []good{{`2000`, 2 * time.Second}, {`"2000"`, 2 * time.Second}, {`"5s"`, 5 * time.Second}, {`"1m"`, time.Minute}, {`"1h"`, time.Hour}, {`null`, time.Second}},
		bad:  []string{`99`, `"5 s"`, `"s"`, `-1`, `true`, `""`},
	},
	"restart_delay":             durationCases(func(a App) any { return a.RestartDelay.D() }, 0),
	"exp_backoff_restart_delay": durationCases(func(a App) any { return a.Backoff.D() }, 0),
	"max_memory_restart": {
		get:  func(a App) any { return a.MaxMemory },
		good: []good{{`"100M"`, uint64(100 << 20)}, {`"2G"`, uint64(2 << 30)}, {`"2048k"`, uint64(2 << 20)}, {`"100MB"`, uint64(100 << 20)}, {`104857600`, uint64(100 << 20)}, {`"104857600"`, uint64(100 << 20)}, {`0`, uint64(0)}, {`null`, uint64(0)}},
		bad:  []string{`"100X"`, `"1.5G"`, `""`, `"M"`, `-1`, `true`, `"99999999999999999999"`, `"9999999999G"`, `"1BB"`, `1.5`},
	},
	"cron_restart": {
		get: func(a App) any { return a.CronRestart },
		good: []good{
			{`"0 4 * * *"`, "0 4 * * *"}, {`" */10  0 4 * * sun,mon-fri"`, "*/10 0 4 * * sun,mon-fri"}, {`"0 0 L * *"`, "0 0 L * *"},
			{`"0 0 29 2 *"`, "0 0 29 2 *"}, {`"@daily"`, "@daily"}, {`"0"`, ""}, {`0`, ""}, {`null`, ""},
		},
		bad: []string{`"a b c"`, `"0,99 * * * *"`, `"60 * * * *"`, `"* * 31 2 *"`, `"1-2-3 * * * *"`, `"*/0 * * * *"`, `"* * * * * * *"`, `"0 0 1 1 * 2030"`, `"@often"`, `""`, `5`, `true`},
	},
	"balance": {
		get:  func(a App) any { return a.Balance },
		good: []good{{`"random"`, "random"}, {`"hash"`, "hash"}, {`null`, "least"}},
		bad:  []string{`"lest"`, `""`, `1`, `true`, `[]`},
	},
	"drain": {
		get:  func(a App) any { return a.Drain },
		good: []good{{`"signal"`, "signal"}, {`"wait"`, "wait"}, {`null`, "wait"}},
		bad:  []string{`"sig"`, `true`, `{}`},
	},
	"drain_timeout":    durationCases(func(a App) any { return a.DrainTimeout.D() }, 30*time.Second, `0`, `"1us"`),
	"drain_idle":       durationCases(func(a App) any { return a.DrainIdle.D() }, 20*time.Second, `0`),
	"shutdown_timeout": zeroCases(durationCases(func(a App) any { return a.ShutdownTimeout.D() }, 5*time.Second)),
	"queue_timeout":    zeroCases(durationCases(func(a App) any { return a.QueueTimeout.D() }, 30*time.Second)),
	"hang_timeout":     zeroCases(durationCases(func(a App) any { return a.HangTimeout.D() }, 30*time.Second)),
	"rollout": {
		get: func(a App) any { return a.Rollout },
		good: []good{
			{`{"parallel": 3, "pause": "10s", "max_draining": 8}`, Rollout{3, Duration(10 * time.Second), 8}},
			{`{"maxDraining": 2}`, Rollout{1, 0, 2}}, {`{"parallel": "all", "pause": null}`, Rollout{maxParallel, 0, 0}},
			{`{}`, Rollout{1, 0, 0}}, {`null`, Rollout{1, 0, 0}},
		},
		bad: []string{
			`2`, `"all"`, `[]`, `true`, `{"parallel": 0}`, `{"parallel": -1}`, `{"parallel": "25%"}`, `{"parallel": "2"}`, `{"parallel": 1025}`, `{"pause": -1}`,
			`{"pause": "x"}`, `{"max_draining": -1}`, `{"max_drain": 1}`, `{"max_draining": 1, "maxDraining": 1}`, `{"pause": 1, "pause": 1}`, `{"": 1}`,
		},
	},
	"standby": {
		get:  func(a App) any { return a.Standby },
		good: []good{{`2`, 2}, {`0`, 0}, {`64`, 64}, {`null`, 0}},
		bad:  []string{`-1`, `65`, `"2"`, `true`},
	},
	"ready":  probeCases(func(a App) any { return a.Ready }, false),
	"health": probeCases(func(a App) any { return a.Health }, true),
	"hold":   boolCases(func(a App) any { return a.Hold }),
	"listen": {
		get:  func(a App) any { return a.Listen },
		with: `"port": 3000`,
		good: []good{
			{`"8080"`, []string{":8080"}}, {`8080`, []string{":8080"}}, {`":8080"`, []string{":8080"}}, {`"*:8080"`, []string{":8080"}},
			{`["127.0.0.1:80", "[::1]:81", "localhost:82"]`, []string{"127.0.0.1:80", "[::1]:81", "localhost:82"}},
			{`true`, []string{":3000"}}, {`false`, []string(nil)}, {`null`, []string(nil)},
		},
		bad: []string{`"x"`, `0`, `"70000"`, `"::1:80"`, `"a b:80"`, `["80", 80]`, `[true]`, `{}`, `""`, `"host:"`, `":http"`, `-80`},
	},
	"watch": {
		get:  func(a App) any { return a.Watch },
		good: []good{{`true`, []string{"/srv"}}, {`false`, []string(nil)}, {`"src"`, []string{"/srv/src"}}, {`["src", "./src/", "/srv/app.js"]`, []string{"/srv/src", "/srv/app.js"}}, {`[]`, []string(nil)}},
		bad:  []string{`"nowhere"`, `["src", "*.js"]`, `1`, `[1]`, `""`, `{}`, `"true"`},
	},
	"ignore_watch": {
		get:  func(a App) any { return a.IgnoreWatch },
		good: []good{{`["node_modules", "**/*.log"]`, []string{"node_modules", "**/*.log"}}, {`"logs"`, []string{"logs"}}, {`"[\\/\\\\]\\./"`, []string{`[\/\\]\./`}}},
		bad:  []string{`["["]`, `1`, `true`, `[""]`, `"{a"`, `[1]`},
	},
	"watch_delay": durationCases(func(a App) any { return a.WatchDelay.D() }, 0),
	"build": {
		get:  func(a App) any { return a.Build },
		good: []good{{`"npm run build && x"`, "npm run build && x"}},
		bad:  []string{`""`, `[]`, `true`},
	},
	"out_file":   logCases(func(a App) any { return a.OutFile }, "/home/u/.gpm/logs/app-out.log"),
	"error_file": logCases(func(a App) any { return a.ErrorFile }, "/home/u/.gpm/logs/app-error.log"),
	"merge_logs": boolCases(func(a App) any { return a.MergeLogs }),
	"log_date_format": {
		get:  func(a App) any { return a.LogDateFormat },
		good: []good{{`"yyyy-MM-dd HH:mm:ss"`, "yyyy-MM-dd HH:mm:ss"}, {`""`, ""}},
		bad:  []string{`true`, `1`, `"a\nb"`, `"` + strings.Repeat("Y", 200) + `"`},
	},
	"time": {
		get:  func(a App) any { return a.LogDateFormat },
		good: []good{{`true`, "YYYY-MM-DDTHH:mm:ss"}, {`false`, ""}},
		bad:  []string{`"true"`, `1`},
	},
	"log_type": {
		get:  func(a App) any { return a.LogType },
		good: []good{{`"json"`, "json"}, {`"raw"`, "raw"}, {`null`, "raw"}},
		bad:  []string{`"xml"`, `true`},
	},
	"log_max_size": {
		get:  func(a App) any { return a.LogMaxSize },
		good: []good{{`"1M"`, uint64(1 << 20)}, {`2048`, uint64(2048)}, {`null`, uint64(10 << 20)}},
		bad:  []string{`0`, `"0"`, `1023`, `"big"`, `-1`, `true`},
	},
	"log_max_files": {
		get:  func(a App) any { return a.LogMaxFiles },
		good: []good{{`3`, 3}, {`0`, 0}, {`null`, 10}},
		bad:  []string{`-1`, `"3"`, `true`},
	},
	"log_max_age":  durationCases(func(a App) any { return a.LogMaxAge.D() }, 0),
	"log_compress": boolCases(func(a App) any { return a.LogCompress }),
	"log_full": {
		get:  func(a App) any { return a.LogFull },
		good: []good{{`"block"`, "block"}, {`"drop"`, "drop"}, {`null`, "drop"}},
		bad:  []string{`"keep"`, `1`},
	},
}

type cases struct {
	get  func(App) any
	with string
	good []good
	bad  []string
}

func boolCases(get func(App) any) cases {
	return cases{get: get, good: []good{{`true`, true}, {`false`, false}}, bad: []string{`"true"`, `1`, `0`, `"yes"`, `[]`, `{}`}}
}

func durationCases(get func(App) any, otherwise time.Duration, bad ...string) cases {
	return cases{get: get,
		good: []good{
			{`1600`, 1600 * time.Millisecond}, {`"1.6s"`, 1600 * time.Millisecond}, {`"250ms"`, 250 * time.Millisecond},
			{`"1h30m"`, 90 * time.Minute}, {`"7d"`, 7 * 24 * time.Hour}, {`1e3`, time.Second}, {`null`, otherwise},
		},
		bad: append(bad, `-1`, `"-1s"`, `"1600"`, `"5 s"`, `"soon"`, `""`, `1.5`, `true`, `[]`, `"9999999999h"`, `99999999999999999`, `"99999d"`),
	}
}

func logCases(get func(App) any, otherwise string) cases {
	return cases{get: get,
		good: []good{{`"x.log"`, "/srv/x.log"}, {`"/var/log/x.log"`, "/var/log/x.log"}, {`"~/x.log"`, "/home/u/x.log"}, {`"/dev/null"`, ""}, {`"NULL"`, ""}, {`null`, otherwise}},
		bad:  []string{`""`, `1`, `true`, `"src"`, `"new/"`, `"a\u0000b"`},
	}
}

func appText(key, value, with string) string {
	members := []string{fmt.Sprintf("%q: %s", strings.Replace(key, "*", "production", 1), value)}
	if key != "script" && byScript(key) {
		members = append(members, `"script": "app.js"`)
	}
	if with != "" {
		members = append(members, with)
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// byScript tells whether the app needs a script beside the key.
func byScript(key string) bool {
	k, _ := findKey(key)
	return k == nil || k.Name != "script"
}

func TestEachKey(t *testing.T) {
	for _, key := range Keys() {
		c, ok := keyCases[key.Name]
		if key.Refused != "" {
			continue
		}
		if !ok {
			t.Errorf("key %q has no cases", key.Name)
			continue
		}
		t.Run(key.Name, func(t *testing.T) {
			for _, g := range c.good {
				a := mustParseOne(t, appText(key.Name, g.value, c.with), options())
				if diff := cmp.Diff(g.want, c.get(a)); diff != "" {
					t.Errorf("%s: %s", g.value, diff)
				}
			}
			for _, bad := range c.bad {
				ps := problemsOf(t, appText(key.Name, bad, c.with), options())
				name := strings.Replace(key.Name, "*", "production", 1)
				if !strings.Contains(ps, `key "`+name+`"`) && !strings.Contains(ps, `key "`+name+`.`) &&
					!(key.Name == "interpreter" && strings.Contains(ps, "not executable")) {
					t.Errorf("%s: the problem does not name the key: %s", bad, ps)
				}
			}
		})
	}
}

// Every spelling of a key does the same, and nothing else has it.
func TestEachAlias(t *testing.T) {
	owner := map[string]string{}
	for _, key := range Keys() {
		for _, s := range append([]string{key.Name}, key.Aliases...) {
			if other, taken := owner[s]; taken {
				t.Errorf("%q is a name of %q and of %q", s, other, key.Name)
			}
			owner[s] = key.Name
		}
		if camel := camelCase(key.Name); camel != key.Name && !slices.Contains(key.Aliases, camel) {
			t.Errorf("key %q has no alias %q", key.Name, camel)
		}
		if key.Refused != "" {
			continue
		}
		c := keyCases[key.Name]
		for _, alias := range key.Aliases {
			a := mustParseOne(t, appText(alias, c.good[0].value, c.with), options())
			if diff := cmp.Diff(c.good[0].want, c.get(a)); diff != "" {
				t.Errorf("%q: %s", alias, diff)
			}
		}
	}
	for _, alias := range []string{"exec", "cmd", "command", "execInterpreter", "nodeArgs", "node_args", "killTimeout", "errFile", "err", "out", "output", "combineLogs", "user", "expBackoffRestartDelay"} {
		if owner[alias] == "" {
			t.Errorf("nothing is called %q", alias)
		}
	}
}

// The defaults are those of the table, also after a round through null.
func TestDefaults(t *testing.T) {
	plain := mustParseOne(t, `{"script": "app.js"}`, options())
	var nulls []string
	for _, key := range Keys() {
		if key.Name != "script" && key.Name != profileKey {
			nulls = append(nulls, fmt.Sprintf("%q: null", key.Name))
		}
	}
	got := mustParseOne(t, `{"script": "app.js", `+strings.Join(nulls, ", ")+`}`, options())
	if diff := cmp.Diff(plain, got); diff != "" {
		t.Error(diff)
	}
}

// Each PM2 key that gpm does not do says so; values that change nothing pass.
func TestRefusedKeys(t *testing.T) {
	harmless := map[string][]string{
		"treekill": {`true`}, "vizion": {`true`, `false`}, "pmx": {`false`}, "autostart": {`true`}, "filter_env": {`false`, `[]`},
		"instance_var": {`"NODE_APP_INSTANCE"`}, "kill_retry_time": {`100`}, "watch_options": {`{}`}, "log_file": {`false`}, "post_update": {`[]`},
	}
	count := 0
	for _, key := range Keys() {
		if key.Refused == "" {
			continue
		}
		count++
		for _, s := range append([]string{key.Name}, key.Aliases...) {
			ps := problemsOf(t, fmt.Sprintf(`{"script": "app.js", %q: "something"}`, s), options())
			want := fmt.Sprintf(`gpm.json:1:22: app "app": key %q: is a PM2 key that gpm does not do yet; %s`, s, key.Refused)
			if ps != want {
				t.Errorf("got  %s\nwant %s", ps, want)
			}
		}
		for _, v := range harmless[key.Name] {
			mustParseOne(t, fmt.Sprintf(`{"script": "app.js", %q: %s}`, key.Name, v), options())
		}
		if (key.harmless == nil) != (key.Harmless == "") {
			t.Errorf("key %q: the words about harmless values do not match its check", key.Name)
		}
	}
	if count < 20 {
		t.Errorf("only %d refused keys", count)
	}
}

// An App keeps everything on its way through JSON, and its fields are called as
// the keys are.
func TestAppJSON(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(keyCases)) {
		c := keyCases[name]
		for _, g := range c.good {
			a := mustParseOne(t, appText(name, g.value, c.with), options())
			b, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			var back App
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(a, back); diff != "" {
				t.Errorf("%s: %s: %s", name, g.value, diff)
			}
		}
	}
}
