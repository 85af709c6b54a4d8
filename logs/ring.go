package logs

import (
	"bytes"
	"time"
)

const (
	ringLines = 20
	ringLine  = 4 << 10
)

// ring holds the last lines of a source, for the report of its end.
type ring struct {
	slots [ringLines]struct {
		text []byte // at most ringLine
		at   time.Time
	}
	count int  // lines ever added
	open  bool // the last one goes on
}

// add remembers the last lines of text, a batch. goesOn: its first line is the
// rest of the one before.
func (r *ring) add(text []byte, goesOn bool, at time.Time) {
	if len(text) == 0 {
		return
	}
	open := text[len(text)-1] != '\n'
	if !open {
		text = text[:len(text)-1]
	}
	var starts [ringLines]int
	n, end := 0, len(text)
	for n < ringLines {
		starts[n] = bytes.LastIndexByte(text[:end], '\n') + 1
		n++
		if starts[n-1] == 0 {
			break
		}
		end = starts[n-1] - 1
	}
	for i := n - 1; i >= 0; i-- {
		line := text[starts[i]:]
		if i > 0 {
			line = text[starts[i] : starts[i-1]-1]
		}
		if !(goesOn && r.open && starts[i] == 0) {
			r.count++
			r.slot(r.count - 1).text = r.slot(r.count - 1).text[:0]
		}
		s := r.slot(r.count - 1)
		s.text = append(s.text, line[:min(len(line), ringLine-len(s.text))]...)
		s.at = at
	}
	r.open = open
}

func (r *ring) slot(i int) *struct {
	text []byte
	at   time.Time
} {
	return &r.slots[i%ringLines]
}

// last is the last n lines.
func (r *ring) last(n int, s Source) []Line {
	n = max(0, min(n, r.count, ringLines))
	lines := make([]Line, 0, n)
	for i := r.count - n; i < r.count; i++ {
		slot := r.slot(i)
		lines = append(lines, Line{Source: s, At: slot.at, Text: string(slot.text)})
	}
	return lines
}
