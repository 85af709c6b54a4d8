package cli

import "github.com/spf13/cobra"

func (s *session) delete() *cobra.Command {
	c := &cobra.Command{
		Use:     "delete <target...>",
		Aliases: []string{"del", "rm"},
		Short:   "Stop apps and forget them",
		Long: `Stop apps and forget them. Their log files stay. With --drain they first finish
their streams, without new connections.`,
	}
	v := verb{name: "delete", call: s.client.Delete, done: "deleted", list: true}
	return s.actVerb(v, c, func(o *startOptions) {
		o.drainFlag(c)
		o.onlyFlag(c)
	})
}
