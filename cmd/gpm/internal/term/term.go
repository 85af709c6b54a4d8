// Package term is how gpm speaks on a terminal: widths, colours, tables, and
// its three voices on stderr (error, warning, hint).
package term

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
	xterm "golang.org/x/term"
)

// Output is where text goes and what may be done to it there.
type Output struct {
	w       io.Writer
	width   int
	fixed   bool // by COLUMNS
	colour  bool
	rewrite bool
	status  string // the line that Status shows
}

// NewOutput looks at w: text is coloured only on a terminal, and neither with
// NO_COLOR nor with TERM=dumb. COLUMNS overrides the width of a terminal, and
// gives one to a pipe.
func NewOutput(w io.Writer, getenv func(string) string) *Output {
	o := &Output{w: w}
	if f, ok := w.(*os.File); ok && xterm.IsTerminal(int(f.Fd())) {
		o.width = 80 // a terminal that does not know its size, as serial consoles
		if n, _, err := xterm.GetSize(int(f.Fd())); err == nil && n > 0 {
			o.width = n
		}
		o.rewrite = getenv("TERM") != "dumb"
		o.colour = o.rewrite && getenv("NO_COLOR") == ""
	}
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 {
		o.width, o.fixed = n, true
	}
	return o
}

// Width is the number of columns; 0 means that it is not a terminal and lines
// may have any length.
func (o *Output) Width() int { return o.width }

// Plain switches colours off.
func (o *Output) Plain() { o.colour = false }

// CanRewrite tells whether Status works: on a terminal that can erase a line.
func (o *Output) CanRewrite() bool { return o.rewrite }

// Room is the number of columns that Status has.
func (o *Output) Room() int {
	// A terminal that became narrower would wrap the line, and only the last
	// part of it could be erased.
	if f, ok := o.w.(*os.File); ok && !o.fixed {
		if n, _, err := xterm.GetSize(int(f.Fd())); err == nil && n > 0 {
			o.width = n
		}
	}
	return max(o.width-1, 1) // the last column is the cursor's
}

// Status shows text as the last line of the terminal in place of the one it
// showed before; "" takes that away. Nothing else may be written meanwhile but
// by Above. It does nothing where it is not CanRewrite.
func (o *Output) Status(text string) {
	if !o.rewrite {
		return
	}
	if text = Cut(text, o.Room()); text == o.status {
		return
	}
	o.status = text
	io.WriteString(o.w, eraseLine+text)
}

// Above prints a line above the status line.
func (o *Output) Above(text string) {
	below := o.status
	o.Status("")
	o.Println(text)
	o.Status(below)
}

// eraseLine goes to the first column and erases to the end of the line.
const eraseLine = "\r\x1b[K"

// Write makes Output an io.Writer.
func (o *Output) Write(p []byte) (int, error) { return o.w.Write(p) }

// Printf prints; nobody can be told when a terminal is gone, so errors are dropped.
func (o *Output) Printf(format string, args ...any) { fmt.Fprintf(o.w, format, args...) }

// Println prints one line.
func (o *Output) Println(text string) { io.WriteString(o.w, text+"\n") }

// Colour is an SGR code of the 16 that every terminal has, so that a user's
// theme decides what they look like.
type Colour string

// The colours gpm uses.
const (
	None   Colour = ""
	Bold   Colour = "1"
	Faint  Colour = "2"
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
	Blue   Colour = "34"
	Cyan   Colour = "36"
)

// Paint colours text, where colours are wanted.
func (o *Output) Paint(c Colour, text string) string {
	if !o.colour || c == None || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Voices are gpm's three ways to speak on stderr.
type Voices struct{ Out *Output }

// Error says what went wrong.
func (v Voices) Error(text string) { v.say(Red, "error: ", text) }

// Warning says what may go wrong.
func (v Voices) Warning(text string) { v.say(Yellow, "warning: ", text) }

// Hint proposes what to do next.
func (v Voices) Hint(text string) { v.say(Cyan, "hint: ", text) }

func (v Voices) say(c Colour, who, text string) {
	first, rest, more := strings.Cut(strings.TrimRight(text, "\n"), "\n")
	v.Out.Println(v.Out.Paint(c, who) + first)
	if more {
		for line := range strings.SplitSeq(rest, "\n") {
			v.Out.Println("  " + line)
		}
	}
}

// Width is the number of columns that text takes, without its colours.
func Width(text string) int { return ansi.StringWidth(text) }

// Cut shortens text to n columns, the last of them "…" if something is missing.
func Cut(text string, n int) string {
	if n <= 0 {
		return ""
	}
	return ansi.Truncate(text, n, "…")
}

// Pad fills text with spaces up to n columns.
func Pad(text string, n int) string {
	return text + strings.Repeat(" ", max(0, n-Width(text)))
}

// Clean makes one line of text from outside fit to be shown: no control
// characters that could move the cursor or change the terminal's title.
func Clean(text string) string {
	bad := func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 }
	if strings.IndexFunc(text, bad) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		if bad(r) {
			return -1
		}
		return r
	}, ansi.Strip(text))
}
