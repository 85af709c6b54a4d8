package monit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gpm/supervisor/api"
)

// patience is how long a test waits for something that must happen.
const patience = 30 * time.Second

// terminal is a pseudo terminal of 80x24 whose screen is read all the time.
type terminal struct {
	t      *testing.T
	slave  *os.File
	master *os.File
	before unix.Termios

	mu      sync.Mutex
	written bytes.Buffer
	changed chan struct{}
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	// Fd made the file blocking; a read must end when the test does.
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, slave: slave, master: os.NewFile(uintptr(dup(t, fd)), "master"), changed: make(chan struct{}, 1)}
	master.Close()
	term.before = term.modes()
	done := make(chan struct{})
	go func() { // reader: ends when the master is closed
		defer close(done)
		_, _ = io.Copy(writerFunc(term.take), term.master)
	}()
	t.Cleanup(func() {
		slave.Close()
		term.master.Close()
		<-done
	})
	return term
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (term *terminal) take(p []byte) (int, error) {
	term.mu.Lock()
	term.written.Write(p)
	term.mu.Unlock()
	select {
	case term.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.written.String()
}

// forget drops what was written so far.
func (term *terminal) forget() {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.written.Reset()
}

// await waits until something was written.
func (term *terminal) await(want string) {
	term.t.Helper()
	term.see(strconv.Quote(want), func(s string) bool { return strings.Contains(s, want) })
}

// see waits until what was written is as ok wants it.
func (term *terminal) see(what string, ok func(string) bool) {
	term.t.Helper()
	late := time.After(patience)
	for !ok(term.text()) {
		select {
		case <-term.changed:
		case <-late:
			term.t.Fatalf("%s was not written within %s; the last was %q", what, patience, tail(term.text()))
		}
	}
}

func tail(s string) string { return s[max(len(s)-2000, 0):] }

func (term *terminal) keys(keys string) {
	term.t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) modes() unix.Termios {
	term.t.Helper()
	m, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *m
}

// checkLeft says whether the terminal is as it was found.
func (term *terminal) checkLeft() {
	term.t.Helper()
	for _, mode := range []struct{ on, off, what string }{
		{"\x1b[?1049h", "\x1b[?1049l", "the alternate screen"},
		{"\x1b[?25l", "\x1b[?25h", "a hidden cursor"},
		{"\x1b[?2004h", "\x1b[?2004l", "bracketed paste"},
	} {
		// An off of before may be there already: wait for the last one.
		term.see("the end of "+mode.what, func(s string) bool {
			at := strings.LastIndex(s, mode.off)
			return at >= 0 && at > strings.LastIndex(s, mode.on)
		})
	}
	if now := term.modes(); now != term.before {
		term.t.Errorf("the terminal's modes are\n%+v, they were\n%+v", now, term.before)
	}
}

// runOn runs monit on a terminal; the channel gives what Run returned.
func runOn(t *testing.T, ctx context.Context, f *fake) (*terminal, <-chan error) {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
	t.Setenv("LANG", "C.UTF-8")
	t.Setenv("TMUX", "")
	term := openTerminal(t)
	done := make(chan error, 1)
	go func() { done <- Run(ctx, f, "", term.slave, term.slave) }()
	term.await("reload")
	return term, done
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("Run did not return within %s", patience)
		return nil
	}
}

// checkLeaks looks for goroutines after all else of the test was cleaned up.
func checkLeaks(t *testing.T) {
	now := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, now) })
}

func TestLeavesTheTerminalAsItWas(t *testing.T) {
	checkLeaks(t)
	for _, keys := range []string{"q", "\x03", "\x1b", "?xq", "/q\x03"} {
		t.Run(fmt.Sprintf("%q", keys), func(t *testing.T) {
			f := newFake(fleet(time.Now()))
			f.backlog = plainLines(0, 5)
			term, done := runOn(t, t.Context(), f)
			if term.modes() == term.before {
				t.Error("the terminal is not in raw mode: the test proves nothing")
			}
			term.keys(keys)
			if err := ended(t, done); err != nil {
				t.Errorf("Run: %v", err)
			}
			term.checkLeft()
		})
	}
}

func TestContextEndsIt(t *testing.T) {
	checkLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	term, done := runOn(t, ctx, newFake(fleet(time.Now())))
	cancel()
	if err := ended(t, done); err != nil {
		t.Errorf("Run: %v", err)
	}
	term.checkLeft()
}

func TestPanicLeavesTheTerminalAsItWas(t *testing.T) {
	f := newFake(fleet(time.Now()))
	term, done := runOn(t, t.Context(), f)
	f.set(func() { f.panics = true })
	if err := ended(t, done); err == nil || !strings.Contains(err.Error(), "a bug in the list") {
		t.Errorf("Run: %v, want the panic", err)
	}
	term.checkLeft()
}

