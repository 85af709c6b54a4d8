//go:build linux

package keeper

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the keeper, the daemon and the app: a test starts a
// real keeper in a home of its own, which starts the daemon of daemon_test.go.
// The test talks to that one through gpm.sock, one JSON request per connection.

const patience = 30 * time.Second // for a condition; never reached on a sound run

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			if d, err := time.ParseDuration(os.Getenv("GPM_TEST_TERMINATE")); err == nil {
				terminateLimit = d
			}
			var opts []Option
			if os.Getenv("GPM_TEST_FOREGROUND") != "" {
				opts = append(opts, Foreground)
			}
			os.Exit(Main(os.Getenv(envHome), self(), opts...))
		case "daemon":
			os.Exit(daemonMain())
		case "app":
			os.Exit(appMain(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// self is the test binary under a path that other users may execute too.
func self() string {
	if exe := os.Getenv("GPM_TEST_EXE"); exe != "" {
		return exe
	}
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

// house under test.
type rig struct {
	t      testing.TB
	home   string
	cmd    *exec.Cmd
	stderr string // what the keeper wrote before it was ready
}

// launch starts a keeper and waits until its stderr ends.
func launch(t testing.TB, home string, change func(*exec.Cmd)) *rig {
	t.Helper()
	r := &rig{t: t, home: home}
	r.cmd = exec.Command(self(), "keeper")
	r.cmd.Args[0] = "gpm"
	// The race detector would keep each process a second at its end.
	r.cmd.Env = append(os.Environ(), envHome+"="+home, "GORACE=atexit_sleep_ms=0")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if change != nil {
		change(r.cmd)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if r.cmd.Stderr == nil {
		r.cmd.Stderr = pw
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := pr.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(pr)
	if err != nil {
		t.Fatalf("the keeper's stderr has no end: %v", err)
	}
	r.stderr = string(text)
	return r
}

// start is launch of a keeper that must come up; it is ended with the test.
func start(t testing.TB, change func(*exec.Cmd)) *rig {
	t.Helper()
	r := launch(t, t.TempDir(), change)
	t.Cleanup(func() {
		r.end()
		log, _ := os.ReadFile(filepath.Join(r.home, logName))
		for _, bad := range []string{"DATA RACE", "a bug in gpm", "panic:"} {
			if strings.Contains(string(log), bad) {
				t.Errorf("gpm.log says %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("gpm.log:\n%s", log)
		}
	})
	if r.stderr != "" {
		t.Fatalf("the keeper says: %s", r.stderr)
	}
	return r
}

// wait waits for the keeper's end and returns its exit code.
func (r *rig) wait() int {
	limit := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
	defer limit.Stop()
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

// accepts waits for gpm.sock: a keeper whose stderr stays open does not say when.
func (r *rig) accepts() {
	r.t.Helper()
	r.until("gpm.sock accepts", func() bool {
		c, err := net.Dial("unix", filepath.Join(r.home, sockName))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// end kills what runs, has the keeper quit, and waits for it.
func (r *rig) end() {
	if pid, ok := Running(r.home); ok {
		var inv reply
		if err := r.try(request{Op: "inventory"}, &inv); err == nil {
			for _, c := range inv.Children {
				if c.Exit == nil {
					_ = syscall.Kill(-c.PID, syscall.SIGKILL)
				}
			}
		}
		if err := r.try(request{Op: "quit"}, &inv); err != nil {
			r.t.Errorf("quit: %v", err)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		r.until("the keeper has ended", func() bool { _, ok := Running(r.home); return !ok })
	}
	if r.cmd.ProcessState == nil {
		r.wait()
	}
}

// until waits for a condition.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	until(r.t, what, cond)
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("after %v it is still not true that %s", patience, what)
		case <-tick.C:
		}
	}
}

// try asks the daemon. While there is none the connection waits in gpm.sock.
func (r *rig) try(q request, a *reply) error {
	c, err := net.Dial("unix", filepath.Join(r.home, sockName))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return err
	}
	*a = reply{}
	return json.NewDecoder(c).Decode(a)
}

// ask is try that must succeed; the answer may still be an error of the request.
func (r *rig) ask(q request) reply {
	r.t.Helper()
	var a reply
	if err := r.try(q, &a); err != nil {
		r.t.Fatalf("ask the daemon for %q: %v", q.Op, err)
	}
	return a
}

// must is ask for what must work.
func (r *rig) must(q request) reply {
	r.t.Helper()
	a := r.ask(q)
	if a.Err != "" {
		r.t.Fatalf("%s: %s", q.Op, a.Err)
	}
	return a
}

func (r *rig) inventory() reply { r.t.Helper(); return r.must(request{Op: "inventory"}) }

// sh starts a shell command.
func (r *rig) sh(tag, command string) Child {
	r.t.Helper()
	return *r.must(request{Op: "spawn", Tag: tag, Argv: []string{"/bin/sh", "-c", command}}).Child
}

// app starts the app of daemon_test.go.
func (r *rig) app(tag string, filtered bool, args ...string) Child {
	r.t.Helper()
	return *r.must(request{Op: "spawn", Tag: tag, Filtered: filtered, Argv: append([]string{self(), "app"}, args...)}).Child
}

// exit waits for the exit of the child with that tag.
func (r *rig) exit(tag string) Exit {
	r.t.Helper()
	return *r.must(request{Op: "exit", Tag: tag}).Exit
}

// killDaemon kills it and returns the inventory of the next one.
func (r *rig) killDaemon() reply {
	r.t.Helper()
	before := r.inventory()
	kill(r.t, before.PID)
	return r.daemonAfter(before)
}

// daemonAfter waits until another daemon answers.
func (r *rig) daemonAfter(before reply) (after reply) {
	r.t.Helper()
	r.until("another daemon answers", func() bool {
		return r.try(request{Op: "inventory"}, &after) == nil && after.PID != before.PID
	})
	return after
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// status is a field of /proc/pid/status, "" if there is no such process.
func status(pid int, name string) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// nextPort starts at another place in each test process.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(int64(os.Getpid() * 37 % 20000))
	return n
}()

// freePort is a port that nobody has now, and that nobody who asks for any port
// gets before it is used: it is below the kernel's range of those.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := int(10000 + nextPort.Add(1)%22000)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// served connects and returns the pid of the app that accepted, 0 if none did.
func served(addr string) int {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var pid int
	if _, err := fmt.Fscan(c, &pid); err != nil {
		return 0
	}
	return pid
}
