package cli

import (
	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

func (s *session) flush() *cobra.Command {
	return &cobra.Command{
		Use:   "flush [target...]",
		Short: "Empty log files",
		Long:  "Empty the log files of the targets, or of every app.",
		RunE: func(cmd *cobra.Command, targets []string) error {
			if len(targets) == 0 {
				targets = []string{"all"}
			}
			res, err := s.client.Flush(cmd.Context(), api.ActRequest{Targets: targets})
			if err != nil {
				return err
			}
			for _, f := range res.Files {
				s.out.Println("emptied " + f)
			}
			if len(res.Files) == 0 {
				s.out.Println("nothing to flush")
			}
			return nil
		},
		ValidArgsFunction: s.completeTargets(false),
	}
}
