package config

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
)

// Check tells whether an App that came over the wire, or from a record, is one
// that Parse could have made, as far as that shows without the file system. The
// error is a Problems, each with the canonical name of its key.
func Check(a *App) error {
	c := &checker{app: a.Name}
	c.program(a)
	c.environments(a)
	c.lifecycle(a)
	c.sockets(a)
	c.traffic(a)
	c.probe("ready", a.Ready, false)
	c.probe("health", a.Health, true)
	c.files(a)
	return c.report.err()
}

type checker struct {
	app    string
	report report
}

// need reports that key is wrong unless ok.
func (c *checker) need(ok bool, key, message string) {
	if !ok {
		c.report.add(Problem{App: c.app, Key: key, Message: message})
	}
}

func (c *checker) program(a *App) {
	c.need(nameProblem(a.Name) == "", "name", excerpt(a.Name)+" "+nameProblem(a.Name))
	c.need(nameProblem(a.Namespace) == "", "namespace", excerpt(a.Namespace)+" "+nameProblem(a.Namespace))
	c.need(a.Shell && strings.TrimSpace(a.Script) != "" || isPath(a.Script), "script", "is neither a command line nor an absolute path")
	c.need(!hasNUL(a.Script), "script", "contains NUL")
	c.need(isPath(a.Cwd), "cwd", "is not an absolute path")
	c.need(a.Interpreter == "" || isPath(a.Interpreter) && !a.Shell, "interpreter", "is not an absolute path, or there is a command line")
	c.need(a.Interpreter != "" || len(a.InterpreterArgs) == 0, "interpreter_args", "there is no interpreter to give arguments to")
	c.need(!slices.ContainsFunc(a.Args, hasNUL), "args", "contains NUL")
	c.need(!slices.ContainsFunc(a.InterpreterArgs, hasNUL), "interpreter_args", "contains NUL")
	c.need(a.Instances >= 1 && a.Instances <= maxInstances, "instances", "is not from 1 to "+strconv.Itoa(maxInstances))
	c.need(a.ExecMode == "fork" || a.ExecMode == "cluster", "exec_mode", `is neither "fork" nor "cluster"`)
	c.need(!hasNUL(a.UID), "uid", "contains NUL")
	c.need(!hasNUL(a.GID), "gid", "contains NUL")
}

func (c *checker) environments(a *App) {
	c.environment("env", a.Env)
	c.environment("inherited", a.Inherited)
	for name, env := range a.Profiles {
		c.need(name != "", profileKey, "has no name")
		c.environment(profilePrefix+name, env)
	}
}

func (c *checker) environment(key string, env map[string]string) {
	for name, value := range env {
		c.need(envNameProblem(name) == "", key, "the variable "+excerpt(name)+" "+envNameProblem(name))
		c.need(!hasNUL(value), key, "the value of "+excerpt(name)+" contains NUL")
	}
}

func (c *checker) lifecycle(a *App) {
	c.duration("min_uptime", a.MinUptime, 100*time.Millisecond)
	c.duration("restart_delay", a.RestartDelay, 0)
	c.duration("exp_backoff_restart_delay", a.Backoff, 0)
	c.duration("kill_timeout", a.KillTimeout, 0)
	c.duration("listen_timeout", a.ListenTimeout, 1)
	c.duration("watch_delay", a.WatchDelay, 0)
	c.duration("log_max_age", a.LogMaxAge, 0)
	c.need(a.MaxRestarts >= 0 && a.MaxRestarts <= maxRestarts, "max_restarts", "is out of bounds")
	c.need(a.MaxMemory <= maxSize, "max_memory_restart", "is out of bounds")
	for i, name := range a.DependsOn {
		c.need(nameProblem(name) == "" && name != a.Name && !slices.Contains(a.DependsOn[:i], name), "depends_on", excerpt(name)+" is no name of another app, or there twice")
	}
	c.need(len(a.DependsOn) <= maxDepends, "depends_on", "has too many names")
	c.need(slices.Contains(signals, a.KillSignal), "kill_signal", excerpt(a.KillSignal)+" is no signal that ends a process")
	for _, code := range a.StopExitCodes {
		c.need(code >= 0 && code <= 255, "stop_exit_codes", strconv.Itoa(code)+" is not from 0 to 255")
	}
	if a.CronRestart != "" {
		what := cronProblem(a.CronRestart)
		c.need(what == "", "cron_restart", excerpt(a.CronRestart)+": "+what)
	}
}

func (c *checker) duration(key string, d Duration, least time.Duration) {
	c.need(d.D() >= least && d.D() <= maxDuration, key, d.String()+" is out of bounds")
}

func (c *checker) sockets(a *App) {
	c.need(a.Port >= 0 && a.Port <= 65535, "port", "is not from 1 to 65535")
	for i, address := range a.Listen {
		normal, ok := listenAddress(address)
		c.need(ok && normal == address && !slices.Contains(a.Listen[:i], address), "listen", excerpt(address)+" is no address, or there twice")
	}
}

