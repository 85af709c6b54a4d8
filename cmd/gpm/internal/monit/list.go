package monit

import (
	"fmt"
	"strconv"
	"strings"

	"gpm/supervisor/api"
)

// listRows is the heads of the list and its rows.
func (m *model) listRows(l layout) []string {
	cells := columns(l.width)
	rows := []string{faint.on(fit(" "+m.heads(cells), l.width))}
	for i := range l.list {
		at := m.top + i
		switch {
		case at < len(m.rows):
			rows = append(rows, m.listRow(m.rows[at], cells, l.width))
		case i == 0 && m.filter != "":
			rows = append(rows, fit(fmt.Sprintf("  no name has %q in it", m.filter), l.width))
		case i == 0:
			rows = append(rows, fit("  nothing here yet: gpm start <script or config>", l.width))
		default:
			rows = append(rows, fit("", l.width))
		}
	}
	return rows
}

func (m *model) heads(cells []cell) string {
	var b strings.Builder
	for _, c := range cells {
		text := string(c.column)
		if c.column == colRestarts && c.width < len(text) {
			text = m.glyphs.waiting
		}
		if c.isNumber() {
			text = right(text, c.width)
		}
		b.WriteString(fit(text, c.width) + " ")
	}
	return b.String()
}

// listRow is one instance. The selected one has one look for the whole row, as
// colours within a reversed row become patches.
func (m *model) listRow(in api.Instance, cells []cell, width int) string {
	selected := in.ID == m.selected
	var b strings.Builder
	if selected {
		b.WriteString(m.glyphs.point)
	} else {
		b.WriteByte(' ')
	}
	for _, c := range cells {
		text, look := m.cellText(in, c)
		switch {
		case c.column == colName:
			text = fitMiddle(text, c.width)
		case c.isNumber():
			text = right(text, c.width)
		default:
			text = fit(text, c.width)
		}
		if selected || !m.link.up {
			look = normal
		}
		b.WriteString(look.on(text) + " ")
	}
	row := fit(b.String(), width)
	switch {
	case selected && !m.inLogs:
		return chosen.on(row)
	case selected:
		return bold.on(row)
	case !m.link.up: // what was true when the daemon went
		return faint.on(row)
	}
	return row
}

func (m *model) cellText(in api.Instance, c cell) (string, style) {
	alive := in.PID != 0
	switch c.column {
	case colID:
		return strconv.Itoa(in.ID), faint
	case colName:
		return label(in), normal
	case colState:
		return m.state(in, c.width)
	case colCPU:
		if alive {
			return percent(in.CPU), normal
		}
	case colMemory:
		if alive {
			return size(in.Memory), normal
		}
	case colStreams:
		switch {
		case in.Streams > 0:
			return strconv.Itoa(in.Streams), normal
		case alive && in.Traffic != "":
			return "0", faint
		}
	case colRestarts:
		if in.Restarts > 0 {
			return strconv.Itoa(in.Restarts), normal
		}
		return "0", faint
	case colUptime:
		if alive && !in.Started.IsZero() {
			return duration(m.now.Sub(in.Started)), normal
		}
	case colPID:
		if alive {
			return strconv.Itoa(in.PID), faint
		}
	case colListen:
		if text := listens(in, " "); text != "" {
			return text, faint
		}
	}
	return "-", faint
}

func (m *model) state(in api.Instance, width int) (string, style) {
	sign, look := m.glyphs.sign(in.Status)
	word := statusWord(in)
	if in.Status == api.Online && in.Traffic == api.Away {
		sign, look = m.glyphs.busy, busy
	}
	switch {
	case in.Draining > 0 && width >= 17 && len(word) <= len("launching"):
		word += fmt.Sprintf(" +%d old", in.Draining)
	case in.Draining > 0:
		word += fmt.Sprintf(" +%d", in.Draining)
	case width < 17 && in.Status == api.Waiting:
		word = shortStatus(in.Status)
	}
	return sign + " " + word, look
}

// statusWord is the status, or how far an instance without traffic is.
func statusWord(in api.Instance) string {
	switch {
	case in.Status != api.Online || in.Traffic != api.Away:
		return clean(string(in.Status), false)
	case in.Streams > in.Idle:
		return "draining"
	}
	return "drained"
}

// listens is the addresses of an instance; one that nobody accepts on is in brackets.
func listens(in api.Instance, sep string) string {
	var parts []string
	for _, l := range in.Listeners {
		if a := clean(l.Address, false); l.Listening {
			parts = append(parts, a)
		} else {
			parts = append(parts, "("+a+")")
		}
	}
	return strings.Join(parts, sep)
}
