package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

func (s *session) list() *cobra.Command {
	var asJSON, mini bool
	c := &cobra.Command{
		Use:     "list [target...]",
		Aliases: []string{"ls", "l", "ps", "status"},
		Short:   "Show every instance, one per row",
		Long: `Show every instance, one per row: id, name, namespace, version, mode, pid,
uptime, restarts (↺), status, streams, cpu, memory, user, watching. On a narrow
terminal the columns that matter least are left out. Under the table it says why
an instance is not online. cpu and memory are of the whole process tree.

Streams are the established connections on the sockets that gpm holds, "-" where
it holds none. "online +1" is an instance with an old process that finishes its
streams after a reload. An instance without traffic (gpm drain) is draining while
it has streams and drained when they are gone.`,
		RunE: func(cmd *cobra.Command, targets []string) error {
			l, err := s.client.List(cmd.Context(), targets...)
			if errors.Is(err, api.ErrNoDaemon) && len(targets) == 0 {
				s.say.Hint("gpm is not running; start an app: gpm start <file>, or what gpm knew and saved: gpm resurrect")
				l, err = api.List{Instances: []api.Instance{}}, nil
			}
			switch {
			case err != nil:
				return err
			case asJSON:
				return s.printJSON(l)
			case mini:
				s.printMini(l, time.Now())
			default:
				s.printList(l, time.Now())
			}
			return nil
		},
		ValidArgsFunction: s.completeTargets(false),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print what the daemon answers: {instances, host, daemon}")
	c.Flags().BoolVarP(&mini, "mini", "m", false, "one block of lines per instance instead of a table")
	return c
}

func (s *session) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	s.out.Println(string(data))
	return nil
}

// showList prints the table after a verb did its work; the verb is not undone
// by a list that cannot be had.
func (s *session) showList(ctx context.Context) {
	l, err := s.client.List(ctx)
	if err != nil {
		s.say.Warning(err.Error())
		return
	}
	s.printList(l, time.Now())
}

func (s *session) printList(l api.List, now time.Time) {
	sortInstances(l.Instances)
	instanceTable(l.Instances, now).Print(s.out)
	for _, i := range l.Instances {
		for _, why := range s.whyLines(i, now) {
			s.out.Println(s.out.Paint(rowColour(i), title(term.Clean(i.Name), i.Instance)) + ": " + why)
		}
	}
	if h := l.Host; h.MemoryTotal > 0 {
		s.out.Println(s.out.Paint(term.Faint, fmt.Sprintf("host: cpu %s, memory %s of %s (%s)", term.Percent(h.CPU),
			term.Bytes(h.MemoryUsed), term.Bytes(h.MemoryTotal), term.Percent(100*float64(h.MemoryUsed)/float64(h.MemoryTotal)))))
	}
	for _, w := range l.Daemon.Warnings {
		s.say.Warning(term.Clean(w))
	}
	if l.Daemon.Version != "" && l.Daemon.Version != api.Version {
		s.say.Warning(fmt.Sprintf("the daemon is gpm %s, this is gpm %s; bring it up with: gpm update", l.Daemon.Version, api.Version))
	}
	if l.Daemon.Unsaved && len(l.Instances) > 0 && s.out.Width() > 0 {
		s.say.Hint("the list is not what is saved; keep it for the next boot: gpm save")
	}
}

