//go:build linux

package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDelayGrowsAndEnds(t *testing.T) {
	want := []time.Duration{0, 0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000}
	for n, ms := range want {
		if got := delay(n); got != ms*time.Millisecond {
			t.Errorf("delay(%d) is %v, want %v", n, got, ms*time.Millisecond)
		}
	}
	if got := delay(1 << 30); got != maxDelay {
		t.Errorf("after a billion deaths it is %v", got)
	}
}

func TestProgramsTakeTurnsUntilOneIsReady(t *testing.T) {
	p := program{path: "/new", named: true, proven: 7}
	old := fmt.Sprintf("/proc/%d/fd/7", os.Getpid())
	for i, want := range []string{"/new", "/new", old, old, "/new", "/new", old} {
		if got, trial := p.choose(); got != want || trial != (want == "/new") {
			t.Errorf("attempt %d: %q, on trial %v; want %q", i, got, trial, want)
		}
		p.failed()
	}
	p.ready(old, os.Getpid())
	for range 2 {
		if got, _ := p.choose(); got != old {
			t.Errorf("after the old one was ready: %q", got)
		}
	}
}

func TestADaemonThatDiesAtOnceIsStartedUntilItLives(t *testing.T) {
	r := start(t, nil)
	broken, daemon := filepath.Join(r.home, "broken"), r.inventory().PID
	write(t, broken, "")
	kill(t, daemon)
	r.until("it was tried six times", func() bool { return r.logged("exit code 3") >= 6 })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	r.inventory()
}

// logged counts a text in gpm.log.
func (r *rig) logged(text string) int {
	b, _ := os.ReadFile(filepath.Join(r.home, logName))
	return strings.Count(string(b), text)
}

func TestTheNextDaemonIsTheOneNamed(t *testing.T) {
	r := start(t, nil)
	next := filepath.Join(t.TempDir(), "gpm-2")
	copyFile(t, self(), next)
	before := r.must(request{Op: "next", Name: next})
	if inv := r.daemonAfter(before); inv.Inv.Exe != next {
		t.Errorf("the next daemon is %q, want %q", inv.Inv.Exe, next)
	}
	if inv := r.killDaemon(); inv.Inv.Exe != next {
		t.Errorf("the one after is %q, want %q", inv.Inv.Exe, next)
	}
	for _, bad := range []string{"gpm", "/no/such/gpm", "/etc/passwd", "/usr"} {
		if a := r.ask(request{Op: "next", Name: bad}); !strings.Contains(a.Err, strconv.Quote(bad)) {
			t.Errorf("next %q: %q", bad, a.Err)
		}
	}
}

func TestABrokenUpdateIsTakenBack(t *testing.T) {
	for name, text := range map[string]string{
		"dies":       "#!/bin/sh\nexit 1\n",
		"no program": "\x7fELF, or not\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			c := r.sh("app", "sleep 1000")
			before := r.inventory()
			next := filepath.Join(t.TempDir(), "gpm-2")
			if err := os.WriteFile(next, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			r.must(request{Op: "next", Name: next})
			inv := r.daemonAfter(before)
			if inv.Inv.Exe == next || len(inv.Children) != 1 || inv.Children[0] != c {
				t.Errorf("got %+v", inv)
			}
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", inv.PID))
			if err != nil || exe != self() {
				t.Errorf("the daemon is %q (%v), want the old %q", exe, err, self())
			}
		})
	}
}

func TestAGPMWhoseFileIsGoneGoesOn(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "gpm")
	copyFile(t, self(), exe)
	r := start(t, func(c *exec.Cmd) { c.Env = append(c.Env, "GPM_TEST_EXE="+exe) })
	r.inventory()
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	r.killDaemon()
	r.killKeeper()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSIGTERMStopsEverything(t *testing.T) {
	r := start(t, nil)
	c := r.sh("app", "sleep 1000")
	for range 2 { // the second changes nothing
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
	}
	if code := r.wait(); code != ExitOK {
		t.Errorf("the keeper ends with %d", code)
	}
	r.until("the app is dead", func() bool {
		s := status(c.PID, "State")
		return s == "" || strings.HasPrefix(s, "Z") // init reaps it when it likes
	})
	if _, ok := Running(r.home); ok {
		t.Error("it is said to run")
	}
}

