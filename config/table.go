package config

import "slices"

// The headings of the reference.
const (
	groupProgram   = "The program"
	groupInstances = "Instances"
	groupEnv       = "Environment"
	groupStart     = "Start and stop"
	groupRestart   = "Restarts"
	groupSockets   = "Sockets"
	groupWatch     = "Watch"
	groupLogs      = "Logs"
)

const (
	typeText     = "text"
	typeBool     = "true or false"
	typeNumber   = "number"
	typeWords    = "list of text, or a line of text"
	typeDuration = "milliseconds, or text with a unit"
	typeSize     = "bytes, or text with a unit"
)

const expectedSize = `bytes as a number, or text like "512K", "100M", "2G"`

// appKeys is what gpm does, in the order of the reference.
func appKeys() []Key {
	return slices.Concat(programKeys(), instanceKeys(), startKeys(), restartKeys(), socketKeys(), trafficKeys(), probeKeys(), watchKeys(), logKeys())
}

func programKeys() []Key {
	return []Key{
		{
			Name: "script", Aliases: []string{"exec", "cmd", "command"}, Group: groupProgram, Type: typeText,
			Otherwise: "must be there", Origin: FromPM2,
			Doc: "The program or script to run. A relative path starts at the folder of the config file, then, if nothing is there, at `cwd`; a name without a slash that is in neither is looked up in the app's `PATH`. Text with a blank in it that is not an existing file is a command line for `/bin/sh -c`.",
			set: wantText("the path of a program or script, or a command line", notEmpty, func(a *App) *string { return &a.Script }),
		},
		{
			Name: "name", Group: groupProgram, Type: typeText,
			Otherwise: "the base name of `script` without its last extension", Origin: FromPM2,
			Doc: "What the app is called in every command; unique in the file. Not `all`, not digits alone, without slashes and control characters.",
			set: wantText("a name", nameProblem, func(a *App) *string { return &a.Name }),
		},
		{
			Name: "namespace", Group: groupProgram, Type: typeText, Default: `"default"`, Origin: FromPM2,
			Doc: "A group of apps that commands can name together.",
			set: wantText("a name", nameProblem, func(a *App) *string { return &a.Namespace }),
		},
		{
			Name: "args", Group: groupProgram, Type: typeWords, Otherwise: "none", Origin: FromPM2,
			Doc: "Arguments for the script. A line is cut at blanks, quotes are honoured. Numbers in a list are fine.",
			set: wantWords(func(a *App) *[]string { return &a.Args }),
		},
		{
			Name: "cwd", Group: groupProgram, Type: typeText, Otherwise: "the folder of the config file; on the command line the current folder", Origin: FromPM2,
			Doc: "The working directory. A relative path starts at the folder of the config file.",
			set: wantText("the path of a folder", notEmpty, func(a *App) *string { return &a.Cwd }),
		},
		{
			Name: "interpreter", Aliases: []string{"exec_interpreter"}, Group: groupProgram, Type: typeText,
			Otherwise: "by the extension of `script`, see [Interpreters](#interpreters)", Origin: FromPM2,
			Doc: "What runs the script: a path (relative to the folder of the config file, then to `cwd`) or a name that is looked up in the app's `PATH`. `none` runs the script itself, which then must be executable.",
			set: wantText(`the name or path of an interpreter, or "none"`, notEmpty, func(a *App) *string { return &a.Interpreter }),
		},
		{
			Name: "interpreter_args", Aliases: []string{"node_args"}, Group: groupProgram, Type: typeWords, Otherwise: "none", Origin: FromPM2,
			Doc: "Arguments for the interpreter, before the script. An app without an interpreter may not have them.",
			set: wantWords(func(a *App) *[]string { return &a.InterpreterArgs }),
		},
		{
			Name: "uid", Aliases: []string{"user"}, Group: groupProgram, Type: "name or number", Otherwise: "gpm's own user", Origin: FromPM2,
			Doc: "The user that the app runs as. The user must exist, and only root may set this.",
			set: wantAccount(func(a *App) *string { return &a.UID }),
		},
		{
			Name: "gid", Group: groupProgram, Type: "name or number", Otherwise: "the group of `uid`, else gpm's own", Origin: FromPM2,
			Doc: "The group that the app runs as. The group must exist, and only root may set this.",
			set: wantAccount(func(a *App) *string { return &a.GID }),
		},
	}
}

