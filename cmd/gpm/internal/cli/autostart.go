package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gpm/supervisor/api"
)

const (
	// startDeadline bounds a daemon's start, on a machine that is booting or swapping.
	startDeadline = 10 * time.Second
	// exitHeld is a keeper's exit code when another one was first.
	exitHeld = 75 // EX_TEMPFAIL
	// lastWords bounds what a keeper that cannot start may say.
	lastWords = 16 << 10
)

// ensureDaemon starts a daemon when none runs. Any number of callers may do it
// at once: the keepers agree among themselves who stays.
func (s *session) ensureDaemon(ctx context.Context) error {
	_, err := s.client.Ping(ctx)
	if !errors.Is(err, api.ErrNoDaemon) {
		return err
	}
	// 0700 before anything is in it: logs and environments are nobody else's business.
	if err := os.MkdirAll(s.home, 0o700); err != nil {
		return fmt.Errorf("make GPM_HOME: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	keeper, err := s.spawnKeeper(ctx)
	if err != nil {
		return err
	}
	return s.awaitDaemon(ctx, keeper)
}

// recall starts a daemon if an earlier one left apps on record and is gone (a
// reboot, or daemon and keeper were both killed): only a daemon can tell what
// of them still lives. It tells whether it did.
func (s *session) recall(ctx context.Context) (bool, error) {
	if len(s.records()) == 0 {
		return false, nil
	}
	return true, s.ensureDaemon(ctx)
}

func (s *session) records() []string {
	files, err := filepath.Glob(filepath.Join(s.home, "state", "*.json"))
	if err != nil {
		return nil // only a malformed pattern is an error
	}
	return files
}

// comeBack is recall for a verb that would not start a gpm by itself: it does
// so if gpm died since this machine was booted, because then its apps live on
// and to say "not running" or to show an empty list would be a lie.
func (s *session) comeBack(ctx context.Context) error {
	records := s.records()
	if len(records) == 0 {
		return nil
	}
	if _, err := s.client.Ping(ctx); !errors.Is(err, api.ErrNoDaemon) {
		return nil // what is wrong with it the verb will say
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	for _, path := range records {
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, bytes.TrimSpace(boot)) {
			s.say.Warning("gpm had died; it is started again and takes over the apps that live")
			return s.ensureDaemon(ctx)
		}
	}
	return nil
}

// spawnKeeper starts a keeper that outlives this process, and reads its stderr
// until it closes it: ready, or dead after it said why. The channel gets the
// error of a keeper that ends without having become one.
func (s *session) spawnKeeper(ctx context.Context) (<-chan error, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	defer in.Close()
	cmd := exec.Command(s.env.Exe, "keeper")
	cmd.Env = append(append([]string(nil), s.env.Environ...), "GPM_HOME="+s.home)
	cmd.Dir = s.home // it must not keep the caller's folder from being unmounted
	cmd.Stderr = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no Ctrl-C, no hangup of this terminal
	err = cmd.Start()
	out.Close()
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	deadline, _ := ctx.Deadline()
	in.SetReadDeadline(deadline)
	said, err := io.ReadAll(io.LimitReader(in, lastWords))
	ended := make(chan error, 1)
	// Ends with the keeper, at the latest with this process.
	go func() { ended <- keeperEnd(cmd.Wait(), string(said)) }()
	if err != nil {
		return nil, s.notUp("the keeper did not say that it is ready")
	}
	return ended, nil
}

// keeperEnd is what the end of a keeper means; nil: another one was first.
func keeperEnd(err error, said string) error {
	said = strings.TrimPrefix(strings.TrimSpace(said), "error: ")
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == exitHeld:
		return nil
	case said != "":
		return fmt.Errorf("start daemon: %s", said)
	case err != nil:
		return fmt.Errorf("start daemon: the keeper ended: %w", err)
	}
	return errors.New("start daemon: the keeper ended by itself")
}

// awaitDaemon waits until somebody answers.
func (s *session) awaitDaemon(ctx context.Context, keeper <-chan error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.client.Ping(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && !errors.Is(err, api.ErrNoDaemon) && !errors.Is(err, api.ErrBroken) {
			return err
		}
		select {
		case err := <-keeper:
			if err != nil {
				return withHint("look at "+filepath.Join(s.home, "gpm.log"), "%w", err)
			}
			keeper = nil // another keeper's daemon will answer
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return s.notUp("it did not answer")
		case <-tick.C:
		}
	}
}

func (s *session) notUp(what string) error {
	return withHint("look at "+filepath.Join(s.home, "gpm.log"), "start daemon: %s within %s", what, startDeadline)
}
