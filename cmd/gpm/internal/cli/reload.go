package cli

import "github.com/spf13/cobra"

func (s *session) reload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload <target...>",
		Short: "Replace apps one instance after another, letting their streams finish",
		Long: `Replace apps, one instance after another, and let their streams finish (rollout):
the new process gets a listener of its own that has no traffic yet and is probed
there (ready). Then new connections go to it, and the old process finishes its
streams, for drain_timeout at most, before it is stopped. gpm reload returns when
all new processes serve; old ones may still drain, gpm list shows them. --drained
waits for them, too. Where gpm cannot steer (gpm doctor) or does not hold the
sockets, the old process is signalled once the new one is ready.

If a new process does not get ready, it is ended, the old one goes on and the
rollout is over: exit code 1. So it is with Ctrl-C (exit code 130): each instance
stays with the version that it has, and gpm says which. If gpm reload itself is
killed, the rollout goes on.
With a config file its apps get the options that the file says now. An app has
its turn after what it depends on, and is left alone if that fails.`,
	}
	v := verb{name: "reload", call: s.client.Reload, fill: true, rolls: true,
		tip: "; if it cannot run beside the old process: gpm restart"}
	return s.actVerb(v, c, func(o *startOptions) {
		o.againFlags(c)
		c.Flags().BoolVar(&o.drained, "drained", false, "return only when the old processes are gone")
	})
}
