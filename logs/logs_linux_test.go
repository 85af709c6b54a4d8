package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// limit is how long a test waits for anything; it never decides a result.
const limit = 60 * time.Second

func TestMain(m *testing.M) {
	if face := os.Getenv("GPM_LOGS_TEST"); face != "" {
		os.Exit(faces[face]())
	}
	goleak.VerifyTestMain(m,
		// One per Logger that ever wrote; lumberjack has no way to end it.
		goleak.IgnoreAnyFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// until waits for ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func newBook(t testing.TB) *Book {
	t.Helper()
	b := NewBook(Options{})
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// newPipe is a pipe and the app's end of it.
func newPipe(t testing.TB) (Pipe, *os.File) {
	t.Helper()
	p, app, err := NewPipe(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	return p, app
}

// start reads a new pipe into f.
func start(t testing.TB, b *Book, s Source, f File) (*Reader, *os.File) {
	t.Helper()
	p, app := newPipe(t)
	r, err := b.Read(s, p, f)
	if err != nil {
		t.Fatal(err)
	}
	return r, app
}

func write(t testing.TB, app *os.File, text string) {
	t.Helper()
	if _, err := app.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func finish(t testing.TB, r *Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := r.Finish(ctx); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// has waits until the file at path is want.
func has(t testing.TB, path, want string) {
	t.Helper()
	var got []byte
	late := time.Now().Add(limit)
	until(t, fmt.Sprintf("%q has %q", path, want), func() bool {
		got, _ = os.ReadFile(path)
		if time.Now().After(late.Add(-time.Second)) {
			t.Fatalf("%q has %q, want %q", path, got, want)
		}
		return string(got) == want
	})
}

// history is the content of the rotated files of path, oldest first, and of path.
func history(t testing.TB, path string) []byte {
	t.Helper()
	ext := filepath.Ext(path)
	old, err := filepath.Glob(strings.TrimSuffix(path, ext) + "-*" + ext)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(old)
	var all bytes.Buffer
	for _, p := range append(old, path) {
		all.WriteString(content(t, p))
	}
	return all.Bytes()
}

// collect reads n lines, Skipped ones counted, from fl.
func collect(t testing.TB, fl *Follower, n int) []Line {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var lines []Line
	for got := 0; got < n; {
		more, err := fl.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d lines: %v", got, n, err)
		}
		for _, l := range more {
			got += max(1, l.Skipped)
		}
		lines = append(lines, more...)
	}
	return lines
}

func texts(lines []Line) []string {
	var s []string
	for _, l := range lines {
		s = append(s, l.Text)
	}
	return s
}
