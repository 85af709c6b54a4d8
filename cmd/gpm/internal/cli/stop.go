package cli

import "github.com/spf13/cobra"

func (s *session) stop() *cobra.Command {
	c := &cobra.Command{
		Use:   "stop <target...>",
		Short: "Stop apps; they stay in the list",
		Long: `Stop apps: the kill signal, kill_timeout, SIGKILL, to the whole process tree.
They stay in the list. Returns when their processes are gone. With --drain they
first finish their streams, without new connections. An app is stopped before
what it depends on; alone that may be stopped, too, and who goes on is named.`,
	}
	v := verb{name: "stop", call: s.client.Stop, list: true}
	return s.actVerb(v, c, func(o *startOptions) {
		o.drainFlag(c)
		o.onlyFlag(c)
	})
}