func instanceKeys() []Key {
	return []Key{
		{
			Name: "instances", Group: groupInstances, Type: "number, or `\"max\"`", Default: "1", Origin: FromPM2,
			Doc: "How many processes of the app run. `\"max\"` or `0` is one per core, a negative number the cores less that many, at least 1. A number in quotes is fine. All instances may listen on the same port, in any language.",
			set: setInstances,
		},
		{
			Name: "exec_mode", Group: groupInstances, Type: "`\"fork\"` or `\"cluster\"`",
			Otherwise: "`cluster` for node and bun if `instances` is given, else `fork`", Origin: FromPM2,
			Doc: "Shown as PM2 shows it, and part of the default of `merge_logs`; gpm runs both alike. `fork_mode` and `cluster_mode` mean the same.",
			set: wantChoice([]string{"fork", "cluster", "fork_mode", "cluster_mode"}, []string{"fork", "cluster", "fork", "cluster"}, func(a *App) *string { return &a.ExecMode }),
		},
		{
			Name: "env", Group: groupEnv, Type: "object", Otherwise: "none", Origin: FromPM2,
			Doc: "Environment variables, over those of whoever starts the app. Numbers and booleans become text, lists and objects become JSON, `null` is not set.",
			set: setEnv(func(d *draft, _ member) map[string]string { return d.env }),
		},
		{
			Name: profileKey, Group: groupEnv, Type: "object", Otherwise: "none", Origin: FromPM2, Flag: "--env",
			Doc: "A profile of variables, put over `env` if it is chosen: `--env production` chooses `env_production`. An app without the chosen profile starts with a warning.",
			set: setEnv((*draft).profile),
		},
		{
			Name: "port", Group: groupEnv, Type: typeNumber, Otherwise: "none", Origin: FromPM2,
			Doc: "Sets the variable `PORT`, over one in `env`. From 1 to 65535.",
			set: wantInt(1, 65535, func(a *App) *int { return &a.Port }),
		},
	}
}

func startKeys() []Key {
	return []Key{
		{
			Name: "wait_ready", Group: groupStart, Type: typeBool, Default: "false", Origin: FromPM2,
			Doc: "The app says itself when it is ready: `process.send('ready')` in Node, or `READY=1` to `NOTIFY_SOCKET`.",
			set: wantBool(func(a *App) *bool { return &a.WaitReady }),
		},
		{
			Name: "listen_timeout", Group: groupStart, Type: typeDuration, Default: "30000", Origin: FromPM2,
			Doc: "How long a start may take until the app is ready. In gpm a timeout is a failure (a reload then keeps the old process); PM2 waits 3000 ms and goes on as if the app were ready.",
			set: wantDuration(1, func(a *App) *Duration { return &a.ListenTimeout }),
		},
		{
			Name: "kill_signal", Group: groupStart, Type: typeText, Default: `"SIGINT"`, Origin: FromGPM,
			Doc: "The signal that asks the app to end, with or without `SIG`.",
			set: setKillSignal,
		},
		{
			Name: "kill_timeout", Group: groupStart, Type: typeDuration, Default: "5000", Origin: FromPM2,
			Doc: "How long the app has to end after `kill_signal` before it is killed. PM2's default is 1600 ms.",
			set: wantDuration(0, func(a *App) *Duration { return &a.KillTimeout }),
		},
		{
			Name: "depends_on", Group: groupStart, Type: "name, or list of names", Otherwise: "none", Origin: FromGPM,
			Doc: dependsDoc,
			set: setDependsOn,
		},
	}
}

