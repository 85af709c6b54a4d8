package probe

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEventScanner(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "\n\n": "", "data: x": "", "data: x\n": "", "data: x\n\n": "message", "data\n\n": "message", "data:\n\n": "message",
		"data: x\r\n\r\n": "message", "data: x\r\r": "message", "data: x\r\n\n": "message", "data: x\n\r": "message", "data: x\r\n": "",
		"\xef\xbb\xbfdata: x\n\n": "message", "\n\xef\xbb\xbfdata: x\n\n": "", " data: x\n\n": "", "dat: x\n\n": "", "data : x\n\n": "", ":data: x\n\n": "",
		"event: a\ndata\n\ndata\n\n": "a message", "event:a\nevent:  b\ndata\n\n": " b", "event: a\n\ndata\n\n": "message", "event: a\nevent\ndata\n\n": "message",
		"id: 1\nretry: 5\ndata: x\ndata: y\n\n": "message", "data: a\n\ndata: b\n\n\ndata: c\n": "message message",
	} {
		var s eventScanner
		if got := strings.Join(s.scan([]byte(text)), " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Neither where the pieces of a stream are cut nor how its lines end changes
// its events.
func TestEventPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.SampledFrom([]string{"", "data: x", "event: a", "event: b", ": c", "id: 1", "data"})).Draw(t, "lines")
		var whole eventScanner
		want := whole.scan([]byte(strings.Join(lines, "\n") + "\n"))
		end := rapid.SampledFrom([]string{"\n", "\r\n", "\r"}).Draw(t, "end")
		text := []byte(strings.Join(lines, end) + end)
		var s eventScanner
		var got []string
		for len(text) > 0 {
			n := rapid.IntRange(1, len(text)).Draw(t, "piece")
			got = append(got, s.scan(text[:n])...)
			text = text[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}
