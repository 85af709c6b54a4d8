package monit

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"gpm/supervisor/api"
)

var update = flag.Bool("update", false, "write the golden screens anew")

// screenOf is a model on the fleet, with some log lines, of that size.
func screenOf(width, height int) *model {
	m := newModel(start, fleet(start), scope{}, unicodeGlyphs)
	m.start()
	m.update(start, tea.WindowSizeMsg{Width: width, Height: height})
	giveLines(m, 0, 60)
	return m
}

// giveLines is the lines from..to-1 on the current stream.
func giveLines(m *model, from, to int) {
	b := logBatch{gen: m.logs.gen}
	for i := from; i < to; i++ {
		l := logLine(i)
		l.Name, l.Instance = "web", i%3
		b.lines = append(b.lines, newLine(l))
	}
	m.update(m.now, b)
}

// checkScreen says what is wrong with the shape of a screen: every row must be
// as wide as the screen and end without colours.
func checkScreen(t *testing.T, m *model) []string {
	t.Helper()
	rows := strings.Split(m.render(), "\n")
	if len(rows) != max(m.height, 1) {
		t.Fatalf("%dx%d: %d rows", m.width, m.height, len(rows))
	}
	plain := make([]string, len(rows))
	for i, r := range rows {
		if n := ansi.StringWidth(r); n != m.width {
			t.Fatalf("%dx%d: row %d is %d wide: %q", m.width, m.height, i, n, r)
		}
		if at := strings.LastIndex(r, "\x1b["); at >= 0 && !strings.HasPrefix(r[at:], reset) && !strings.HasPrefix(r[at:], "\x1b[0m") {
			t.Fatalf("%dx%d: row %d ends coloured: %q", m.width, m.height, i, r)
		}
		plain[i] = strings.TrimRight(ansi.Strip(r), " ")
	}
	return plain
}

