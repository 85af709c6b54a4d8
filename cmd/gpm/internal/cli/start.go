package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/config"
	"gpm/supervisor/api"
)

func (s *session) start() *cobra.Command {
	o := &startOptions{}
	c := &cobra.Command{
		Use:   "start [target...] [-- args...]",
		Short: "Start apps: a script, a command line, a config file, or what was stopped",
		Long: `Start apps and wait until every instance is online or has failed; a failure
shows its last log lines and is exit code 1. A target is, first that applies:

  a config file    app.json, ecosystem.config.js, or - for one on stdin
  what gpm has     an id, a name, a namespace, a /regex/ or all: starts it again
  a file           a script or a program; what follows -- are its arguments
  a command        on PATH, or a whole command line in quotes

Without a target it is the config file of the current folder. Flags win over a
config file. An app of a config file that runs already gets what the file says
now; what gpm has and is called by its name is restarted. gpm starts its daemon
when none runs.

An app with depends_on waits until what it needs is online; if that fails, so
does the start, and the app starts when it comes online later. What an app needs
and does not run is started with it, also with --only.`,
		Example: `  gpm start server.js --name api -i 4 -- --port 8080
  gpm start ./stream-server --kill-timeout 10s
  gpm start app.json --only api --env production
  gpm start "npm run serve" --name site`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.flags = cmd.Flags()
			targets := args
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				targets, o.args = args[:n], args[n:]
			}
			return s.startTargets(cmd.Context(), targets, o)
		},
		ValidArgsFunction: s.completeTargets(true),
	}
	o.startFlags(c)
	return c
}

// startTargets sorts the targets by what they are and starts each kind with one call.
func (s *session) startTargets(ctx context.Context, targets []string, o *startOptions) error {
	if len(targets) == 0 {
		found, err := s.findConfig()
		if err != nil {
			return err
		}
		targets = []string{found}
	}
	l, err := s.client.List(ctx)
	if errors.Is(err, api.ErrNoDaemon) {
		if back, err := s.recall(ctx); err != nil {
			return err
		} else if back {
			l, err = s.client.List(ctx)
			if err != nil {
				return err
			}
		}
	} else if err != nil {
		return err
	}
	have := known{l.Instances}
	var apps, needs []config.App
	var again []string
	for _, t := range targets {
		switch {
		case isConfig(t):
			all, err := s.load(ctx, t, o)
			if err != nil {
				return err
			}
			more, needed := o.asked(all)
			apps, needs = append(apps, more...), append(needs, needed...)
		case s.isOurs(t, have):
			again = append(again, t)
		default:
			a, err := s.script(ctx, t, have, o)
			if err != nil {
				return err
			}
			apps = append(apps, a)
		}
	}
	if len(again) > 0 && len(o.args) > 0 {
		return withHint("gpm delete "+again[0]+", then start it with its new arguments",
			"start %q: it exists already and keeps its arguments", again[0])
	}
	return s.startBoth(ctx, apps, needs, again, o)
}

func (s *session) startBoth(ctx context.Context, apps, needs []config.App, again []string, o *startOptions) error {
	var all api.Result
	if len(apps) > 0 {
		res, err := s.startApps(ctx, apps, needs, o, false)
		if err != nil {
			return err
		}
		all.Instances = append(all.Instances, res.Instances...)
		if o.noWait {
			for i := range apps {
				s.out.Println(term.Clean(apps[i].Name) + " is being started")
			}
			for i := range needs {
				s.out.Println(term.Clean(needs[i].Name) + " is started, too, unless it runs: it is needed")
			}
		}
	}
	if o.noWait && len(again) == 0 {
		s.showList(ctx)
		return nil
	}
	if len(again) > 0 {
		r := api.ActRequest{Targets: again}
		if o.updateEnv {
			r.UpdateEnv = s.environ()
		}
		v := verb{name: "start"}
		res, err := s.wait(ctx, v, concern{words: again}, func(ctx context.Context) (api.Result, error) { return s.client.Restart(ctx, r) })
		if err != nil {
			return err
		}
		all.Instances = append(all.Instances, res.Instances...)
	}
	err := s.report(ctx, all, verb{name: "start", list: true})
	s.sayWhatDrains(ctx, all) // an app whose config has changed was rolled out
	return err
}

// isOurs tells whether a target means what gpm has already. A word that looks
// like a path is a file if there is one.
func (s *session) isOurs(target string, have known) bool {
	if strings.ContainsAny(target, "/.") && s.isFile(target) {
		return false
	}
	return have.names(target)
}

func (s *session) isFile(name string) bool {
	if !filepath.IsAbs(name) {
		wd, err := s.env.Getwd()
		if err != nil {
			return false
		}
		name = filepath.Join(wd, name)
	}
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// script is the app of a script or command line. One that runs already is not
// started twice by mistake.
func (s *session) script(ctx context.Context, target string, have known, o *startOptions) (config.App, error) {
	a, err := s.fromScript(ctx, target, o)
	if err != nil {
		return a, err
	}
	live := slices.ContainsFunc(have.app(a.Name), func(i api.Instance) bool {
		return i.Status != api.Stopped && i.Status != api.Errored
	})
	if live && !o.force {
		return a, withHint(fmt.Sprintf("gpm restart %[1]s, gpm reload %[1]s, or another --name", a.Name),
			"start %q: an app %q runs already", target, a.Name)
	}
	return a, nil
}

// defaultConfigs is what gpm start without a target looks for.
func defaultConfigs() []string {
	return []string{"gpm.conf.json", "gpm.json", "ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.mjs", "ecosystem.json"}
}

func (s *session) findConfig() (string, error) {
	for _, name := range defaultConfigs() {
		if s.isFile(name) {
			return name, nil
		}
	}
	return "", withHint("gpm start app.js, gpm start app.json", "start: no target, and none of %s here", strings.Join(defaultConfigs(), ", "))
}
