package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (s *session) monit() *cobra.Command {
	return &cobra.Command{
		Use:     "monit [target]",
		Aliases: []string{"dash"},
		Short:   "Watch apps and their logs on a full screen",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.env.Monit == nil {
				return errors.New("this build of gpm has no monit")
			}
			if _, err := s.client.List(cmd.Context(), args...); err != nil {
				return err // before the screen is taken over
			}
			return s.env.Monit(cmd.Context(), s.client, append(args, "")[0])
		},
		ValidArgsFunction: s.completeTargets(false),
	}
}
