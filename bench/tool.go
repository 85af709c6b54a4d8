package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tool is a supervisor at work in a home of its own.
type tool interface {
	// open writes what it needs to know of the apps and starts the supervisor,
	// without an app.
	open(ctx context.Context, apps []spec) error
	// command is its command line with one of its own verbs.
	command(ctx context.Context, args ...string) *exec.Cmd
	// start runs the command that starts an app of open's list.
	start(ctx context.Context, app string) error
	// reload runs the command that replaces the app's processes.
	reload(ctx context.Context, app string) error
	// list is the verb that lists all apps.
	list() string
	// online is how many instances it says are up.
	online(ctx context.Context) (int, error)
	// pids are the supervisor's own processes; the first is the one that decides.
	pids() ([]int, error)
	// close stops the apps and the supervisor.
	close(ctx context.Context) error
}

// spec is an app, in no supervisor's words.
type spec struct {
	name      string
	argv      []string
	instances int
	restart   bool
	env       map[string]string
	out       string // log file of stdout; empty: the supervisor's default
	stamped   bool   // a timestamp before each line
	grace     time.Duration
	cluster   bool           // PM2's cluster mode: argv is node and a script
	keys      map[string]any // further ones, in gpm's words
}

// kind is a supervisor of this machine.
type kind struct {
	name    string
	version string
	missing string // why it is not here; empty if it is
	in      func(home string) tool
}

// findTools looks for gpm, and if it is to for the peers, which it installs where
// it can.
func findTools(ctx context.Context, gpmExe string, peers bool) []kind {
	if !peers {
		return []kind{findGpm(ctx, gpmExe)}
	}
	return []kind{findGpm(ctx, gpmExe), findPM2(ctx), findSupervisord(ctx)}
}

// command is a command with a small environment of its own: what the caller's
// shell holds must not reach a supervisor, least of all its GPM_HOME.
func command(ctx context.Context, home string, env []string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = home
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8"}, env...)
	cmd.WaitDelay = time.Second // a daemon that a command leaves behind may hold its output
	return cmd
}

// output runs cmd; an error holds what the command wrote to stderr, or else the
// last line of what it wrote at all.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return out.Bytes(), nil
	}
	said := strings.Join(strings.Fields(errs.String()), " ")
	if said == "" {
		said = strings.TrimSpace(out.String())
		said = said[strings.LastIndexByte(said, '\n')+1:]
	}
	return out.Bytes(), fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path)+" "+strings.Join(cmd.Args[1:], " "), err, said[:min(len(said), 600)])
}

func run(cmd *exec.Cmd) error {
	_, err := output(cmd)
	return err
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// endAll makes sure that the supervisor's processes are gone: they got their
// chance to end by themselves.
func endAll(ctx context.Context, pids []int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	allGone := func() bool {
		for _, pid := range pids {
			if !gone(pid) {
				return false
			}
		}
		return true
	}
	if until(ctx, allGone) {
		return nil
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("the supervisor did not end and was killed: pids %v", pids)
}
