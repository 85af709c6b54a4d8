package term

import (
	"slices"
	"strings"
)

// Table is a box of rows. Its cells are one line each.
type Table struct {
	Columns []Column
	Rows    [][]string
	// Colour paints a cell; nil paints none. It is asked by the column's
	// position in Columns and the text of the cell.
	Colour func(row, column int) Colour
	// NoHead leaves the row of titles out.
	NoHead bool
}

// Column is one column of a table.
type Column struct {
	Title string
	// Drop orders the columns that go when the terminal is too narrow: the
	// highest first; 0 never goes.
	Drop int
	// Soft is the width down to which the cells are cut rather than dropping a
	// column, Shrink the one when there is nothing left to drop; 0: never cut.
	Soft, Shrink int
}

// Print draws the table as wide as o allows; on a pipe nothing is cut or left out.
func (t *Table) Print(o *Output) {
	show, widths := t.fit(o.width)
	var b strings.Builder
	rule := func(left, middle, right string) {
		b.WriteString(left)
		for i, c := range show {
			if i > 0 {
				b.WriteString(middle)
			}
			b.WriteString(strings.Repeat("─", widths[c]+2))
		}
		b.WriteString(right + "\n")
	}
	row := func(cell func(c int) string, paint func(c int) Colour) {
		for _, c := range show {
			text := Pad(Cut(cell(c), widths[c]), widths[c])
			b.WriteString("│ " + o.Paint(paint(c), text) + " ")
		}
		b.WriteString("│\n")
	}
	rule("┌", "┬", "┐")
	if !t.NoHead {
		row(func(c int) string { return t.Columns[c].Title }, func(int) Colour { return Cyan })
		rule("├", "┼", "┤")
	}
	for r, cells := range t.Rows {
		row(func(c int) string { return cells[c] }, func(c int) Colour {
			if t.Colour == nil {
				return None
			}
			return t.Colour(r, c)
		})
	}
	rule("└", "┴", "┘")
	o.Write([]byte(b.String()))
}

// fit chooses the columns to show, in order, and a width for each column.
func (t *Table) fit(width int) (show, widths []int) {
	widths = make([]int, len(t.Columns))
	for c, column := range t.Columns {
		show = append(show, c)
		if !t.NoHead {
			widths[c] = Width(column.Title)
		}
		for _, r := range t.Rows {
			widths[c] = max(widths[c], Width(r[c]))
		}
	}
	if width <= 0 {
		return show, widths
	}
	soft := slices.Clone(widths)
	for c, column := range t.Columns {
		if column.Soft > 0 {
			soft[c] = min(soft[c], column.Soft)
		}
	}
	for t.over(show, soft, width) > 0 {
		at := t.nextDrop(show)
		if at < 0 {
			break
		}
		show = append(show[:at:at], show[at+1:]...)
	}
	for _, c := range show {
		over := t.over(show, widths, width)
		if most := widths[c] - t.Columns[c].Shrink; over > 0 && t.Columns[c].Shrink > 0 && most > 0 {
			widths[c] -= min(over, most)
		}
	}
	return show, widths
}

// over is by how many columns of the terminal the table is too wide.
func (t *Table) over(show, widths []int, width int) int {
	sum := 1
	for _, c := range show {
		sum += widths[c] + 3
	}
	return sum - width
}

func (t *Table) nextDrop(show []int) int {
	at, most := -1, 0
	for i, c := range show {
		if d := t.Columns[c].Drop; d > most {
			at, most = i, d
		}
	}
	return at
}
