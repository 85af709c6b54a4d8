package monit

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// hint is a key and what it does, in one word.
type hint struct{ key, does string }

// footer is a question, what is typed, what happened, what is being done, or
// the keys: the first of these that there is.
func (m *model) footer() string {
	few := keyHints([]hint{{"?", "help"}, {"q", "quit"}}, m.width) + " "
	switch {
	case m.mode == helping:
		return fit(faint.on(" any key closes this help"), m.width)
	case m.mode == confirming:
		question := busy.on(" stop "+m.asked.label+"? ") + bold.on("y") + faint.on(" yes  ") + bold.on("n") + faint.on(" no")
		return fit(question, m.width)
	case m.mode == filtering:
		return between(" /"+m.filter+chosen.on(" "), keyHints([]hint{{"enter", "keep"}, {"esc", "undo"}}, m.width)+" ", m.width)
	case m.note.text != "" && (!m.note.minor || len(m.working) == 0):
		look := normal
		if m.note.bad {
			look = bad
		}
		return between(look.on(" "+m.note.text), few, m.width)
	case len(m.working) > 0:
		return between(busy.on(" "+m.workText()), few, m.width)
	}
	return fit(keyHints(m.usualKeys(), m.width), m.width)
}

func (m *model) workText() string {
	w := m.working[len(m.working)-1]
	text := fmt.Sprintf("%s %s, %s", w.verb.doing(), w.label, duration(m.now.Sub(w.since)))
	if n := len(m.working) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// usualKeys is the keys worth a reminder.
func (m *model) usualKeys() []hint {
	if m.inLogs {
		return []hint{{m.glyphs.arrows, "scroll"}, {"pgup/dn", "page"}, {"g/G", "ends"}, {"f", "follow"}, {"w", "wrap"}, {"tab", "list"}, {"?", "help"}, {"q", "quit"}}
	}
	scope := "all"
	if m.whole {
		scope = "one"
	}
	return []hint{{m.glyphs.arrows, "move"}, {"tab", "logs"}, {"r", "restart"}, {"l", "reload"}, {"s", "stop"}, {"a", scope}, {"/", "filter"}, {"?", "help"}, {"q", "quit"}}
}

// keyHints is as many of the hints as fit, and always the last two.
func keyHints(hints []hint, width int) string {
	const always = 2
	need := func(h hint) int { return ansi.StringWidth(h.key) + len(h.does) + 3 }
	used := -1 // a space before the first, two between
	for _, h := range hints[len(hints)-always:] {
		used += need(h)
	}
	var parts []string
	for i, h := range hints {
		if i < len(hints)-always {
			if used+need(h) > width {
				continue
			}
			used += need(h)
		}
		parts = append(parts, bold.on(h.key)+faint.on(" "+h.does))
	}
	return " " + strings.Join(parts, "  ")
}

// helpRows is the key table in one or two columns, and what the signs mean.
func (m *model) helpRows(height int) []string {
	entries := make([]string, 0, len(bindings))
	for _, b := range bindings {
		show := b.show
		if m.glyphs == asciiGlyphs {
			show = strings.NewReplacer("↑ ", "", "↓ ", "").Replace(show)
		}
		entries = append(entries, "  "+bold.on(fit(show, 6))+b.doc)
	}
	legend := []string{"", "  in the logs: " + bad.on("!") + " stderr, " + accent.on("*") + " gpm itself, " + busy.on("~") + " lines are missing"}
	per, half := len(entries), m.width
	if 1+len(entries)+len(legend) > height {
		per, half = (len(entries)+1)/2, m.width/2
	}
	rows := []string{m.title("keys", "", m.width, false)}
	for i := range per {
		row := fit(entries[i], half)
		if per+i < len(entries) {
			row += fit(entries[per+i], m.width-half)
		}
		rows = append(rows, fit(row, m.width))
	}
	for _, text := range legend {
		rows = append(rows, fit(text, m.width))
	}
	return pad(rows, height, m.width)[:height]
}
