package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"
)

// events remembers what Options.Problem was told.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) add(_ Source, problem string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, problem)
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.all...)
}

// smallDisk is a folder with room for 64 KiB, a function that takes all of it,
// and one that gives it back: a tmpfs for root, else a Book that is told so.
func smallDisk(t *testing.T, b *Book) (dir string, fill, free func()) {
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("no tmpfs (%v): faking it", err)
		return fakeDisk(b, dir)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	other := filepath.Join(dir, "other")
	fill = func() {
		if err := os.WriteFile(other, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill disk: %v", err)
		}
	}
	return dir, fill, func() {
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
	}
}

func fakeDisk(b *Book, dir string) (string, func(), func()) {
	var full atomic.Bool
	b.write = func(l *lumberjack.Logger, p []byte) (int, error) {
		if !full.Load() {
			return l.Write(p)
		}
		n, err := l.Write(p[:len(p)/2]) // as a disk with a little room left
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return dir, func() { full.Store(true) }, func() { full.Store(false) }
}

// Both kinds of small disks: the real one, and the one that tears every write.
func onSmallDisks(t *testing.T, test func(t *testing.T, b *Book, e *events, dir string, fill, free func())) {
	for _, kind := range []string{"tmpfs", "torn"} {
		t.Run(kind, func(t *testing.T) {
			var e events
			b := NewBook(Options{Problem: e.add})
			disk := smallDisk
			if kind == "torn" {
				disk = func(t *testing.T, b *Book) (string, func(), func()) { return fakeDisk(b, t.TempDir()) }
			}
			dir, fill, free := disk(t, b)
			// Registered last: files are closed before the disk goes.
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, b, &e, dir, fill, free)
		})
	}
}

func TestFullDiskDrops(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, b *Book, e *events, dir string, fill, free func()) {
		path := filepath.Join(dir, "out.log")
		p, app := newPipe(t)
		other := dup(t, p)
		defer other.Close()
		r, err := b.Read(src, p, File{Path: path, Format: Format{Date: "[D]"}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, app, "before\n")
		has(t, path, "D: before\n")
		fill()
		const lost = 50_000 // more than the page of the file that is left
		var text strings.Builder
		for i := range lost {
			fmt.Fprintf(&text, "line %d\n", i)
		}
		write(t, app, text.String())
		until(t, "all is read", func() bool { return drained(t, r, other) && r.Dropped() > 0 })
		if p := r.Problem(); !strings.Contains(p, "no space left") || !strings.Contains(p, "lines dropped") {
			t.Errorf("problem is %q", p)
		}
		free()
		write(t, app, "after\n")
		until(t, "it recovers", func() bool { return strings.HasSuffix(content(t, path), "D: after\n") })
		until(t, "the problem is gone", func() bool { return r.Problem() == "" })
		lines := strings.Split(content(t, path), "\n")
		got := 0
		for _, l := range lines {
			var n int
			if k, _ := fmt.Sscanf(l, "D: line %d", &n); k == 1 {
				got++
			} else if l != "D: before" && l != "D: after" && l != "" {
				t.Fatalf("torn line %q", l)
			}
		}
		if uint64(got)+r.Dropped() != lost {
			t.Errorf("%d lines in the file and %d dropped, of %d", got, r.Dropped(), lost)
		}
		// Told after it is so.
		until(t, "the end of the problem is told", func() bool { all := e.list(); return len(all) > 0 && all[len(all)-1] == "" })
		if all := e.list(); len(all) < 2 || all[0] == "" {
			t.Errorf("told %q", all)
		}
		app.Close()
		finish(t, r)
	})
}

// drained tells whether nothing waits in the pipe and the journal.
func drained(t *testing.T, r *Reader, p Pipe) bool {
	t.Helper()
	var waiting int
	if err := control(p.Read, func(fd int) (err error) {
		waiting, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	info, err := p.Journal.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return waiting == 0 && info.Size() == pageSize
}

func TestFullDiskBlocks(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, b *Book, e *events, dir string, fill, free func()) {
		path := filepath.Join(dir, "out.log")
		r, app := start(t, b, src, File{Path: path, Full: Block})
		write(t, app, "before\n")
		has(t, path, "before\n")
		fill()
		var want bytes.Buffer
		want.WriteString("before\n")
		text := strings.Repeat("0123456789abcde\n", 3000) // does not fit
		want.WriteString(text)
		write(t, app, text)
		until(t, "there is a problem", func() bool { return strings.Contains(r.Problem(), "no space left") })

		wrote := make(chan error, 1)
		go func() { // the app, until the pipe is full
			_, err := app.Write(bytes.Repeat([]byte("z\n"), 1<<20))
			wrote <- err
		}()
		select {
		case err := <-wrote:
			t.Fatalf("the app was not stopped: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if got := content(t, path); !strings.HasPrefix(want.String(), got) || !strings.HasSuffix(got, "\n") {
			t.Errorf("file has %d bytes, not whole lines of what was written", len(got))
		}
		// Room again, and the file is emptied when it holds the first part, so
		// that the rest has room too.
		free()
		until(t, "the first part is written", func() bool { return strings.HasPrefix(content(t, path), want.String()) })
		done := false
		until(t, "the app goes on", func() bool {
			_ = b.Flush(path)
			select {
			case err := <-wrote:
				done = err == nil
				return true
			default:
				return false
			}
		})
		if !done || r.Dropped() != 0 {
			t.Errorf("app ok: %v, dropped %d lines", done, r.Dropped())
		}
		app.Close()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- r.Finish(ctx) }()
		until(t, "the rest is written", func() bool {
			_ = b.Flush(path)
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
				return true
			default:
				return false
			}
		})
		if r.Dropped() != 0 {
			t.Errorf("%d lines dropped", r.Dropped())
		}
	})
}

// Finish with a deadline on a disk that stays full: an error, and the count.
func TestFinishOnAFullDisk(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, b *Book, e *events, dir string, fill, free func()) {
		path := filepath.Join(dir, "out.log")
		r, app := start(t, b, src, File{Path: path, Full: Block})
		write(t, app, "before\n")
		has(t, path, "before\n")
		fill()
		write(t, app, strings.Repeat("0123456789abcde\n", 3000))
		until(t, "there is a problem", func() bool { return r.Problem() != "" })
		app.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		err := r.Finish(ctx)
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("Finish: %v", err)
		}
		got := strings.Count(content(t, path), "\n") - 1
		if uint64(got)+r.Dropped() != 3000 {
			t.Errorf("%d lines in the file and %d dropped, of 3000", got, r.Dropped())
		}
	})
}

// A file that cannot be opened is a problem like a full disk.
func TestPathThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, app := start(t, newBook(t), src, File{Path: path, Full: Drop})
	write(t, app, "one\ntwo\n")
	until(t, "there is a problem", func() bool {
		return r.Dropped() == 2 && strings.Contains(r.Problem(), "not a regular file")
	})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, app, "three\n")
	has(t, path, "three\n")
	app.Close()
	finish(t, r)
}
