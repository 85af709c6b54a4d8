package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
)

func (s *session) ping() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "Ask whether the daemon answers; exit code 1 if not",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := s.client.Ping(cmd.Context())
			if err != nil {
				return err
			}
			s.out.Println(fmt.Sprintf("pong (gpm %s, pid %d, up %s)", d.Version, d.PID, term.Uptime(time.Since(d.Started))))
			return nil
		},
	}
}