func (c *checker) traffic(a *App) {
	c.need(slices.Contains([]string{"least", "random", "hash"}, a.Balance), "balance", excerpt(a.Balance)+` is neither "least" nor "random" nor "hash"`)
	c.need(a.Hold || a.Balance == "least", "balance", `is for listeners that gpm holds, and "hold" is false`)
	c.need(a.Drain == "wait" || a.Drain == "signal", "drain", excerpt(a.Drain)+` is neither "wait" nor "signal"`)
	c.duration("drain_timeout", a.DrainTimeout, 1)
	c.duration("drain_idle", a.DrainIdle, 1)
	c.duration("shutdown_timeout", a.ShutdownTimeout, 0)
	c.duration("queue_timeout", a.QueueTimeout, 0)
	c.duration("hang_timeout", a.HangTimeout, 0)
	c.need(a.Rollout.Parallel >= 1 && a.Rollout.Parallel <= maxParallel, "rollout.parallel", "is out of bounds")
	c.duration("rollout.pause", a.Rollout.Pause, 0)
	c.need(a.Rollout.MaxDraining >= 0 && a.Rollout.MaxDraining <= maxDraining, "rollout.max_draining", "is out of bounds")
	c.need(a.Standby >= 0 && a.Standby <= maxStandby, "standby", "is out of bounds")
	c.need(a.Hold || a.Standby == 0, "standby", `is for listeners that gpm holds, and "hold" is false`)
}

func (c *checker) probe(key string, p *Probe, health bool) {
	if p == nil {
		return
	}
	c.need(slices.Contains(probeKinds, p.Kind), key, excerpt(string(p.Kind))+" is no kind of probe")
	web := p.Kind == ProbeHTTP || p.Kind == ProbeSSE
	if web {
		c.need(pathProblem(p.Path) == "", key+"."+string(p.Kind), excerpt(p.Path)+" "+pathProblem(p.Path))
	}
	if p.Kind == ProbeExec {
		c.need(notEmpty(p.Command) == "" && !hasNUL(p.Command), key+".exec", "is no command line")
	}
	c.need(p.Kind == ProbeExec || p.Command == "", key+".exec", "there is another kind, too")
	c.need(web || p.Path == "", key, "has a path for nothing")
	c.need(p.Port >= 0 && p.Port <= 65535 && (p.Port == 0 || p.Kind != ProbeExec), key+".port", "is out of bounds, or for nothing")
	c.headers(key+".headers", p.Headers, web)
	c.need(web || !p.TLS, key+".tls", "is for nothing")
	for i, s := range p.Status {
		c.need(isStatus(int64(s)) && p.Kind == ProbeHTTP && (i == 0 || p.Status[i-1] < s), key+".status", strconv.Itoa(s)+" is out of bounds, out of order, or for nothing")
	}
	c.need(p.Event == "" || p.Kind == ProbeSSE && eventProblem(p.Event) == "", key+".event", excerpt(p.Event)+" is no name of an event, or for nothing")
	c.duration(key+".interval", p.Interval, minInterval)
	c.duration(key+".timeout", p.Timeout, 1)
	c.duration(key+".delay", p.Delay, 0)
	c.need(health && p.Failures >= 1 && p.Failures <= maxFailures || !health && p.Failures == 0, key+".failures", "is out of bounds, or for nothing")
}

func (c *checker) headers(key string, headers map[string]string, web bool) {
	c.need(web || len(headers) == 0, key, "are for nothing")
	spelled := map[string]bool{}
	for name, value := range headers {
		what := headerNameProblem(name)
		c.need(what == "", key, excerpt(name)+" "+what)
		what = headerValueProblem(name, value)
		c.need(what == "", key, "the value of "+excerpt(name)+" "+what)
		c.need(!spelled[strings.ToLower(name)], key, excerpt(name)+" is there twice")
		spelled[strings.ToLower(name)] = true
	}
}

func (c *checker) files(a *App) {
	for _, path := range a.Watch {
		c.need(isPath(path), "watch", excerpt(path)+" is not an absolute path")
	}
	for _, pattern := range a.IgnoreWatch {
		c.need(globProblem(pattern) == "", "ignore_watch", excerpt(pattern)+" "+globProblem(pattern))
	}
	c.need(!hasNUL(a.Build), "build", "contains NUL")
	c.need(a.OutFile == "" || isPath(a.OutFile), "out_file", "is not an absolute path")
	c.need(a.ErrorFile == "" || isPath(a.ErrorFile), "error_file", "is not an absolute path")
	c.need(a.LogType == "raw" || a.LogType == "json", "log_type", `is neither "raw" nor "json"`)
	c.need(a.LogFull == "drop" || a.LogFull == "block", "log_full", `is neither "drop" nor "block"`)
	c.need(formatProblem(a.LogDateFormat) == "", "log_date_format", excerpt(a.LogDateFormat)+" "+formatProblem(a.LogDateFormat))
	c.need(a.LogMaxSize >= minLogSize && a.LogMaxSize <= maxSize, "log_max_size", "is out of bounds")
	c.need(a.LogMaxFiles >= 0 && a.LogMaxFiles <= maxLogFiles, "log_max_files", "is out of bounds")
}

func isPath(s string) bool { return filepath.IsAbs(s) && !hasNUL(s) }

func hasNUL(s string) bool { return strings.Contains(s, "\x00") }

func notEmpty(s string) string {
	if strings.TrimSpace(s) == "" {
		return "is empty"
	}
	return ""
}

func globProblem(s string) string {
	if what := notEmpty(s); what != "" {
		return what
	}
	if !doublestar.ValidatePattern(s) {
		return "is not a complete pattern"
	}
	return ""
}

// formatProblem bounds log_date_format: it is written before every line, and a
// newline in it would make two of each.
func formatProblem(s string) string {
	switch {
	case len(s) > 128:
		return "is too long"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}
