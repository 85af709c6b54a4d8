package cli

import "github.com/spf13/cobra"

func (s *session) reset() *cobra.Command {
	c := &cobra.Command{
		Use:   "reset <target...>",
		Short: "Set the restart counters of apps to zero",
	}
	return s.actVerb(verb{name: "reset", call: s.client.Reset, done: "reset", list: true}, c, nil)
}
