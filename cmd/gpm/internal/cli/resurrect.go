package cli

import "github.com/spf13/cobra"

func (s *session) resurrect() *cobra.Command {
	return &cobra.Command{
		Use:   "resurrect",
		Short: "Start what gpm save saved and is not in the list",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.ensureDaemon(cmd.Context()); err != nil {
				return err
			}
			r, err := s.client.Resurrect(cmd.Context())
			if err != nil {
				return err
			}
			return s.report(cmd.Context(), r, verb{name: "resurrect", list: true})
		},
	}
}
