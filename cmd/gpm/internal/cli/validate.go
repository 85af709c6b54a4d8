package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/config"
)

func (s *session) validate() *cobra.Command {
	o := &startOptions{}
	c := &cobra.Command{
		Use:   "validate <file...>",
		Short: "Check config files and show what they would start",
		Long:  "Check config files and show what they would start, or all their problems with\nline and column (exit code 1). Nothing is started.",
		Args:  needArgs(1, "a config file, or - for one on stdin"),
		RunE: func(cmd *cobra.Command, files []string) error {
			failed := false
			for _, f := range files {
				apps, err := s.load(cmd.Context(), f, o)
				if err != nil {
					s.fail(err)
					failed = true
					continue
				}
				s.printApps(f, apps)
			}
			if failed {
				return errSaid
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.profile, "env", "", "use the env_`name` of the file")
	o.onlyFlag(c)
	return c
}

func (s *session) printApps(file string, apps []config.App) {
	s.out.Println(file + ": valid, " + plural(len(apps), "app", "apps"))
	t := &term.Table{Columns: []term.Column{
		{Title: "name", Shrink: 8}, {Title: "instances"}, {Title: "mode", Drop: 2}, {Title: "command", Shrink: 16}, {Title: "cwd", Drop: 1},
	}}
	for i := range apps {
		a := &apps[i]
		t.Rows = append(t.Rows, []string{
			term.Clean(a.Name), strconv.Itoa(a.Instances), a.ExecMode, term.Clean(strings.Join(a.Command(), " ")), a.Cwd,
		})
	}
	t.Print(s.out)
}
