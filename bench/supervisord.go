package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type supervisord struct{ home string }

// findSupervisord installs the Debian package where that is possible without asking.
func findSupervisord(ctx context.Context) kind {
	k := kind{name: "supervisord", in: func(home string) tool { return &supervisord{home} }}
	if _, err := exec.LookPath("supervisord"); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, "bench: installing the Debian package supervisor")
		install := exec.CommandContext(ctx, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "supervisor")
		// RUNLEVEL: the package must not start its own service.
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if err := run(install); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	out, err := output(exec.CommandContext(ctx, "supervisord", "--version"))
	if err != nil {
		k.missing = "not installed"
		return k
	}
	k.version = strings.TrimSpace(string(out))
	return k
}

func (s *supervisord) conf() string { return filepath.Join(s.home, "supervisord.conf") }

func (s *supervisord) command(ctx context.Context, args ...string) *exec.Cmd {
	return command(ctx, s.home, nil, append([]string{"supervisorctl", "-c", s.conf()}, args...)...)
}

const supervisordHead = `[unix_http_server]
file=%[1]s/s.sock
[supervisorctl]
serverurl=unix://%[1]s/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisord]
logfile=%[1]s/supervisord.log
pidfile=%[1]s/supervisord.pid
childlogdir=%[1]s
minfds=4096
`

const supervisordProgram = `[program:%s]
command=%s
numprocs=%d
process_name=%%(program_name)s_%%(process_num)03d
autostart=false
autorestart=%t
startsecs=%d
startretries=0
stopsignal=INT
stopwaitsecs=%d
stdout_logfile=%s
stdout_logfile_maxbytes=0
environment=%s
`

func (s *supervisord) open(ctx context.Context, apps []spec) error {
	var text strings.Builder
	fmt.Fprintf(&text, supervisordHead, s.home)
	if os.Geteuid() == 0 {
		text.WriteString("user=root\n")
	}
	for _, a := range apps {
		var env []string
		for k, v := range a.env {
			env = append(env, fmt.Sprintf("%s=%q", k, v))
		}
		slices.Sort(env)
		out, startsecs := a.out, 1
		if out == "" {
			out = "AUTO"
		}
		if !a.restart {
			startsecs = 0 // it may end at any time
		}
		fmt.Fprintf(&text, supervisordProgram, a.name, strings.Join(a.argv, " "), a.instances,
			a.restart, startsecs, int(cmp.Or(a.grace, 9*time.Second)/time.Second)+1, out, strings.Join(env, ","))
	}
	if err := os.WriteFile(s.conf(), []byte(text.String()), 0o600); err != nil {
		return err
	}
	if err := run(command(ctx, s.home, nil, "supervisord", "-c", s.conf())); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !until(ctx, func() bool { return run(s.command(ctx, "pid")) == nil }) {
		return fmt.Errorf("supervisord did not answer within 10s")
	}
	return nil
}

func (s *supervisord) start(ctx context.Context, app string) error {
	return run(s.command(ctx, "start", app+":*"))
}

func (s *supervisord) reload(ctx context.Context, app string) error {
	return run(s.command(ctx, "restart", app+":*"))
}

func (s *supervisord) list() string { return "status" }

func (s *supervisord) online(ctx context.Context) (int, error) {
	// The exit code is 3 when not everything runs.
	out, err := output(s.command(ctx, "status"))
	if err != nil && !bytes.Contains(out, []byte("RUNNING")) && !bytes.Contains(out, []byte("STOPPED")) {
		return 0, err
	}
	return bytes.Count(out, []byte(" RUNNING ")), nil
}

func (s *supervisord) pids() ([]int, error) {
	pid, err := readPID(filepath.Join(s.home, "supervisord.pid"))
	return []int{pid}, err
}

func (s *supervisord) close(ctx context.Context) error {
	pids, err := s.pids()
	if err != nil {
		return nil // it never came up
	}
	_ = run(s.command(ctx, "shutdown"))
	return endAll(ctx, pids)
}