func restartKeys() []Key {
	return []Key{
		{
			Name: "autorestart", Flag: "--no-autorestart", Group: groupRestart, Type: typeBool, Default: "true", Origin: FromPM2,
			Doc: "Start the app again when it ends by itself.",
			set: wantBool(func(a *App) *bool { return &a.Autorestart }),
		},
		{
			Name: "stop_exit_codes", Group: groupRestart, Type: "number, or list of numbers", Otherwise: "none", Origin: FromPM2,
			Doc: "Exit codes after which the app is not started again.",
			set: setStopExitCodes,
		},
		{
			Name: "max_restarts", Group: groupRestart, Type: typeNumber, Default: "16", Origin: FromPM2,
			Doc: "After so many unstable deaths in a row the app is `errored` and stays down.",
			set: wantInt(0, maxRestarts, func(a *App) *int { return &a.MaxRestarts }),
		},
		{
			Name: "min_uptime", Group: groupRestart, Type: typeDuration, Default: "1000", Origin: FromPM2,
			Doc: "An app that dies before this is unstable. At least 100 ms.",
			set: wantMinUptime(func(a *App) *Duration { return &a.MinUptime }),
		},
		{
			Name: "restart_delay", Group: groupRestart, Type: typeDuration, Default: "0", Origin: FromPM2,
			Doc: "How long to wait before each restart.",
			set: wantDuration(0, func(a *App) *Duration { return &a.RestartDelay }),
		},
		{
			Name: "exp_backoff_restart_delay", Group: groupRestart, Type: typeDuration, Default: "0", Origin: FromPM2,
			Doc: "The first delay of a growing one: times 1.5 with each fast death, up to 15 s. `0` is gpm's own first delay, 100 ms.",
			set: wantDuration(0, func(a *App) *Duration { return &a.Backoff }),
		},
		{
			Name: "max_memory_restart", Group: groupRestart, Type: typeSize, Otherwise: "no limit", Origin: FromPM2,
			Doc: "Reload an instance whose process tree holds more memory than this. `K`, `M` and `G` are 1024-based. `0` is no limit; less than `1M` is a warning, because it is most likely a forgotten unit.",
			set: wantSize(0, expectedSize, func(a *App) *uint64 { return &a.MaxMemory }),
		},
		{
			Name: "cron_restart", Flag: "--cron-restart", Group: groupRestart, Type: "cron pattern", Otherwise: "none", Origin: FromPM2,
			Doc: "Reload the app at these times: 5 fields, or 6 with seconds first; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. `\"0\"` is none.",
			set: setCron,
		},
	}
}

func socketKeys() []Key {
	return []Key{
		{
			Name: "hold", Flag: "--no-hold", Group: groupSockets, Type: typeBool, Default: "true", Origin: FromGPM,
			Doc: "gpm holds the app's listening sockets, so that a restart refuses no connection. `false` starts the app plainly; a reload is then a restart, because the new process would find the port taken.",
			set: wantBool(func(a *App) *bool { return &a.Hold }),
		},
		{
			Name: "listen", Group: groupSockets, Type: "port, `\"host:port\"`, list of these, or `true`", Otherwise: "none", Origin: FromGPM,
			Doc: "Sockets that gpm opens and passes to the app as `LISTEN_FDS`, for apps that can take them. `\"8080\"` and `\":8080\"` are all addresses, `\"[::1]:8080\"` is one of IPv6. `true` is the port of the key `port`.",
			set: setListen,
		},
	}
}

func watchKeys() []Key {
	return []Key{
		{
			Name: "watch", Group: groupWatch, Type: "true, false, path, or list of paths", Default: "false", Origin: FromPM2,
			Doc: "Reload the app when a file changes. `true` watches `cwd`; paths are folders or files, relative to `cwd`, and must exist.",
			set: setWatch,
		},
		{
			Name: "ignore_watch", Group: groupWatch, Type: "list of patterns, or one", Otherwise: "none; `.git`, `node_modules` and the app's own logs are always ignored", Origin: FromPM2,
			Doc: "Names or glob patterns that are not watched (`node_modules`, `**/*.log`, `{tmp,cache}/**`). PM2's regular expressions are read as names and patterns, too.",
			set: setIgnoreWatch,
		},
		{
			Name: "watch_delay", Group: groupWatch, Type: typeDuration, Default: "0", Origin: FromPM2,
			Doc: "How long to wait after a change for more changes. `0` is gpm's own debounce.",
			set: wantDuration(0, func(a *App) *Duration { return &a.WatchDelay }),
		},
		{
			Name: "build", Group: groupWatch, Type: "command line", Otherwise: "none", Origin: FromGPM,
			Doc: "Run by `/bin/sh -c` in `cwd` before a reload that `watch` asked for. If it fails, the old process keeps running.",
			set: wantText("a command line", notEmpty, func(a *App) *string { return &a.Build }),
		},
	}
}

