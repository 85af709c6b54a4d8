package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds what one Load reports; a file of four million typing
// errors must neither fill the memory nor the terminal.
const maxProblems = 100

// Problem is one thing that is wrong with a config, and where. Line and Column
// count from 1, columns in characters; Line 0 means that there is no text:
// File is then the flag ("--instances"), or empty.
type Problem struct {
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	App      string `json:"app,omitempty"` // name of the app, as far as it is known
	Key      string `json:"key,omitempty"` // as it was written
	Message  string `json:"message"`
	Expected string `json:"expected,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// Error is the problem in one line.
func (p Problem) Error() string {
	var b strings.Builder
	switch {
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	case p.File != "":
		b.WriteString(p.File + ": ")
	}
	if p.App != "" {
		fmt.Fprintf(&b, "app %q: ", p.App)
	}
	if p.Key != "" && !p.isFlag() { // "--instances: key "instances"" says it twice
		fmt.Fprintf(&b, "key %q: ", p.Key)
	}
	b.WriteString(p.Message)
	if p.Expected != "" {
		b.WriteString("; expected " + p.Expected)
	}
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// String is Error.
func (p Problem) String() string { return p.Error() }

func (p Problem) isFlag() bool { return p.Line == 0 && strings.HasPrefix(p.File, "--") }

// Problems is everything that is wrong with a config, in the order of the
// text. It is never empty when it is returned as an error.
type Problems []Problem

// Error is one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// report collects problems while a config is read.
type report struct {
	list []Problem
	more int // found beyond maxProblems
	seen map[Problem]bool
}

// add takes p, unless it was said before: a bad flag is met once per app.
func (r *report) add(p Problem) {
	p.App, p.Key = shorten(p.App), shorten(p.Key)
	if p.isFlag() {
		p.App = ""
	}
	if r.seen[p] {
		return
	}
	if r.full() {
		r.more++
		return
	}
	if r.seen == nil {
		r.seen = map[Problem]bool{}
	}
	r.seen[p] = true
	r.list = append(r.list, p)
}

// addAt is add for a problem at a place. The place of one that is only counted
// is not worked out: in a long line that would take quadratic time.
func (r *report) addAt(at place, p Problem) {
	if r.full() {
		r.more++
		return
	}
	q := at.problem()
	p.File, p.Line, p.Column = q.File, q.Line, q.Column
	r.add(p)
}

func (r *report) full() bool { return len(r.list) >= maxProblems }

// err is nil if nothing was found.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	ps := slices.Clone(r.list)
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if r.more > 0 {
		ps = append(ps, Problem{File: ps[len(ps)-1].File, Message: fmt.Sprintf("%d more problems", r.more)})
	}
	return Problems(ps)
}

// excerpt is s in quotes, short enough for one line of a terminal.
func excerpt(s string) string {
	if short := shorten(s); short != s {
		return fmt.Sprintf("%q...", strings.TrimSuffix(short, "..."))
	}
	return fmt.Sprintf("%q", s)
}

// shorten cuts s to what fits into a line with others.
func shorten(s string) string {
	const limit = 60
	runes := 0
	for i := range s {
		if runes == limit {
			return s[:i] + "..."
		}
		runes++
	}
	return s
}
