//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnyNameFitsSystemdAndComesBack(t *testing.T) {
	for _, name := range []string{
		"keeper/api", "notify", "log/a%20b/0/12/out.journal", "listen/x/0/%5B%3A%3A%5D%3A80/-6r", `ipc/a:b\c/0/1`, "a\nFDSTORE=1", "ü/\x7f\x00 /", `\`,
	} {
		fdname, ok := fdName(name)
		if !ok || len(fdname) > 255 || strings.ContainsFunc(fdname, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
			t.Errorf("%q becomes %q, %v", name, fdname, ok)
		}
		if back, ok := nameOf(fdname); !ok || back != name {
			t.Errorf("%q comes back as %q, %v", name, back, ok)
		}
	}
	if _, ok := fdName(strings.Repeat("x", 252)); ok {
		t.Error("256 characters are accepted")
	}
	for _, foreign := range []string{"", "stored", "web.socket", "gpm/", `gpm/a\`, `gpm/a\3`, `gpm/a\zz`, "keeper/api"} {
		if name, ok := nameOf(foreign); ok {
			t.Errorf("%q is taken for %q", foreign, name)
		}
	}
}

// systemd is a fake one: it has a notify socket and a store.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
	path string

	mu     sync.Mutex
	store  map[string]*os.File // by FDNAME
	states []string
	ended  chan struct{}
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{t: t, path: filepath.Join(t.TempDir(), "notify"), store: map[string]*os.File{}, ended: make(chan struct{})}
	var err error
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// read starts to read; it ends with the socket.
func (s *systemd) read() {
	go func() {
		defer close(s.ended)
		b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*8))
		for {
			n, oobn, _, _, err := s.conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			s.told(string(b[:n]), rights(oob[:oobn]))
		}
	}()
	s.t.Cleanup(func() { s.conn.Close(); <-s.ended })
}

func (s *systemd) told(text string, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest, add := strings.CutPrefix(text, "FDSTORE=1\nFDNAME=")
	name, noPoll := strings.CutSuffix(rest, "\nFDPOLL=0")
	gone, remove := strings.CutPrefix(text, "FDSTOREREMOVE=1\nFDNAME=")
	switch {
	case add && noPoll && len(fds) == 1:
		if s.store[name] != nil {
			s.t.Errorf("%q is stored twice", name)
		}
		s.store[name] = os.NewFile(uintptr(fds[0]), name)
	case remove && s.store[gone] != nil && len(fds) == 0:
		s.store[gone].Close()
		delete(s.store, gone)
	case !add && !remove && len(fds) == 0:
		s.states = append(s.states, text)
	default:
		s.t.Errorf("systemd is told %q with %d descriptors", text, len(fds))
	}
}

func (s *systemd) names() (r []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.store {
		r = append(r, name)
	}
	slices.Sort(r)
	return r
}

// has waits until the store has just these names, besides the keeper's own.
func (s *systemd) has(want ...string) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("systemd has %q", want), func() bool {
		got := slices.DeleteFunc(s.names(), func(n string) bool { return strings.HasPrefix(n, fdMark+ReservedPrefix) })
		return slices.Equal(got, want)
	})
}

// keeper starts one as systemd would, with all that is in the store.
func (s *systemd) keeper(home string) *rig {
	s.t.Helper()
	stderr, err := os.Create(filepath.Join(s.t.TempDir(), "stderr"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if b, _ := os.ReadFile(stderr.Name()); s.t.Failed() {
			s.t.Logf("the keeper said:\n%s", b)
		}
		stderr.Close()
	})
	names := s.names()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := launch(s.t, home, func(c *exec.Cmd) {
		c.Env = append(c.Env, "GPM_TEST_FOREGROUND=1", "NOTIFY_SOCKET="+s.path)
		c.Stderr = stderr
		if len(names) == 0 {
			return
		}
		for _, name := range names {
			c.ExtraFiles = append(c.ExtraFiles, s.store[name])
		}
		c.Env = append(c.Env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" keeper`, self()}
	})
	s.t.Cleanup(r.end)
	r.accepts()
	return r
}

