package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// kind is what a value of a config is.
type kind string

const (
	kindNull   kind = "null"
	kindBool   kind = "boolean"
	kindNumber kind = "number"
	kindText   kind = "text"
	kindList   kind = "list"
	kindObject kind = "object"
)

// node is a value with its place, be it from a file or from a flag.
type node struct {
	kind    kind
	text    string // boolean and number as written, text unescaped
	items   []node
	members []member
	at      place
	loose   bool // from a flag, where everything is text: "4" is a number too
}

// member is a key of an object with its value.
type member struct {
	name  string
	at    place
	value node
}

// source is a text whose offsets can be told as line and column.
type source struct {
	name  string
	text  []byte
	lines []int // offset of the first byte of each line
}

func newSource(name string, text []byte) *source {
	s := &source{name: name, text: text, lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// place is where something was written: an offset in a source, or a flag.
// Line and column are worked out only for what is reported, because counting
// characters in a long line for each of its values would be quadratic.
type place struct {
	src    *source
	offset int
	flag   string
}

func (p place) line() int {
	if p.src == nil {
		return 0
	}
	i, exact := slices.BinarySearch(p.src.lines, p.offset)
	if exact {
		return i + 1
	}
	return i
}

func (p place) column() int {
	if p.src == nil {
		return 0
	}
	return 1 + utf8.RuneCount(p.src.text[p.src.lines[p.line()-1]:p.offset])
}

// problem is a Problem at p.
func (p place) problem() Problem {
	if p.src == nil {
		return Problem{File: p.flag}
	}
	return Problem{File: p.src.name, Line: p.line(), Column: p.column()}
}

// fromJSON turns the syntax tree of a text into nodes.
func fromJSON(v hujson.Value, src *source) node {
	n := node{at: place{src: src, offset: v.StartOffset}}
	switch t := v.Value.(type) {
	case hujson.Literal:
		n.kind, n.text = literal(t)
	case *hujson.Array:
		n.kind = kindList
		for _, e := range t.Elements {
			n.items = append(n.items, fromJSON(e, src))
		}
	case *hujson.Object:
		n.kind = kindObject
		for _, m := range t.Members {
			name := fromJSON(m.Name, src)
			n.members = append(n.members, member{name: name.text, at: name.at, value: fromJSON(m.Value, src)})
		}
	}
	return n
}

func literal(l hujson.Literal) (kind, string) {
	switch l.Kind() {
	case '"':
		return kindText, l.String()
	case 't', 'f':
		return kindBool, string(l)
	case '0':
		return kindNumber, string(l)
	}
	return kindNull, "null"
}

// fromGo turns a value that a flag brought into a node. It reports false for a
// type that no flag has.
func fromGo(v any, at place) (node, bool) {
	n := node{at: at, loose: true}
	switch t := v.(type) {
	case nil:
		n.kind, n.text = kindNull, "null"
	case string:
		n.kind, n.text = kindText, t
	case bool:
		n.kind, n.text = kindBool, strconv.FormatBool(t)
	case int, int64, uint64, float64, json.Number:
		n.kind, n.text = kindNumber, fmt.Sprint(t)
	case []string:
		n.kind = kindList
		for _, s := range t {
			n.items = append(n.items, node{kind: kindText, text: s, at: at, loose: true})
		}
	case []any:
		n.kind = kindList
		for _, e := range t {
			item, ok := fromGo(e, at)
			if !ok {
				return n, false
			}
			n.items = append(n.items, item)
		}
	case map[string]string:
		n.kind = kindObject
		for _, k := range slices.Sorted(maps.Keys(t)) {
			n.members = append(n.members, member{name: k, at: at, value: node{kind: kindText, text: t[k], at: at, loose: true}})
		}
	default:
		return n, false
	}
	return n, true
}

// sort is describe without the value.
func (n node) sort() string {
	switch n.kind {
	case kindText:
		return "a text"
	case kindNumber:
		return "a number"
	}
	return n.describe()
}

// describe says what n is, for "got ...".
func (n node) describe() string {
	switch n.kind {
	case kindText:
		return "the text " + excerpt(n.text)
	case kindNumber:
		if len(n.text) > 60 {
			return "the number " + n.text[:60] + "..."
		}
		return "the number " + n.text
	case kindList:
		return "a list"
	case kindObject:
		return "an object"
	}
	return n.text
}

// plain is n as the text of an environment variable: a number or boolean as it
// was written, a list or object as compact JSON.
func (n node) plain() string {
	if n.kind == kindList || n.kind == kindObject {
		var b strings.Builder
		n.writeJSON(&b)
		return b.String()
	}
	return n.text
}

func (n node) writeJSON(b *strings.Builder) {
	switch n.kind {
	case kindText:
		writeQuoted(b, n.text)
	case kindList:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.writeJSON(b)
		}
		b.WriteByte(']')
	case kindObject:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			writeQuoted(b, m.name)
			b.WriteByte(':')
			m.value.writeJSON(b)
		}
		b.WriteByte('}')
	default:
		b.WriteString(n.text)
	}
}

// writeQuoted writes s as JSON text without Go's escapes for HTML: a URL with
// "&" in it must reach the app as it was written.
func writeQuoted(b *strings.Builder, s string) {
	var line strings.Builder
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	b.WriteString(strings.TrimSuffix(line.String(), "\n"))
}
