package cli

import (
	"github.com/spf13/cobra"
)

func (s *session) completion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion <bash|zsh|fish>",
		Short: "Print a script for the completion of a shell",
		Long: `Print a script that completes verbs, flags and the names of apps.

  bash  gpm completion bash > /etc/bash_completion.d/gpm
  zsh   gpm completion zsh > "${fpath[1]}/_gpm"
  fish  gpm completion fish > ~/.config/fish/completions/gpm.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			shell := append(args, "")[0]
			root := cmd.Root()
			switch shell {
			case "bash":
				return root.GenBashCompletionV2(s.out, true)
			case "zsh":
				return root.GenZshCompletion(s.out)
			case "fish":
				return root.GenFishCompletion(s.out, true)
			}
			return withHint("gpm completion bash, zsh or fish", "completion: no script for %q", shell)
		},
	}
}
