package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

func (s *session) describe() *cobra.Command {
	var asJSON, env bool
	c := &cobra.Command{
		Use:     "describe <target...>",
		Aliases: []string{"info", "show", "desc"},
		Short:   "Show everything about apps: options, processes, sockets, last exits",
		Args:    needArgs(1, "a target: an id, a name, a namespace, a /regex/ or all"),
		RunE: func(cmd *cobra.Command, targets []string) error {
			all, err := s.client.Describe(cmd.Context(), env, targets...)
			if err != nil {
				return err
			}
			if asJSON {
				return s.printJSON(all)
			}
			for i := range all {
				if i > 0 {
					s.out.Println("")
				}
				s.printDescription(&all[i], env, time.Now())
			}
			return nil
		},
		ValidArgsFunction: s.completeTargets(false),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print what the daemon answers: a list of descriptions")
	c.Flags().BoolVar(&env, "env", false, "show the environment with its values")
	return c
}

// missing stands for what an app does not have, as in PM2.
const missing = "N/A"

func (s *session) printDescription(d *api.Description, env bool, now time.Time) {
	s.out.Println(s.out.Paint(term.Bold, fmt.Sprintf("%s (id %d)", title(term.Clean(d.Name), d.Instance.Instance), d.ID)))
	s.pairs(s.facts(d, now))
	s.printAges(d.Ages)
	s.printOutgoing(d.Outgoing, now)
	if len(d.Exits) > 0 {
		s.heading("Last exits")
		for _, e := range d.Exits {
			s.printExit(e)
		}
	}
	if len(d.Events) > 0 {
		s.heading("Events")
		for _, e := range d.Events {
			s.out.Println("  " + s.clock(e.At) + "  " + term.Pad(e.Kind, 8) + "  " + term.Clean(e.Message))
		}
	}
	if len(d.Tree) > 0 {
		s.heading("Processes")
		s.printTree(d.Tree)
	}
	if env {
		s.heading("Environment")
		var rows [][2]string
		for _, k := range slices.Sorted(maps.Keys(d.App.Env)) {
			rows = append(rows, [2]string{term.Clean(k), term.Clean(d.App.Env[k])})
		}
		s.pairs(rows)
	}
}

// facts are the rows of the first table.
func (s *session) facts(d *api.Description, now time.Time) [][2]string {
	i, app := d.Instance, &d.App
	status := statusWord(i)
	switch why := reason(i); {
	case away(i) && i.Reason != "", why != "" && i.Status != api.Online:
		status += ": " + why
	}
	rows := [][2]string{
		{"status", status}, {"pid", strconv.Itoa(i.PID)}, {"name", i.Name}, {"namespace", i.Namespace},
		{"version", cmp.Or(i.Version, missing)}, {"restarts", strconv.Itoa(i.Restarts)},
		{"unstable restarts", strconv.Itoa(i.Unstable)}, {"uptime", uptime(i, now)}, {"generation", strconv.Itoa(i.Generation)},
		{"script path", app.Script}, {"script args", cmp.Or(strings.Join(app.Args, " "), missing)},
		{"interpreter", cmp.Or(app.Interpreter, "none")}, {"interpreter args", cmp.Or(strings.Join(app.InterpreterArgs, " "), missing)},
		{"exec cwd", app.Cwd}, {"exec mode", i.Mode}, {"instances", strconv.Itoa(app.Instances)}, {"user", i.User},
		{"error log path", cmp.Or(i.ErrorFile, missing)}, {"out log path", cmp.Or(i.OutFile, missing)},
		{"held sockets", heldSockets(i)}, {"cpu, memory", term.Percent(i.CPU) + ", " + term.Bytes(i.Memory)},
	}
	add := func(key, value string, is bool) {
		if is {
			rows = append(rows, [2]string{key, value})
		}
	}
	if i.NextTry != nil {
		add("next restart", "in "+term.Wait(i.NextTry.Sub(now)), true)
	}
	add("traffic", trafficText(i), i.Traffic != "")
	add("streams", streamsText(i, now), i.Traffic != "" || i.Streams > 0)
	add("health", i.Health, i.Health != "")
	add("depends on", strings.Join(app.DependsOn, ", "), len(app.DependsOn) > 0)
	add("draining", plural(leaving(i), "old process", "old processes"), leaving(i) > 0)
	add("standby", fmt.Sprintf("%d of %d wait", i.Standby, d.App.Standby), d.App.Standby > 0)
	add("log problem", i.LogProblem, i.LogProblem != "")
	add("max memory restart", term.Bytes(app.MaxMemory), app.MaxMemory > 0)
	add("cron restart", app.CronRestart, app.CronRestart != "")
	add("watch & reload", strings.Join(app.Watch, ", "), i.Watching)
	add("config file", fmt.Sprintf("%s:%d", app.File, app.Line), app.File != "")
	add("created at", s.clock(i.Created), !i.Created.IsZero())
	for n := range rows {
		rows[n][1] = term.Clean(rows[n][1])
	}
	return rows
}

// heldSockets tells which sockets gpm holds, or why none.
func heldSockets(i api.Instance) string {
	if len(i.Listeners) == 0 {
		if i.Hold == "held" {
			return "none (TCP listeners would be held; unix sockets and UDP are not)"
		}
		return cmp.Or(i.Hold, "none")
	}
	var all []string
	for _, l := range i.Listeners {
		text := l.Address
		switch {
		case !l.Listening:
			text += " (not listening)"
		case l.Queue > 0:
			text += fmt.Sprintf(" (%d wait to be accepted)", l.Queue)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func (s *session) printExit(e api.Exit) {
	line := fmt.Sprintf("  %s  pid %d  %s after %s", s.clock(e.At), e.PID, term.Clean(e.Reason), term.Wait(e.Uptime.D()))
	s.out.Println(line)
	for _, l := range e.Tail {
		s.out.Println("    " + s.out.Paint(streamColour(l.Stream), term.Clean(l.Text)))
	}
}

// printTree shows children under their parents; a process whose parent is not
// in the list is a root.
func (s *session) printTree(all []api.Proc) {
	children := map[int][]api.Proc{}
	present := map[int]bool{}
	for _, p := range all {
		present[p.PID] = true
	}
	for _, p := range all {
		parent := p.Parent
		if !present[parent] || parent == p.PID {
			parent = 0
		}
		children[parent] = append(children[parent], p)
	}
	var show func(parent, depth int)
	show = func(parent, depth int) {
		if depth > len(all) {
			return
		}
		for _, p := range children[parent] {
			s.out.Println(fmt.Sprintf("  %s%d  %s", strings.Repeat("  ", depth), p.PID, term.Clean(p.Command)))
			show(p.PID, depth+1)
		}
	}
	show(0, 0)
}

func (s *session) heading(text string) { s.out.Println(s.out.Paint(term.Cyan, text)) }

// pairs prints two columns; a value is never cut: it may be a path to be copied.
func (s *session) pairs(rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, term.Width(r[0]))
	}
	for _, r := range rows {
		s.out.Println("  " + s.out.Paint(term.Faint, term.Pad(r[0], width)) + "  " + r[1])
	}
}

func (s *session) clock(t time.Time) string { return t.In(s.zone).Format("2006-01-02 15:04:05") }
