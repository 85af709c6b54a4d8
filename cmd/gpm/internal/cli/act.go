package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/config"
	"gpm/supervisor/api"
)

// verb is what the verbs that act on targets have in common.
type verb struct {
	name string
	call func(context.Context, api.ActRequest) (api.Result, error)
	done string // said of an instance in place of its status; empty: the status
	list bool   // show the list afterwards
	fill bool   // a config file restarts its apps with what it says now
	tip  string // goes on with the hint after a failure
	// rolls: it replaces processes that serve, so Ctrl-C has something to take
	// back, and old ones may be left when it is done.
	rolls bool
}

// act carries a verb out on its targets and reports.
func (s *session) act(ctx context.Context, v verb, targets []string, o *startOptions) error {
	res, err := s.carryOut(ctx, v, targets, o)
	if err != nil {
		return err
	}
	err = s.report(ctx, res, v)
	switch {
	case !v.rolls:
	case err == nil && o.drained:
		return s.awaitOld(ctx, res)
	default:
		s.sayWhatDrains(ctx, res)
	}
	return err
}

// carryOut does a verb to its targets. Files that name apps to be filled in are
// a call of their own.
func (s *session) carryOut(ctx context.Context, v verb, targets []string, o *startOptions) (api.Result, error) {
	files, words := splitTargets(targets)
	var all api.Result
	if len(files) > 0 && v.fill {
		res, err := s.startFiles(ctx, files, o, v.name == "reload")
		if err != nil {
			return all, err
		}
		all.Instances = append(all.Instances, res.Instances...)
	} else if len(files) > 0 {
		names, err := s.runningApps(ctx, files, o)
		if err != nil {
			return all, err
		}
		words = append(words, names...)
	}
	if len(words) > 0 {
		r := api.ActRequest{Targets: words, Drain: o.drain, Undo: o.undo}
		if o.updateEnv {
			r.UpdateEnv = s.environ()
		}
		res, err := s.wait(ctx, v, concern{words: words}, func(ctx context.Context) (api.Result, error) { return v.call(ctx, r) })
		if err != nil {
			return all, err
		}
		all.Instances = append(all.Instances, res.Instances...)
	}
	return all, nil
}

// wait tells what happens while a call takes its time; one that rolls out can
// be ended with Ctrl-C.
func (s *session) wait(ctx context.Context, v verb, about concern, call func(context.Context) (api.Result, error)) (api.Result, error) {
	if v.rolls {
		return s.roll(ctx, about, call)
	}
	defer s.narrate(ctx, about)()
	return call(ctx)
}

func splitTargets(targets []string) (files, words []string) {
	for _, t := range targets {
		if isConfig(t) {
			files = append(files, t)
		} else {
			words = append(words, t)
		}
	}
	return files, words
}

// runningApps is the names of the files' apps that gpm has.
func (s *session) runningApps(ctx context.Context, files []string, o *startOptions) ([]string, error) {
	var names []string
	l, err := s.client.List(ctx)
	if err != nil {
		return nil, err
	}
	have := known{l.Instances}
	for _, f := range files {
		all, err := s.load(ctx, f, o)
		if err != nil {
			return nil, err
		}
		apps, _ := o.asked(all)
		for _, a := range apps {
			switch {
			case len(have.app(a.Name)) == 0:
				s.say.Warning(fmt.Sprintf("app %q is not in the list", a.Name))
			case !slices.Contains(names, a.Name):
				names = append(names, a.Name)
			}
		}
	}
	if len(names) == 0 {
		return nil, withHint("gpm list", "no app of %s is in the list", strings.Join(files, ", "))
	}
	return names, nil
}

