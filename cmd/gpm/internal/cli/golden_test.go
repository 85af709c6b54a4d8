package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gpm/config"
	"gpm/supervisor/api"
)

var update = flag.Bool("update", false, "write golden files and docs/cli.md anew")

// golden compares got with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, diff)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample has every state.
func sample() []api.Instance {
	soon := noon.Add(7600 * time.Millisecond)
	base := api.Instance{Namespace: "default", Version: "1.4.2", Mode: "cluster", User: "deploy", Status: api.Online, Created: noon.Add(-50 * time.Hour)}
	of := func(id int, name string, place int, change func(*api.Instance)) api.Instance {
		i := base
		i.ID, i.Name, i.Instance, i.PID = id, name, place, 14000+id
		i.Started, i.Memory, i.CPU = noon.Add(-3*time.Hour), 53_896_806, 3.44
		change(&i)
		return i
	}
	down := func(i *api.Instance) { i.PID, i.Memory, i.CPU, i.Started = 0, 0, 0, time.Time{} }
	return []api.Instance{
		of(3, "web", 1, func(i *api.Instance) {
			i.Watching, i.Restarts, i.Traffic, i.Streams, i.Draining = true, 12, api.Serving, 49, 2
			i.Outgoing = []api.Outgoing{
				{PID: 13001, Generation: 1, Streams: 1, Live: 1, Oldest: noon.Add(-250 * time.Second), Deadline: noon.Add(20 * time.Second), Ending: true},
				{PID: 13002, Generation: 2, Streams: 36, Live: 30, Oldest: noon.Add(-100 * time.Second), Deadline: noon.Add(20 * time.Minute)},
			}
		}),
		of(2, "web", 0, func(i *api.Instance) {
			i.CPU, i.Memory, i.Traffic, i.Streams, i.Health = 120.4, 3<<30, api.Serving, 1204, "2 of 3 failed: GET /healthz: no answer in 2s"
		}),
		of(6, "web", 2, func(i *api.Instance) { i.Traffic, i.Streams, i.Idle = api.Away, 5, 2 }),
		of(7, "web", 3, func(i *api.Instance) {
			i.Traffic, i.Streams, i.Idle, i.Reason = api.Away, 2, 2, "out of traffic by gpm drain"
		}),
		of(8, "edge", 0, func(i *api.Instance) { i.Traffic = api.Serving }),
		of(0, "chat-completions", 0, func(i *api.Instance) {
			down(i)
			i.Status, i.Reason, i.NextTry, i.Mode = api.Waiting, "exited with code 1, try 4/16", &soon, "fork"
		}),
		of(1, "embeddings", 0, func(i *api.Instance) {
			down(i)
			i.Status, i.Version, i.LastExit = api.Errored, "", &api.Exit{Reason: "killed by SIGKILL (out of memory)"}
		}),
		of(4, "batch", 0, func(i *api.Instance) { down(i); i.Status = api.Stopped; i.LogProblem = "disk full: 12 lines dropped" }),
		of(5, "a service with a name that is far too long for any table", 0, func(i *api.Instance) {
			i.Status, i.Namespace, i.Started = api.Launching, "blue", noon.Add(-time.Second)
		}),
		of(9, "ui", 0, func(i *api.Instance) {
			down(i)
			i.Status, i.Reason = api.Pending, "waits for embeddings, which is errored; gpm start embeddings lets it go on"
		}),
	}
}

func listAt(columns int) string {
	var out, errs bytes.Buffer
	env := Env{Stdout: &out, Stderr: &errs, Getwd: os.Getwd}
	if columns > 0 {
		env.Environ = []string{fmt.Sprintf("COLUMNS=%d", columns)}
	}
	s := newSession(env)
	s.zone = time.UTC
	s.printList(api.List{Instances: sample(), Daemon: api.Daemon{Version: api.Version, Unsaved: true},
		Host: api.Host{CPU: 12.5, MemoryUsed: 5 << 30, MemoryTotal: 16 << 30}}, noon)
	return out.String() + errs.String()
}

func TestListTables(t *testing.T) {
	for _, columns := range []int{0, 40, 60, 80, 100, 160} {
		golden(t, fmt.Sprintf("testdata/golden/list-%d.txt", columns), listAt(columns))
	}
}

func describe(env bool) *api.Description {
	i := sample()[5]
	i.OutFile, i.ErrorFile, i.Hold = "/var/log/chat-out.log", "/var/log/chat-error.log", "held"
	i.Listeners = []api.Listener{{Address: "0.0.0.0:8080", Listening: true}, {Address: "[::]:8080"}}
	secret := "[redacted]"
	if env {
		secret = "s3cret"
	}
	return &api.Description{
		Instance: i,
		App: config.App{Name: i.Name, Script: "/srv/chat.js", Args: []string{"--port", "8080"}, Interpreter: "/usr/bin/node",
			Cwd: "/srv", Instances: 2, ExecMode: "fork", Env: map[string]string{"TOKEN": secret}, KillTimeout: config.Duration(5 * time.Second), DependsOn: []string{"embeddings", "bus"},
			File: "/srv/app.json", Line: 4, MaxMemory: 512 << 20},
		Exits: []api.Exit{{At: noon, PID: 99, Code: 1, Uptime: config.Duration(90 * time.Second), Reason: "exited with code 1",
			Tail: []api.LogLine{{Stream: "err", Text: "no \x1b[31mdatabase"}}}},
		Events: []api.Event{{At: noon, Kind: "exit", Message: "exited with code 1"}},
		Tree:   []api.Proc{{PID: 99, Parent: 1, Command: "node chat.js"}, {PID: 100, Parent: 99, Command: "node worker.js"}},
	}
}