func TestSystemdHasWhatTheKeeperHas(t *testing.T) {
	s := newSystemd(t)
	s.read()
	r := s.keeper(t.TempDir())
	r.must(request{Op: "store", Name: "log/1", Data: "one"})
	r.must(request{Op: "store", Name: "a:b", Data: "two"})
	s.has(`gpm/a\3ab`, "gpm/log/1")
	r.must(request{Op: "store", Name: "log/1", Data: "three"}) // in place of the other
	r.must(request{Op: "drop", Name: "a:b"})
	s.has("gpm/log/1")
	until(t, "it has the newer one", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.store["gpm/log/1"]
		if f == nil {
			return false
		}
		b, err := io.ReadAll(f) // a pipe without a writer
		return err == nil && string(b) == "three"
	})
	if got := s.names(); !slices.Contains(got, "gpm/"+APIFile) || slices.Contains(got, "gpm/"+LockFile) {
		t.Errorf("it has %q", got)
	}
	r.must(request{Op: "quit"})
	r.wait()
	until(t, "an orderly end leaves nothing", func() bool { return len(s.names()) == 0 })
}

func TestTheKeeperAfterAKilledOneHasItBack(t *testing.T) {
	s := newSystemd(t)
	s.read()
	home := t.TempDir()
	r := s.keeper(home)
	if why := r.inventory().Inv.Hold; why != "" {
		t.Skipf("this system cannot hold listeners: %s", why)
	}
	gate, addr := filepath.Join(home, "go"), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	r.must(request{Op: "store", Name: "log/1", Data: "kept"})
	app := *r.must(request{Op: "spawn", Tag: "app", Filtered: true, Argv: []string{
		"/bin/sh", "-c", `until [ -e "$0" ]; do sleep 0.01; done; exec "$1" app serve "$2"`, gate, self(), addr,
	}}).Child
	defer func() { _ = unix.Kill(-app.PID, unix.SIGKILL) }()
	s.has("gpm/log/1")
	before := r.inventory()
	kill(t, before.Inv.KeeperPID)
	r.wait()
	until(t, "its daemon ends by itself", func() bool {
		return status(before.PID, "State") == "" || strings.HasPrefix(status(before.PID, "State"), "Z")
	})

	write(t, gate, "") // it binds while there is neither keeper nor daemon
	asked := make(chan error, 1)
	var waited reply
	go func() { asked <- r.try(request{Op: "inventory"}, &waited) }() // this one waits in gpm.sock
	until(t, "the app waits in bind()", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", app.PID))
		return !strings.HasPrefix(string(b), "sh")
	})
	write(t, filepath.Join(home, "adopt"), fmt.Sprintf("%d %d app", app.PID, app.Start))
	next := s.keeper(home)
	if err := <-asked; err != nil {
		t.Errorf("who had connected before: %v", err)
	}
	inv := next.inventory()
	if !slices.Contains(inv.Files, "log/1") || next.must(request{Op: "read", Name: "log/1"}).Data != "kept" {
		t.Errorf("it has %q", inv.Files)
	}
	until(t, "the app serves", func() bool { return served(addr) == app.PID })
	s.has("gpm/"+"held/app/"+strings.ReplaceAll(addr, ":", `\3a`), "gpm/log/1")
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", inv.PID))
	if err != nil || strings.Contains(string(env), "LISTEN_") {
		t.Errorf("the daemon's environment: %v, %q", err, env)
	}
}

func TestASystemdThatDoesNotReadStopsNobody(t *testing.T) {
	s := newSystemd(t)
	r := s.keeper(t.TempDir())
	const n = 600 // more than the socket takes
	var want []string
	for i := range n {
		name := fmt.Sprintf("log/%04d", i)
		r.must(request{Op: "store", Name: name, Data: "x"})
		if i%2 == 0 {
			r.must(request{Op: "drop", Name: name})
			continue
		}
		want = append(want, fdMark+name)
	}
	s.read()
	s.has(want...)
	until(t, "it is told that the daemon is ready", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.states, func(st string) bool { return strings.HasPrefix(st, "READY=1\n") })
	})
}

func TestTheLockOfOneThatIsAboutToEndIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	first, err := enter(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	// A keeper that lives: this process is the one that has signed.
	if _, err := enter(dir, 0); !errors.Is(err, errBusy) {
		t.Errorf("beside a keeper that lives: %v", err)
	}
	write(t, filepath.Join(dir, lockName), "1 1\n") // one that is dead
	done := make(chan error, 1)
	go func() {
		_, err := enter(dir, first.api)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it does not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	unix.Close(first.lock) // the last one who had it ends
	if err := <-done; err != nil {
		t.Errorf("after its end: %v", err)
	}
}