// sortInstances orders by name, then place, as PM2's list does.
func sortInstances(list []api.Instance) {
	slices.SortStableFunc(list, func(a, b api.Instance) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
}

const (
	columnStatus  = 8
	columnStreams = 9
	longestName   = 40
)

// instanceTable is gpm list's table.
func instanceTable(list []api.Instance, now time.Time) *term.Table {
	t := &term.Table{Columns: []term.Column{
		{Title: "id"}, {Title: "name", Soft: 20, Shrink: 8}, {Title: "namespace", Drop: 6}, {Title: "version", Drop: 7},
		{Title: "mode", Drop: 5}, {Title: "pid", Drop: 3}, {Title: "uptime", Drop: 4}, {Title: "↺", Drop: 2},
		{Title: "status"}, {Title: "streams", Drop: 1}, {Title: "cpu"}, {Title: "mem"}, {Title: "user", Drop: 8}, {Title: "watching", Drop: 9},
	}}
	for _, i := range list {
		watching := "disabled"
		if i.Watching {
			watching = "enabled"
		}
		t.Rows = append(t.Rows, []string{
			strconv.Itoa(i.ID), term.Cut(term.Clean(i.Name), longestName), term.Clean(i.Namespace), cmp.Or(term.Clean(i.Version), "-"),
			i.Mode, strconv.Itoa(i.PID), uptime(i, now), strconv.Itoa(i.Restarts),
			statusWord(i), streamsCell(i), term.Percent(i.CPU), term.Bytes(i.Memory), term.Clean(i.User), watching,
		})
	}
	t.Colour = func(row, column int) term.Colour {
		switch column {
		case 0, 1:
			return term.Bold
		case columnStatus:
			return rowColour(list[row])
		case columnStreams:
			if list[row].Streams == 0 {
				return term.Faint
			}
		}
		return term.None
	}
	return t
}

// uptime is of the current process; PM2 writes "0" when there is none.
func uptime(i api.Instance, now time.Time) string {
	if i.PID == 0 || i.Started.IsZero() {
		return "0"
	}
	return term.Uptime(now.Sub(i.Started))
}

// rowColour is of an instance's status, as statusWord says it.
func rowColour(i api.Instance) term.Colour {
	switch {
	case away(i) && holding(i) > 0:
		return term.Blue
	case away(i):
		return term.Yellow
	}
	return statusColour(i.Status)
}

func statusColour(status api.Status) term.Colour {
	switch status {
	case api.Online:
		return term.Green
	case api.Launching, api.Stopping:
		return term.Blue
	case api.Waiting, api.Pending:
		return term.Yellow
	case api.Stopped, api.Errored:
		return term.Red
	}
	return term.Red
}

// whyLines says what the table has no room for: why an instance is not online,
// and what else is wrong with it.
func (s *session) whyLines(i api.Instance, now time.Time) []string {
	var lines []string
	switch i.Status {
	case api.Errored:
		lines = append(lines, cmp.Or(reason(i), "errored"))
	case api.Waiting:
		why := cmp.Or(reason(i), "waits for its restart")
		if i.NextTry != nil {
			why += ", next in " + term.Wait(i.NextTry.Sub(now))
		}
		lines = append(lines, why)
	case api.Pending:
		lines = append(lines, cmp.Or(reason(i), "waits for what it depends on"))
	case api.Stopped:
		// One that a user stopped needs no words; one that failed by itself does.
		if i.LastExit != nil && i.LastExit.Code > 0 && i.Reason != "" {
			lines = append(lines, reason(i))
		}
	case api.Online, api.Launching, api.Stopping:
	}
	if away(i) {
		lines = append(lines, cmp.Or(term.Clean(i.Reason), "gets no new connections; undo: gpm drain "+strconv.Itoa(i.ID)+" --undo"))
	}
	if i.Health != "" && i.Health != healthy {
		lines = append(lines, "health: "+term.Clean(i.Health))
	}
	if n := leaving(i); n > 0 {
		left := leftover{}
		left.add(outgoing(i)...)
		left.processes = n
		lines = append(lines, left.line(s, now))
	}
	if i.LogProblem != "" {
		lines = append(lines, term.Clean(i.LogProblem))
	}
	return lines
}

// healthy is the Health of an instance whose probe is answered.
const healthy = "ok"

func reason(i api.Instance) string {
	if i.Reason != "" {
		return term.Clean(i.Reason)
	}
	if i.LastExit != nil {
		return term.Clean(i.LastExit.Reason)
	}
	return ""
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// printMini is gpm list -m.
func (s *session) printMini(l api.List, now time.Time) {
	sortInstances(l.Instances)
	for _, i := range l.Instances {
		watching := "no"
		if i.Watching {
			watching = "yes"
		}
		s.out.Println(s.out.Paint(term.Bold, "+--- "+term.Clean(i.Name)))
		for _, row := range [][2]string{
			{"namespace", term.Clean(i.Namespace)}, {"version", cmp.Or(term.Clean(i.Version), "-")}, {"pid", strconv.Itoa(i.PID)},
			{"pm2 id", strconv.Itoa(i.ID)}, {"status", statusWord(i)}, {"mode", i.Mode}, {"restarted", strconv.Itoa(i.Restarts)},
			{"uptime", uptime(i, now)}, {"streams", streamsCell(i)}, {"memory usage", term.Bytes(i.Memory)}, {"error log", i.ErrorFile}, {"watching", watching},
		} {
			s.out.Println(row[0] + " : " + row[1])
		}
		if why := s.whyLines(i, now); len(why) > 0 {
			s.out.Println("reason : " + strings.Join(why, "; "))
		}
	}
}
