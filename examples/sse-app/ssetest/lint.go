// Package ssetest checks streams of Server-Sent Events, for tests: a parser
// that does exactly what the standard says, and a linter that forbids much of
// what the standard allows, because some client in use stumbles over it.
//
//	parse.go   what a browser understands; vectors.go has the cases
//	lint.go    what must not be sent
//	openai.go  the order of a chat stream
//	reader.go  the linter on everything that a test reads
package ssetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Options are what differs from stream to stream.
type Options struct {
	OpenAI  bool             // a chat stream: chunks in order, no names, one line of JSON each
	JSON    bool             // data that is JSON stands on one line: some clients parse each line
	Foreign bool             // somebody else chose ids, names and data: they may be odd, data may be empty, and the event long
	Silence time.Duration    // longest time without a byte; zero: 20 s
	Now     func() time.Time // the clock for that; nil: time.Now
}

const (
	maxEvent   = 64 << 10
	maxForeign = 4 << 20
	maxName    = 256
	maxSilence = 20 * time.Second // unless Options says otherwise; proxies cut connections after 30 s and more
)

// Finding is one fault of a stream.
type Finding struct {
	Offset int64 // of the byte, or of the event that it is about
	Line   int   // from 1
	Rule   string
	Text   string
}

func (f Finding) String() string {
	return fmt.Sprintf("byte %d, line %d: %s: %s", f.Offset, f.Line, f.Rule, f.Text)
}

// Lint checks a whole stream that ended cleanly.
func Lint(stream string, o Options) (found []Finding) {
	l := NewLinter(o, func(f Finding) { found = append(found, f) })
	l.Write([]byte(stream))
	l.End()
	return found
}

// Linter checks a stream as it comes in. It belongs to one goroutine.
type Linter struct {
	o      Options
	max    int // bytes of an event
	report func(Finding)
	chat   *chat // nil: no chat stream
	at     place // where the next byte will be
	line   []byte
	block  block // lines since the last blank one
	sawCR  bool  // once is enough
}

// place is a byte of the stream.
type place struct {
	offset int64
	line   int
}

// block is an event on its way.
type block struct {
	place         // where it begins, comments before it left out
	size          int
	lines, fields int            // lines: the blank one too
	seen          map[string]int // lines of each field
	closed        bool           // another field came after the data
	name          string
	data          []string
}

// NewLinter hands what it finds to report.
func NewLinter(o Options, report func(Finding)) *Linter {
	l := &Linter{o: o, max: maxEvent, report: report, at: place{line: 1}}
	if o.Foreign {
		l.max = maxForeign
	}
	if o.OpenAI {
		l.chat = &chat{}
	}
	l.newBlock()
	return l
}

func (l *Linter) newBlock() { l.block = block{place: l.at, seen: map[string]int{}} }

func (l *Linter) fault(at place, rule, format string, args ...any) {
	l.report(Finding{Offset: at.offset, Line: at.line, Rule: rule, Text: fmt.Sprintf(format, args...)})
}

// Write takes the next bytes. It never fails.
func (l *Linter) Write(b []byte) (int, error) {
	for _, c := range b {
		l.at.offset++
		l.block.size++
		if l.block.size == l.max+1 {
			l.fault(l.block.place, "size", "the event is longer than %d bytes", l.max)
		}
		if c != '\n' {
			if l.block.size <= l.max || len(l.line) == 0 { // no more of it is kept
				l.line = append(l.line, c)
			}
			continue
		}
		l.endLine()
	}
	return len(b), nil
}

// End is the clean end of the stream: what an abort leaves behind is no fault.
func (l *Linter) End() {
	l.checkBytes(place{l.at.offset - int64(len(l.line)), l.at.line})
	if len(l.line) > 0 || l.block.fields > 0 {
		l.fault(l.block.place, "unfinished", "the stream ends inside an event; clients drop %.60q", strings.Join(append(l.block.data, string(l.line)), "\n"))
	}
	if l.chat != nil {
		l.chat.end(func(text string) { l.fault(l.at, "openai", "%s", text) })
	}
}

