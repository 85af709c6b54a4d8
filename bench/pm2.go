package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	pm2Version = "7.0.4"
	pm2Folder  = ".tools/pm2"
)

type pm2 struct{ exe, home string }

// findPM2 installs PM2 into .tools once.
func findPM2(ctx context.Context) kind {
	k := kind{name: "PM2"}
	folder, err := filepath.Abs(pm2Folder)
	if err != nil {
		k.missing = err.Error()
		return k
	}
	if pm2Installed(folder) != pm2Version {
		fmt.Fprintf(os.Stderr, "bench: installing pm2@%s into %s\n", pm2Version, pm2Folder)
		if err := os.MkdirAll(folder, 0o755); err == nil {
			install := exec.CommandContext(ctx, "npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error", "pm2@"+pm2Version)
			if err := run(install); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}
	}
	k.version = pm2Installed(folder)
	if k.version != pm2Version {
		k.missing = "not installed"
	}
	exe := filepath.Join(folder, "node_modules/.bin/pm2")
	k.in = func(home string) tool { return &pm2{exe, home} }
	return k
}

func pm2Installed(folder string) string {
	text, err := os.ReadFile(filepath.Join(folder, "node_modules/pm2/package.json"))
	if err != nil {
		return ""
	}
	var p struct{ Version string }
	_ = json.Unmarshal(text, &p)
	return p.Version
}

func (p *pm2) command(ctx context.Context, args ...string) *exec.Cmd {
	env := []string{"PM2_HOME=" + p.home, "PM2_DISABLE_VERSION_CHECK=true"}
	return command(ctx, p.home, env, append([]string{p.exe}, args...)...)
}

func (p *pm2) config(app string) string { return filepath.Join(p.home, app+".json") }

func (p *pm2) open(ctx context.Context, apps []spec) error {
	for _, a := range apps {
		app := map[string]any{
			"name": a.name, "script": a.argv[0], "args": a.argv[1:], "instances": a.instances,
			"interpreter": "none", "exec_mode": "fork", "cwd": p.home,
			"autorestart": a.restart, "env": a.env,
		}
		if a.cluster {
			app["script"], app["args"], app["exec_mode"] = a.argv[1], a.argv[2:], "cluster"
			delete(app, "interpreter")
		}
		if a.grace > 0 {
			app["kill_timeout"] = a.grace.Milliseconds()
		}
		if a.out != "" {
			app["out_file"], app["merge_logs"] = a.out, true
		}
		if a.stamped {
			app["log_date_format"] = "YYYY-MM-DDTHH:mm:ss"
		}
		if err := writeJSON(p.config(a.name), map[string]any{"apps": []any{app}}); err != nil {
			return err
		}
	}
	return run(p.command(ctx, "ping"))
}

func (p *pm2) start(ctx context.Context, app string) error {
	return run(p.command(ctx, "start", p.config(app)))
}

func (p *pm2) reload(ctx context.Context, app string) error {
	return run(p.command(ctx, "reload", app))
}

func (p *pm2) list() string { return "list" }

func (p *pm2) online(ctx context.Context) (int, error) {
	out, err := output(p.command(ctx, "jlist"))
	if err != nil {
		return 0, err
	}
	// A new daemon greets before the list.
	if i := bytes.LastIndex(out, []byte("\n[")); i >= 0 {
		out = out[i:]
	}
	var all []struct {
		Env struct{ Status string } `json:"pm2_env"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return 0, fmt.Errorf("read pm2 jlist: %w", err)
	}
	n := 0
	for _, a := range all {
		if a.Env.Status == "online" {
			n++
		}
	}
	return n, nil
}

func (p *pm2) pids() ([]int, error) {
	pid, err := readPID(filepath.Join(p.home, "pm2.pid"))
	return []int{pid}, err
}

func (p *pm2) close(ctx context.Context) error {
	pids, err := p.pids()
	if err != nil {
		return nil // it never came up
	}
	_ = run(p.command(ctx, "kill"))
	return endAll(ctx, pids)
}
