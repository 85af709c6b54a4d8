package config

import (
	"fmt"
	"slices"
)

// field is a key of an object that is itself the value of a key ("interval" of
// "ready"): a small row of the table, with the same rules for names.
type field struct {
	name string
	typ  string // in words
	def  string // in words, for the reference
	doc  string
	set  setter // as of a Key; the member is called "ready.interval"

	kinds   []ProbeKind // the probes that have it; nil: all
	refused string      // why it may not be there, though it may elsewhere
}

// wantFields takes an object of rows. What it does not have stays as it is.
func wantFields(expected string, rows []field) setter {
	return func(d *draft, m member) {
		if m.value.kind != kindObject {
			d.wrong(m, expected)
			return
		}
		given := d.fields(m, rows)
		for _, row := range rows {
			if v, ok := given[row.name]; ok {
				row.set(d, v)
			}
		}
	}
}

// fields sorts the members of the object m by their rows, as collect does for
// an app: null is not set, unknown names and two spellings of one are reported.
func (d *draft) fields(m member, rows []field) map[string]member {
	given, seen := map[string]member{}, map[string]member{}
	for _, v := range m.value.members {
		written := v.name
		v.name = m.name + "." + written
		i := slices.IndexFunc(rows, func(f field) bool { return written == f.name || written == camelCase(f.name) })
		switch {
		case i < 0:
			d.unknownField(v, written, rows)
			continue
		case rows[i].refused != "":
			if v.value.kind != kindNull {
				d.refuseKey(v, rows[i].refused, "", "remove it")
			}
			continue
		}
		name := rows[i].name
		if first, twice := seen[name]; twice {
			if first.name != v.name { // the same spelling twice is reported already
				d.refuseKey(v, fmt.Sprintf("the same key as %q in line %d", first.name, first.at.line()), "", "keep one of them")
			}
			continue
		}
		seen[name] = v
		if v.value.kind != kindNull {
			given[name] = v
		}
	}
	return given
}

func (d *draft) unknownField(v member, written string, rows []field) {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.name
	}
	hint := ""
	if !d.l.report.full() { // else it is only counted
		if n := nearest(written, names); n != "" {
			hint = fmt.Sprintf("did you mean %q?", n)
		}
	}
	d.refuseKey(v, "unknown key", "", hint)
}
