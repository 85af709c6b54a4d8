package monit

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "hello, world ~", "hello, world ~"},
		{"colour", "\x1b[1;38;5;200mred\x1b[0m x", "\x1b[1;38;5;200mred\x1b[0m x" + reset},
		{"true colour", "\x1b[38:2::1:2:3mx", "\x1b[38:2::1:2:3mx" + reset},
		{"cursor", "a\x1b[2J\x1b[10;10Hb\x1b[Ac", "abc"},
		{"alternate screen", "a\x1b[?1049lb\x1b[?25hc", "abc"},
		{"keyboard mode", "a\x1b[>4;2mb\x1b[?4mc", "abc"},
		{"title", "a\x1b]0;owned\x07b\x1b]8;;http://x\x1b\\c", "abc"},
		{"device string", "a\x1bP1$r0m\x1b\\b", "ab"},
		{"reset", "a\x1bcb", "ab"},
		{"unfinished", "abc\x1b[31", "abc"},
		{"unfinished title", "abc\x1b]0;all the rest", "abc"},
		{"bells", "a\x07b\x08c\x00d\x7fe", "abcde"},
		{"tab", "a\tb", "a       b"},
		{"progress", "10%\r50%\r100%\r", "100%"},
		{"windows", "text\r\n", "text"},
		{"invalid", "a\xff\xfeb", "a\uFFFDb"},
		{"8-bit control", "a\u009b31mb\u0085c", "a31mbc"},
		{"bidi and zero width", "a\u202eb\u2066c\u200bd\ufeffe", "abcde"},
		{"wide", "名前", "名前"},
		{"stacked marks", "e" + strings.Repeat("\u0301", 40) + "x", "e\u0301\u0301\u0301x"},
		{"one mark", "e\u0301", "e\u0301"},
	} {
		if got := clean(c.in, true); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := clean("\x1b[31mred\x1b[m", false); got != "red" {
		t.Errorf("without colour: %q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"\x1b[31mx\x1b[m", "\x1b]0;t\x07", "a\tb\rc", "\xff\x9b\u009b", "\x1b\x1b[m", "\u202e\u0301", "🇩🇪👨‍👩‍👧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s, true)
		if !utf8.ValidString(got) {
			t.Fatalf("clean(%q) = %q is not valid", s, got)
		}
		rest := got
		for {
			at := strings.IndexByte(rest, '\x1b')
			if at < 0 {
				break
			}
			end := strings.IndexByte(rest[at:], 'm')
			if end < 0 || !isSGR(rest[at:at+end+1]) {
				t.Fatalf("clean(%q) = %q has a sequence that sets no colour", s, got)
			}
			rest = rest[:at] + rest[at+end+1:]
		}
		for _, r := range rest {
			if unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("clean(%q) = %q has the control %U", s, got, r)
			}
		}
		for _, row := range append(wrapText(got, 7), fit(got, 7)) {
			if n := ansi.StringWidth(row); n > 7 {
				t.Fatalf("a row of clean(%q) is %d wide", s, n)
			}
		}
	})
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 250 * time.Second: "4m10s",
		3*time.Hour + 5*time.Minute: "3h05m", 292 * time.Hour: "12d04h", 2400 * time.Hour: "100d",
	} {
		if got := duration(d); got != want || len(got) > 6 {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1.0K", 51_400_000: "49.0M", 1 << 30: "1.0G", 1<<30 - 1: "1.0G", 1<<40 - 1: "1.0T", 1 << 63: "8192P"} {
		if got := size(n); got != want || len(got) > 5 {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for p, want := range map[float64]string{0: "0.0%", 1.25: "1.2%", 99.96: "100%", 800: "800%"} {
		if got := percent(p); got != want {
			t.Errorf("%v: %q, want %q", p, got, want)
		}
	}
	if got := until(time.Millisecond); got != "1s" {
		t.Errorf("until 1 ms: %q", got)
	}
}

func TestFitMiddle(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"web-0", 8, "web-0   "},
		{"a-very-long-service-name-12", 15, "a-very-…name-12"},
		{"名前名前名前名前-12", 10, "名前 …-12 "},
	} {
		if got := fitMiddle(c.in, c.width); ansi.StringWidth(got) != c.width || c.width == 15 && got != c.want {
			t.Errorf("%q in %d: %q", c.in, c.width, got)
		}
	}
}

func TestGlyphsFollowTheLocale(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want glyphs
	}{
		{nil, unicodeGlyphs},
		{map[string]string{"LANG": "de_DE.UTF-8"}, unicodeGlyphs},
		{map[string]string{"LANG": "C.utf8"}, unicodeGlyphs},
		{map[string]string{"LANG": "C"}, asciiGlyphs},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "POSIX"}, asciiGlyphs},
	} {
		if got := chooseGlyphs(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}
