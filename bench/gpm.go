package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
)

type gpm struct{ exe, home string }

func findGpm(ctx context.Context, exe string) kind {
	k := kind{name: "gpm", in: func(home string) tool { return &gpm{exe, home} }}
	out, err := output(command(ctx, "/", nil, exe, "version"))
	if err != nil {
		k.missing = "not built"
		return k
	}
	line, _, _ := strings.Cut(string(out), "\n")
	k.version = strings.TrimPrefix(strings.TrimSpace(line), "gpm ")
	return k
}

func (g *gpm) command(ctx context.Context, args ...string) *exec.Cmd {
	return command(ctx, g.home, []string{"GPM_HOME=" + g.home}, append([]string{g.exe}, args...)...)
}

func (g *gpm) config(app string) string { return filepath.Join(g.home, app+".json") }

func (g *gpm) open(ctx context.Context, apps []spec) error {
	for _, a := range apps {
		app := map[string]any{
			"name": a.name, "script": a.argv[0], "args": a.argv[1:], "instances": a.instances,
			"autorestart": a.restart, "env": a.env,
			// The benchmark counts the lines of one file.
			"log_max_size": "100G",
		}
		if a.grace > 0 {
			app["kill_timeout"] = a.grace.String()
		}
		maps.Copy(app, a.keys)
		if a.out != "" {
			app["out_file"], app["merge_logs"] = a.out, true
		}
		if a.stamped {
			app["log_date_format"] = "YYYY-MM-DDTHH:mm:ss"
		}
		if err := writeJSON(g.config(a.name), map[string]any{"apps": app}); err != nil {
			return err
		}
	}
	// There is nothing to bring back, and it says so, but the daemon is up.
	_ = run(g.command(ctx, "resurrect"))
	return run(g.command(ctx, "ping"))
}

func (g *gpm) start(ctx context.Context, app string) error {
	return run(g.command(ctx, "start", g.config(app)))
}

func (g *gpm) reload(ctx context.Context, app string) error {
	return run(g.command(ctx, "reload", app))
}

func (g *gpm) list() string { return "list" }

func (g *gpm) online(ctx context.Context) (int, error) {
	out, err := output(g.command(ctx, "list", "--json"))
	if err != nil {
		return 0, err
	}
	var l struct{ Instances []struct{ Status string } }
	if err := json.Unmarshal(out, &l); err != nil {
		return 0, fmt.Errorf("read gpm list: %w", err)
	}
	n := 0
	for _, i := range l.Instances {
		if i.Status == "online" {
			n++
		}
	}
	return n, nil
}

func (g *gpm) pids() ([]int, error) {
	daemon, err := readPID(filepath.Join(g.home, "gpm.pid"))
	if err != nil {
		return nil, err
	}
	keeper, err := readPID(filepath.Join(g.home, "keeper.pid"))
	return []int{daemon, keeper}, err
}

func (g *gpm) close(ctx context.Context) error {
	pids, err := g.pids()
	if err != nil {
		return nil // it never came up
	}
	_ = run(g.command(ctx, "kill"))
	return endAll(ctx, pids)
}