// TestPanicWhileDrawing breaks the model itself.
func TestPanicWhileDrawing(t *testing.T) {
	t.Setenv("TERM", "xterm-256color")
	term := openTerminal(t)
	m := newModel(time.Now(), fleet(time.Now()), scope{}, unicodeGlyphs)
	// The ring says that its fifth line is kept, but holds one: it cannot be drawn.
	m.logs.ids, m.logs.live = []int{m.selected}, true
	m.logs.lines, m.logs.next = make([]line, 1), 5
	err := newShell(t.Context(), newFake(fleet(time.Now())), m).show(term.slave, term.slave, false)
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("show: %v, want the panic", err)
	}
	if now := term.modes(); now != term.before {
		t.Error("the terminal's modes were not restored")
	}
}

func TestKeysReachTheDaemon(t *testing.T) {
	f := newFake(fleet(time.Now()))
	term, done := runOn(t, t.Context(), f)
	term.keys("Gr")
	f.awaitCall(t, "restart 3")
	term.keys("jsy")
	f.awaitCall(t, "stop 3")
	term.keys("q")
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
}

// TestFloodLeavesRoomForKeys writes lines as fast as the machine can.
func TestFloodLeavesRoomForKeys(t *testing.T) {
	f := newFake(fleet(time.Now()))
	f.live = func(yield func(api.LogLine) bool) {
		for i := 0; yield(logLine(i)); i++ {
		}
	}
	term, done := runOn(t, t.Context(), f)
	term.await("skipped")
	for range 10 {
		term.keys("jk")
	}
	term.keys("Gr")
	f.awaitCall(t, "restart 3")
	term.keys("q")
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
	term.checkLeft()
}

func TestNoColour(t *testing.T) {
	for value, colours := range map[string]bool{"": true, "yes": false, "1": false} {
		t.Setenv("NO_COLOR", value)
		term, done := runOn(t, t.Context(), newFake(fleet(time.Now())))
		term.keys("q")
		if err := ended(t, done); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(term.text(), "\x1b[32m"); got != colours {
			t.Errorf("NO_COLOR=%q: green is written: %v", value, got)
		}
		if !strings.Contains(term.text(), "\x1b[7m") {
			t.Errorf("NO_COLOR=%q: the selected row is not marked", value)
		}
	}
}

func TestResize(t *testing.T) {
	term, done := runOn(t, t.Context(), newFake(fleet(time.Now())))
	term.forget()
	if err := unix.IoctlSetWinsize(int(term.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 45, Col: 160}); err != nil {
		t.Fatal(err)
	}
	// The kernel signals the foreground group of the terminal, which we are not.
	// And Bubble Tea listens for it only after its first frame: once more, then.
	again := make(chan struct{})
	go func() {
		for tick := time.Tick(50 * time.Millisecond); ; {
			_ = unix.Kill(os.Getpid(), unix.SIGWINCH)
			select {
			case <-tick:
			case <-again:
				return
			}
		}
	}()
	term.await("1 errored, 1 waiting, 1 launching, 3 online, 1 stopped")
	close(again)
	term.keys("q")
	if err := ended(t, done); err != nil {
		t.Error(err)
	}
}

// TestSignalsLeaveTheTerminalAsItWas runs monit as a process of its own.
func TestSignalsLeaveTheTerminalAsItWas(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			term := openTerminal(t)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "MONIT_FAKE=lines", "TERM=xterm-256color", "LANG=C.UTF-8", "TMUX=")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			term.await("reload")
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("monit: %v", err)
				}
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				t.Fatalf("monit did not end within %s", patience)
			}
			term.checkLeft()
		})
	}
}

func TestNeedsATerminal(t *testing.T) {
	term := openTerminal(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		in   io.Reader
		out  io.Writer
		want string
	}{
		{strings.NewReader(""), term.slave, "open monit: the input is not a terminal"},
		{term.slave, &bytes.Buffer{}, "open monit: the output is not a terminal"},
		{term.slave, file, "open monit: the output is not a terminal"},
	} {
		err := Run(t.Context(), newFake(fleet(time.Now())), "", c.in, c.out)
		var e *api.Error
		if !errors.As(err, &e) || e.Message != c.want || !strings.Contains(e.Hint, "gpm list and gpm logs") {
			t.Errorf("Run: %v, want %q", err, c.want)
		}
	}
	if term.text() != "" {
		t.Errorf("the screen was touched: %q", term.text())
	}
}

func TestErrorsBeforeTheScreen(t *testing.T) {
	term := openTerminal(t)
	gone := newFake(fleet(time.Now()))
	gone.down()
	if err := Run(t.Context(), gone, "", term.slave, term.slave); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	var e *api.Error
	if err := Run(t.Context(), newFake(fleet(time.Now())), "nope", term.slave, term.slave); !errors.As(err, &e) || e.Kind != api.KindNotFound {
		t.Errorf("without a match: %v", err)
	}
	if err := Run(t.Context(), newFake(fleet(time.Now())), "/(/", term.slave, term.slave); !errors.As(err, &e) || e.Kind != api.KindInvalid {
		t.Errorf("with a broken regex: %v", err)
	}
	if term.text() != "" || term.modes() != term.before {
		t.Errorf("the screen was touched: %q", term.text())
	}
}
