package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/api"
)

// openTerminal is a pseudo terminal, and what is written to it.
func openTerminal(t *testing.T, columns uint16) (*os.File, *screen) {
	t.Helper()
	// Not blocking, so that its reader ends when it is closed.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err2 := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	})
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen, done := newScreen(), make(chan struct{})
	go func() { // reader: ends when the master is closed
		defer close(done)
		_, _ = io.Copy(seen, master)
	}()
	t.Cleanup(func() {
		slave.Close()
		master.Close()
		<-done
	})
	return slave, seen
}

// On a terminal a rollout is one line, written anew, as long as the terminal is
// wide, and gone when there is something to say.
func TestARolloutIsOneLine(t *testing.T) {
	ctx, r := patience(t), newRoller()
	env, _, _ := world(t, r)
	slave, seen := openTerminal(t, 64)
	env.Stdout, env.Stderr, env.Environ = slave, slave, append(env.Environ, "TERM=xterm", "NO_COLOR=1")
	code := make(chan int)
	go func() { code <- Run(ctx, []string{"reload", "web"}, env) }()
	step := func(p api.Progress, want string) {
		t.Helper()
		r.send(t, ctx, p)
		if !seen.await(ctx, want) {
			t.Fatalf("no %q in %q", want, seen)
		}
	}
	p := api.Progress{Ready: 1, Total: 4, Draining: 1, Streams: 37, Deadline: time.Now().Add(time.Hour), Oldest: time.Now().Add(-5 * time.Minute)}
	clock := p.Deadline.Format("15:04")
	// All of it would be 65 columns: the age gives way.
	step(p, "\r\x1b[Kweb: 1/4 ready, 37 streams draining, deadline "+clock)
	p.Ready, p.Waiting = 2, "pause 10s"
	step(p, "\r\x1b[Kweb: 2/4 ready, 37 streams draining, waiting: pause 10s")
	p.Waiting, p.Streams, p.Oldest = "", 0, time.Time{}
	step(p, "\r\x1b[Kweb: 2/4 ready, 1 old process ending, deadline "+clock)
	close(r.finish)
	if c := <-code; c != 0 || !seen.await(ctx, "\r\x1b[K✓ web-0 online (pid 7)\r\n") {
		t.Errorf("exit code %d, screen %q", c, seen)
	}
	if n := strings.Count(seen.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %q", n, seen)
	}
}