func TestDescription(t *testing.T) {
	for name, d := range map[string]*api.Description{"describe": describe(true), "describe-busy": busy()} {
		var out bytes.Buffer
		s := newSession(Env{Stdout: &out, Stderr: io.Discard, Getwd: os.Getwd})
		s.zone = time.UTC
		s.printDescription(d, name == "describe", noon)
		golden(t, "testdata/golden/"+name+".txt", out.String())
	}
}

// busy is an instance in the middle of everything.
func busy() *api.Description {
	d := describe(false)
	d.Instance = sample()[0]
	d.App.Standby = 1
	d.Steering, d.Health, d.Standby, d.Idle, d.Queue, d.Oldest = "least (eBPF)", "ok", 1, 6, 3, noon.Add(-time.Hour)
	d.Listeners = []api.Listener{{Address: "0.0.0.0:8080", Listening: true, Queue: 3}, {Address: "[::]:8080", Listening: true}}
	d.Ages = []api.AgeCount{
		{Below: config.Duration(time.Second), Count: 1}, {Below: config.Duration(10 * time.Second)},
		{Below: config.Duration(time.Minute), Count: 12}, {Below: config.Duration(10 * time.Minute), Count: 35}, {Count: 1},
	}
	d.Exits, d.Events, d.Tree = nil, nil, nil
	return d
}

// pm2Keys are the keys of pm2_env that tools are known to read.
var pm2Keys = strings.Fields(`status pm_uptime created_at restart_time unstable_restarts exec_mode exec_interpreter
	pm_exec_path pm_cwd pm_out_log_path pm_err_log_path pm_pid_path instances NODE_APP_INSTANCE node_version version
	namespace watch autorestart env args node_args username axm_monitor axm_actions exit_code unique_id merge_logs
	cron_restart max_memory_restart kill_timeout name pm_id`)

