package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

// goneDeadline bounds the end of daemon and keeper once all apps are stopped.
const goneDeadline = 10 * time.Second

func (s *session) kill() *cobra.Command {
	return &cobra.Command{
		Use:   "kill",
		Short: "Stop all apps, then gpm itself",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, err := s.client.Kill(ctx)
			if errors.Is(err, api.ErrNoDaemon) { // its apps may live without it
				back, e := s.recall(ctx)
				if e != nil {
					return e
				}
				if back {
					r, err = s.client.Kill(ctx)
				}
			}
			if errors.Is(err, api.ErrNoDaemon) {
				s.out.Println("gpm is not running")
				return nil
			}
			// Its last answer may be lost with it; what counts is that it is gone.
			if err != nil && !errors.Is(err, api.ErrBroken) {
				return err
			}
			for _, o := range r.Instances {
				s.printOutcome(o, "")
			}
			if err := s.awaitEnd(ctx); err != nil {
				return err
			}
			s.out.Println("gpm is stopped")
			if r.Failed() {
				return errSaid
			}
			return nil
		},
	}
}

// awaitEnd waits until nobody listens any more.
func (s *session) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goneDeadline)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := s.client.Ping(ctx)
		if errors.Is(err, api.ErrNoDaemon) {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		who := ""
		if d.PID > 0 {
			who = fmt.Sprintf(" (pid %d)", d.PID)
		}
		return withHint("gpm ping", "kill: the daemon%s is still there after %s", who, goneDeadline)
	}
}
