package bus

import (
	"errors"
	"strings"
	"testing"
)

func TestCursors(t *testing.T) {
	b, err := Open(Options{URL: func() (string, error) { return "", errors.New("nowhere") }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, n := range []uint64{0, 1, 35, 36, 1790000000000000, 1<<53 - 1} {
		got, err := number(cursor(n))
		if got != n || err != nil {
			t.Errorf("%d became %d, %v", n, got, err)
		}
	}
	for _, bad := range []string{"0", "-1", "n", "n-1", "n01", "nA", "n+1", "n 1", " n1", "n1 ", "x1", "1n", "N1", "n1~n2",
		"n9007199254740992", "n18446744073709551617", "n1e3", "n0x1", "NaN", "null", "start ", "n1_0", "n٣", "n\x00"} {
		if n, err := number(bad); !errors.Is(err, ErrCursor) {
			t.Errorf("%q is %d, %v", bad, n, err)
		}
		if _, _, err := b.History(t.Context(), "news", bad); !errors.Is(err, ErrCursor) {
			t.Errorf("history after %q: %v", bad, err)
		}
		if _, err := b.Follow("news", bad); !errors.Is(err, ErrCursor) {
			t.Errorf("follow after %q: %v", bad, err)
		}
	}
	if After(-1) != "n0" || After(41) != cursor(42) || After(-7) != "n0" {
		t.Error(After(-1), After(41), After(-7))
	}
}

func FuzzCursor(f *testing.F) {
	for _, seed := range []string{"", "n0", "n1", "-1", "0", "n1790000000000001", "n01", "n~", "start"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := number(text)
		if err != nil {
			if n != 0 || !errors.Is(err, ErrCursor) {
				t.Errorf("%q: %d, %v", text, n, err)
			}
			return
		}
		if cursor(n) != text || strings.ContainsAny(text, "~ \r\n\x00") || n > 1<<53-1 {
			t.Errorf("%q is taken for %d, which is %q", text, n, cursor(n))
		}
	})
}
