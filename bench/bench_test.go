package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program builds bench/app, once a test needs it.
func program(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "app")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", exe, "./app")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return exe
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatTheProgramWritesIsCounted(t *testing.T) {
	exe, ctx := program(t), deadline(t)
	e, err := openEar(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	const n = 2000
	for _, mode := range []string{"blocks", "lines"} {
		before := now()
		text, err := exec.CommandContext(ctx, exe, mode, e.path, strconv.Itoa(n)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(text) != n*lineLength {
			t.Errorf("%s: %d bytes, want %d", mode, len(text), n*lineLength)
		}
		if got, err := countLines(strings.NewReader(string(text)), n); err != nil || got != (tally{}) {
			t.Errorf("%s: %v, %v", mode, got, err)
		}
		for _, what := range []string{"start", "end"} {
			w, err := e.next(ctx)
			if err != nil || w.what != what || w.at < before || w.at > now() {
				t.Errorf("%s: heard %+v, %v, want %s between %d and %d", mode, w, err, what, before, now())
			}
		}
	}
}

// logLine is line n as bench/app writes it.
func logLine(n int) string {
	return fmt.Sprintf("%010d abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz 0123456\n", n)
}

func TestCountLines(t *testing.T) {
	l := logLine
	stamp := "2026-01-02T03:04:05: "
	for name, c := range map[string]struct {
		text string
		want tally
	}{
		"all":                  {l(0) + l(1) + l(2), tally{}},
		"another order":        {l(2) + l(0) + l(1), tally{}},
		"with timestamps":      {stamp + l(0) + stamp + l(1) + stamp + l(2), tally{}},
		"one missing":          {l(0) + l(2), tally{missing: 1}},
		"none":                 {"", tally{missing: 3}},
		"one twice":            {l(0) + l(1) + l(1) + l(2), tally{doubled: 1}},
		"a number beyond":      {l(0) + l(1) + l(2) + l(3), tally{broken: 1}},
		"end cut":              {l(0) + l(1) + l(2)[:60], tally{missing: 1, broken: 1}},
		"no last newline":      {l(0) + l(1) + l(2)[:99], tally{missing: 1, broken: 1}},
		"torn by a timestamp":  {l(0) + l(1)[:50] + stamp + l(1)[50:] + l(2), tally{missing: 1, broken: 1}},
		"two on one line":      {l(0) + l(1)[:99] + l(2), tally{missing: 2, broken: 1}},
		"torn by a newline":    {l(0) + l(1)[:50] + "\n" + l(1)[50:] + l(2), tally{missing: 1, broken: 2}},
		"something in between": {l(0) + "hello\n" + l(1) + l(2), tally{broken: 1}},
	} {
		if got, err := countLines(strings.NewReader(c.text), 3); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func TestPrefixLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]int{logLine(0) + logLine(1): 0, "12:00: " + logLine(0): 7} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := prefixLength(path); !ok || got != want {
			t.Errorf("got %d, %t, want %d", got, ok, want)
		}
	}
	if err := os.WriteFile(path, []byte("half a line"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, ok := prefixLength(path); ok {
		t.Errorf("of half a line: %d", got)
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := 50; i > 0; i-- {
		all = append(all, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0.5: 25, 0.95: 48, 1: 50} {
		if got := quantile(all, q); got != want {
			t.Errorf("quantile %v: %d, want %d", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}

func TestSheet(t *testing.T) {
	here, away := kind{name: "gpm", version: "1"}, kind{name: "other", missing: "not installed"}
	s := &sheet{kinds: []kind{here, away}}
	s.row("speed").set(here, "%d", 3).judge(here, "< 4", true)
	s.row("size").set(here, "9").judge(here, "< 4", false)
	s.row("rest").judge(away, "< 4", false)
	var got strings.Builder
	s.write(&got)
	want := `| measured | gpm 1  | other         | mark for gpm    |
|----------|--------|---------------|-----------------|
| speed    | 3      | not installed | < 4: met        |
| size     | 9      | not installed | < 4: **missed** |
| rest     | failed | not installed |                 |
`
	if got.String() != want {
		t.Errorf("got\n%s", got.String())
	}
	if missed, marks := s.missed(); missed != 1 || marks != 2 {
		t.Errorf("%d of %d missed", missed, marks)
	}
}

func TestReadingsOfAProcess(t *testing.T) {
	exe := program(t)
	e, err := openEar(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	cmd := exec.Command(exe, "idle", e.path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if w, err := e.starts(deadline(t), 1); err != nil || w[0].pid != cmd.Process.Pid {
		t.Fatalf("heard %v, %v", w, err)
	}
	pid := []int{cmd.Process.Pid}
	m, err := memoryOf(pid)
	if err != nil || m.rss < 100<<10 || m.peak < m.rss || m.pss > m.rss || m.private > m.rss {
		t.Errorf("memory %+v, %v", m, err)
	}
	if _, err := cpuOf(pid); err != nil {
		t.Error(err)
	}
	if got := running(exe); len(got) != 1 || got[0] != pid[0] {
		t.Errorf("running: %v, want %v", got, pid)
	}
	sweep(exe)
	if !gone(pid[0]) || len(running(exe)) != 0 {
		t.Error("lives after sweep")
	}
}
