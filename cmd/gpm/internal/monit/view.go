package monit

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// render draws the whole screen: height rows of exactly width cells.
func (m *model) render() string {
	l := m.measure()
	if l.tooSmall {
		return m.renderTooSmall()
	}
	rows := append(make([]string, 0, m.height), m.header())
	switch {
	case m.mode == helping:
		rows = append(rows, m.helpRows(m.height-2)...)
	case l.wide:
		near, far := append(m.listRows(l), m.detailRows(l)...), m.logRows(l)
		bar := faint.on(" " + m.glyphs.bar + " ")
		for i := range near {
			rows = append(rows, near[i]+bar+far[i])
		}
	default:
		rows = append(rows, m.listRows(l)...)
		rows = append(rows, m.detailRows(l)...)
		rows = append(rows, m.logRows(l)...)
	}
	screen := strings.Join(append(rows, m.footer()), "\n")
	if m.glyphs == asciiGlyphs {
		screen = strings.ReplaceAll(screen, "…", "~")
	}
	return screen
}

func (m *model) renderTooSmall() string {
	text := fmt.Sprintf("%dx%d is too small, monit needs %dx%d; q leaves", m.width, m.height, minWidth, minHeight)
	return strings.Join(pad([]string{fit(text, m.width)}, m.height, m.width), "\n")
}

// pad fills up with empty rows.
func pad(rows []string, height, width int) []string {
	for len(rows) < height {
		rows = append(rows, fit("", width))
	}
	return rows
}

// header tells which daemon it is, how its instances are, and how the host is;
// or that the daemon is away.
func (m *model) header() string {
	left := headline.on(strings.TrimSpace("gpm "+clean(m.list.Daemon.Version, false))) + "  "
	state := m.condition()
	left += m.counts(m.width - ansi.StringWidth(left) - ansi.StringWidth(state) - 2)
	if m.filter != "" && m.mode != filtering {
		left += "  " + accent.on("/"+m.filter)
	}
	if more := left + "  " + faint.on("list not saved"); m.list.Daemon.Unsaved && ansi.StringWidth(more+state) < m.width {
		left = more
	}
	return between(left, state, m.width)
}

// condition is how the daemon is, or if all is well, the host.
func (m *model) condition() string {
	switch {
	case !m.link.up:
		return badBold.on(m.gone())
	case m.fresh.silent:
		return badBold.on("the daemon does not answer")
	}
	h := m.list.Host
	return fmt.Sprintf("%s %.0f%%  %s %s/%s", faint.on("cpu"), h.CPU, faint.on("mem"), size(h.MemoryUsed), size(h.MemoryTotal))
}

func (m *model) gone() string {
	left := m.link.next.Sub(m.now)
	if left <= 0 {
		return "daemon gone, reconnecting"
	}
	return "daemon gone, reconnecting in " + until(left)
}

// title is a rule with words at its two ends.
func (m *model) title(left, atRight string, width int, focus bool) string {
	sign, look := m.glyphs.line, bold
	if focus {
		sign, look = m.glyphs.point, headline
	}
	if atRight = ansi.Truncate(atRight, width/2, "…"); atRight != "" {
		atRight = " " + atRight + " " + m.glyphs.line
	}
	room := width - ansi.StringWidth(atRight) - 3
	if ansi.StringWidth(left) > room {
		left = ansi.Truncate(left, max(room, 0), "…")
	}
	fill := max(room-ansi.StringWidth(left), 0)
	return look.on(sign+" "+left) + " " + faint.on(strings.Repeat(m.glyphs.line, fill)+atRight)
}

// logRows is the title of the log pane and the lines, oldest first.
func (m *model) logRows(l layout) []string {
	v := &m.logs
	_, name := m.concerned()
	textWidth := m.textWidth(l)
	end := v.topAtEnd(l.logs, textWidth)
	top := end
	if !v.follow {
		top = min(v.top, end)
	}
	var rows []string
	for serial := top; serial < v.next && len(rows) < l.logs; serial++ {
		rows = append(rows, m.logLine(v.at(serial), l, textWidth)...)
	}
	if surplus := len(rows) - l.logs; surplus > 0 {
		if v.follow { // a line that is longer than the pane: its end
			rows = rows[surplus:]
		}
		rows = rows[:l.logs]
	}
	if v.next == 0 && name != "" {
		rows = append(rows, faint.on(fit("  no lines yet", l.logWidth)))
	}
	title := m.title(strings.TrimSpace("logs "+name), v.place(end, m.now), l.logWidth, m.inLogs)
	return append([]string{title}, pad(rows, l.logs, l.logWidth)...)
}

func (m *model) logLine(l line, size layout, textWidth int) []string {
	gutter := string(l.mark) + " "
	switch l.mark {
	case markErr:
		gutter = bad.on(gutter)
	case markGpm:
		gutter = accent.on(gutter)
	case markSkip:
		return []string{busy.on(fit(gutter+l.text, size.logWidth))}
	case markOut:
	}
	if n := m.whoWidth(size); n > 0 {
		gutter += faint.on(fitMiddle(l.who, n-1)) + " "
	}
	if !m.logs.wrap {
		return []string{gutter + fit(l.text, textWidth)}
	}
	rows := wrapText(l.text, textWidth)
	for i, r := range rows {
		if i == 1 {
			gutter = strings.Repeat(" ", size.logWidth-textWidth)
		}
		rows[i] = gutter + fit(r, textWidth)
	}
	return rows
}
