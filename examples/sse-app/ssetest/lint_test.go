package ssetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func rules(found []Finding) (names []string) {
	for _, f := range found {
		names = append(names, f.Rule)
	}
	return names
}

func TestLint(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		o            Options
		want         string // rules, in order
	}{
		{name: "nothing at all"},
		{name: "right", stream: ":\nretry: 5\nid: 1\ndata: a\ndata: b\n\n:\n:\nevent: x\ndata: {}\n\n: hb\n"},
		{name: "as others write", stream: "data:a\nid:1\n\nevent:x\nretry:5\ndata: é ✓\n\n"},
		{name: "many heartbeats", stream: strings.Repeat(":\n", 40000) + "data: a\n\n"},
		{name: "as long as may be", stream: "data: " + strings.Repeat("x", maxEvent-8) + "\n\n"},
		{name: "what others chose", stream: "id: é 1\nevent: a\tb\ndata: \n\ndata: \x00\n\n", o: Options{Foreign: true}},
		{name: "what nobody may choose", stream: "id: \x00\ndata: a\n\n", o: Options{Foreign: true}, want: "NUL"},
		{name: "as long as others like", stream: "data: " + strings.Repeat("x", 2*maxEvent) + "\n\n", o: Options{Foreign: true}},
		{name: "JSON over lines that is meant", stream: "data: {\ndata: }\n\n"},
		{name: "text over lines", stream: "data: a\ndata: {}\n\ndata: [b\ndata: c\n\n", o: Options{JSON: true}},

		{name: "no line end", stream: "data: a", want: "unfinished"},
		{name: "one line end", stream: "data: a\n", want: "unfinished"},
		{name: "second one unfinished", stream: "data: a\n\ndata: b\n", want: "unfinished"},
		{name: "an unfinished comment", stream: "data: a\n\n:", want: "unfinished"},
		{name: "CRLF", stream: "data: a\r\n\r\ndata: b\r\n\r\n", want: "CR"},
		{name: "CR", stream: "data: a\r\rdata: b\r\r", want: "CR unfinished"},
		{name: "CR inside", stream: "data: a\rid: 1\n\n", want: "CR"},
		{name: "NUL", stream: "data: a\x00b\n\n", want: "NUL"},
		{name: "BOM", stream: bom + "data: a\n\n", want: "BOM"},
		{name: "bad bytes", stream: "data: \xff\xfe\n\ndata: \xe2\x82\n\n", want: "UTF-8 UTF-8"},
		{name: "retry with a unit", stream: "retry: 1s\ndata: a\n\n", want: "retry"},
		{name: "retry below zero", stream: "retry: -1\ndata: a\n\n", want: "retry"},
		{name: "retry without a value", stream: "retry\ndata: a\n\n", want: "retry"},
		{name: "empty data", stream: "data: \n\ndata\n\nevent: ping\ndata:\n\n", want: "heartbeat heartbeat heartbeat"},
		{name: "comment as an event", stream: ": hb\n\n:\n\ndata: a\n\n", want: "comment comment"},
		{name: "comment inside", stream: "data: a\n:\ndata: b\n\n", want: "comment"},
		{name: "blank lines", stream: "\ndata: a\n\n\n", want: "blank-line blank-line"},
		{name: "id alone", stream: "id: 1\n\n", want: "no-data"},
		{name: "retry alone", stream: "retry: 1\n\ndata: a\n\n", want: "no-data"},
		{name: "name alone", stream: "event: ping\n\n", want: "no-data"},
		{name: "unknown field", stream: "dat: a\ndata: b\n\n", want: "field"},
		{name: "field in capitals", stream: "Data: a\ndata: b\n\n", want: "field"},
		{name: "space before", stream: " data: a\ndata: b\n\n", want: "field"},
		{name: "empty id", stream: "id: \ndata: a\n\n", want: "id"},
		{name: "id with a space", stream: "id: 1 2\ndata: a\n\n", want: "id"},
		{name: "id beyond ASCII", stream: "id: é\ndata: a\n\n", want: "id"},
		{name: "long id", stream: "id: " + strings.Repeat("1", 300) + "\ndata: a\n\n", want: "id"},
		{name: "id with NUL", stream: "id: \x00\ndata: a\n\n", want: "NUL id"},
		{name: "name with U+2028", stream: "event: a\u2028b\ndata: a\n\n", want: "event"},
		{name: "empty name", stream: "event: \ndata: a\n\n", want: "event"},
		{name: "forged id", stream: "id: 1\nid: 2\ndata: a\n\n", want: "twice"},
		{name: "forged name", stream: "event: a\nevent: b\nevent: c\ndata: a\n\n", want: "twice"},
		{name: "no blank line", stream: "id: 1\ndata: a\nevent: x\ndata: b\n\n", want: "blank-line"},
		{name: "JSON over lines", stream: "data: {\ndata: }\n\n", o: Options{JSON: true}, want: "JSON"},
		{name: "chunks in one event", stream: "data: {\"a\":1}\ndata: {\"a\":2}\ndata: [DONE]\n\n", o: Options{JSON: true}, want: "JSON"},
		{name: "too long", stream: "data: " + strings.Repeat("x", maxEvent-7) + "\n\ndata: a\n\n", want: "size"},
		{name: "too many lines", stream: strings.Repeat("data: x\n", maxEvent/8+5) + "\ndata: a\n\n", want: "size"},
		{name: "a long comment", stream: ":" + strings.Repeat("x", 2*maxEvent) + "\ndata: a\n\n", want: "size"},
	} {
		found := Lint(tt.stream, tt.o)
		if got := strings.Join(rules(found), " "); got != tt.want {
			t.Errorf("%s: found %q, want %q: %v", tt.name, got, tt.want, found)
		}
	}
}

