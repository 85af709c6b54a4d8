package cli

import "github.com/spf13/cobra"

func (s *session) reload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload <target...>",
		Short: "Replace apps one instance after another, refusing no connection",
		Long: `Replace apps, one instance after another: start the new process, wait until it
is ready, then signal the old one (kill_signal) and give it kill_timeout to end
its streams by itself; an app that ends at once cuts them. If the new one does
not get ready, it is ended and the old one goes on: exit code 1.
With a config file its apps get the options that the file says now.`,
	}
	v := verb{name: "reload", call: s.client.Reload, fill: true,
		tip: "; if it cannot run beside the old process: gpm restart"}
	return s.actVerb(v, c, func(o *startOptions) { o.againFlags(c) })
}
