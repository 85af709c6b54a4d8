package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

func (s *session) scale() *cobra.Command {
	return &cobra.Command{
		Use:   "scale <app> <n|+n|-n>",
		Short: "Change how many instances an app has",
		Long: `Change how many instances an app has: a number, or how many more (+n) or fewer
(-n). Up adds instances. Down takes the highest numbers out of traffic, lets
their streams finish (drain_timeout) and then stops them.`,
		Example: "  gpm scale web 6\n  gpm scale web -2",
		Args:    needArgs(2, "an app and a number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := atMost(2)(cmd, args); err != nil {
				return err
			}
			sign, digits := args[1][:0], args[1]
			if strings.HasPrefix(digits, "+") || strings.HasPrefix(digits, "-") {
				sign, digits = digits[:1], digits[1:]
			}
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil {
				return withHint("gpm scale web 4, gpm scale web +1, gpm scale web -1", "%q is not a number of instances", args[1])
			}
			v := verb{name: "scale", list: true}
			res, err := s.wait(cmd.Context(), v, concern{words: args[:1]}, func(ctx context.Context) (api.Result, error) {
				return s.client.Scale(ctx, api.ActRequest{Targets: args[:1], Instances: sign + strconv.FormatUint(n, 10)})
			})
			if err != nil {
				return err
			}
			err = s.report(cmd.Context(), res, v)
			s.sayWhatDrains(cmd.Context(), res)
			return err
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return s.completeTargets(false)(cmd, args, word)
		},
	}
}
