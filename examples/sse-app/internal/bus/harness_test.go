package bus

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// long bounds every wait in these tests; it is never reached when all is well.
const long = 30 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// built is the command sse-bus, built once for all tests.
var built struct {
	sync.Once
	dir string
	err error
}

func sseBus(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		for _, file := range []string{"main.go", "fence.go"} { // read, so that a change runs cached tests again
			if _, built.err = os.ReadFile(filepath.Join("../../bus", file)); built.err != nil {
				return
			}
		}
		if built.dir, built.err = os.MkdirTemp("", "sse-bus"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", built.dir, "gpm/examples/sse-app/bus").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "bus")
}

// server is a process that speaks Redis: ours or the real one. It can be killed,
// frozen, and started anew on the same port.
type server struct {
	t    testing.TB
	kind string
	port string
	url  string
	dir  string
	cmd  *exec.Cmd
}

// both runs a test against each.
func both(t *testing.T, test func(t *testing.T, s *server)) {
	for _, kind := range []string{"sse-bus", "redis"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, serverOf(t, kind))
		})
	}
}

func serverOf(t testing.TB, kind string) *server {
	t.Helper()
	s := &server{t: t, kind: kind, port: reserved(t), dir: t.TempDir()}
	if kind == "redis" {
		s.url = "redis://:secret@127.0.0.1:" + s.port + "/0"
	}
	t.Cleanup(s.kill)
	s.start()
	return s
}

// reserved is a port of the loopback that nobody else gets by chance until the end
// of the test, also while the server on it is dead: it is bound, and as nobody
// listens there, who names it may bind it, too.
func reserved(t testing.TB) (port string) {
	t.Helper()
	syscall.ForkLock.RLock() // no process is to be started with it
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(at.(*syscall.SockaddrInet4).Port)
}

func (s *server) start() {
	s.t.Helper()
	if s.kind == "redis" {
		path, err := exec.LookPath("redis-server")
		if err != nil {
			s.t.Skip("no redis-server: packaging/test-tools.sh installs it")
		}
		s.cmd = exec.Command(path, "--port", s.port, "--bind", "127.0.0.1", "--requirepass", "secret",
			"--save", "", "--appendonly", "no", "--dir", s.dir)
	} else {
		s.cmd = exec.Command(sseBus(s.t), "-url", filepath.Join(s.dir, "bus.url"))
		s.cmd.Env = append(os.Environ(), "PORT="+s.port)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if text := lines.Text(); strings.Contains(text, "listening on") || strings.Contains(text, "Ready to accept") {
			break
		}
	}
	go func() { // until the process ends
		for lines.Scan() {
		}
	}()
	if s.url == "" { // it keeps its password when it is started anew
		text, err := os.ReadFile(filepath.Join(s.dir, "bus.url"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.url = strings.TrimSpace(string(text))
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// freeze stops it; it has stopped when this returns.
func (s *server) freeze() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		s.t.Fatalf("it has not stopped: %v, %v", status, err)
	}
}

func (s *server) thaw() { s.cmd.Process.Signal(syscall.SIGCONT) }

// open is one more process's connection to s.
func (s *server) open(t testing.TB, o Options) *Bus {
	t.Helper()
	if o.URL == nil {
		o.URL = func() (string, error) { return s.url, nil }
	}
	o.patience = cmp.Or(o.patience, long) // a machine that stands still for a moment is not a bus that is away
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// raw is a plain client.
func (s *server) raw(t testing.TB) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(s.url)
	if err != nil {
		t.Fatal(err)
	}
	o.Protocol = 2
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func follow(t testing.TB, b *Bus, log, after string) *Follower {
	t.Helper()
	f, err := b.Follow(log, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func publish(t testing.TB, b *Bus, log, id, data string) Entry {
	t.Helper()
	e, fresh, err := b.Publish(t.Context(), log, Entry{ID: id, Data: data})
	if err != nil || !fresh {
		t.Fatalf("publish %q: fresh %v, %v", data, fresh, err)
	}
	return e
}

// take waits until f has something to say that is not "not now".
func take(t testing.TB, f *Follower) (entries []Entry, gap bool) {
	t.Helper()
	deadline := time.NewTimer(long)
	defer deadline.Stop()
	for {
		select {
		case <-f.Ready():
		case <-deadline.C:
			t.Fatalf("a follower of %s heard nothing for %v", f.t.name, long)
		}
		entries, gap, err := f.Next(t.Context())
		if err != nil && !errors.Is(err, ErrDown) {
			t.Fatal(err)
		}
		if gap || len(entries) > 0 {
			return entries, gap
		}
	}
}

// gather waits until f has given count entries.
func gather(t testing.TB, f *Follower, count int) (data []string, gaps int) {
	t.Helper()
	for len(data) < count {
		entries, gap := take(t, f)
		if gap {
			gaps++
		}
		for _, e := range entries {
			data = append(data, e.Data)
		}
	}
	return data, gaps
}

// at waits until f stands somewhere: a follower that begins Now has begun.
func at(t testing.TB, f *Follower) *Follower {
	t.Helper()
	for f.Cursor() == "" {
		<-f.Ready()
		if es, gap, err := f.Next(t.Context()); len(es) > 0 || gap || err != nil && !errors.Is(err, ErrDown) {
			t.Fatal(es, gap, err)
		}
	}
	return f
}

// numbers are the texts of from, from+1, ... to.
func numbers(from, to int) (texts []string) {
	for i := from; i <= to; i++ {
		texts = append(texts, strconv.Itoa(i))
	}
	return texts
}

func texts(entries []Entry) (data []string) {
	for _, e := range entries {
		data = append(data, e.Data)
	}
	return data
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d entries, want %d: %.300q", what, len(got), len(want), got)
	}
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
