// Package config turns the text of an app config into valid structs, or into
// every problem of the text at once, each with file, line and column.
// It imports nothing of gpm.
package config

import (
	"encoding/json"
	"fmt"
	"time"
)

// App is one entry of a config, complete and checked: every default is filled
// in, every path is absolute, the interpreter is an absolute path. The zero
// value is not valid. An App is never changed after it was made; whoever needs
// another one copies it.
type App struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`

	// Script is the absolute path of the program or script, or, if Shell is
	// set, a command line for /bin/sh -c.
	Script          string   `json:"script"`
	Shell           bool     `json:"shell,omitempty"`
	Args            []string `json:"args,omitempty"`
	Cwd             string   `json:"cwd"`
	Interpreter     string   `json:"interpreter,omitempty"` // absolute path; empty: exec Script itself
	InterpreterArgs []string `json:"interpreter_args,omitempty"`

	Instances int    `json:"instances"`
	ExecMode  string `json:"exec_mode"` // "fork" or "cluster", shown as PM2 shows it; gpm runs both alike

	// Env is the app's own environment: the env key with the chosen env_<name>
	// over it. Inherited is the environment of whoever started the app; the
	// process gets Inherited, then Env over it, then gpm's own variables.
	Env       map[string]string            `json:"env,omitempty"`
	Profiles  map[string]map[string]string `json:"env_profiles,omitempty"` // env_<name>, by name
	Inherited map[string]string            `json:"inherited,omitempty"`

	// DependsOn names the apps that have to be online before a process of this
	// one is started.
	DependsOn []string `json:"depends_on,omitempty"`

	UID string `json:"uid,omitempty"` // user name or number; empty: gpm's own
	GID string `json:"gid,omitempty"`

	Autorestart   bool     `json:"autorestart"`
	MaxRestarts   int      `json:"max_restarts"`
	MinUptime     Duration `json:"min_uptime"`
	RestartDelay  Duration `json:"restart_delay"`
	Backoff       Duration `json:"exp_backoff_restart_delay"` // first delay; zero: gpm's own 100 ms
	StopExitCodes []int    `json:"stop_exit_codes,omitempty"`
	KillSignal    string   `json:"kill_signal"` // "SIGINT"
	KillTimeout   Duration `json:"kill_timeout"`
	WaitReady     bool     `json:"wait_ready"`
	ListenTimeout Duration `json:"listen_timeout"`
	MaxMemory     uint64   `json:"max_memory_restart,omitempty"` // bytes; zero: no limit
	CronRestart   string   `json:"cron_restart,omitempty"`

	Hold   bool     `json:"hold"`             // gpm holds the listeners (seccomp); false: plain start
	Listen []string `json:"listen,omitempty"` // "host:port" sockets that gpm opens and passes as LISTEN_FDS
	Port   int      `json:"port,omitempty"`   // sets PORT

	// How new connections are dealt to instances, and how an outgoing process
	// is taken out of traffic (docs/config.md, "Traffic").
	Balance      string   `json:"balance"`       // "least", "random" or "hash"
	Drain        string   `json:"drain"`         // "wait": gpm waits for the streams, then signals; "signal": the app drains itself
	DrainTimeout Duration `json:"drain_timeout"` // longest drain of a rollout, scale, gpm drain
	DrainIdle    Duration `json:"drain_idle"`    // a connection without data for this long holds no drain up
	// ShutdownTimeout is the longest drain when gpm itself ends; zero: none.
	ShutdownTimeout Duration `json:"shutdown_timeout"`
	// QueueTimeout is how long new connections wait while no instance is up;
	// then they are refused.
	QueueTimeout Duration `json:"queue_timeout"`
	// HangTimeout: connections wait for this long, none was accepted and no data
	// was sent: the process hangs and is replaced. Zero: never.
	HangTimeout Duration `json:"hang_timeout"`
	Rollout     Rollout  `json:"rollout"`
	Ready       *Probe   `json:"ready,omitempty"`  // nil: ready without a probe
	Health      *Probe   `json:"health,omitempty"` // nil: not probed
	// Standby is the number of warm processes that wait in bind().
	Standby int `json:"standby,omitempty"`

	Watch       []string `json:"watch,omitempty"` // absolute folders or files; empty: not watched
	IgnoreWatch []string `json:"ignore_watch,omitempty"`
	WatchDelay  Duration `json:"watch_delay,omitempty"`
	Build       string   `json:"build,omitempty"` // command line run before a watch reload

	OutFile       string   `json:"out_file"`   // absolute, without the instance suffix; empty: written nowhere (/dev/null)
	ErrorFile     string   `json:"error_file"` // as OutFile
	MergeLogs     bool     `json:"merge_logs"` // true: all instances write one file, no "-<id>" suffix
	LogType       string   `json:"log_type"`   // "raw" or "json"
	LogDateFormat string   `json:"log_date_format,omitempty"`
	LogMaxSize    uint64   `json:"log_max_size"`  // bytes per file before it is rotated
	LogMaxFiles   int      `json:"log_max_files"` // rotated files kept; zero: all
	LogMaxAge     Duration `json:"log_max_age"`   // rotated files older than this go; zero: kept
	LogCompress   bool     `json:"log_compress"`  // gzip rotated files
	LogFull       string   `json:"log_full"`      // disk full: "drop" (count) or "block" (the app waits)

	// File and Line tell where the app was written ("" and 0: on the command
	// line), for errors found later.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// The ways to drain a process.
const (
	DrainWait   = "wait"
	DrainSignal = "signal"
)

// Rollout paces the replacement of instances.
type Rollout struct {
	Parallel    int      `json:"parallel"`        // instances replaced at the same time, at least 1
	Pause       Duration `json:"pause,omitempty"` // between one batch that is ready and the next
	MaxDraining int      `json:"max_draining"`    // draining processes of the app beyond which the rollout waits; zero: three times the instances
}

// ProbeKind names what a probe does.
type ProbeKind string

// The kinds of probes.
const (
	ProbeHTTP ProbeKind = "http" // GET answers with an expected status
	ProbeTCP  ProbeKind = "tcp"  // a connection is accepted by the kernel
	ProbeExec ProbeKind = "exec" // a command line exits with 0
	ProbeSSE  ProbeKind = "sse"  // GET answers with an event stream and an event comes
)

// Probe is a check of one process: of readiness (Ready) or of life (Health).
type Probe struct {
	Kind     ProbeKind         `json:"kind"`
	Path     string            `json:"path,omitempty"`    // http, sse: "/readyz"
	Port     int               `json:"port,omitempty"`    // zero: the first port that the process listens on
	Headers  map[string]string `json:"headers,omitempty"` // http, sse; "Host" sets the Host header
	Status   []int             `json:"status,omitempty"`  // http: accepted ones; empty: 200 to 399
	TLS      bool              `json:"tls,omitempty"`     // http, sse: the server speaks TLS
	Event    string            `json:"event,omitempty"`   // sse: the name of the event that has to come; empty: any
	Command  string            `json:"command,omitempty"` // exec: for /bin/sh -c
	Interval Duration          `json:"interval"`          // between two checks
	Timeout  Duration          `json:"timeout"`           // of one check
	Failures int               `json:"failures"`          // health: this many in a row and the process counts as hung
	Delay    Duration          `json:"delay,omitempty"`   // before the first check
}

// Command is the argv that starts the app: the interpreter with its arguments,
// the script, the app's arguments.
func (a *App) Command() []string {
	if a.Shell {
		// exec would be lost on "a && b"; the shell execs a simple command by itself.
		return append([]string{"/bin/sh", "-c", a.Script + shellArgs(len(a.Args)), "sh"}, a.Args...)
	}
	if a.Interpreter == "" {
		return append([]string{a.Script}, a.Args...)
	}
	argv := append([]string{a.Interpreter}, a.InterpreterArgs...)
	return append(append(argv, a.Script), a.Args...)
}

func shellArgs(n int) string {
	if n == 0 {
		return ""
	}
	return ` "$@"`
}

// Duration is a time.Duration that reads and writes JSON as text ("1.6s").
type Duration time.Duration

// D is d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes d as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("parse duration %q: %w", s, err)
	}
	*d = Duration(v)
	return nil
}
