package cli

import "github.com/spf13/cobra"

func (s *session) restart() *cobra.Command {
	c := &cobra.Command{
		Use:   "restart <target...>",
		Short: "Stop and start apps; start what is stopped",
		Long: `Stop and start apps; start what is stopped. gpm holds their listening sockets
meanwhile: new connections wait and none is refused, but streams end with their
process, at the latest after kill_timeout; gpm reload lets them finish.
With a config file its apps get the options that the file says now, and those
that do not run yet are started. An app has its turn when what it depends on is
online again, and is left alone if that fails.`,
	}
	v := verb{name: "restart", call: s.client.Restart, list: true, fill: true}
	return s.actVerb(v, c, func(o *startOptions) { o.againFlags(c) })
}