func TestScreens(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		prepare       func(*model)
	}{
		{"list-80x24", 80, 24, func(*model) {}},
		{"list-160x45", 160, 45, func(m *model) {
			exit := *m.list.Instances[4].LastExit
			exit.Tail = []api.LogLine{{Stream: "out", Text: "reading /etc/mailer.conf"}, {Stream: "err", Text: "panic: no such file"}}
			m.list.Instances[4].LastExit = &exit
			m.arrange()
			press(m, "j", "j")
			giveLines(m, 0, 60)
		}},
		{"list-60x15", 60, 15, func(m *model) { press(m, "G") }},
		{"list-112x30", 112, 30, func(*model) {}},
		{"list-40x9", 40, 9, func(*model) {}},
		{"waiting-80x24", 80, 24, func(m *model) { press(m, "G") }},
		{"logs-80x24", 80, 24, func(m *model) { press(m, "tab", "k", "k", "w", "k") }},
		{"drain-80x24", 80, 24, func(m *model) {
			press(m, "j", "j", "j", "j")
			for i, idle := range []int{1, 5} {
				in := &m.list.Instances[i]
				in.Traffic, in.Streams, in.Idle, in.Health = api.Away, 5, idle, "3 of 3 failed: GET /healthz: 503"
			}
			m.arrange()
			m.update(start, eventBatch{no: m.link.no, events: []api.Event{{Kind: "rollout", App: "web", ID: -1, Instance: -1,
				Progress: &api.Progress{Ready: 2, Total: 3, Draining: 1, Streams: 37, Waiting: "pause 10s"}}}})
		}},
		{"drain-60x15", 60, 15, func(m *model) {
			m.list.Instances[0].Traffic = api.Away
			m.arrange()
		}},
		{"whole-80x24", 80, 24, func(m *model) {
			press(m, "j", "j", "j", "a")
			giveLines(m, 0, 30)
		}},
		{"stop-80x24", 80, 24, func(m *model) { press(m, "j", "s") }},
		{"filter-80x24", 80, 24, func(m *model) { press(m, "/", "w", "e") }},
		{"help-80x24", 80, 24, func(m *model) { press(m, "?") }},
		{"help-60x15", 60, 15, func(m *model) { press(m, "?") }},
		{"gone-80x24", 80, 24, func(m *model) { m.update(start, disconnected{no: m.link.no, err: api.ErrBroken}) }},
		{"working-80x24", 80, 24, func(m *model) {
			press(m, "r")
			m.update(start.Add(3*time.Second), tick{})
		}},
		{"ascii-80x24", 80, 24, func(m *model) { m.glyphs = asciiGlyphs }},
		{"empty-80x24", 80, 24, func(m *model) { m.update(start, connected{no: m.link.no, list: api.List{}}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := screenOf(c.width, c.height)
			c.prepare(m)
			got := strings.Join(checkScreen(t, m), "\n") + "\n"
			path := filepath.Join("testdata", c.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestEverySizeIsFilled draws all sizes in all modes.
func TestEverySizeIsFilled(t *testing.T) {
	prepare := map[string]func(*model){
		"list":    func(*model) {},
		"logs":    func(m *model) { press(m, "tab", "w", "k") },
		"whole":   func(m *model) { press(m, "G", "a"); giveLines(m, 0, 60) },
		"help":    func(m *model) { press(m, "?") },
		"filter":  func(m *model) { press(m, "/", "x") },
		"stop":    func(m *model) { press(m, "s") },
		"gone":    func(m *model) { m.update(start, disconnected{no: m.link.no}) },
		"note":    func(m *model) { m.tell(strings.Repeat("言葉 ", 60), true) },
		"nothing": func(m *model) { m.update(start, connected{no: m.link.no, list: api.List{}}) },
	}
	for name, p := range prepare {
		t.Run(name, func(t *testing.T) {
			m := screenOf(80, 24)
			p(m)
			for _, width := range []int{1, 7, 39, 40, 41, 55, 56, 67, 68, 80, 91, 92, 111, 112, 129, 130, 160, 200} {
				for _, height := range []int{1, 2, 8, 9, 10, 13, 14, 18, 19, 22, 24, 45, 60} {
					m.update(start, tea.WindowSizeMsg{Width: width, Height: height})
					checkScreen(t, m)
				}
			}
		})
	}
}

// TestHostileNames holds names and reasons against the screen: they come from
// configs and apps.
func TestHostileNames(t *testing.T) {
	m := screenOf(80, 24)
	evil := "\x1b[2J\x1b[31mevil\x07\n\u202e\u200b\u0085名前\x9b5n"
	list := fleet(start)
	for i := range list.Instances {
		in := &list.Instances[i]
		in.Name, in.Reason, in.Hold, in.User, in.LogProblem = evil, evil, evil, evil, evil
		in.Listeners = []api.Listener{{Address: evil, Listening: true}}
		in.LastExit = &api.Exit{Reason: evil}
	}
	list.Daemon.Version = evil
	m.update(start, connected{no: m.link.no, list: list})
	m.update(start, eventBatch{no: m.link.no, events: []api.Event{{ID: 0, App: evil, Message: evil}}})
	for _, size := range []tea.WindowSizeMsg{{Width: 80, Height: 24}, {Width: 160, Height: 45}} {
		m.update(start, size)
		for _, row := range checkScreen(t, m) {
			if strings.ContainsAny(row, "\x1b\x07\u202e\u200b\u0085\u009b") {
				t.Errorf("row holds a control character: %q", row)
			}
		}
	}
}

// TestSelectedRowIsVisible scrolls through more rows than fit.
func TestSelectedRowIsVisible(t *testing.T) {
	m := screenOf(80, 24)
	list := api.List{}
	for i := range 100 {
		list.Instances = append(list.Instances, api.Instance{ID: i, Name: "web", Instance: i, Status: api.Online})
	}
	m.update(start, connected{no: m.link.no, list: list})
	visible := func(want string) {
		t.Helper()
		for _, row := range checkScreen(t, m) {
			if strings.HasPrefix(row, "▸") {
				if !strings.Contains(row, " "+want+" ") {
					t.Errorf("selected row is %q, want %s", row, want)
				}
				return
			}
		}
		t.Errorf("no selected row on the screen, want %s", want)
	}
	press(m, "g")
	visible("web-0")
	press(m, "G")
	visible("web-99")
	press(m, "pgup")
	press(m, "k")
	m.update(start, tea.WindowSizeMsg{Width: 60, Height: 12})
	visible("web-" + strings.TrimPrefix(label(m.rows[m.selectedRow()]), "web-"))
	press(m, "g")
	visible("web-0")
}
