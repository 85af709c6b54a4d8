package monit

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// reset ends all colours and attributes.
const reset = "\x1b[m"

// style is the parameters of an SGR sequence, of the 16 colours that every
// terminal's theme defines. Whether colour is wanted is decided where the frame
// is written: NO_COLOR leaves bold, faint and reverse.
type style string

// The styles.
const (
	normal   style = ""
	bold     style = "1"
	faint    style = "2"
	chosen   style = "7"
	good     style = "32"
	busy     style = "33"
	bad      style = "31"
	badBold  style = "1;31"
	accent   style = "36"
	headline style = "1;36"
)

func (s style) on(text string) string {
	if s == normal || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + reset
}

// fit is s in exactly width cells: cut with an ellipsis or filled with spaces.
func fit(s string, width int) string {
	if width <= 0 {
		return ""
	}
	n := ansi.StringWidth(s)
	if n > width {
		s = ansi.Truncate(s, width, "…")
		n = ansi.StringWidth(s) // a wide character may leave a cell over
	}
	return s + strings.Repeat(" ", max(width-n, 0))
}

// right is s at the right edge of width cells.
func right(s string, width int) string {
	n := ansi.StringWidth(s)
	if n >= width {
		return fit(s, width)
	}
	return strings.Repeat(" ", width-n) + s
}

// fitMiddle is fit that cuts in the middle: names differ at their ends.
func fitMiddle(s string, width int) string {
	n := ansi.StringWidth(s)
	if n <= width || width < 5 {
		return fit(s, width)
	}
	tail := min((width-1)/2, 12)
	return fit(ansi.Truncate(s, width-1-tail, "")+"…"+ansi.TruncateLeft(s, n-tail, ""), width)
}

// between is two texts at the two ends of width cells; the left one gives way.
func between(left, atRight string, width int) string {
	n := ansi.StringWidth(atRight)
	switch {
	case n == 0:
		return fit(left, width)
	case n+2 > width:
		return fit(atRight, width)
	}
	return fit(left, width-n-1) + " " + atRight
}

// wrapText breaks s into rows of at most width cells. Colours go on in the next
// row, and each row ends without any.
func wrapText(s string, width int) []string {
	if width < 2 || ansi.StringWidth(s) <= width {
		return []string{s}
	}
	var rows []string
	var row strings.Builder
	var state byte
	active, col := "", 0
	for len(s) > 0 {
		seq, w, n, next := ansi.DecodeSequence(s, state, nil)
		if n <= 0 {
			break
		}
		s, state = s[n:], next
		switch {
		case seq == reset || seq == "\x1b[0m":
			active = ""
		case isSGR(seq) && len(active) < 4*maxSGR:
			active += seq
		case col+w > width:
			if active != "" {
				row.WriteString(reset)
			}
			rows = append(rows, row.String())
			row.Reset()
			row.WriteString(active)
			col = 0
		}
		row.WriteString(seq)
		col += w
	}
	return append(rows, row.String())
}