// report prints what became of each instance, and the list if the verb wants it.
func (s *session) report(ctx context.Context, r api.Result, v verb) error {
	for _, o := range r.Instances {
		s.printOutcome(o, v.done)
	}
	s.warnUsers(r)
	if len(r.Instances) == 0 {
		s.out.Println("nothing to " + v.name)
	}
	if v.list {
		s.showList(ctx)
	}
	if !r.Failed() {
		return nil
	}
	failed := slices.DeleteFunc(slices.Clone(r.Instances), func(o api.Outcome) bool { return o.OK || untouched(o) })
	if len(failed) == 0 {
		s.say.Error(v.name + ": nothing was done")
		return errSaid
	}
	s.say.Error(fmt.Sprintf("%s: %d of %s failed", v.name, len(failed), plural(len(r.Instances), "instance", "instances")))
	if failed[0].ID >= 0 {
		s.say.Hint(fmt.Sprintf("gpm describe %[1]d, gpm logs %[1]d", failed[0].ID) + v.tip)
	}
	return errSaid
}

// warnUsers names the apps that go on without what was stopped, once each.
func (s *session) warnUsers(r api.Result) {
	said := map[string]bool{}
	for _, o := range r.Instances {
		for _, user := range o.UsedBy {
			if text := fmt.Sprintf("%s goes on without %s, which it depends on", term.Clean(user), term.Clean(o.Name)); !said[text] {
				said[text] = true
				s.say.Warning(text)
			}
		}
	}
}

// untouched tells that an instance goes on as it was: a rollout ended before it.
func untouched(o api.Outcome) bool { return !o.OK && o.Status == "" && o.ID >= 0 }

// printOutcome is one line, and the last log lines of an instance that failed.
func (s *session) printOutcome(o api.Outcome, done string) {
	name := title(term.Clean(o.Name), o.Instance)
	state := string(o.Status)
	if untouched(o) {
		s.out.Println("· " + name + ": " + term.Clean(o.Reason))
		return
	}
	if !o.OK {
		line := s.out.Paint(term.Red, "✗ ") + strings.TrimSpace(name+" "+state)
		if o.Reason != "" {
			line += ": " + term.Clean(o.Reason)
		}
		s.out.Println(line)
		for _, l := range o.Tail {
			s.out.Println("    " + s.out.Paint(streamColour(l.Stream), term.Clean(l.Text)))
		}
		return
	}
	if done != "" {
		state = done
	}
	line := s.out.Paint(term.Green, "✓ ") + name + " " + state
	if o.PID > 0 && done == "" {
		line += fmt.Sprintf(" (pid %d)", o.PID)
	}
	if o.NeededBy != "" {
		line += ", because " + term.Clean(o.NeededBy) + " depends on it"
	}
	s.out.Println(line)
}

// startFiles starts or restarts the apps of config files with what the files say now.
func (s *session) startFiles(ctx context.Context, files []string, o *startOptions, reload bool) (api.Result, error) {
	var apps, needs []config.App
	for _, f := range files {
		all, err := s.load(ctx, f, o)
		if err != nil {
			return api.Result{}, err
		}
		more, needed := o.asked(all)
		apps, needs = append(apps, more...), append(needs, needed...)
	}
	return s.startApps(ctx, apps, needs, o, reload)
}

func (s *session) startApps(ctx context.Context, apps, needs []config.App, o *startOptions, reload bool) (api.Result, error) {
	if err := s.ensureDaemon(ctx); err != nil {
		return api.Result{}, err
	}
	r := api.StartRequest{Apps: apps, Needs: needs, Reload: reload}
	if o != nil {
		r.Force, r.NoWait = o.force, o.noWait
	}
	about := concern{}
	for i := range apps {
		about.apps = append(about.apps, apps[i].Name)
		if f := apps[i].File; f != "" && !slices.Contains(about.files, f) {
			about.files = append(about.files, f)
		}
	}
	return s.roll(ctx, about, func(ctx context.Context) (api.Result, error) { return s.client.Start(ctx, r) })
}

// actVerb is the command of a verb on targets.
func (s *session) actVerb(v verb, c *cobra.Command, flags func(o *startOptions)) *cobra.Command {
	o := &startOptions{}
	if flags != nil {
		flags(o)
	}
	c.Args = needArgs(1, "a target: an id, a name, a namespace, a /regex/, a config file or all")
	c.RunE = func(cmd *cobra.Command, targets []string) error {
		return s.act(cmd.Context(), v, targets, o)
	}
	c.ValidArgsFunction = s.completeTargets(true)
	return c
}
