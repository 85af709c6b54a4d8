package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchedByGo tells whether Go's poller is told of each write into f.
func watchedByGo(f *os.File) bool { return f.SetReadDeadline(time.Time{}) == nil }

func fdOf(t *testing.T, f *os.File) (n int) {
	t.Helper()
	if err := control(f, func(fd int) error { n = fd; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// An app that writes line by line must not wake the daemon for each.
func TestGoDoesNotWatchThePipes(t *testing.T) {
	p, app := newPipe(t)
	defer p.Close()
	again, err := Reopen(fmt.Sprintf("/proc/self/fd/%d", fdOf(t, app)), "again")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if watchedByGo(p.Read) || watchedByGo(again.Read) {
		t.Error("a log pipe is in Go's poller")
	}
}

func TestPollWakesOncePerArm(t *testing.T) {
	poll, err := newPoll()
	if err != nil {
		t.Fatal(err)
	}
	defer poll.close()
	p, app := newPipe(t)
	defer p.Close()
	fd, ready := fdOf(t, p.Read), make(chan struct{}, 1)
	if err := poll.add(fd, ready); err != nil {
		t.Fatal(err)
	}
	woken := func(why string) {
		t.Helper()
		select {
		case <-ready:
		case <-time.After(limit):
			t.Fatalf("not woken by %s", why)
		}
	}
	write(t, app, "a")
	woken("output")
	for range 100 { // the kernel is asked, which decides at once: nobody is told
		write(t, app, "b")
		if n, err := poll.wait0(); n != 0 || err != nil {
			t.Fatalf("an unarmed pipe had %d events, %v", n, err)
		}
	}
	if err := poll.arm(fd); err != nil {
		t.Fatal(err)
	}
	woken("what is in the pipe already")
	if _, err := unix.Read(fd, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := poll.arm(fd); err != nil {
		t.Fatal(err)
	}
	app.Close()
	woken("the end of the last writer")
	poll.remove(fd)
	if err := poll.arm(fd); !errors.Is(err, unix.ENOENT) {
		t.Errorf("arm after remove: %v", err)
	}
}

// wait0 is what the kernel has for the poll now.
func (p *poll) wait0() (n int, err error) {
	e := p.raw.Control(func(fd uintptr) {
		var events [8]unix.EpollEvent
		n, err = unix.EpollWait(int(fd), events[:], 0)
	})
	return n, errors.Join(e, err)
}

// The keeper holds duplicates: a pipe that is closed here is watched no more,
// and the next one with its number has its own wake-ups.
func TestNumbersOfPipesAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	b := newBook(t)
	for i := range 50 {
		p, app := newPipe(t)
		held := dup(t, p)
		path := filepath.Join(dir, fmt.Sprint(i%3))
		r, err := b.Read(src, p, File{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		write(t, app, "line\n")
		has(t, path, strings.Repeat("line\n", i/3+1))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, app, "for the next daemon\n")
		b.poll.mu.Lock()
		left := len(b.poll.ready)
		b.poll.mu.Unlock()
		if n, err := b.poll.wait0(); left != 0 || n != 0 || err != nil {
			t.Fatalf("%d pipes are left, %d events, %v", left, n, err)
		}
		if err := errors.Join(held.Close(), app.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody else may have made the pipe non-blocking, and Go watches it.
func TestNonblockingPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p, app := newPipe(t)
	if err := unix.SetNonblock(fdOf(t, p.Read), true); err != nil {
		t.Fatal(err)
	}
	q := dup(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !watchedByGo(q.Read) {
		t.Fatal("the pipe is not in Go's poller")
	}
	r, err := newBook(t).Read(src, q, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	write(t, app, "one\n")
	has(t, path, "one\n")
	write(t, app, "two\n")
	has(t, path, "one\ntwo\n")
	app.Close()
	finish(t, r)
}

// Without wake-ups a reader says so, and looks for itself.
func TestPollThatEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	r, app := start(t, b, src, File{Path: path})
	write(t, app, "one\n")
	has(t, path, "one\n")
	b.poll.close()
	until(t, "the reader says so", func() bool { return strings.Contains(r.Problem(), "watch log pipe") })
	write(t, app, "two\n")
	has(t, path, "one\ntwo\n")
	app.Close()
	finish(t, r)
}
