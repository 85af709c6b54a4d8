package monit

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"gpm/supervisor/api"
)

// fact is a line of the detail: what it is about, and what it is.
type fact struct {
	about, text string
	look        style
}

// facts is what there is to say of an instance, the most urgent first.
func (m *model) facts(in api.Instance) []fact {
	all := []fact{
		{"why", clean(in.Reason, false), normal},
		{"next try", m.nextTry(in), busy},
		{"logs", logTrouble(in), bad},
		{"health", healthTrouble(in), bad},
		{"streams", m.streamsText(in), normal},
		{"process", processText(in), normal},
		{"listens", listensText(in), normal},
		{"last exit", m.lastExit(in.LastExit), normal},
		{"app", appText(in), normal},
		{"out", clean(in.OutFile, false), faint},
		{"err", clean(in.ErrorFile, false), faint},
	}
	said := all[:0]
	for _, f := range all {
		if f.text != "" {
			said = append(said, f)
		}
	}
	return said
}

func (m *model) nextTry(in api.Instance) string {
	if in.NextTry == nil {
		return ""
	}
	text := "now"
	if left := in.NextTry.Sub(m.now); left > 0 {
		text = "in " + until(left)
	}
	if in.Unstable > 0 {
		text += fmt.Sprintf(", after %s", plural(in.Unstable, "unstable restart"))
	}
	return text
}

func logTrouble(in api.Instance) string {
	text := clean(in.LogProblem, false)
	if text == "" && in.LogsDropped > 0 {
		text = fmt.Sprintf("%d lines dropped", in.LogsDropped)
	}
	return text
}

func processText(in api.Instance) string {
	var text string
	switch {
	case in.PID != 0:
		text = fmt.Sprintf("pid %d, generation %d", in.PID, in.Generation)
	case in.Draining > 0:
		text = fmt.Sprintf("none, generation %d", in.Generation)
	default:
		return ""
	}
	if in.Draining > 0 {
		text += fmt.Sprintf(", %d old", in.Draining)
	}
	if in.Watching {
		text += ", watched"
	}
	return text
}

func healthTrouble(in api.Instance) string {
	if in.Health == "ok" {
		return ""
	}
	return clean(in.Health, false)
}

// streamsText is how many there are, which of them finish in old processes, and
// how new ones are dealt out.
func (m *model) streamsText(in api.Instance) string {
	if in.Traffic == "" && in.Streams == 0 {
		return ""
	}
	parts := []string{strconv.Itoa(in.Streams)}
	if in.Idle > 0 {
		parts = append(parts, fmt.Sprintf("%d idle", in.Idle))
	}
	if in.Queue > 0 {
		parts = append(parts, fmt.Sprintf("%d not accepted yet", in.Queue))
	}
	old, until := 0, time.Time{}
	for _, o := range in.Outgoing {
		if o.PID == in.PID {
			continue
		}
		old += o.Streams
		if o.Deadline.After(until) {
			until = o.Deadline
		}
	}
	if old > 0 {
		text := fmt.Sprintf("%d in old processes", old)
		if !until.IsZero() {
			text += " for " + duration(until.Sub(m.now)) + " at most"
		}
		parts = append(parts, text)
	}
	switch in.Traffic {
	case api.Away:
		parts = append(parts, "no new ones")
	case api.Queueing:
		parts = append(parts, "new ones wait")
	case api.Serving:
	}
	if how := clean(in.Steering, false); how != "" {
		parts = append(parts, how)
	}
	return strings.Join(parts, ", ")
}

func listensText(in api.Instance) string {
	text, hold := listens(in, ", "), clean(in.Hold, false)
	switch {
	case text == "" && strings.HasPrefix(hold, "unavailable"):
		return "holding is " + hold
	case text == "":
		return ""
	case hold == "" || hold == "off":
		return text + ", not held"
	}
	return text + ", " + hold
}

func (m *model) lastExit(e *api.Exit) string {
	if e == nil {
		return ""
	}
	text := clean(e.Reason, false)
	switch {
	case text != "":
	case e.Unknown:
		text = "nobody saw how"
	case e.Signal != "":
		text = "killed by " + clean(e.Signal, false)
	default:
		text = fmt.Sprintf("exited with code %d", e.Code)
	}
	if e.Uptime > 0 {
		text += " after " + duration(e.Uptime.D())
	}
	if !e.At.IsZero() {
		text += ", " + duration(m.now.Sub(e.At)) + " ago"
	}
	return text
}

func appText(in api.Instance) string {
	var parts []string
	for _, p := range []string{in.Version, in.Mode, in.User, in.Namespace} {
		if p = clean(p, false); p != "" && p != "default" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ", ")
}

// detailRows is the title and the facts of the selected instance: one per row
// where there is room, else side by side.
func (m *model) detailRows(l layout) []string {
	in, ok := m.selection()
	if !ok {
		return pad([]string{m.title("nothing selected", "", l.width, false)}, 1+l.detail, l.width)
	}
	place := fmt.Sprintf("%d of %d", m.selectedRow()+1, len(m.rows))
	rows := []string{m.title(label(in)+" "+clean(string(in.Status), false), place, l.width, false)}
	facts := m.facts(in)
	if !l.wide {
		rows = append(rows, flow(facts, l.width, l.detail)...)
	} else {
		rows = append(rows, m.column(facts, in.LastExit, l.width)...)
	}
	return pad(rows, 1+l.detail, l.width)[:1+l.detail]
}

// column puts facts one below the other, and below them what the app wrote
// before it ended.
func (m *model) column(facts []fact, exit *api.Exit, width int) []string {
	const about = 12
	var rows []string
	for _, f := range facts {
		for i, text := range wrapText(f.text, width-about) {
			if i > 0 {
				f.about = ""
			}
			rows = append(rows, fit("  "+faint.on(fit(f.about, about-2))+f.look.on(text), width))
		}
	}
	if exit == nil || len(exit.Tail) == 0 {
		return rows
	}
	rows = append(rows, fit("", width), faint.on(fit("  last lines before that exit", width)))
	for _, l := range exit.Tail {
		rows = append(rows, m.logLine(newLine(l), layout{logWidth: width}, width-2)...)
	}
	return rows
}

// flow puts facts side by side as long as they fit, in at most limit rows.
func flow(facts []fact, width, limit int) []string {
	var rows []string
	row, used := "", 0
	for _, f := range facts {
		text := "  " + faint.on(f.about) + " " + f.look.on(f.text)
		n := ansi.StringWidth(text)
		if used > 0 && used+n > width {
			rows = append(rows, fit(row, width))
			row, used = "", 0
		}
		if len(rows) == limit {
			return rows
		}
		row += text
		used += n
	}
	if used > 0 {
		rows = append(rows, fit(row, width))
	}
	return rows
}
