package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestLinesArePrefixedAndWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "api-out.log")
	r, app := start(t, newBook(t), src, File{Path: path, Format: Format{Date: "[at] YYYY"}})
	write(t, app, "one\n\ntw")
	write(t, app, "o\nlast words")
	app.Close()
	finish(t, r)
	at := time.Now().Format("at 2006: ")
	want := at + "one\n" + at + "\n" + at + "two\n" + at + "last words\n"
	if got := content(t, path); got != want {
		t.Errorf("file has %q, want %q", got, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode is %v, want at most 0640", info.Mode())
	}
	tail := r.Tail(2)
	if len(tail) != 2 || tail[0].Text != at+"two" || tail[1].Text != at+"last words" || tail[1].Source != src {
		t.Errorf("tail is %+v", tail)
	}
}

// A process that prints and is gone: the pipe has it all.
func TestEverythingOfAProcessThatEndsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p, app := newPipe(t)
	r, err := newBook(t).Read(src, p, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "seq 1 100000; printf LAST; exit 1")
	cmd.Stdout = app
	if err := cmd.Run(); err == nil {
		t.Fatal("the process ended well")
	}
	app.Close()
	finish(t, r)
	var want strings.Builder
	for i := 1; i <= 100000; i++ {
		fmt.Fprintln(&want, i)
	}
	if got := content(t, path); got != want.String()+"LAST\n" {
		t.Errorf("file has %d lines, ends in %q", strings.Count(got, "\n"), got[max(0, len(got)-40):])
	}
	if tail := r.Tail(1); len(tail) != 1 || tail[0].Text != "LAST" {
		t.Errorf("tail is %+v", tail)
	}
}

// Somebody keeps the write side open: Finish ends where nothing more is to be read.
func TestFinishDoesNotWaitForAGrandchild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	r, app := start(t, newBook(t), src, File{Path: path})
	write(t, app, "a\nb")
	finish(t, r) // app is still open
	if got := content(t, path); got != "a\nb\n" {
		t.Errorf("file has %q", got)
	}
}

func TestAppIsNotNonblockingAndGetsNoSIGPIPE(t *testing.T) {
	p, app := newPipe(t)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "echo nobody reads; echo still there >&2")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = app, &stderr
	if err := cmd.Run(); err != nil || stderr.String() != "still there\n" {
		t.Errorf("writer without a reader: %v, %q", err, stderr.String())
	}
}

func TestTenMegabytesInOneLine(t *testing.T) {
	for _, mode := range []string{"raw", "json"} {
		t.Run(mode, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.log")
			r, app := start(t, newBook(t), src, File{Path: path, Format: Format{JSON: mode == "json"}})
			want := strings.Repeat("0123456789äöü€", 10<<20/19)
			write(t, app, want+"\nnext\n")
			app.Close()
			finish(t, r)
			var got strings.Builder
			lines := strings.Split(strings.TrimSuffix(content(t, path), "\n"), "\n")
			for _, l := range lines {
				if mode == "json" {
					l = message(t, l)
				}
				if len(l) > MaxLine || !utf8.ValidString(l) {
					t.Fatalf("a line of %d bytes, valid %v", len(l), utf8.ValidString(l))
				}
				got.WriteString(l)
			}
			if got.String() != want+"next" || len(lines) < 40 {
				t.Errorf("%d lines have %d bytes, want %d", len(lines), got.Len(), len(want)+4)
			}
		})
	}
}

func TestJSONLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p, app := newPipe(t)
	b := newBook(t)
	b.partialAfter = time.Millisecond // a rune in two halves is not shown in halves
	r, err := b.Read(src, p, File{Path: path, Format: Format{JSON: true}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"plain", "", "\"quotes\" \\ \t\x00\x1b[31m \x7f\r", `{"own":"json"}`, "€ whole", "bad \ufffd\ufffd byte", "\u2028 last"}
	raw := strings.ReplaceAll(strings.Join(want, "\n"), "\ufffd\ufffd", "\xff\xe2")
	cut := strings.Index(raw, "€") + 1 // within the rune
	write(t, app, raw[:cut])
	until(t, "the first half is taken", func() bool { s, _ := os.ReadFile(path); return bytes.Count(s, []byte("\n")) == 4 })
	write(t, app, raw[cut:])
	app.Close()
	finish(t, r)
	lines := strings.Split(strings.TrimSuffix(content(t, path), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	for i, l := range lines {
		if got := message(t, l); got != want[i] {
			t.Errorf("line %d is %q, want %q", i, got, want[i])
		}
	}
}

func TestInvalidUTF8PassesRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	r, app := start(t, newBook(t), src, File{Path: path})
	raw := "\xff\xfe\n\x80\xe2\x82\n\x00\n\xe2"
	write(t, app, raw)
	app.Close()
	finish(t, r)
	if got := content(t, path); got != raw+"\n" {
		t.Errorf("file has %q, want %q", got, raw)
	}
}

// A prompt is seen although it has no newline, and its line stays one line.
func TestUnfinishedLineIsShownAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	b.partialAfter = 10 * time.Millisecond
	fl, err := b.Follow(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	r, app := start(t, b, src, File{Path: path, Format: Format{Date: "[D]"}})
	write(t, app, "pass")
	has(t, path, "D: pass")
	write(t, app, "word")
	has(t, path, "D: password")
	write(t, app, ": ok\nnext\n")
	has(t, path, "D: password: ok\nD: next\n")
	lines := collect(t, fl, 4)
	for i, want := range []Line{{Text: "D: pass", Partial: true}, {Text: "word", Partial: true}, {Text: ": ok"}, {Text: "D: next"}} {
		if lines[i].Text != want.Text || lines[i].Partial != want.Partial {
			t.Errorf("line %d is %+v, want %+v", i, lines[i], want)
		}
	}
	if tail := texts(r.Tail(5)); strings.Join(tail, "|") != "D: password: ok|D: next" {
		t.Errorf("tail is %q", tail)
	}
	write(t, app, "...")
	has(t, path, "D: password: ok\nD: next\nD: ...")
	app.Close()
	finish(t, r)
	has(t, path, "D: password: ok\nD: next\nD: ...\n")
}

// On a shared file somebody else's line ends the unfinished one.
func TestUnfinishedLineOnASharedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	b.partialAfter = 10 * time.Millisecond
	f := File{Path: path, Format: Format{Date: "[D]"}}
	r1, app1 := start(t, b, src, f)
	r2, app2 := start(t, b, Source{ID: 4, Name: "api", Stream: "out"}, f)
	write(t, app1, "half")
	has(t, path, "D: half")
	write(t, app2, "whole\n")
	has(t, path, "D: half\nD: whole\n")
	write(t, app1, "\nother half\n")
	has(t, path, "D: half\nD: whole\nD: other half\n")
	app1.Close()
	app2.Close()
	finish(t, r1)
	finish(t, r2)
}

