package steer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/aim"
)

// limit bounds every wait: it is no measure of speed.
const limit = 20 * time.Second

// server is a listener that tells each client its number.
type server struct {
	Listener
	id       byte
	l        *net.TCPListener
	mu       sync.Mutex
	accepted int
	conns    []net.Conn
	done     chan struct{}
}

// listen opens a socket in the reuseport group of an address; port 0 is a new group.
func listen(t testing.TB, addr string) *server {
	t.Helper()
	network := "tcp"
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is4() {
		network = "tcp4" // 0.0.0.0 would become [::]
	}
	s, err := tryListen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// tryListen listens; with tcp6 on [::] without IPv4.
func tryListen(network, addr string) (*server, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
			return e
		}
		return err
	}}
	c.SetMultipathTCP(false)
	l, err := c.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	s := &server{l: l.(*net.TCPListener)}
	s.File, err = s.l.File()
	if err == nil {
		s.Listener, err = describe(s.File)
	}
	if err != nil {
		l.Close()
	}
	return s, err
}

func describe(f *os.File) (Listener, error) {
	l := Listener{File: f}
	err := with(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		l.Inode = st.Ino
		var err error
		if l.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			l.Addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			l.Addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
			only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return err
			}
			l.Only6 = only != 0
		}
		return nil
	})
	return l, err
}

// serve accepts from now on, and keeps what it accepts.
func (s *server) serve(id int) *server {
	s.id, s.done = byte(id), make(chan struct{})
	go func() {
		defer close(s.done)
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.accepted++
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			_, _ = c.Write([]byte{s.id})
		}
	}()
	return s
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// stop closes the listening socket, all copies.
func (s *server) stop() {
	s.l.Close()
	s.File.Close()
	if s.done != nil {
		<-s.done
	}
}

func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *server) close() {
	s.stop()
	s.hangUp()
}

// dial connects and returns the number of who answers.
func dial(to string, by aim.Aim) (net.Conn, int, error) {
	d := by.Dialer()
	d.Timeout = limit
	c, err := d.Dial("tcp", to)
	if err != nil {
		return nil, -1, err
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	b := make([]byte, 1)
	if _, err := c.Read(b); err != nil {
		c.Close()
		return nil, -1, fmt.Errorf("connected, and then: %w", err)
	}
	return c, int(b[0]), nil
}

// ask is dial without a connection that stays.
func ask(t testing.TB, to string, by aim.Aim) int {
	t.Helper()
	c, id, err := dial(to, by)
	if err != nil {
		t.Fatalf("connect to %s by %v: %v", to, by, err)
	}
	c.Close()
	return id
}

func refused(t testing.TB, to string, by aim.Aim) {
	t.Helper()
	c, id, err := dial(to, by)
	if err == nil {
		c.Close()
		t.Fatalf("server %d answered, want a refusal", id)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("connect: %v, want a refusal", err)
	}
}

func loopback(a netip.AddrPort) string { return fmt.Sprintf("127.0.0.1:%d", a.Port()) }

// shop is what the keeper has, and what was told.
type shop struct {
	mu       sync.Mutex
	files    map[string]*os.File
	problems []string
}

func (s *shop) options(m Mode) Options {
	return Options{Mode: m,
		Store: func(name string, f *os.File) error {
			fd, err := duplicate(f)
			if err != nil {
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if old := s.files[name]; old != nil {
				old.Close()
			}
			s.files[name] = os.NewFile(uintptr(fd), name)
			return nil
		},
		Drop: func(name string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.files[name] == nil {
				return fmt.Errorf("there is no %q", name)
			}
			s.files[name].Close()
			delete(s.files, name)
			return nil
		},
		Problem: func(_ string, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.problems = append(s.problems, err.Error())
		},
	}
}

func (s *shop) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// restart is a new Steerer with what the keeper has, as after a kill -9.
func (s *shop) restart(t testing.TB, m Mode) *Steerer {
	t.Helper()
	st := New(s.options(m))
	for name, f := range s.files {
		fd, err := duplicate(f)
		if err != nil {
			t.Fatal(err)
		}
		if !IsName(name) {
			t.Errorf("%q is not a name of steering", name)
		}
		if err := st.Restore(name, os.NewFile(uintptr(fd), name)); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// die drops all that a killed daemon would, and nothing that it would not.
func die(s *Steerer) {
	for _, g := range s.groups {
		g.close()
	}
	s.groups = nil
}

func open(t testing.TB, m Mode) (*Steerer, *shop) {
	t.Helper()
	if m == EBPF {
		err := tryEBPF()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, ebpf.ErrNotSupported) {
			t.Skipf("eBPF is not to be had: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	} else if _, why := detectClassic("", false); why != "" {
		t.Skip(why)
	}
	k := &shop{files: map[string]*os.File{}}
	return New(k.options(m)), k
}

const site = "[::]:80 -"

func join(t testing.TB, s *Steerer, l *server, tr Traffic) {
	t.Helper()
	if err := s.Join(site, Least, l.Listener, tr); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func leave(s *Steerer, l *server) {
	closed := s.Leave(l.Cookie)
	l.stop()
	closed()
}

// mark is the aim at l.
func mark(t testing.TB, s *Steerer, l *server) aim.Aim {
	t.Helper()
	a, ok := s.Aim(l.Cookie)
	if !ok {
		t.Fatalf("listener %d cannot be aimed at", l.id)
	}
	return a
}

func wantHow(t testing.TB, s *Steerer, want string) {
	t.Helper()
	if how := s.How(site); how != want {
		t.Errorf("steered by %q, want %q", how, want)
	}
}

// until waits for a condition of the kernel's.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// crowd connects all the time. Between clients that are on their way a test may
// take stock: pause waits for all of them.
type crowd struct {
	gate   sync.RWMutex
	stop   chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	asked  int
	failed []error
}

func newCrowd(t testing.TB, to string, n int) *crowd {
	c := &crowd{stop: make(chan struct{})}
	for range n {
		c.wg.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				c.gate.RLock()
				conn, _, err := dial(to, aim.Aim{})
				if err == nil {
					conn.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: ports are few
					conn.Close()
				}
				c.mu.Lock()
				c.asked++
				if err != nil {
					c.failed = append(c.failed, err)
				}
				c.mu.Unlock()
				c.gate.RUnlock()
			}
		})
	}
	t.Cleanup(c.end)
	return c
}

func (c *crowd) end() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.wg.Wait()
}

// more waits until another n have been answered.
func (c *crowd) more(t testing.TB, n int) {
	t.Helper()
	c.mu.Lock()
	goal := c.asked + n
	c.mu.Unlock()
	until(t, "clients were answered", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.asked >= goal
	})
}

func (c *crowd) check(t testing.TB) {
	t.Helper()
	c.end()
	if len(c.failed) > 0 {
		t.Errorf("%d of %d clients failed, the first: %v", len(c.failed), c.asked, c.failed[0])
	}
}

// asNobody runs a test of this binary again as an ordinary user; true: this is
// that run.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	t.Logf("as an ordinary user:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}
