package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (s *session) save() *cobra.Command {
	return &cobra.Command{
		Use:     "save",
		Aliases: []string{"dump"},
		Short:   "Save the list of apps for gpm resurrect",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := s.client.Save(cmd.Context())
			if err != nil {
				return err
			}
			s.out.Println(fmt.Sprintf("saved %s in %s", plural(r.Apps, "app", "apps"), r.Path))
			return nil
		},
	}
}