// A daemon that stood still for longer than an unfinished line waits finds the
// rest of it in the pipe: it shows the line whole.
func TestALineThatWasFinishedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	p, app := newPipe(t)
	r, err := newReader(b, src, p, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.enter(r); err != nil {
		t.Fatal(err)
	}
	write(t, app, "ha")
	if _, err := r.fetch(); err != nil {
		t.Fatal(err)
	}
	r.showAt = time.Now() // it waits for the rest, and stands still
	write(t, app, "lf\nnext")
	if r.overdue() {
		t.Error("the line is shown torn")
	}
	has(t, path, "half\n")
	r.showAt = time.Now()
	if !r.overdue() {
		t.Error("the next line is not shown")
	}
	go r.run()
	app.Close()
	finish(t, r)
	has(t, path, "half\nnext\n")
}

// Closed and opened again, within lines too: as when the daemon is replaced.
func TestHandover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p, app := newPipe(t)
	defer p.Close()
	var want strings.Builder
	for i := range 200 {
		b := NewBook(Options{})
		b.partialAfter = time.Duration(i%3) * time.Millisecond
		q := dup(t, p)
		if err := b.Recover(q); err != nil {
			t.Fatal(err)
		}
		r, err := b.Read(src, q, File{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		line := "line " + strconv.Itoa(i) + "\nand " + strconv.Itoa(i)
		want.WriteString(line)
		write(t, app, line)
		if i%2 == 0 {
			until(t, "the line is taken", func() bool { s, _ := os.ReadFile(path); return bytes.Contains(s, []byte("line "+strconv.Itoa(i)+"\n")) })
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	app.Close()
	b := newBook(t)
	r, err := b.Read(src, dup(t, p), File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	finish(t, r)
	if got := content(t, path); got != want.String()+"\n" {
		t.Errorf("file has %d bytes, want %d", len(got), want.Len()+1)
	}
}

func TestPathNowhere(t *testing.T) {
	b := newBook(t)
	b.partialAfter = time.Millisecond
	fl, err := b.Follow(func(s Source) bool { return s == src }, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	r, app := start(t, b, src, File{Format: Format{Date: "[D]"}})
	write(t, app, "a\nb")
	lines := collect(t, fl, 2)
	write(t, app, "c\n")
	lines = append(lines, collect(t, fl, 1)...)
	if got := strings.Join(texts(lines), "|"); got != "D: a|D: b|c" {
		t.Errorf("follower got %q", got)
	}
	app.Close()
	finish(t, r)
	if got := strings.Join(texts(r.Tail(9)), "|"); got != "D: a|D: bc" {
		t.Errorf("tail is %q", got)
	}
}

func TestReadErrors(t *testing.T) {
	b := NewBook(Options{})
	p, _ := newPipe(t)
	defer p.Close()
	if _, err := b.Read(src, p, File{Path: "/" + strings.Repeat("x", pageSize)}); err == nil {
		t.Error("a path that the journal cannot hold was taken")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(src, p, File{}); err != ErrClosed {
		t.Errorf("Read after Close: %v", err)
	}
	if err := p.Journal.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if err := NewBook(Options{}).Recover(p); err == nil {
		t.Error("a journal of 10 bytes was taken")
	}
}

func TestTailOfAReaderIsBounded(t *testing.T) {
	r, app := start(t, newBook(t), src, File{})
	write(t, app, strings.Repeat("x\n", 50)+strings.Repeat("y", 10000)+"\n")
	app.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := r.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	tail := r.Tail(100)
	if len(tail) != ringLines || len(tail[ringLines-1].Text) != ringLine {
		t.Errorf("%d lines, the last has %d bytes", len(tail), len(tail[len(tail)-1].Text))
	}
}

// When everybody who held the read end has died, the process still holds the pipe.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p, app := newPipe(t)
	write(t, app, "in the pipe\n")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	var fd uintptr
	if err := control(app, func(n int) error { fd = uintptr(n); return nil }); err != nil {
		t.Fatal(err)
	}
	p, err := Reopen(fmt.Sprintf("/proc/self/fd/%d", fd), "again")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newBook(t).Read(src, p, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	write(t, app, "later\n")
	app.Close()
	finish(t, r)
	if got := content(t, path); got != "in the pipe\nlater\n" {
		t.Errorf("file has %q", got)
	}
	if _, err := Reopen(path, "no pipe"); err == nil {
		t.Error("a file was taken for a pipe")
	}
}
