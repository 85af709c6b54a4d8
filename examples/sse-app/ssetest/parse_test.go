package ssetest

import (
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// vectors are the cases that browsers are tested with, in our words.
var vectors = []struct {
	name, stream string
	want         []Event
	lastID       string // after the stream
	retry        time.Duration
}{
	{name: "nothing"},
	{name: "one event", stream: "data: hello\n\n", want: []Event{{Event: "message", Data: "hello"}}},
	{name: "line ends", stream: "data: lf\n\ndata: cr\r\rdata: crlf\r\n\r\ndata: mixed\n\r\ndata: two\r\n\n",
		want: messages("lf", "cr", "crlf", "mixed", "two")},
	{name: "line ends inside data", stream: "data: a\rdata: b\r\ndata: c\ndata: d\n\n", want: messages("a\nb\nc\nd")},
	{name: "LF CR is two line ends", stream: "data: a\n\rdata: b\n\n", want: messages("a", "b")},
	{name: "no space, one space, two, tab", stream: "data:a\n\ndata: b\n\ndata:  c\n\ndata:\td\n\n", want: messages("a", "b", " c", "\td")},
	{name: "first colon splits", stream: "data: a:b: c\n\ndata::\n\n", want: messages("a:b: c", ":")},
	{name: "name without a colon", stream: "data\n\ndata\ndata\n\ndata:x\ndata\n\n", want: messages("", "\n", "x\n")},
	{name: "empty lines of data", stream: "data:\ndata:\n\ndata:\n\n", want: messages("\n", "")},
	{name: "unknown fields", stream: "data: a\nDATA: b\n data: c\ndatas: d\ndata : e\nfoo\n\x00data: f\n\n", want: messages("a")},
	{name: "comments", stream: ": x\n:\n:data: y\ndata: a\n: in between\ndata: b\n:\n\n:\n\n", want: messages("a\nb")},
	{name: "a long comment", stream: ":" + strings.Repeat("x", 5000) + "\r\ndata: a\n\n", want: messages("a")},
	{name: "no data, no event", stream: "event: x\n\nid: 1\n\nretry: 7\n\n\n\ndata: a\n\n",
		want: []Event{{ID: "1", Event: "message", Data: "a", Retry: 7 * time.Millisecond}}, lastID: "1", retry: 7 * time.Millisecond},
	{name: "names do not stay", stream: "event: x\ndata: a\n\ndata: b\n\nevent: y\nevent: z\ndata: c\n\nevent: y\nevent\ndata: d\n\n",
		want: []Event{{Event: "x", Data: "a"}, {Event: "message", Data: "b"}, {Event: "z", Data: "c"}, {Event: "message", Data: "d"}}},
	{name: "a name keeps its spaces", stream: "event:  x \ndata: a\n\n", want: []Event{{Event: " x ", Data: "a"}}},
	{name: "ids stay", stream: "id: 1\ndata: a\n\ndata: b\n\ndata: c\nid: 2\n\n",
		want: []Event{{ID: "1", Event: "message", Data: "a"}, {ID: "1", Event: "message", Data: "b"}, {ID: "2", Event: "message", Data: "c"}}, lastID: "2"},
	{name: "an empty id forgets", stream: "id: 1\ndata: a\n\nid\ndata: b\n\n",
		want: []Event{{ID: "1", Event: "message", Data: "a"}, {Event: "message", Data: "b"}}},
	{name: "an id with NUL is none", stream: "id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n",
		want: []Event{{ID: "1", Event: "message", Data: "a"}, {ID: "1", Event: "message", Data: "b"}}, lastID: "1"},
	{name: "an id beyond ASCII", stream: "id: …\ndata: a\n\n", want: []Event{{ID: "…", Event: "message", Data: "a"}}, lastID: "…"},
	{name: "an id alone counts", stream: "data: a\n\nid: 5\n\n", want: messages("a"), lastID: "5"},
	{name: "unfinished event", stream: "id: 1\ndata: a\n\nid: 2\ndata: b\n", want: []Event{{ID: "1", Event: "message", Data: "a"}}, lastID: "1"},
	{name: "unfinished line", stream: "id: 1\ndata: a\n\nid: 2", want: []Event{{ID: "1", Event: "message", Data: "a"}}, lastID: "1"},
	{name: "an unfinished event's retry holds", stream: "retry: 5\ndata: a\n", retry: 5 * time.Millisecond},
	{name: "retry", stream: "retry: 010\ndata: a\n\nretry: 5s\nretry: -1\nretry: +1\nretry: 1.5\nretry:  7\nretry: 0x7\nretry:\nretry\nretry: ٣\ndata: b\n\nretry:20\n\n",
		want:  []Event{{Event: "message", Data: "a", Retry: 10 * time.Millisecond}, {Event: "message", Data: "b", Retry: 10 * time.Millisecond}},
		retry: 20 * time.Millisecond},
	{name: "an endless retry", stream: "retry: 99999999999999999999999\n", retry: math.MaxInt64},
	{name: "one BOM", stream: "\uFEFFdata: a\n\n", want: messages("a")},
	{name: "two BOMs", stream: "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", want: messages("b")},
	{name: "BOM later", stream: "data: a\n\n\uFEFFdata: b\n\ndata: \uFEFFc\n\n", want: messages("a", "\uFEFFc")},
	{name: "half a BOM", stream: "\xEF\xBBdata: a\n\ndata: b\n\n", want: messages("b")},
	{name: "NUL in data", stream: "data: a\x00b\n\n", want: messages("a\x00b")},
	{name: "other line ends are none", stream: "data: a\vb\fc\u0085d\u2028e\n\n", want: messages("a\vb\fc\u0085d\u2028e")},
	{name: "bad bytes", stream: "data: \xff \xc0\xaf \xe2\x82 \xe2\x82\n\ndata: \xf0\x9f\x98x \xf0\x80\x80 \xed\xa0\x80 \xf4\x90 \xe2\x82\xac\n\n",
		want: messages("\uFFFD \uFFFD\uFFFD \uFFFD \uFFFD", "\uFFFDx \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD €")},
	{name: "a real U+FFFD", stream: "data: \uFFFD\xffx\n\n", want: messages("\uFFFD\uFFFDx")},
	{name: "no end mark is known", stream: "data: [DONE]\n\ndata: a\n\n", want: messages("[DONE]", "a")},
}

func messages(data ...string) (events []Event) {
	for _, d := range data {
		events = append(events, Event{Event: "message", Data: d})
	}
	return events
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		whole := new(Parser)
		if got := whole.Feed([]byte(v.stream)); !reflect.DeepEqual(got, v.want) {
			t.Errorf("%s:\n got %+q\nwant %+q", v.name, got, v.want)
		}
		if whole.LastEventID() != v.lastID || whole.Retry() != v.retry {
			t.Errorf("%s: id %q, retry %s; want %q, %s", v.name, whole.LastEventID(), whole.Retry(), v.lastID, v.retry)
		}
		var single Parser
		var got []Event
		for _, b := range []byte(v.stream) {
			got = append(got, single.Feed([]byte{b})...)
		}
		if !reflect.DeepEqual(got, v.want) || single.LastEventID() != v.lastID {
			t.Errorf("%s, byte by byte: got %+q", v.name, got)
		}
	}
}

