package term

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0b", 1023: "1023b", 1024: "1.0kb", 1536: "1.5kb", 53_896_806: "51.4mb",
		1<<20 - 1: "1.0mb", 1 << 30: "1.0gb", 5 << 40: "5.0tb", 1 << 60: "1048576.0tb",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestUptime(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47*time.Hour + 59*time.Minute: "47h", 2 * day: "2D", 59 * day: "59D", 60 * day: "2M", 730 * day: "2Y",
	} {
		if got := Uptime(d); got != want {
			t.Errorf("Uptime(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestWait(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0 ms", 150 * time.Millisecond: "150 ms", 7600 * time.Millisecond: "8 s", 119 * time.Second: "119 s",
		5 * time.Minute: "5 min", 5 * time.Hour: "5 h",
	} {
		if got := Wait(d); got != want {
			t.Errorf("Wait(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestPercent(t *testing.T) {
	for v, want := range map[float64]string{0: "0%", 0.04: "0%", 0.06: "0.1%", 3: "3%", 3.44: "3.4%", 9.99: "10%", 120.4: "120%"} {
		if got := Percent(v); got != want {
			t.Errorf("Percent(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestColourNeedsATerminal(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, func(string) string { return "" })
	if o.Paint(Red, "x") != "x" || o.Width() != 0 {
		t.Error("a buffer was taken for a terminal")
	}
	o.colour = true
	if got := o.Paint(Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
	if Width(o.Paint(Green, "état")) != 4 {
		t.Error("colours count as width")
	}
	o.Plain()
	if o.Paint(Red, "x") != "x" {
		t.Error("Plain does not")
	}
}

func TestVoices(t *testing.T) {
	var b bytes.Buffer
	v := Voices{NewOutput(&b, func(string) string { return "" })}
	v.Error("load \"a.json\"\na.json:3: no script\n")
	v.Warning("w")
	v.Hint("gpm list")
	if want := "error: load \"a.json\"\n  a.json:3: no script\nwarning: w\nhint: gpm list\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

func TestCleanKeepsTextAndDropsControl(t *testing.T) {
	for in, want := range map[string]string{
		"plain é\tx":                "plain é\tx",
		"\x1b]0;owned\x07hi":        "hi",
		"\x1b[31mred\x1b[0m":        "red",
		"over\rwritten\b\x7f\u009b": "overwritten",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func table(width int) string {
	var b bytes.Buffer
	o := &Output{w: &b, width: width}
	t := &Table{
		Columns: []Column{{Title: "id"}, {Title: "name", Shrink: 4}, {Title: "user", Drop: 2}, {Title: "cpu", Drop: 1}},
		Rows:    [][]string{{"0", "a long name", "root", "0%"}, {"10", "日本", "me", "100%"}},
	}
	t.Print(o)
	return b.String()
}

func TestTable(t *testing.T) {
	want := `┌────┬─────────────┬──────┬──────┐
│ id │ name        │ user │ cpu  │
├────┼─────────────┼──────┼──────┤
│ 0  │ a long name │ root │ 0%   │
│ 10 │ 日本        │ me   │ 100% │
└────┴─────────────┴──────┴──────┘
`
	if got := table(0); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestTableFits(t *testing.T) {
	for _, c := range []struct {
		width  int
		has    string
		hasNot string
	}{
		{34, "user", "…"},
		{33, "cpu", "user"},
		{25, "a long name", "cpu"},
		{18, "a long n…", "cpu"},
		{5, "│ 10 │ 日本 │", "long"}, // narrower than it can get: shown all the same
	} {
		got := table(c.width)
		if !strings.Contains(got, c.has) || strings.Contains(got, c.hasNot) {
			t.Errorf("at %d columns:\n%s", c.width, got)
		}
		for line := range strings.Lines(got) {
			if n := Width(strings.TrimSuffix(line, "\n")); n > c.width && c.width >= 15 {
				t.Errorf("at %d columns, %d wide: %s", c.width, n, line)
			}
		}
	}
}

func TestLongTextGivesWayBeforeColumns(t *testing.T) {
	var b bytes.Buffer
	tab := &Table{
		Columns: []Column{{Title: "name", Soft: 10, Shrink: 3}, {Title: "cpu", Drop: 1}},
		Rows:    [][]string{{strings.Repeat("x", 30), "0%"}},
	}
	tab.Print(&Output{w: &b, width: 25})
	if !strings.Contains(b.String(), "│ "+strings.Repeat("x", 14)+"… │ 0%  │") {
		t.Errorf("got\n%s", b.String())
	}
}

func TestStatusIsOneLine(t *testing.T) {
	var b bytes.Buffer
	o := &Output{w: &b, width: 10}
	o.Status("nothing without a terminal")
	if b.Len() > 0 {
		t.Errorf("got %q", b.String())
	}
	o.rewrite = true
	o.Status("one")
	o.Status("one")
	o.Above("done")
	o.Status("a line that is too long")
	o.Status("")
	if want := "\r\x1b[Kone\r\x1b[Kdone\n\r\x1b[Kone\r\x1b[Ka line t…\r\x1b[K"; b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}
