package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

func (s *session) doctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine offers gpm, and what falls back",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := s.checks(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return s.printJSON(checks)
			}
			s.printChecks(checks)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print [{name, state, detail, fallback}]")
	return c
}

// checks is what the daemon finds, or, when none runs, what can be seen without it.
func (s *session) checks(ctx context.Context) ([]api.Check, error) {
	own := []api.Check{s.checkHome(), s.checkBoot()}
	theirs, err := s.client.Doctor(ctx)
	switch {
	case err == nil:
		return append(theirs, own...), nil
	case !errors.Is(err, api.ErrNoDaemon):
		return nil, err
	}
	daemon := api.Check{Name: "daemon", State: "missing", Detail: "gpm is not running: its own checks are left out", Fallback: "gpm start <file> starts it"}
	return append([]api.Check{daemon, checkKernel("/proc/sys/kernel"), checkTrees("/sys/fs/cgroup")}, own...), nil
}

// checkHome looks for what would let others read logs and environments.
func (s *session) checkHome() api.Check {
	c := api.Check{Name: "home", State: "ok", Detail: s.home}
	info, err := os.Stat(s.home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Detail += " (not there yet)"
	case err != nil:
		c.State, c.Detail = "missing", err.Error()
	case !info.IsDir():
		c.State, c.Detail = "missing", s.home+" is not a folder"
	case info.Mode().Perm()&0o077 != 0:
		c.State = "limited"
		c.Detail = fmt.Sprintf("%s has mode %04o: others can look into it", s.home, info.Mode().Perm())
		c.Fallback = "chmod 700 " + s.home
	}
	// sun_path holds 108 bytes with its end.
	if path := filepath.Join(s.home, api.SocketName); len(path) > 107 {
		c.State, c.Detail = "missing", fmt.Sprintf("%s is %d bytes, a socket's path can have 107", path, len(path))
		c.Fallback = "set GPM_HOME to a shorter path"
	}
	return c
}

// checkBoot tells whether apps come back after a reboot.
func (s *session) checkBoot() api.Check {
	c := api.Check{Name: "start at boot", State: "missing", Detail: "no systemd unit", Fallback: "gpm startup"}
	u, err := s.unit("", "")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	if _, err := os.Stat(s.unitPath(u)); err == nil {
		c = api.Check{Name: c.Name, State: "ok", Detail: s.unitPath(u)}
	}
	return c
}

// checkKernel tells whether bind() of unmodified apps can be answered.
func checkKernel(root string) api.Check {
	c := api.Check{Name: "held listeners", State: "ok"}
	release, err := os.ReadFile(filepath.Join(root, "osrelease"))
	if err != nil {
		c.State, c.Detail, c.Fallback = "missing", "not Linux", "apps start plainly"
		return c
	}
	actions, err := os.ReadFile(filepath.Join(root, "seccomp/actions_avail"))
	c.Detail = "Linux " + strings.TrimSpace(string(release)) + " has seccomp notification"
	if err != nil || !strings.Contains(string(actions), "user_notif") {
		c.State = "missing"
		c.Detail = "Linux " + strings.TrimSpace(string(release)) + " has no seccomp notification (5.10 and newer have)"
		c.Fallback = "apps start plainly: a restart refuses connections"
	}
	return c
}

// checkTrees tells how a process tree can be ended.
func checkTrees(root string) api.Check {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return api.Check{Name: "process trees", State: "ok", Detail: "cgroup v2"}
	}
	return api.Check{Name: "process trees", State: "limited", Detail: "no cgroup v2 at " + root, Fallback: "process groups, and a sweep for orphans"}
}

func (s *session) printChecks(checks []api.Check) {
	width := 0
	for _, c := range checks {
		width = max(width, term.Width(c.Name))
	}
	for _, c := range checks {
		mark, colour := "✓", term.Green
		switch c.State {
		case "limited":
			mark, colour = "~", term.Yellow
		case "missing":
			mark, colour = "✗", term.Red
		}
		s.out.Println(s.out.Paint(colour, mark) + " " + term.Pad(term.Clean(c.Name), width) + "  " + term.Pad(c.State, len("limited")) + "  " + term.Clean(c.Detail))
		if c.Fallback != "" {
			s.out.Println(strings.Repeat(" ", width+13) + "instead: " + term.Clean(c.Fallback))
		}
	}
}
