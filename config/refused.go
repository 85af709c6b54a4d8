package config

// refusedKeys is what PM2 knows and gpm does not do. Values that change nothing
// are accepted, so that a config that spells out PM2's defaults loads.
func refusedKeys() []Key {
	const remove = "remove it"
	rows := []Key{
		{Name: "append_env_to_name", Refused: remove, Harmless: "`false`", harmless: is("false")},
		{Name: "autostart", Refused: `remove it; "gpm stop" after the start keeps the app in the list`, Harmless: "`true`", harmless: is("true")},
		{Name: "automation", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "deep_monitoring", Refused: remove, Harmless: "`false`", harmless: is("false")},
		{Name: "disable_logs", Refused: `remove it; "/dev/null" as "out_file" and "error_file" writes no files`, Harmless: "`false`", harmless: is("false")},
		{Name: "disable_source_map_support", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "disable_trace", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "event_loop_inspector", Refused: remove, Harmless: "`false`", harmless: is("false")},
		{Name: "execute_command", Refused: `remove it; "exec_mode": "fork" is what it means`, Harmless: "`false`", harmless: is("false")},
		{Name: "filter_env", Refused: `remove it; "env" can set a variable to ""`, Harmless: "`false`, an empty list", harmless: func(n node) bool { return is("false")(n) || empty(n) }},
		{Name: "force", Refused: "remove it; give the second app another name", Harmless: "`false`", harmless: is("false")},
		{Name: "increment_var", Refused: "remove it; the app can add the variable NODE_APP_INSTANCE (0, 1, ...) itself"},
		{Name: "install_url", Refused: remove},
		{Name: "instance_var", Refused: "remove it; the variable is NODE_APP_INSTANCE", Harmless: "`\"NODE_APP_INSTANCE\"`", harmless: is("NODE_APP_INSTANCE")},
		{Name: "io", Refused: remove},
		{Name: "kill_retry_time", Refused: "remove it; gpm learns of a death at once", Harmless: "`100`", harmless: is("100")},
		{Name: "log_file", Aliases: []string{"log"}, Refused: `remove it; "out_file" and "error_file" may name the same file`, Harmless: "`false`", harmless: is("false")},
		{Name: "name_prefix", Refused: `remove it; write the whole "name", or use "namespace"`},
		{Name: "pid_file", Aliases: []string{"pid"}, Refused: `remove it; "gpm describe" shows the process id`},
		{Name: "pmx", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "post_update", Refused: remove, Harmless: "an empty list", harmless: empty},
		{Name: "shutdown_with_message", Refused: `remove it; gpm stops an app by "kill_signal"`, Harmless: "`false`", harmless: is("false")},
		{Name: "source_map_support", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "trace", Refused: remove, Harmless: "`false`", harmless: is("false")},
		{Name: "treekill", Refused: "remove it; gpm always stops the whole process tree", Harmless: "`true`", harmless: is("true")},
		{Name: "username", Refused: `remove it; "uid" sets the user`},
		{Name: "v8", Refused: remove, Harmless: "`false`", harmless: is("false")},
		{Name: "vizion", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "watch_options", Refused: `remove it; "ignore_watch" and "watch_delay" do most of it`, Harmless: "an empty object", harmless: empty},
		{Name: "windowsHide", Refused: remove, Harmless: "`true`, `false`", harmless: either},
		{Name: "write", Refused: remove, Harmless: "`false`", harmless: is("false")},
	}
	for i := range rows {
		rows[i].Origin = FromPM2
		rows[i].set = refuseUnless(rows[i].harmless, rows[i].Refused)
	}
	return rows
}

func either(n node) bool { return n.kind == kindBool }

func is(text string) func(node) bool {
	return func(n node) bool { return n.kind != kindList && n.kind != kindObject && n.text == text }
}

func empty(n node) bool {
	return n.kind == kindList && len(n.items) == 0 || n.kind == kindObject && len(n.members) == 0
}

// refuseUnless accepts a value that changes nothing, and says of every other
// one what to do instead.
func refuseUnless(harmless func(node) bool, instead string) setter {
	return func(d *draft, m member) {
		if harmless == nil || !harmless(m.value) {
			d.refuseKey(m, "is a PM2 key that gpm does not do yet", "", instead)
		}
	}
}
