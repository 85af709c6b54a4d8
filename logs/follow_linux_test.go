package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFollowFilters(t *testing.T) {
	b := newBook(t)
	fl, err := b.Follow(func(s Source) bool { return s.Stream == "err" }, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	other := src
	other.Stream = "err"
	r1, app1 := start(t, b, src, File{})
	r2, app2 := start(t, b, other, File{})
	write(t, app1, "out\n")
	app1.Close()
	finish(t, r1)
	write(t, app2, "err\n")
	lines := collect(t, fl, 1)
	if len(lines) != 1 || lines[0].Text != "err" || lines[0].Source != other || lines[0].At.IsZero() {
		t.Errorf("got %+v", lines)
	}
	app2.Close()
	finish(t, r2)
}

func TestStalledFollowerIsBoundedAndSeesWhatItMissed(t *testing.T) {
	b := newBook(t)
	fl, err := b.Follow(nil, 100<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	r, app := start(t, b, src, File{})
	const total = 200_000
	var text strings.Builder
	for i := range total {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	write(t, app, text.String()) // nobody reads the follower; the app is through all the same
	app.Close()
	finish(t, r)
	fl.mu.Lock()
	held := fl.bytes
	real := 0
	for _, c := range fl.queue {
		real += len(c.text)
	}
	fl.mu.Unlock()
	if held > 100<<10 || real > held || real < 50<<10 {
		t.Errorf("queue of %d bytes of text, counted %d, limit %d", real, held, 100<<10)
	}
	next, skipped := 0, 0
	for _, l := range collect(t, fl, total) {
		if l.Skipped > 0 {
			next += l.Skipped
			skipped += l.Skipped
			continue
		}
		if want := fmt.Sprintf("line %d", next); l.Text != want {
			t.Fatalf("got %q, want %q", l.Text, want)
		}
		next++
	}
	if next != total || skipped == 0 {
		t.Errorf("%d of %d lines accounted for, %d skipped", next, total, skipped)
	}
}

func TestLineLongerThanTheQueue(t *testing.T) {
	b := newBook(t)
	fl, err := b.Follow(nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	r, app := start(t, b, src, File{})
	long := strings.Repeat("x", 200_000)
	write(t, app, long+"\n")
	if lines := collect(t, fl, 1); lines[0].Text != long {
		t.Errorf("got %d bytes", len(lines[0].Text))
	}
	app.Close()
	finish(t, r)
}

func TestFollowerEnds(t *testing.T) {
	b := newBook(t)
	fl, err := b.Follow(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := fl.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next of a cancelled context: %v", err)
	}
	fl.Close()
	fl.Close()
	if _, err := fl.Next(context.Background()); err != ErrClosed {
		t.Errorf("Next after Close: %v", err)
	}
	r, app := start(t, b, src, File{})
	write(t, app, "x\n")
	app.Close()
	finish(t, r)
	last, err := b.Follow(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Next(context.Background()); err != ErrClosed {
		t.Errorf("Next after Book.Close: %v", err)
	}
	if _, err := b.Follow(nil, 0); err != ErrClosed {
		t.Errorf("Follow after Book.Close: %v", err)
	}
}

// Viewers that come while an app writes: tail and follower together are what is
// in the file, without a gap and without a double.
func TestTailAndFollowFitTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	f := File{Path: path, Rotation: Rotation{MaxSize: 200_000}}
	r, app := start(t, b, src, f)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // the app
		defer close(stopped)
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(app, "line %d\n", i); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	until(t, "there are lines", func() bool { info, err := os.Stat(path); return err == nil && info.Size() > 0 })
	for range 40 {
		tails, fl, err := b.TailAndFollow(nil, []string{path, path + ".none"}, 5, 1<<30) // it skips nothing, however late it is read
		if err != nil {
			t.Fatal(err)
		}
		if len(tails) != 1 || tails[0].Err != nil || tails[0].Path != path || len(tails[0].Sources) != 1 {
			t.Fatalf("tails are %+v", tails)
		}
		lines := append(tails[0].Lines, texts(collect(t, fl, 50))...)
		fl.Close()
		first, n := -1, 0
		for i, l := range lines {
			if _, err := fmt.Sscanf(l, "line %d", &n); err != nil {
				t.Fatalf("line %q: %v", l, err)
			}
			if first < 0 {
				first = n
			}
			if n != first+i {
				t.Fatalf("line %d is at %d of %q (%d in the tail)", n, i, lines[:i+1], len(tails[0].Lines))
			}
		}
	}
	close(stop)
	<-stopped
	app.Close()
	finish(t, r)
}

// The app of a path that is not read yet starts after the viewer came.
func TestTailAndFollowOfAnAppThatStartsLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	if err := os.WriteFile(path, []byte("a\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBook(t)
	tails, fl, err := b.TailAndFollow(nil, []string{path}, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	if len(tails) != 1 || strings.Join(tails[0].Lines, "") != "bc" {
		t.Errorf("tails are %+v", tails)
	}
	r, app := start(t, b, src, File{Path: path})
	write(t, app, "d\n")
	if got := texts(collect(t, fl, 1)); got[0] != "d" {
		t.Errorf("follower got %q", got)
	}
	app.Close()
	finish(t, r)
}

func TestTail(t *testing.T) {
	long := strings.Repeat("x", 3*tailBlock+17)
	for _, c := range []struct {
		text string
		n    int
		want []string
	}{
		{"", 3, nil},
		{"a\nb\n", 0, nil},
		{"\n", 3, []string{""}},
		{"\n\na\n", 9, []string{"", "", "a"}},
		{"a\nb\nc\n", 2, []string{"b", "c"}},
		{"a\nb\nc", 2, []string{"b", "c"}},
		{"a\n" + long + "\nc\n", 3, []string{"a", long[:tailLine], "c"}},
		{long, 1, []string{long[:tailLine]}},
		{strings.Repeat("y", tailBlock-1) + "\n" + strings.Repeat("z", tailBlock-1) + "\n", 5,
			[]string{strings.Repeat("y", tailBlock-1), strings.Repeat("z", tailBlock-1)}},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Tail(path, c.n)
		if err != nil || strings.Join(got, "|") != strings.Join(c.want, "|") || len(got) != len(c.want) {
			t.Errorf("Tail(%.30q, %d) = %.100q, %v; want %.100q", c.text, c.n, got, err, c.want)
		}
	}
	if _, err := Tail(filepath.Join(t.TempDir(), "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Tail of no file: %v", err)
	}
	if _, err := Tail(t.TempDir(), 1); err == nil {
		t.Error("Tail of a folder worked")
	}
}

func FuzzTail(f *testing.F) {
	f.Add("a\nb\n\nc", 2, 3)
	f.Fuzz(func(t *testing.T, text string, n, times int) {
		n, times = n&0xff, times&0xff
		text = strings.Repeat(text, min(times, 1+500_000/max(1, len(text)))) // over several blocks
		want := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if text == "" {
			want = nil
		}
		want = want[max(0, len(want)-n):]
		for i := range want {
			want[i] = want[i][:min(len(want[i]), tailLine)]
		}
		got, err := tailOf(strings.NewReader(text), int64(len(text)), n)
		if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") || len(got) != len(want) {
			t.Errorf("tailOf(%.50q, %d) = %.100q, %v; want %.100q", text, n, got, err, want)
		}
	})
}
