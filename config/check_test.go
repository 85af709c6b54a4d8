package config

import (
	"strings"
	"testing"
	"time"
)

// Check refuses an App that Parse could not have made, by the key that is wrong.
func TestCheck(t *testing.T) {
	for key, spoil := range map[string]func(*App){
		"name":                      func(a *App) { a.Name = "../x" },
		"namespace":                 func(a *App) { a.Namespace = "" },
		"script":                    func(a *App) { a.Script = "app.js" },
		"cwd":                       func(a *App) { a.Cwd = "." },
		"interpreter":               func(a *App) { a.Interpreter = "node" },
		"interpreter_args":          func(a *App) { a.Interpreter, a.InterpreterArgs = "", []string{"-x"} },
		"args":                      func(a *App) { a.Args = []string{"a\x00"} },
		"instances":                 func(a *App) { a.Instances = 0 },
		"exec_mode":                 func(a *App) { a.ExecMode = "cluster_mode" },
		"env":                       func(a *App) { a.Env = map[string]string{"A=B": ""} },
		"inherited":                 func(a *App) { a.Inherited = map[string]string{"A": "\x00"} },
		"env_p":                     func(a *App) { a.Profiles = map[string]map[string]string{"p": {"": ""}} },
		"uid":                       func(a *App) { a.UID = "\x00" },
		"depends_on":                func(a *App) { a.DependsOn = []string{"bus", "bus"} },
		"min_uptime":                func(a *App) { a.MinUptime = 0 },
		"restart_delay":             func(a *App) { a.RestartDelay = -1 },
		"exp_backoff_restart_delay": func(a *App) { a.Backoff = Duration(maxDuration + 1) },
		"kill_timeout":              func(a *App) { a.KillTimeout = Duration(-time.Second) },
		"listen_timeout":            func(a *App) { a.ListenTimeout = 0 },
		"max_restarts":              func(a *App) { a.MaxRestarts = -1 },
		"kill_signal":               func(a *App) { a.KillSignal = "INT" },
		"stop_exit_codes":           func(a *App) { a.StopExitCodes = []int{256} },
		"cron_restart":              func(a *App) { a.CronRestart = "x" },
		"port":                      func(a *App) { a.Port = 70000 },
		"balance":                   func(a *App) { a.Balance = "" },
		"drain":                     func(a *App) { a.Drain = "" },
		"drain_timeout":             func(a *App) { a.DrainTimeout = 0 },
		"drain_idle":                func(a *App) { a.DrainIdle = 0 },
		"shutdown_timeout":          func(a *App) { a.ShutdownTimeout = -1 },
		"queue_timeout":             func(a *App) { a.QueueTimeout = -1 },
		"hang_timeout":              func(a *App) { a.HangTimeout = Duration(maxDuration + 1) },
		"rollout.parallel":          func(a *App) { a.Rollout.Parallel = 0 },
		"rollout.pause":             func(a *App) { a.Rollout.Pause = -1 },
		"rollout.max_draining":      func(a *App) { a.Rollout.MaxDraining = -1 },
		"standby":                   func(a *App) { a.Standby = 1; a.Hold = false },
		"ready":                     func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Kind = ""; p.Path = "" }) },
		"ready.http":                func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Path = "/\r\nX: y" }) },
		"ready.exec":                func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Kind, p.Path = ProbeExec, "" }) },
		"ready.port":                func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Port = 65536 }) },
		"ready.headers":             func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Headers = map[string]string{"A": "\n"} }) },
		"ready.failures":            func(a *App) { a.Ready = spoiled(false, func(p *Probe) { p.Failures = 1 }) },
		"health.status":             func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Status = []int{204, 200} }) },
		"health.event":              func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Event = "x" }) },
		"health.interval":           func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Interval = 0 }) },
		"health.timeout":            func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Timeout = 0 }) },
		"health.delay":              func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Delay = -1 }) },
		"health.failures":           func(a *App) { a.Health = spoiled(true, func(p *Probe) { p.Failures = 0 }) },
		"listen":                    func(a *App) { a.Listen = []string{"8080"} },
		"watch":                     func(a *App) { a.Watch = []string{"src"} },
		"ignore_watch":              func(a *App) { a.IgnoreWatch = []string{"["} },
		"out_file":                  func(a *App) { a.OutFile = "o.log" },
		"error_file":                func(a *App) { a.ErrorFile = "o.log" },
		"log_type":                  func(a *App) { a.LogType = "" },
		"log_full":                  func(a *App) { a.LogFull = "" },
		"log_date_format":           func(a *App) { a.LogDateFormat = "\n" },
		"log_max_size":              func(a *App) { a.LogMaxSize = 0 },
		"log_max_files":             func(a *App) { a.LogMaxFiles = -1 },
		"max_memory_restart":        func(a *App) { a.MaxMemory = maxSize + 1 },
		"build":                     func(a *App) { a.Build = "\x00" },
	} {
		a := mustParseOne(t, `{"script": "app.js"}`, options())
		spoil(&a)
		err := Check(&a)
		if err == nil || !strings.Contains(err.Error(), `key "`+key+`"`) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := Check(&App{}); err == nil {
		t.Error("the zero App is valid")
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string]string{
		``: ``, `  `: ``, `a b`: `a|b`, ` a  b `: `a|b`, `'a b' "c d"`: `a b|c d`, `a'b c'd`: `ab cd`, `""`: ``, `a "" b`: `a||b`,
		`"a\"b" 'a\b'`: `a"b|a\b`, `a\ b`: `a b`, `\d \\d`: `\d|\d`, `a\`: `a\`, `"\d"`: `\d`, "a\tb\nc": `a|b|c`,
	} {
		words, closed := splitWords(line)
		if got := strings.Join(words, "|"); got != want || !closed {
			t.Errorf("%q: %q, closed %v; want %q", line, got, closed, want)
		}
	}
	for _, line := range []string{`"`, `a 'b`, `"a\"`} {
		if _, closed := splitWords(line); closed {
			t.Errorf("%q is closed", line)
		}
	}
}
