package config

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// world is the file system of the tests: a config's folder /srv, a home, and a PATH.
var world = fstest.MapFS{
	"srv/app.js":            {Mode: 0o644},
	"srv/server.py":         {Mode: 0o644},
	"srv/run":               {Mode: 0o755},
	"srv/plain":             {Mode: 0o644},
	"srv/game.lua":          {Mode: 0o644},
	"srv/lua.lua":           {Mode: 0o755},
	"srv/x.ts":              {Mode: 0o644},
	"srv/x.sh":              {Mode: 0o644},
	"srv/x.rb":              {Mode: 0o644},
	"srv/x.jar":             {Mode: 0o644},
	"srv/8.js":              {Mode: 0o644},
	"srv/my app.js":         {Mode: 0o644},
	"srv/src/main.js":       {Mode: 0o644},
	"srv/sub/only.js":       {Mode: 0o644},
	"srv/sub/app.js":        {Mode: 0o644},
	"srv/venv/bin/python":   {Mode: 0o755},
	"srv/logs/old.log":      {Mode: 0o644},
	"srv/npm/package.json":  {Mode: 0o644},
	"srv/pipe":              {Mode: fs.ModeNamedPipe | 0o644},
	"home/u/tool.js":        {Mode: 0o644},
	"usr/bin/node":          {Mode: 0o755},
	"usr/bin/python3":       {Mode: 0o755},
	"usr/bin/bash":          {Mode: 0o755},
	"usr/bin/java":          {Mode: 0o755},
	"usr/bin/npm":           {Mode: 0o755},
	"usr/bin/not-a-program": {Mode: 0o644},
	"opt/bin/node":          {Mode: 0o755},
	"opt/bin/bun":           {Mode: 0o755},
}

func worldStat(path string) (fs.FileInfo, error) {
	if path == "/" {
		return world.Stat(".")
	}
	return world.Stat(strings.TrimPrefix(path, "/"))
}

// options are those of a user with 4 cores in /srv.
func options() Options {
	return Options{
		Dir:       "/srv",
		Home:      "/home/u/.gpm",
		Inherited: map[string]string{"PATH": "/usr/bin", "HOME": "/home/u"},
		Stat:      worldStat,
		Geteuid:   func() int { return 0 },
		Cores:     4,
	}
}

func mustParse(t *testing.T, text string, o Options) []App {
	t.Helper()
	apps, err := Parse("gpm.json", []byte(text), o)
	if err != nil {
		t.Fatalf("parse %s:\n%v", text, err)
	}
	for i := range apps {
		if err := Check(&apps[i]); err != nil {
			t.Errorf("Check refuses what Parse made of %s: %v", text, err)
		}
	}
	return apps
}

func mustParseOne(t *testing.T, text string, o Options) App {
	t.Helper()
	apps := mustParse(t, text, o)
	if len(apps) != 1 {
		t.Fatalf("parse %s: %d apps", text, len(apps))
	}
	return apps[0]
}

// problemsOf parses text, which must fail, and returns its problems in lines.
func problemsOf(t *testing.T, text string, o Options) string {
	t.Helper()
	apps, err := Parse("gpm.json", []byte(text), o)
	if err == nil {
		t.Fatalf("parse %s: no problem, but %d apps", text, len(apps))
	}
	if _, ok := err.(Problems); !ok {
		t.Fatalf("parse %s: the error is a %T", text, err)
	}
	return err.Error()
}