// A finding says where to look.
func TestFindingsNameThePlace(t *testing.T) {
	for stream, want := range map[string]string{
		"data: a\n\ndata: b\x00\n\n":      "byte 16, line 3: NUL",
		"data: a\n\n:\n\ndata: b\n\n":     "byte 11, line 4: comment",
		":\n:\ndata: a\n\nid: 1\n\n":      "byte 13, line 5: no-data",
		":\ndata: a\n\ndata: é\xffx\n\n":  "byte 19, line 4: UTF-8: byte 0xff",
		"data: a\n\nid: 1\ndata: b":       "byte 9, line 3: unfinished",
		"data: a\n\nid: 1\nretry: x\n\n":  "byte 15, line 4: retry",
		"data: a\n\ndata: b\nevent: \n\n": "byte 17, line 4: event",
	} {
		found := fmt.Sprint(Lint(stream, Options{}))
		if !strings.HasPrefix(found, "["+want) {
			t.Errorf("%q: %s, want %s", stream, found, want)
		}
	}
}

// FuzzLint: any split gives the same findings, the linter never fails, and
// what it lets pass holds no line end that some client does not see.
func FuzzLint(f *testing.F) {
	for _, v := range Vectors {
		f.Add([]byte(v.Stream), 3)
	}
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		want := Lint(string(stream), Options{JSON: true})
		var got []Finding
		l := NewLinter(Options{JSON: true}, func(f Finding) { got = append(got, f) })
		for piece := range slices.Chunk(stream, min(max(size, 1), 1000)) {
			l.Write(piece)
		}
		l.End()
		if !slices.Equal(got, want) {
			t.Fatalf("%q in pieces of %d: %v, whole: %v", stream, size, got, want)
		}
		if len(want) == 0 && len(stream) > 0 && (strings.ContainsAny(string(stream), "\r\x00") || stream[len(stream)-1] != '\n') {
			t.Fatalf("nothing found in %q", stream)
		}
		l = NewLinter(Options{OpenAI: true}, func(Finding) {})
		l.Write(stream)
		l.End()
	})
}
