package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// startOptions are the flags of the verbs that read configs.
type startOptions struct {
	flags *pflag.FlagSet // of the call; nil: only what is below
	args  []string       // after --

	profile   string
	only      []string
	force     bool
	noWait    bool
	updateEnv bool
	drain     bool // stop, delete: streams first
	undo      bool // drain: back into traffic
	drained   bool // reload: wait for the old processes
}

// kind is what a flag's value looks like.
type kind int

const (
	text     kind = iota // --flag value
	list                 // --flag a,b or repeated
	toggle               // --flag
	negated              // --no-flag sets false
	optional             // --flag or --flag=value
)

// appFlag is a flag that sets a key of the config. Its value goes to package
// config as it was typed: the same checks and the same words for both.
type appFlag struct {
	name, short string
	key         string
	kind        kind
	help        string // with the name of its value in backquotes
}

func appFlags() []appFlag {
	return []appFlag{
		{"name", "n", "name", text, "`name` of the app; default: of the script"},
		{"instances", "i", "instances", text, "how many: a `number`, max (one per core) or -1 (one less)"},
		{"namespace", "", "namespace", text, "`group` that the app belongs to"},
		{"cwd", "", "cwd", text, "working `folder` of the app"},
		{"interpreter", "", "interpreter", text, "`program` that runs the script; none: it runs itself"},
		{"interpreter-args", "", "interpreter_args", text, "`args` for the interpreter"},
		{"watch", "", "watch", optional, "reload when a file changes, in the working folder or in `paths` (a,b)"},
		{"ignore-watch", "", "ignore_watch", list, "`globs` that --watch does not look at"},
		{"watch-delay", "", "watch_delay", text, "`time` without changes before the reload"},
		{"no-autorestart", "", "autorestart", negated, "do not start it again when it ends"},
		{"max-restarts", "", "max_restarts", text, "errored after this `number` of unstable ends in a row"},
		{"min-uptime", "", "min_uptime", text, "an end before this `time` is unstable"},
		{"restart-delay", "", "restart_delay", text, "`time` to wait before each restart"},
		{"exp-backoff-restart-delay", "", "exp_backoff_restart_delay", text, "`time` to wait before the first restart, half as long again before each further one"},
		{"max-memory-restart", "", "max_memory_restart", text, "reload when its processes use more than this `size` (512M, 2G)"},
		{"stop-exit-codes", "", "stop_exit_codes", list, "exit `codes` after which it stays down"},
		{"cron-restart", "c", "cron_restart", text, "reload at the times of this cron `pattern`"},
		{"kill-signal", "", "kill_signal", text, "`signal` that asks the app to end; default SIGINT"},
		{"kill-timeout", "k", "kill_timeout", text, "`time` from that signal to SIGKILL"},
		{"wait-ready", "", "wait_ready", toggle, "online when the app says so (process.send('ready'), READY=1)"},
		{"listen-timeout", "", "listen_timeout", text, "`time` it may take to be ready"},
		{"port", "", "port", text, "`number` that PORT is set to"},
		{"listen", "", "listen", list, "`addresses` of sockets that gpm opens and passes as LISTEN_FDS"},
		{"no-hold", "", "hold", negated, "do not hold its listening sockets: a plain start"},
		{"uid", "", "uid", text, "`user` to run as (root only)"},
		{"gid", "", "gid", text, "`group` to run as (root only)"},
		{"output", "o", "out_file", text, "log `file` of stdout; /dev/null: none"},
		{"error", "e", "error_file", text, "log `file` of stderr; /dev/null: none"},
		{"log", "l", keyBothLogs, text, "one log `file` for both"},
		{"time", "", "time", toggle, "a timestamp before each log line"},
		{"log-date-format", "", "log_date_format", text, "`format` of that timestamp"},
		{"log-type", "", "log_type", text, "`type` of the log lines: raw or json"},
		{"merge-logs", "", "merge_logs", toggle, "all instances write one file"},
		{"log-max-size", "", "log_max_size", text, "`size` at which a log file is rotated"},
		{"log-max-files", "", "log_max_files", text, "`number` of rotated files to keep"},
		{"log-max-age", "", "log_max_age", text, "`age` at which rotated files go (7d)"},
		{"no-log-compress", "", "log_compress", negated, "do not compress rotated files"},
		{"log-full", "", "log_full", text, "`policy` when the disk is full: drop or block"},
	}
}

// keyBothLogs stands for out_file and error_file.
const keyBothLogs = "out_file, error_file"

// startFlags declares every flag of gpm start.
func (o *startOptions) startFlags(c *cobra.Command) {
	fs := c.Flags()
	for _, f := range appFlags() {
		switch f.kind {
		case text, optional:
			fs.StringP(f.name, f.short, "", f.help)
		case list:
			fs.StringSliceP(f.name, f.short, nil, f.help)
		case toggle, negated:
			fs.BoolP(f.name, f.short, false, f.help)
		}
		if f.kind == optional {
			fs.Lookup(f.name).NoOptDefVal = "true"
		}
	}
	fs.Bool("hold", true, "hold its listening sockets")
	fs.Lookup("hold").Hidden = true // --hold=false says the same as --no-hold
	// PM2's other names; they are not in the help.
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "node-args":
			name = "interpreter-args"
		case "cron":
			name = "cron-restart"
		}
		return pflag.NormalizedName(name)
	})
	o.againFlags(c)
	fs.BoolVarP(&o.force, "force", "f", false, "start it although an app of that name runs")
	fs.BoolVar(&o.noWait, "no-wait", false, "do not wait until it is online")
}

// againFlags declares what restart and reload share with start.
func (o *startOptions) againFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.profile, "env", "", "use the env_`name` of a config file")
	o.onlyFlag(c)
	c.Flags().BoolVarP(&o.updateEnv, "update-env", "a", false, "give the apps the environment of this shell")
}

func (o *startOptions) drainFlag(c *cobra.Command) {
	c.Flags().BoolVar(&o.drain, "drain", false, "take them out of traffic first and let their streams finish, for drain_timeout at most")
}

func (o *startOptions) onlyFlag(c *cobra.Command) {
	c.Flags().StringSliceVar(&o.only, "only", nil, "only the apps of these `names` of a config file (a,b)")
}
