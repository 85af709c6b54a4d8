package ssetest

import (
	"math"
	"strings"
	"time"
)

// Vector is a stream and what a browser makes of it.
type Vector struct {
	Name, Stream string
	Want         []Event
	LastID       string // after the stream
	Retry        time.Duration
}

// Vectors are the cases that browsers are tested with, in our words.
var Vectors = []Vector{
	{Name: "nothing"},
	{Name: "one event", Stream: "data: hello\n\n", Want: []Event{{Event: "message", Data: "hello"}}},
	{Name: "line ends", Stream: "data: lf\n\ndata: cr\r\rdata: crlf\r\n\r\ndata: mixed\n\r\ndata: two\r\n\n",
		Want: messages("lf", "cr", "crlf", "mixed", "two")},
	{Name: "line ends inside data", Stream: "data: a\rdata: b\r\ndata: c\ndata: d\n\n", Want: messages("a\nb\nc\nd")},
	{Name: "LF CR is two line ends", Stream: "data: a\n\rdata: b\n\n", Want: messages("a", "b")},
	{Name: "no space, one space, two, tab", Stream: "data:a\n\ndata: b\n\ndata:  c\n\ndata:\td\n\n", Want: messages("a", "b", " c", "\td")},
	{Name: "first colon splits", Stream: "data: a:b: c\n\ndata::\n\n", Want: messages("a:b: c", ":")},
	{Name: "name without a colon", Stream: "data\n\ndata\ndata\n\ndata:x\ndata\n\n", Want: messages("", "\n", "x\n")},
	{Name: "empty lines of data", Stream: "data:\ndata:\n\ndata:\n\n", Want: messages("\n", "")},
	{Name: "unknown fields", Stream: "data: a\nDATA: b\n data: c\ndatas: d\ndata : e\nfoo\n\x00data: f\n\n", Want: messages("a")},
	{Name: "comments", Stream: ": x\n:\n:data: y\ndata: a\n: in between\ndata: b\n:\n\n:\n\n", Want: messages("a\nb")},
	{Name: "a long comment", Stream: ":" + strings.Repeat("x", 5000) + "\r\ndata: a\n\n", Want: messages("a")},
	{Name: "no data, no event", Stream: "event: x\n\nid: 1\n\nretry: 7\n\n\n\ndata: a\n\n",
		Want: []Event{{ID: "1", Event: "message", Data: "a", Retry: 7 * time.Millisecond}}, LastID: "1", Retry: 7 * time.Millisecond},
	{Name: "names do not stay", Stream: "event: x\ndata: a\n\ndata: b\n\nevent: y\nevent: z\ndata: c\n\nevent: y\nevent\ndata: d\n\n",
		Want: []Event{{Event: "x", Data: "a"}, {Event: "message", Data: "b"}, {Event: "z", Data: "c"}, {Event: "message", Data: "d"}}},
	{Name: "a name keeps its spaces", Stream: "event:  x \ndata: a\n\n", Want: []Event{{Event: " x ", Data: "a"}}},
	{Name: "ids stay", Stream: "id: 1\ndata: a\n\ndata: b\n\ndata: c\nid: 2\n\n",
		Want: []Event{{ID: "1", Event: "message", Data: "a"}, {ID: "1", Event: "message", Data: "b"}, {ID: "2", Event: "message", Data: "c"}}, LastID: "2"},
	{Name: "an empty id forgets", Stream: "id: 1\ndata: a\n\nid\ndata: b\n\n",
		Want: []Event{{ID: "1", Event: "message", Data: "a"}, {Event: "message", Data: "b"}}},
	{Name: "an id with NUL is none", Stream: "id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n",
		Want: []Event{{ID: "1", Event: "message", Data: "a"}, {ID: "1", Event: "message", Data: "b"}}, LastID: "1"},
	{Name: "an id beyond ASCII", Stream: "id: …\ndata: a\n\n", Want: []Event{{ID: "…", Event: "message", Data: "a"}}, LastID: "…"},
	{Name: "an id alone counts", Stream: "data: a\n\nid: 5\n\n", Want: messages("a"), LastID: "5"},
	{Name: "unfinished event", Stream: "id: 1\ndata: a\n\nid: 2\ndata: b\n", Want: []Event{{ID: "1", Event: "message", Data: "a"}}, LastID: "1"},
	{Name: "unfinished line", Stream: "id: 1\ndata: a\n\nid: 2", Want: []Event{{ID: "1", Event: "message", Data: "a"}}, LastID: "1"},
	{Name: "an unfinished event's retry holds", Stream: "retry: 5\ndata: a\n", Retry: 5 * time.Millisecond},
	{Name: "retry", Stream: "retry: 010\ndata: a\n\nretry: 5s\nretry: -1\nretry: +1\nretry: 1.5\nretry:  7\nretry: 0x7\nretry:\nretry\nretry: ٣\ndata: b\n\nretry:20\n\n",
		Want:  []Event{{Event: "message", Data: "a", Retry: 10 * time.Millisecond}, {Event: "message", Data: "b", Retry: 10 * time.Millisecond}},
		Retry: 20 * time.Millisecond},
	{Name: "an endless retry", Stream: "retry: 99999999999999999999999\n", Retry: math.MaxInt64},
	{Name: "one BOM", Stream: "\uFEFFdata: a\n\n", Want: messages("a")},
	{Name: "two BOMs", Stream: "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", Want: messages("b")},
	{Name: "BOM later", Stream: "data: a\n\n\uFEFFdata: b\n\ndata: \uFEFFc\n\n", Want: messages("a", "\uFEFFc")},
	{Name: "half a BOM", Stream: "\xEF\xBBdata: a\n\ndata: b\n\n", Want: messages("b")},
	{Name: "NUL in data", Stream: "data: a\x00b\n\n", Want: messages("a\x00b")},
	{Name: "other line ends are none", Stream: "data: a\vb\fc\u0085d\u2028e\n\n", Want: messages("a\vb\fc\u0085d\u2028e")},
	{Name: "bad bytes", Stream: "data: \xff \xc0\xaf \xe2\x82 \xe2\x82\n\ndata: \xf0\x9f\x98x \xf0\x80\x80 \xed\xa0\x80 \xf4\x90 \xe2\x82\xac\n\n",
		Want: messages("\uFFFD \uFFFD\uFFFD \uFFFD \uFFFD", "\uFFFDx \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD €")},
	{Name: "a real U+FFFD", Stream: "data: \uFFFD\xffx\n\n", Want: messages("\uFFFD\uFFFDx")},
	{Name: "no end mark is known", Stream: "data: [DONE]\n\ndata: a\n\n", Want: messages("[DONE]", "a")},
}

func messages(data ...string) (events []Event) {
	for _, d := range data {
		events = append(events, Event{Event: "message", Data: d})
	}
	return events
}