// An event is there with its last byte: nobody waits for the next one.
func TestEventsAreThereAtOnce(t *testing.T) {
	for _, stream := range []string{"data: a\n\n", "data: a\r\r", "data: a\r\n\r"} {
		if got := Parse(stream); len(got) != 1 {
			t.Errorf("%q: %+q", stream, got)
		}
	}
}

func TestStream(t *testing.T) {
	broken := errors.New("broken")
	s := Open(iotest.OneByteReader(io.MultiReader(strings.NewReader("id: 1\ndata: a\n\ndata: b\n\ndata: c"), iotest.ErrReader(broken))))
	for _, want := range []string{"a", "b"} {
		if e, err := s.Next(); err != nil || e.Data != want {
			t.Errorf("%+v, %v; want %q", e, err, want)
		}
	}
	for range 2 {
		if _, err := s.Next(); err != broken {
			t.Errorf("error %v", err)
		}
	}
	if s.LastEventID() != "1" {
		t.Errorf("id %q", s.LastEventID())
	}
}

// FuzzParserSplits: any split of the bytes gives the same events, and no input
// gives an event that could not have been sent.
func FuzzParserSplits(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.stream), []byte{1, 3, 2})
	}
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		var whole, parts Parser
		want := whole.Feed(stream)
		var got []Event
		for rest, i := stream, 0; len(rest) > 0; i++ {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, int(cuts[i%len(cuts)])+1)
			}
			got = append(got, parts.Feed(rest[:n])...)
			rest = rest[n:]
		}
		if !reflect.DeepEqual(got, want) || parts.LastEventID() != whole.LastEventID() || parts.Retry() != whole.Retry() {
			t.Fatalf("%q cut by %v: %+q, want %+q", stream, cuts, got, want)
		}
		for _, e := range want {
			if strings.ContainsAny(e.Event+e.ID, "\r\n") || strings.Contains(e.ID, "\x00") || e.Event == "" || strings.Contains(e.Data, "\r") {
				t.Fatalf("%q gave %+q", stream, e)
			}
		}
	})
}
