package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

// updateDeadline bounds the change of daemons. It takes milliseconds; a machine
// that swaps may need longer.
const updateDeadline = 30 * time.Second

func (s *session) update() *cobra.Command {
	return &cobra.Command{
		Use:   "update",
		Short: "Replace the daemon by this version of gpm; apps go on",
		Long: `Replace the daemon by this version of gpm. Apps, their connections and their
logs are not touched: the keeper holds them. Starts a daemon when none runs.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			old, err := s.client.Ping(ctx)
			if errors.Is(err, api.ErrNoDaemon) {
				return s.firstDaemon(ctx)
			}
			if err != nil {
				return err
			}
			// The answer may be lost with the daemon that gave it.
			if err := s.client.Update(ctx, s.env.Exe); err != nil && !errors.Is(err, api.ErrBroken) {
				return err
			}
			now, err := s.awaitOther(ctx, old.PID)
			if err != nil {
				return err
			}
			s.out.Println(fmt.Sprintf("gpm %s (pid %d) -> gpm %s (pid %d)", old.Version, old.PID, now.Version, now.PID))
			return nil
		},
	}
}

func (s *session) firstDaemon(ctx context.Context) error {
	if err := s.ensureDaemon(ctx); err != nil {
		return err
	}
	d, err := s.client.Ping(ctx)
	if err != nil {
		return err
	}
	s.out.Println(fmt.Sprintf("no daemon was running; started gpm %s (pid %d)", d.Version, d.PID))
	return nil
}

// awaitOther waits until a daemon with another pid answers.
func (s *session) awaitOther(ctx context.Context, pid int) (api.Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, updateDeadline)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := s.client.Ping(ctx)
		if err == nil && d.PID != pid {
			return d, nil
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return d, ctx.Err()
		}
		look := "look at " + filepath.Join(s.home, "gpm.log")
		if d.PID == pid {
			return d, withHint(look, "update: the old daemon (pid %d) is still there after %s", pid, updateDeadline)
		}
		return d, withHint(look, "update: no daemon answered within %s", updateDeadline)
	}
}
