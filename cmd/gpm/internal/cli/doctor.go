package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	theirs, err = s.borrowed(ctx)
	return append(theirs, own...), err
}

// borrowed asks a gpm that lives for this question only, in a home of its own:
// only the hands that do the work know what they can do here.
func (s *session) borrowed(ctx context.Context) (checks []api.Check, err error) {
	t := *s
	if t.home, err = os.MkdirTemp("", "gpm-doctor"); err != nil {
		return nil, fmt.Errorf("make a home for the examination: %w", err)
	}
	defer os.RemoveAll(t.home)
	t.client = api.Dial(t.home)
	if err := t.ensureDaemon(ctx); err != nil {
		return []api.Check{{Name: "daemon", State: "missing", Detail: err.Error()}}, nil
	}
	checks, err = t.client.Doctor(ctx)
	checks = slices.DeleteFunc(checks, func(c api.Check) bool { return c.Name == "state folder" }) // not the user's
	if _, e := t.client.Kill(ctx); err == nil && e != nil && !errors.Is(e, api.ErrBroken) {
		err = e
	}
	if e := t.awaitEnd(ctx); err == nil {
		err = e
	}
	return checks, err
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