func TestSIGTERMWithADeadDaemonIsPassedToTheNext(t *testing.T) {
	r := start(t, nil)
	broken, daemon := filepath.Join(r.home, "broken"), r.inventory().PID
	write(t, broken, "")
	kill(t, daemon)
	r.until("the next ones die", func() bool { return r.logged("exit code 3") >= 2 })
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != ExitOK {
		t.Errorf("the keeper ends with %d", code)
	}
}

func TestADaemonThatDoesNotStopIsLeft(t *testing.T) {
	r := start(t, func(c *exec.Cmd) { c.Env = append(c.Env, "GPM_TEST_TERMINATE=50ms") })
	c := r.sh("app", "sleep 1000")
	daemon := r.inventory().PID
	write(t, filepath.Join(r.home, "deaf"), "")
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if code := r.wait(); code != ExitFailed {
		t.Errorf("the keeper ends with %d", code)
	}
	// It may still be on its way to sleep: R and D live as well.
	if s := status(c.PID, "State"); s == "" || strings.ContainsAny(s[:1], "ZX") {
		t.Errorf("the app is %q, want it alive", s)
	}
	kill(t, c.PID)
	_ = syscall.Kill(daemon, syscall.SIGKILL)
}

func TestInTheForegroundStderrStaysAndSystemdIsTold(t *testing.T) {
	dir := t.TempDir()
	systemd := newSystemd(t)
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	r := start(t, func(c *exec.Cmd) {
		c.Env = append(c.Env, "GPM_TEST_FOREGROUND=1", "NOTIFY_SOCKET="+systemd.path)
		c.Stderr = stderr
	})
	told := func() string {
		b := make([]byte, 1000)
		if err := systemd.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := systemd.conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(b), "FDSTORE") {
				return string(b[:n])
			}
		}
	}
	r.accepts()
	ready := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=the daemon runs, pid %d", r.cmd.Process.Pid, r.inventory().PID)
	if got, want := told(), ready; got != want {
		t.Errorf("systemd is told %q, want %q", got, want)
	}
	if !r.inventory().Inv.Foreground {
		t.Error("the daemon does not know")
	}
	r.killDaemon()
	told()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if got := told(); got != "STOPPING=1" {
		t.Errorf("systemd is told %q", got)
	}
	if code := r.wait(); code != ExitOK {
		t.Errorf("the keeper ends with %d", code)
	}
	if b, _ := os.ReadFile(stderr.Name()); !strings.Contains(string(b), "the daemon (pid") {
		t.Errorf("stderr holds %q", b)
	}
	if _, err := os.Stat(filepath.Join(r.home, logName)); err == nil {
		t.Error("there is a gpm.log")
	}
}

func TestADaemonThatDoesNotReadLosesNothing(t *testing.T) {
	r := start(t, nil)
	const n = 400 // exits: more than the socket's buffer holds
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r.sh(strconv.Itoa(i), "read x <"+gate+"; exit 6")
	}
	before := r.inventory()
	_ = syscall.Kill(before.PID, syscall.SIGSTOP)
	open, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.WriteString(strings.Repeat("\n", n)); err != nil {
		t.Fatal(err)
	}
	r.until("all apps are reaped", func() bool {
		for _, c := range before.Children {
			if status(c.PID, "State") != "" {
				return false
			}
		}
		return true
	})
	_ = syscall.Kill(before.PID, syscall.SIGCONT)
	for i := range n {
		if e := r.exit(strconv.Itoa(i)); e.Code != 6 {
			t.Fatalf("app %d: got %+v, want code 6", i, e)
		}
	}
	if after := r.inventory(); after.PID != before.PID {
		t.Error("the daemon is another one")
	}
}

func TestTheKeeperIsSmallAndItsDaemonSoonBack(t *testing.T) {
	r := start(t, nil)
	r.must(request{Op: "bench", Count: 200})
	began := time.Now()
	r.killDaemon()
	t.Logf("kill -9 of the daemon to the next answer: %v", time.Since(began).Round(100*time.Microsecond))
	for _, f := range []string{"VmRSS", "RssAnon", "Threads"} {
		t.Logf("keeper %s: %s", f, status(r.cmd.Process.Pid, f))
	}
}

func BenchmarkSpawn(b *testing.B) {
	for _, filtered := range []bool{false, true} {
		b.Run(fmt.Sprintf("filtered=%v", filtered), func(b *testing.B) {
			r := start(b, nil)
			r.inventory()
			for b.Loop() {
				a := r.must(request{Op: "bench", Count: 100, Filtered: filtered})
				b.ReportMetric(float64(a.Took.Microseconds())/100, "us/spawn")
			}
		})
	}
}