func logKeys() []Key {
	return []Key{
		{
			Name: "out_file", Aliases: []string{"out", "output", "out_log"}, Flag: "--output", Group: groupLogs, Type: typeText,
			Otherwise: "`logs/<name>-out.log` in gpm's home", Origin: FromPM2,
			Doc: "Where standard output goes. A relative path starts at `cwd`. `/dev/null` or `NULL` writes no file.",
			set: wantText("the path of a file", notEmpty, func(a *App) *string { return &a.OutFile }),
		},
		{
			Name: "error_file", Aliases: []string{"error", "err", "err_file", "err_log"}, Flag: "--error", Group: groupLogs, Type: typeText,
			Otherwise: "`logs/<name>-error.log` in gpm's home", Origin: FromPM2,
			Doc: "Where standard error goes, as `out_file`. Both may name the same file.",
			set: wantText("the path of a file", notEmpty, func(a *App) *string { return &a.ErrorFile }),
		},
		{
			Name: "merge_logs", Aliases: []string{"combine_logs"}, Group: groupLogs, Type: typeBool,
			Otherwise: "`true` for `exec_mode` `fork` if `instances` is not given, else `false`", Origin: FromPM2,
			Doc: "All instances write one file. `false` puts `-<id>` before the extension of each file.",
			set: wantBool(func(a *App) *bool { return &a.MergeLogs }),
		},
		{
			Name: "log_date_format", Group: groupLogs, Type: typeText, Otherwise: "no prefix", Origin: FromPM2,
			Doc: "Puts the time before each line. The tokens of day.js (`YYYY-MM-DD HH:mm:ss.SSS Z`) or of Java (`yyyy-MM-dd HH:mm:ss`).",
			set: wantText("a date format", formatProblem, func(a *App) *string { return &a.LogDateFormat }),
		},
		{
			Name: "time", Group: groupLogs, Type: typeBool, Default: "false", Origin: FromPM2,
			Doc: "The same as `\"log_date_format\": \"YYYY-MM-DDTHH:mm:ss\"`, unless that is given.",
			set: setTime,
		},
		{
			Name: "log_type", Group: groupLogs, Type: "`\"raw\"` or `\"json\"`", Default: `"raw"`, Origin: FromPM2,
			Doc: "`json` writes one JSON object per line.",
			set: wantChoice([]string{"raw", "json"}, []string{"raw", "json"}, func(a *App) *string { return &a.LogType }),
		},
		{
			Name: "log_max_size", Group: groupLogs, Type: typeSize, Default: `"10M"`, Origin: FromGPM,
			Doc: "A log file is rotated when it is this large. At least `1K`.",
			set: wantSize(minLogSize, expectedSize+`, at least "1K"`, func(a *App) *uint64 { return &a.LogMaxSize }),
		},
		{
			Name: "log_max_files", Group: groupLogs, Type: typeNumber, Default: "10", Origin: FromGPM,
			Doc: "So many rotated files are kept of each log. `0` keeps all.",
			set: wantInt(0, maxLogFiles, func(a *App) *int { return &a.LogMaxFiles }),
		},
		{
			Name: "log_max_age", Group: groupLogs, Type: typeDuration, Default: "0", Origin: FromGPM,
			Doc: "Rotated files older than this (`\"7d\"`) are removed. `0` keeps them.",
			set: wantDuration(0, func(a *App) *Duration { return &a.LogMaxAge }),
		},
		{
			Name: "log_compress", Group: groupLogs, Flag: "--no-log-compress", Type: typeBool, Default: "true", Origin: FromGPM,
			Doc: "Rotated files are compressed with gzip.",
			set: wantBool(func(a *App) *bool { return &a.LogCompress }),
		},
		{
			Name: "log_full", Group: groupLogs, Type: "`\"drop\"` or `\"block\"`", Default: `"drop"`, Origin: FromGPM,
			Doc: "When the disk is full: `drop` lines and count them, or `block`: the app waits when it writes.",
			set: wantChoice([]string{"drop", "block"}, []string{"drop", "block"}, func(a *App) *string { return &a.LogFull }),
		},
	}
}
