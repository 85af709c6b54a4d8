package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// sheet is the table of all results: a row for each measurement, a column for
// each supervisor, and gpm's marks.
type sheet struct {
	kinds []kind
	rows  []*row

	others, othersMissed int // marks of other tables
}

type row struct {
	what  string
	cells map[string]string // by the supervisor's name
	mark  string
	met   bool
}

// row is the row of that name, made by the first who asks for it.
func (s *sheet) row(what string) *row {
	for _, r := range s.rows {
		if r.what == what {
			return r
		}
	}
	r := &row{what: what, cells: map[string]string{}}
	s.rows = append(s.rows, r)
	return r
}

// set writes the cell of k.
func (r *row) set(k kind, format string, args ...any) *row {
	r.cells[k.name] = fmt.Sprintf(format, args...)
	return r
}

// judge holds gpm against its mark; the peers have none.
func (r *row) judge(k kind, mark string, met bool) {
	if k.name == "gpm" {
		r.mark, r.met = mark, met
	}
}

// write prints the table as Markdown, aligned for people who read it as text.
func (s *sheet) write(w io.Writer) {
	var table [][]string
	head := []string{"measured"}
	for _, k := range s.kinds {
		head = append(head, strings.TrimSpace(k.name+" "+k.version))
	}
	table = append(table, append(head, "mark for gpm"))
	for _, r := range s.rows {
		line := []string{r.what}
		for _, k := range s.kinds {
			line = append(line, r.cell(k))
		}
		table = append(table, append(line, r.verdict()))
	}
	writeTable(w, table)
}

func (r *row) cell(k kind) string {
	if k.missing != "" {
		return k.missing
	}
	if c := r.cells[k.name]; c != "" {
		return c
	}
	return "failed"
}

func (r *row) verdict() string {
	if r.mark == "" {
		return ""
	}
	return verdict(r.mark, r.met)
}

func verdict(mark string, met bool) string {
	if met {
		return mark + ": met"
	}
	return mark + ": **missed**"
}

// judged is the verdict on gpm in another table.
func (b *bench) judged(mark string, met bool) string {
	b.sheet.others++
	if !met {
		b.sheet.othersMissed++
	}
	return verdict(mark, met)
}

// missed is how many marks were missed.
func (s *sheet) missed() (missed, marks int) {
	missed, marks = s.othersMissed, s.others
	for _, r := range s.rows {
		if r.mark != "" {
			marks++
			if !r.met {
				missed++
			}
		}
	}
	return missed, marks
}

func writeTable(w io.Writer, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, line := range table {
		for i, c := range line {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

// ms is d in milliseconds, with as many digits as mean something.
func ms(d time.Duration) string {
	f := float64(d) / float64(time.Millisecond)
	if f < 100 {
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

// mib is n bytes in MiB, the unit of ps, top and gpm list.
func mib(n uint64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }
