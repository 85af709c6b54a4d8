package config

import (
	"fmt"
	"strings"
)

// Reference is docs/config.md: how a config is written, and every key of the
// table. A test keeps the file equal to it.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceIntro)
	group := ""
	for _, k := range table() {
		if k.Refused != "" {
			continue
		}
		if k.Group != group {
			group = k.Group
			fmt.Fprintf(&b, "## %s\n\n%s", group, groupIntros[group])
		}
		writeKey(&b, k)
	}
	writeInterpreters(&b)
	writeRefused(&b)
	return b.String()
}

func writeKey(b *strings.Builder, k Key) {
	fmt.Fprintf(b, "### `%s`\n\n%s\n\n", k.Name, k.Doc)
	fmt.Fprintf(b, "- Type: %s\n", k.Type)
	if k.Default != "" {
		fmt.Fprintf(b, "- Default: `%s`\n", k.Default)
	} else {
		fmt.Fprintf(b, "- Default: %s\n", k.Otherwise)
	}
	if len(k.Aliases) > 0 {
		fmt.Fprintf(b, "- Also written: `%s`\n", strings.Join(k.Aliases, "`, `"))
	}
	origin := "PM2"
	if k.Origin == FromGPM {
		origin = "gpm; PM2 does not know it"
	}
	fmt.Fprintf(b, "- From: %s\n\n", origin)
	writeFields(b, k.fields)
}

// writeFields is the table of what an object may have.
func writeFields(b *strings.Builder, rows []field) {
	if len(rows) == 0 {
		return
	}
	b.WriteString("| Key in it | Type | Default | |\n|---|---|---|---|\n")
	for _, row := range rows {
		if row.refused == "" {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", row.name, row.typ, row.def, row.doc)
		}
	}
	b.WriteString("\n")
}

func writeInterpreters(b *strings.Builder) {
	b.WriteString(`## Interpreters

Without the key ` + "`interpreter`" + `, the extension of the script decides; of several the first that is in the app's ` + "`PATH`" + ` is taken. A script with any other extension, or none, runs by itself and must be executable.

| Extension | Interpreter |
|---|---|
`)
	for _, i := range interpreters {
		names := "`" + strings.Join(i.names, "`, else `") + "`"
		if len(i.args) > 0 {
			names += " with `" + strings.Join(i.args, " ") + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.Join(i.extensions, "`, `"), names)
	}
	b.WriteString("\nPython gets `PYTHONUNBUFFERED=1` unless the environment has it, so that its output is logged when it is written. " +
		"A node before 22.18 cannot run TypeScript.\n\n")
}

func writeRefused(b *strings.Builder) {
	b.WriteString(`## PM2 keys that gpm does not do

They are refused with a sentence, because a key that is silently ignored is a surprise later. Values that change nothing are accepted.

| Key | Accepted | Instead |
|---|---|---|
`)
	for _, k := range table() {
		if k.Refused == "" {
			continue
		}
		names := append([]string{k.Name}, k.Aliases...)
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", strings.Join(names, "`, `"), k.Harmless, k.Refused)
	}
}

var groupIntros = map[string]string{groupTraffic: trafficIntro, groupProbes: probesIntro}

const referenceIntro = `# The config file

A config says which apps to run. It is JSON with comments (` + "`//` and `/* */`" + `) and trailing commas, in UTF-8, at most 4 MiB:

` + "```jsonc" + `
{
  "apps": [
    {
      "name": "chat",
      "script": "server.js", // relative to this file
      "instances": 4,
      "env": { "PORT": 8080 },
      "env_production": { "LOG_LEVEL": "warn" },
    },
  ],
}
` + "```" + `

` + "`apps`" + ` is a list of apps or one app; the file may also be one app or a list of apps by itself. ` + "`pm2`" + ` means the same as ` + "`apps`" + `, and in a ` + "`package.json`" + ` the other keys are left alone. ` + "`$schema`" + ` may stand beside the apps; ` + "`deploy` and `static`" + ` are refused.

An ` + "`ecosystem.config.js`" + ` (also ` + "`.cjs`, `.mjs`" + `) is run by your own ` + "`node`" + `; what it exports is read as such a config, and places in problems are those of that JSON.

**Everything is checked before anything starts**, and all problems are told at once, with line and column. Unknown keys, keys that are there twice and values of the wrong type are problems. ` + "`null`" + ` means that a key is not set.

**Names.** Every key may also be written in camelCase (` + "`killTimeout`" + ` for ` + "`kill_timeout`" + `), and some have more names. One app may use one spelling of a key.

**Paths.** ` + "`cwd`" + ` starts at the folder of the file, and is that folder if it is not given. ` + "`script`" + ` and a path as ` + "`interpreter`" + ` start at the folder of the file, then, if nothing is there, at ` + "`cwd`" + `. ` + "`out_file`, `error_file` and `watch`" + ` start at ` + "`cwd`" + `. ` + "`~/`" + ` is the home of the user. (PM2 starts all of them at the folder that the command was run in.)

**Times** are milliseconds as a number, or text with a unit: ` + "`\"500ms\"`, `\"5s\"`, `\"1m\"`, `\"2h\"`, `\"7d\"`" + `. **Sizes** are bytes as a number, or text: ` + "`\"512K\"`, `\"100M\"`, `\"2G\"`" + `, 1024-based.

**Flags** of the command line go through the same checks, and win over the file in all of its apps.

`
