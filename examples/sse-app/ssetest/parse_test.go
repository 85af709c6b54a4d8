package ssetest

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestVectors(t *testing.T) {
	for _, v := range Vectors {
		whole := new(Parser)
		if got := whole.Feed([]byte(v.Stream)); !reflect.DeepEqual(got, v.Want) {
			t.Errorf("%s:\n got %+q\nwant %+q", v.Name, got, v.Want)
		}
		if whole.LastEventID() != v.LastID || whole.Retry() != v.Retry {
			t.Errorf("%s: id %q, retry %s; want %q, %s", v.Name, whole.LastEventID(), whole.Retry(), v.LastID, v.Retry)
		}
		var single Parser
		var got []Event
		for _, b := range []byte(v.Stream) {
			got = append(got, single.Feed([]byte{b})...)
		}
		if !reflect.DeepEqual(got, v.Want) || single.LastEventID() != v.LastID {
			t.Errorf("%s, byte by byte: got %+q", v.Name, got)
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
	for _, v := range Vectors {
		f.Add([]byte(v.Stream), []byte{1, 3, 2})
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