func (l *Linter) endLine() {
	start := place{l.at.offset - 1 - int64(len(l.line)), l.at.line}
	l.checkBytes(start)
	line := strings.TrimSuffix(string(l.line), "\r")
	if start.offset == 0 {
		line = strings.TrimPrefix(line, bom)
	}
	l.line = l.line[:0]
	l.at.line++
	switch l.block.lines++; {
	case line == "":
		l.endBlock(start)
		l.newBlock()
	case l.block.size > l.max: // its lines are not whole
	case line[0] == ':' && l.block.fields == 0:
		l.block.place, l.block.size = l.at, 0 // the event begins later
	default:
		l.checkLine(start, line)
	}
}

func (l *Linter) checkBytes(start place) {
	at := func(i int) place { return place{start.offset + int64(i), start.line} }
	for i, c := range l.line {
		switch {
		case c == 0 && !(l.o.Foreign && strings.HasPrefix(string(l.line), "data:")):
			l.fault(at(i), "NUL", "a NUL byte: clients ignore an id that has one")
		case c == '\r' && !l.sawCR:
			l.sawCR = true
			l.fault(at(i), "CR", "a CR ends a line too, and some clients do not know it")
		}
	}
	if start.offset == 0 && strings.HasPrefix(string(l.line), bom) {
		l.fault(start, "BOM", "some clients lose the first event behind a byte order mark")
	}
	for i, rest := 0, l.line; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			l.fault(at(i), "UTF-8", "byte %#02x is not UTF-8", rest[0])
			break
		}
		i, rest = i+n, rest[n:]
	}
}

// checkLine takes one line that is not blank.
func (l *Linter) checkLine(at place, line string) {
	b := &l.block
	name, value := field(line)
	if name == "" {
		l.fault(at, "comment", "a comment inside an event; heartbeats stand between events")
		return
	}
	b.fields++
	b.seen[name]++
	if name != "data" {
		b.closed = b.closed || len(b.data) > 0
		if b.seen[name] == 2 {
			l.fault(at, "twice", "a second %q in one event: a value with a line end in it, or no blank line in between", name)
		}
	}
	switch name {
	case "data":
		if b.closed {
			l.fault(at, "blank-line", "data again after another field: the blank line in between is missing")
			b.closed = false
		}
		b.data = append(b.data, value)
	case "event":
		b.name = value
		l.checkName(at, name, value)
	case "id":
		l.checkName(at, name, value)
	case "retry":
		if _, ok := milliseconds(value); !ok {
			l.fault(at, "retry", "%.40q is not a number of milliseconds", value)
		}
	default:
		l.fault(at, "field", "no client knows %.40q", line)
	}
}

// checkName is for ids and names: short, visible ASCII. What else arrives there
// has been put together from foreign text without a look at it.
func (l *Linter) checkName(at place, field, value string) {
	if l.o.Foreign {
		return
	}
	odd := strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
	switch {
	case value == "":
		l.fault(at, field, "an empty %s", field)
	case odd >= 0 || len(value) > maxName:
		l.fault(at, field, "%.60q is not short and visible ASCII", value)
	}
}

// endBlock judges what a blank line ended.
func (l *Linter) endBlock(at place) {
	b := &l.block
	data := strings.Join(b.data, "\n")
	switch {
	case b.size > l.max: // has been said
		return
	case b.lines == 1:
		l.fault(at, "blank-line", "a blank line that ends nothing; some clients call their handler")
		return
	case b.fields == 0:
		l.fault(at, "comment", "a blank line after a comment; some clients call their handler with nothing")
		return
	case len(b.data) == 0:
		l.fault(b.place, "no-data", "an event without data; clients call their handler, or fail to read it")
		return
	case data == "" && !l.o.Foreign:
		l.fault(b.place, "heartbeat", "empty data reaches the client's handler; a heartbeat is a comment")
	case len(b.data) > 1 && (l.o.JSON || l.o.OpenAI) && looksLikeJSON(b.data):
		l.fault(b.place, "JSON", "JSON over %d lines of data, or events without a blank line in between: %.60q", len(b.data), data)
	}
	if l.chat == nil {
		return
	}
	if b.name != "" {
		l.fault(b.place, "openai", "an event with a name: %.40q", b.name)
	}
	l.chat.take(data, func(text string) { l.fault(b.place, "openai", "%s", text) })
}

// looksLikeJSON: all lines together are an object or a list, or each is.
func looksLikeJSON(lines []string) bool {
	whole := strings.TrimSpace(strings.Join(lines, "\n"))
	if whole == "" || !strings.ContainsRune("{[", rune(whole[0])) {
		return false
	}
	return json.Valid([]byte(whole)) || json.Valid([]byte(lines[0]))
}
