package main

import (
	"strings"
	"testing"
)

func TestPositions(t *testing.T) {
	for id, want := range map[string]position{
		"0":               {},
		"7":               {tick: 7},
		"7~n1~":           {tick: 7, news: "n1"},
		"~n1~":            {news: "n1"},
		"~~alice:i5":      {inbox: "i5", owner: "alice"},
		"7~n1~a.b@c-_:i5": {tick: 7, news: "n1", inbox: "i5", owner: "a.b@c-_"},
	} {
		got, err := parsePosition(id)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", id, got, err)
		}
		if id != "0" && got.String() != id {
			t.Errorf("%q comes out as %q", id, got)
		}
	}
	for _, id := range []string{
		"", "-1", "+1", "x", "7~", "7~n1", "7~n1~a:b~", "7~n1~alice", "7~n1~alice:", "7~n1~:i5", "7~n1~al ice:i5",
		"18446744073709551615", "7~start~", "7~unseen~", "7~~alice:start", "7~~alice:unseen", "1~" + strings.Repeat("n", 300) + "~",
	} {
		if p, err := parsePosition(id); err == nil {
			t.Errorf("%q is taken for %+v", id, p)
		}
	}
}

func FuzzPosition(f *testing.F) {
	for _, id := range []string{"7", "7~n1~", "7~n1~alice:i5", "~~a:b", "\r\n", "007"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		p, err := parsePosition(id)
		if err != nil {
			return
		}
		again, err := parsePosition(p.String())
		if p != (position{}) && (err != nil || again != p) {
			t.Errorf("%q is %+v, and that is written %q: %+v, %v", id, p, p, again, err)
		}
	})
}
