package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gpm/config"
)

// pipeDelay is how long to wait for the end of a command's output after all of
// its process group is dead: something that left the group may still hold it.
const pipeDelay = 100 * time.Millisecond

// run passes if the command ends with 0 before ctx does. The command has a
// process group of its own, and at the end, whichever it is, the whole group is
// killed: a check may leave nothing behind, it is done again in a moment.
func run(ctx context.Context, p config.Probe, t Target) error {
	out := &tail{}
	cmd := exec.Command("/bin/sh", "-c", p.Command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = t.Dir, t.Env, pipeDelay
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be gpm's own
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c := t.Cred; c != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	overtime := awaitDeath(ctx, cmd.Process.Pid)
	err := cmd.Wait()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it was 0, be the output complete or not
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case overtime:
		return fmt.Errorf("the command did not end within %v%s", p.Timeout, out.quote())
	case !ok:
		return fmt.Errorf("wait for the command: %w", err)
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return fmt.Errorf("the command was ended by %s%s", unix.SignalName(s.Signal()), out.quote())
	}
	return fmt.Errorf("the command ended with %d%s", exit.ExitCode(), out.quote())
}

// awaitDeath returns when the process pid, the leader of its group, is dead and
// its group was killed. The process is not reaped: as long as it is a zombie,
// nobody else can be given its pid, or a group of that number. It tells whether
// ctx ended meanwhile.
func awaitDeath(ctx context.Context, pid int) (overtime bool) {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = unix.Kill(-pid, unix.SIGKILL)
	})
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	if !stop() {
		<-killed
		overtime = true
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	return overtime
}
