package cli

import (
	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

func (s *session) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of gpm",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			s.out.Println(api.Version)
			return nil
		},
	}
}