func TestJlistHasPM2sShape(t *testing.T) {
	data, err := json.Marshal([]pm2Process{pm2Row(describe(false), false)})
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"pid", "name", "pm2_env", "pm_id", "monit"} {
		if _, ok := rows[0][key]; !ok {
			t.Errorf("no %q", key)
		}
	}
	env := rows[0]["pm2_env"].(map[string]any)
	for _, key := range pm2Keys {
		if v, ok := env[key]; !ok || v == nil {
			t.Errorf("pm2_env has no %q", key)
		}
	}
	for key, want := range map[string]any{
		"status": "waiting restart", "exec_mode": "fork_mode", "exec_interpreter": "node", "kill_timeout": 5000.0,
		"created_at": float64(noon.Add(-50 * time.Hour).UnixMilli()), "pm_uptime": 0.0,
	} {
		if env[key] != want {
			t.Errorf("%s = %v, want %v", key, env[key], want)
		}
	}
	own, err := json.Marshal(pm2Row(busy(), false).Env["gpm"])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"streams":49,"idle":6,"queue":3,"traffic":"serving","steering":"least (eBPF)"`, `"draining":2,"outgoing":[{"pid":13001,`, `"standby":1`} {
		if !strings.Contains(string(own), want) {
			t.Errorf("pm2_env.gpm has no %s: %s", want, own)
		}
	}
	if text, err := json.Marshal(env["gpm"]); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("pm2_env.gpm of an idle instance: %s, %v", text, err)
	}
	if _, flat := env["TOKEN"]; flat {
		t.Error("a redacted variable is there as a key of its own")
	}
	if row := pm2Row(describe(true), true); row.Env["TOKEN"] != "s3cret" {
		t.Error("a variable that was asked for is not flat in pm2_env")
	}
}

// Every flag of gpm start sets a key that config knows, by the flag that config
// names in its problems and its reference.
func TestFlagsAreConfigKeys(t *testing.T) {
	keys := map[string]config.Key{}
	for _, k := range config.Keys() {
		keys[k.Name] = k
	}
	for _, f := range appFlags() {
		if f.key == keyBothLogs {
			continue
		}
		k, ok := keys[f.key]
		switch {
		case !ok:
			t.Errorf("--%s sets %q, which is no key", f.name, f.key)
		case k.Refused != "":
			t.Errorf("--%s sets %q, which gpm refuses", f.name, f.key)
		case k.FlagName() != "--"+f.name:
			t.Errorf("--%s sets %q, but config calls its flag %s", f.name, f.key, k.FlagName())
		}
	}
}

func parse(t *testing.T, args ...string) map[string]any {
	t.Helper()
	o := &startOptions{}
	c := &cobra.Command{Use: "start"}
	o.startFlags(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	o.flags = c.Flags()
	return o.overrides()
}

func TestFlagsBecomeOverrides(t *testing.T) {
	for _, c := range []struct {
		args string
		want map[string]any
	}{
		{"", map[string]any{}},
		{"-n api -i max --cwd=/srv", map[string]any{"name": "api", "instances": "max", "cwd": "/srv"}},
		{"--watch", map[string]any{"watch": true}},
		{"--watch=src,lib --ignore-watch a,b", map[string]any{"watch": []string{"src", "lib"}, "ignore_watch": []string{"a", "b"}}},
		{"--no-autorestart --time", map[string]any{"autorestart": false, "time": true}},
		{"--hold=false", map[string]any{"hold": false}},
		{"--no-hold", map[string]any{"hold": false}},
		{"--node-args --inspect --cron @daily", map[string]any{"interpreter_args": "--inspect", "cron_restart": "@daily"}},
		{"--stop-exit-codes 0,42", map[string]any{"stop_exit_codes": []string{"0", "42"}}},
		{"-l all.log -k 3000", map[string]any{"out_file": "all.log", "error_file": "all.log", "kill_timeout": "3000"}},
	} {
		if diff := cmp.Diff(c.want, parse(t, strings.Fields(c.args)...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.args, diff)
		}
	}
}

// The values of flags have to be ones that config takes as they were typed.
func TestConfigTakesTheFlags(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.sh"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	s := newSession(Env{Stdout: io.Discard, Stderr: &errs, Getwd: func() (string, error) { return dir, nil },
		Environ: []string{"PATH=/usr/bin:/bin", "HOME=" + dir}})
	o := &startOptions{args: []string{"--port", "1"}}
	c := &cobra.Command{Use: "start"}
	o.startFlags(c)
	err := c.ParseFlags(strings.Fields("-n api -i 3 --max-memory-restart 512M --stop-exit-codes 0,42 --watch --no-autorestart " +
		"--kill-timeout 3s --restart-delay 100 -l all.log --time --log-type json --merge-logs --no-hold --max-restarts 3 --cron-restart @daily"))
	if err != nil {
		t.Fatal(err)
	}
	o.flags = c.Flags()
	a, err := s.fromScript(t.Context(), "app.sh", o)
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "api" || a.Instances != 3 || a.MaxMemory != 512<<20 || !slices.Equal(a.StopExitCodes, []int{0, 42}) || a.Autorestart ||
		a.Hold || a.KillTimeout.D() != 3*time.Second || a.OutFile != a.ErrorFile || len(a.Watch) != 1 || !slices.Equal(a.Args, o.args) {
		t.Errorf("got %+v", a)
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	s := newSession(Env{Stdout: io.Discard, Stderr: io.Discard, Getwd: os.Getwd})
	golden(t, "../../../../docs/cli.md", reference(s.root()))
}

// reference is docs/cli.md.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# gpm on the command line\n\nWritten from the commands themselves: `go test ./cmd/gpm/internal/cli -update`.\n\n" +
		"Results go to stdout; progress and `error:`, `warning:` and `hint:` lines to stderr. The exit code is 0,\n1 if anything failed, or 130 for a rollout or a drain that Ctrl-C ended. " +
		"`gpm help <command>` says the same as this page.\n\n" +
		"A *target* is an id, a name, a namespace, a `/regex/`, a config file, or `all`.\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", g.Title[:len(g.Title)-1])
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.Name() != "help" {
				describeCommand(&b, c)
			}
		}
	}
	b.WriteString("\n## Environment\n\n| variable | meaning |\n|---|---|\n" +
		"| `GPM_HOME` | folder of the daemon, its state and logs; default `~/.gpm` |\n" +
		"| `NO_COLOR` | no colours |\n| `COLUMNS` | width of tables, in place of the terminal's |\n")
	return b.String()
}

func describeCommand(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n### gpm %s\n\n", c.Use)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, "Also `%s`. ", strings.Join(c.Aliases, "`, `"))
	}
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	b.WriteString(fenced(text) + "\n")
	if c.Example != "" {
		b.WriteString("\n```\n" + strings.ReplaceAll(c.Example, "\n  ", "\n")[2:] + "\n```\n")
	}
	if !c.LocalFlags().HasAvailableFlags() {
		return
	}
	b.WriteString("\n| flag | meaning |\n|---|---|\n")
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		arg, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if f.NoOptDefVal != "" && f.Value.Type() == "string" {
			arg = "[=" + arg + "]"
		} else if arg != "" {
			arg = " " + arg
		}
		fmt.Fprintf(b, "| `%s%s` | %s |\n", name, arg, strings.ReplaceAll(usage, "|", `\|`))
	})
}

// fenced makes blocks that are indented by two into code.
func fenced(text string) string {
	var out []string
	for _, part := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(part, "  ") {
			part = "```\n" + strings.ReplaceAll(part, "\n  ", "\n")[2:] + "\n```"
		}
		out = append(out, part)
	}
	return strings.Join(out, "\n\n")
}
