package monit

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// Limits of one shown line.
const (
	maxLine     = 4 << 10 // bytes of a log line that are kept
	maxGrapheme = 32      // bytes of one character
	maxMarks    = 3       // combining marks on it; stacked ones smear over the screen
	maxSGR      = 64      // bytes of one colour sequence
	tabStop     = 8
)

// clean makes foreign text safe to put on the screen: control characters and
// escape sequences go, tabs become spaces, invalid UTF-8 becomes U+FFFD, and of
// a line that was rewritten by carriage returns the last writing stays. With
// colour, sequences that only set colours and attributes stay, and the line
// ends with a reset.
func clean(s string, colour bool) string {
	if plain(s) {
		return s
	}
	s = strings.TrimRight(s, "\r\n")
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	var b strings.Builder
	var state byte
	col, marks, styled := 0, maxMarks, false
	for len(s) > 0 {
		seq, width, n, next := ansi.DecodeSequence(s, state, nil)
		if n <= 0 {
			break
		}
		s, state = s[n:], next
		switch {
		case width > 0 && len(seq) > maxGrapheme:
			b.WriteRune(utf8.RuneError)
			col++
		case width > 0:
			b.WriteString(seq)
			col += width
			marks = 0
		case isMarks(seq):
			for _, r := range seq {
				if marks++; marks <= maxMarks {
					b.WriteRune(r)
				}
			}
		case seq == "\t":
			pad := tabStop - col%tabStop
			b.WriteString(strings.Repeat(" ", pad))
			col += pad
		case colour && isSGR(seq):
			b.WriteString(seq)
			styled = true
		}
	}
	if styled {
		b.WriteString(reset)
	}
	return b.String()
}

// isMarks knows combining marks; the decoder gives them apart from ASCII letters.
func isMarks(seq string) bool {
	return strings.IndexFunc(seq, func(r rune) bool { return !unicode.Is(unicode.Mn, r) }) < 0
}

// plain tells whether s is printable ASCII throughout, as most lines are.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// isSGR knows sequences that set colours and attributes and nothing else. The
// private ones that also end in m (CSI > 4 ; 2 m sets a keyboard mode) are not.
func isSGR(seq string) bool {
	if len(seq) > maxSGR || !strings.HasPrefix(seq, "\x1b[") || !strings.HasSuffix(seq, "m") {
		return false
	}
	return strings.Trim(seq[2:len(seq)-1], "0123456789;:") == ""
}

// cut is s within limit bytes, cut between two characters; the rest is named by
// an ellipsis. The result does not share memory with s if it was cut.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	i := limit
	for i > limit-utf8.UTFMax && !utf8.RuneStart(s[i]) {
		i--
	}
	return strings.Clone(s[:i]) + "…"
}
