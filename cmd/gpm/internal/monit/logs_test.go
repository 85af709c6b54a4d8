package monit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"gpm/supervisor/api"
)

// numbered is the lines "from".."to-1".
func numbered(m *model, from, to int) logBatch {
	b := logBatch{gen: m.logs.gen}
	for i := from; i < to; i++ {
		b.lines = append(b.lines, line{mark: markOut, text: fmt.Sprint(i)})
	}
	return b
}

// logPane is the lines on the screen and the title, 80x24.
func logPane(t *testing.T, m *model) (title string, lines []string) {
	t.Helper()
	l := m.measure()
	rows := checkScreen(t, m)
	rows = rows[len(rows)-2-l.logs : len(rows)-1]
	for _, r := range rows[1:] {
		if r = strings.TrimSpace(r); r != "" {
			lines = append(lines, r)
		}
	}
	return rows[0], lines
}

func ends(lines []string) string {
	if len(lines) == 0 {
		return "none"
	}
	return lines[0] + ".." + lines[len(lines)-1]
}

func TestLogPaneScrolls(t *testing.T) {
	m := screenOf(80, 24)
	m.logs.clear()
	m.update(start, numbered(m, 0, 100))
	rows := m.measure().logs
	press(m, "tab")
	for _, c := range []struct {
		keys        string
		first       int
		titleHas    string
		moreFollows bool
	}{
		{"", 100 - rows, "following", true},
		{"k", 99 - rows, "1 line below", false},
		{"pgup", 100 - 2*rows, fmt.Sprintf("%d lines below", rows), false},
		{"g", 0, "lines below", false},
		{"pgdown", rows - 1, "lines below", false},
		{"G", 100 - rows, "following", true},
		{"k j", 100 - rows, "following", true},
		{"f", 100 - rows, "holding still", false},
		{"f", 100 - rows, "following", true},
	} {
		press(m, strings.Fields(c.keys)...)
		title, lines := logPane(t, m)
		if want := fmt.Sprintf("%d..%d", c.first, c.first+rows-1); ends(lines) != want {
			t.Errorf("after %q: %s, want %s", c.keys, ends(lines), want)
		}
		if !strings.Contains(title, c.titleHas) || m.logs.follow != c.moreFollows {
			t.Errorf("after %q: title %q, follow %v", c.keys, title, m.logs.follow)
		}
	}
}

func TestHeldPaneStandsStill(t *testing.T) {
	m := screenOf(80, 24)
	m.logs.clear()
	m.update(start, numbered(m, 0, 100))
	press(m, "tab", "pgup")
	_, before := logPane(t, m)
	m.update(start, numbered(m, 100, 1500))
	if _, after := logPane(t, m); !slices.Equal(before, after) {
		t.Errorf("the pane moved from %s to %s", ends(before), ends(after))
	}
	// The ring turns past it: the oldest kept lines are shown, and nothing panics.
	m.update(start, numbered(m, 1500, 9000))
	if _, after := logPane(t, m); after[0] != fmt.Sprint(9000-maxLines) {
		t.Errorf("the pane shows %s, want the oldest kept", ends(after))
	}
	if len(m.logs.lines) != maxLines {
		t.Errorf("%d lines are kept, want %d", len(m.logs.lines), maxLines)
	}
	press(m, "G")
	if _, after := logPane(t, m); after[len(after)-1] != "8999" {
		t.Errorf("the end is %s", ends(after))
	}
}

func TestReopenedStreamGoesOn(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to int
		want     string
	}{
		{"joins", 50, 120, "0..119"},
		{"nothing new", 50, 100, "0..99"},
		{"gap", 300, 400, "300..399"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := screenOf(80, 24)
			m.logs.clear()
			m.update(start, numbered(m, 0, 100))
			got := m.update(start, logsEnded{gen: m.logs.gen, err: api.ErrBroken})
			if len(got) != 1 || got[0].(follow).after != firstRetry {
				t.Fatalf("effects: %+v, want the stream again", got)
			}
			if m.logs.next != 100 {
				t.Error("the lines went before new ones came")
			}
			m.update(start, numbered(m, c.from, c.to))
			var texts []string
			for i := m.logs.first(); i < m.logs.next; i++ {
				texts = append(texts, m.logs.at(i).text)
			}
			if ends(texts) != c.want {
				t.Errorf("%s, want %s", ends(texts), c.want)
			}
			for i := 1; i < len(texts); i++ {
				var a, b int
				fmt.Sscan(texts[i-1], &a)
				fmt.Sscan(texts[i], &b)
				if b != a+1 {
					t.Fatalf("%d follows %d", b, a)
				}
			}
		})
	}
}

func TestRefusedStreamIsNotHammered(t *testing.T) {
	m := screenOf(80, 24)
	var last time.Duration
	for range 10 {
		got := m.update(start, logsEnded{gen: m.logs.gen, err: &api.Error{Message: "no such app"}})
		last = got[0].(follow).after
	}
	if last != lastRetry {
		t.Errorf("the tenth try comes after %s, want %s", last, lastRetry)
	}
	if title, _ := logPane(t, m); !strings.Contains(title, "try 10: no such app") {
		t.Errorf("title: %q", title)
	}
}

func TestSkippedLinesAreTold(t *testing.T) {
	m := screenOf(80, 24)
	m.logs.clear()
	b := numbered(m, 0, 3)
	b.skipped = 41
	m.update(start, b)
	title, lines := logPane(t, m)
	if !strings.Contains(title, "41 lines skipped") || lines[0] != "~ 41 lines skipped" {
		t.Errorf("title %q, first line %q", title, lines[0])
	}
	m.update(start.Add(skipFor+time.Second), tick{})
	if title, _ := logPane(t, m); strings.Contains(title, "skipped") {
		t.Errorf("title still: %q", title)
	}
	if got := newLine(api.LogLine{Skipped: 1}); got.mark != markSkip || got.text != "1 line skipped" {
		t.Errorf("the daemon's word for it: %+v", got)
	}
}

func TestMarks(t *testing.T) {
	for stream, want := range map[string]mark{"out": markOut, "err": markErr, "gpm": markGpm} {
		if got := newLine(api.LogLine{Stream: stream, Text: "x"}); got.mark != want {
			t.Errorf("%s is marked %q, want %q", stream, got.mark, want)
		}
	}
}

func TestLongLinesAreCut(t *testing.T) {
	got := newLine(api.LogLine{Text: strings.Repeat("ä", 1<<20)})
	if len(got.text) > maxLine+len("…") || !strings.HasSuffix(got.text, "ä…") {
		t.Errorf("%d bytes are kept, ending in %q", len(got.text), got.text[len(got.text)-8:])
	}
}

func TestWrapText(t *testing.T) {
	red := "\x1b[31m"
	for _, s := range []string{
		strings.Repeat("0123456789", 20),
		red + strings.Repeat("0123456789", 20) + reset + "tail",
		strings.Repeat("名前", 50),
		"short",
	} {
		rows := wrapText(s, 33)
		var joined string
		for _, r := range rows {
			if n := ansi.StringWidth(r); n > 33 {
				t.Errorf("a row is %d wide: %q", n, r)
			}
			joined += ansi.Strip(r)
		}
		if joined != ansi.Strip(s) {
			t.Errorf("wrapping %q changed the text to %q", s, joined)
		}
		if strings.HasPrefix(s, red) {
			for _, r := range rows[:5] {
				if !strings.HasPrefix(r, red) || !strings.HasSuffix(r, reset) {
					t.Errorf("colour is not carried on: %q", r)
				}
			}
		}
	}
}
