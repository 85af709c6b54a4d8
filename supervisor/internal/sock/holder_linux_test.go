package sock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/trap"
)

// stage is a Holder with the rest of gpm played around it.
type stage struct {
	*Holder
	t      *testing.T
	kept   map[string]*os.File
	events []Event
	broken error // what Store answers
	given  int   // sockets that were put in place of the app's
	uid    int   // of the apps
	inUse  func(inode uint64) bool
	asked  int // how often inUse was
	gated  map[string]bool
	caller atomic.Int64 // the process whose trap is being judged
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, kept: map[string]*os.File{}, gated: map[string]bool{}, uid: -1, inUse: func(uint64) bool { return false }}
	s.Holder = New(Options{
		Owner: func(tag string) (Owner, bool) {
			var o Owner
			n, err := fmt.Sscanf(tag, "%s %d %d", &o.App, &o.Index, &o.Gen)
			o.UID = s.uid
			return o, n == 3 && err == nil
		},
		InUse: func(_ string, inode uint64) bool { s.asked++; return s.inUse(inode) },
		Gate:  func(tag string) bool { return s.gated[tag] },
		Store: func(name string, f *os.File) error {
			if s.broken != nil {
				return s.broken
			}
			if s.kept[name] != nil {
				t.Errorf("%q is stored twice", name)
			}
			s.kept[name] = duplicate(t, f)
			return nil
		},
		Drop: func(name string) error {
			if s.kept[name] == nil {
				t.Errorf("%q is dropped, but was not stored", name)
				return nil
			}
			s.kept[name].Close()
			delete(s.kept, name)
			return nil
		},
		Event: func(e Event) { s.events = append(s.events, e) },
	})
	t.Cleanup(func() {
		for _, app := range []string{"a", "b"} {
			for i := range 4 {
				if err := s.Release(app, i); err != nil {
					t.Error(err)
				}
			}
		}
		if len(s.kept) != 0 {
			t.Errorf("the keeper still has %v", s.kept)
		}
	})
	return s
}

// event takes the only event there should be.
func (s *stage) event() Event {
	s.t.Helper()
	if len(s.events) != 1 {
		s.t.Fatalf("events %+v, want one", s.events)
	}
	e := s.events[0]
	s.events = nil
	return e
}

// quiet wraps a descriptor as the keeper's client does: outside the poller,
// whatever its O_NONBLOCK.
func quiet(t *testing.T, fd int) *os.File {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(fd, int(f.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return f
}

func duplicate(t *testing.T, f *os.File) *os.File {
	t.Helper()
	var out *os.File
	if err := with(f, func(fd int) error { out = quiet(t, fd); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// proc plays a process of an app: its bind and listen go through the Holder.
type proc struct {
	s   *stage
	tag string
	pid int
}

func (s *stage) proc(app string, index, gen int) proc {
	return proc{s, fmt.Sprintf("%s %d %d", app, index, gen), os.Getpid()}
}

// socket makes the app's own socket; closed at the end of the test.
func (p proc) socket(domain, protocol int, options ...int) int {
	p.s.t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		p.s.t.Fatal(err)
	}
	p.s.t.Cleanup(func() { unix.Close(fd) })
	for _, option := range options {
		level := unix.SOL_SOCKET
		if option == unix.IPV6_V6ONLY {
			level = unix.IPPROTO_IPV6
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			p.s.t.Fatal(err)
		}
	}
	return fd
}

// bind is the trapped call; it returns what the app would see.
func (p proc) bind(fd int, addr string) unix.Errno {
	p.s.t.Helper()
	return p.call(fd, &trap.Trap{Call: trap.Bind, Address: netip.MustParseAddrPort(addr)})
}

func (p proc) listen(fd, queue int) unix.Errno {
	p.s.t.Helper()
	addr, err := sockname(fd)
	if err != nil {
		p.s.t.Fatal(err)
	}
	if addr.Port() == 0 {
		addr = netip.AddrPort{}
	}
	return p.call(fd, &trap.Trap{Call: trap.Listen, Address: addr, Backlog: queue})
}

func (p proc) call(fd int, t *trap.Trap) unix.Errno {
	p.s.t.Helper()
	t.Tag, t.PID, t.FD, t.CloseOnExec, t.Socket = p.tag, p.pid, fd, true, quiet(p.s.t, fd)
	v := p.s.Handle(t)
	switch v.Action {
	case trap.ActErrno:
		return unix.Errno(v.Errno)
	case trap.ActInject:
		p.s.given++
		if !v.CloseOnExec {
			p.s.t.Error("close-on-exec is lost")
		}
		if err := with(v.File, func(held int) error { return unix.Dup3(held, fd, unix.O_CLOEXEC) }); err != nil {
			p.s.t.Fatal(err)
		}
		return 0
	}
	var err error
	if t.Call == trap.Listen {
		err = unix.Listen(fd, t.Backlog)
	} else {
		sa, e := sockaddr(fd, t.Address)
		if e != nil {
			p.s.t.Fatal(e)
		}
		err = unix.Bind(fd, sa)
	}
	return errnoOf(err)
}

// serve binds and listens on a fresh socket and fails the test if it cannot.
func (p proc) serve(domain int, addr string, options ...int) int {
	p.s.t.Helper()
	fd := p.socket(domain, 0, options...)
	if errno := p.bind(fd, addr); errno != 0 {
		p.s.t.Fatalf("bind %s: %v", addr, errno)
	}
	if errno := p.listen(fd, 5); errno != 0 {
		p.s.t.Fatalf("listen %s: %v", addr, errno)
	}
	return fd
}

// nextPort starts at another place in each test process.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(int64(os.Getpid() * 37 % 20000))
	return n
}()

// freePort is a port nobody has on any address, and that nobody who asks for any
// port gets before it is used: it is below the kernel's range of those.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(int(10000 + nextPort.Add(1)%22000))
		l, err := net.Listen("tcp", ":"+port)
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

func owner(app string, index, gen int) Owner { return Owner{App: app, Index: index, Gen: gen, UID: -1} }

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func cookie(t *testing.T, fd int) uint64 {
	t.Helper()
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func refused(t *testing.T, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect to %s: %v, want it refused", addr, err)
	}
	if c != nil {
		c.Close()
	}
}

func TestAListenerOutlivesItsProcess(t *testing.T) {
	for _, protocol := range []int{0, unix.IPPROTO_MPTCP} {
		t.Run(fmt.Sprint("protocol ", protocol), func(t *testing.T) {
			s, addr := newStage(t), "127.0.0.1:"+freePort(t)
			first := s.proc("a", 0, 1)
			if s.LearnedPorts("a", 0) {
				t.Error("a new place has listeners")
			}
			fd := first.socket(unix.AF_INET, 0)
			if protocol != 0 {
				mptcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, protocol)
				if err != nil {
					t.Skipf("this kernel has no MPTCP: %v", err)
				}
				unix.Dup3(mptcp, fd, unix.O_CLOEXEC)
				unix.Close(mptcp)
			}
			if errno := first.bind(fd, addr); errno != 0 {
				t.Fatal(errno)
			}
			if s.LearnedPorts("a", 0) || len(s.events) != 0 {
				t.Errorf("bound is not listening: %+v", s.events)
			}
			if errno := first.listen(fd, 5); errno != 0 {
				t.Fatal(errno)
			}
			if e := s.event(); e.Kind != Listening || e.Owner.App != "a" || e.Owner.Gen != 1 || e.Addr.String() != addr {
				t.Errorf("event %+v", e)
			}
			want := []Listener{{
				Addr: netip.MustParseAddrPort(addr), Listening: true, Inode: inode(t, fd), Cookie: cookie(t, fd),
				Gens: []int{1}, Traffic: steer.Serve, How: "hash",
			}}
			if diff := cmp.Diff(want, s.Listeners("a", 0), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("listeners (-want +got):\n%s", diff)
			}

			for range 10 { // more than the queue of 5 the app had asked for
				dial(t, addr)
			}
			unix.Close(fd) // the process dies
			if err := s.Retire("a", 0, 1); err != nil {
				t.Fatal(err)
			}
			if err := s.Down("a", 0, 1); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				dial(t, addr)
			}
			second := s.proc("a", 0, 2)
			again := second.serve(unix.AF_INET, addr)
			if e := s.event(); e.Kind != Listening || e.Owner.Gen != 2 {
				t.Errorf("event %+v", e)
			}
			for range 20 {
				conn, _, err := unix.Accept(again)
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(conn)
			}
		})
	}
}

func TestAReloadSharesOneSocket(t *testing.T) {
	s, addr := newStage(t), "127.0.0.1:"+freePort(t)
	old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	if cookie(t, old) != cookie(t, next) {
		t.Error("the next generation got a socket of its own: its predecessor's queue would be lost")
	}
	for _, step := range []func() error{
		func() error { return s.Settle("a", 0, 2) },
		func() error { return s.Retire("a", 0, 1) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if !s.LearnedPorts("a", 0) {
			t.Fatal("the listener was closed under the new generation")
		}
	}
}

func TestAFailedReloadLeavesTheOldOneItsListener(t *testing.T) {
	s, addr := newStage(t), "127.0.0.1:"+freePort(t)
	s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	s.Settle("a", 0, 1)
	s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	if err := s.Retire("a", 0, 2); err != nil {
		t.Fatal(err)
	}
	if !s.LearnedPorts("a", 0) {
		t.Error("the death of the new generation closed the old one's listener")
	}
}

func TestAChangedPortDoesNotStayOpen(t *testing.T) {
	s, before, after := newStage(t), "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	fd := s.proc("a", 0, 1).serve(unix.AF_INET, before)
	s.Settle("a", 0, 1)
	unix.Close(fd)
	s.Retire("a", 0, 1)
	s.proc("a", 0, 2).serve(unix.AF_INET, after)
	dial(t, before) // still queues: the new one is not online yet
	if err := s.Settle("a", 0, 2); err != nil {
		t.Fatal(err)
	}
	refused(t, before)
	dial(t, after)
}

func TestNonblockFollowsTheAppButNeverBlocksAnotherProcess(t *testing.T) {
	s, addr := newStage(t), "127.0.0.1:"+freePort(t)
	nonblock := func(fd int) bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return flags&unix.O_NONBLOCK != 0
	}
	bind := func(gen int, async bool) int {
		p := s.proc("a", 0, gen)
		fd := p.socket(unix.AF_INET, 0)
		unix.SetNonblock(fd, async)
		if errno := p.bind(fd, addr); errno != 0 {
			t.Fatal(errno)
		}
		if errno := p.listen(fd, 5); errno != 0 {
			t.Fatal(errno)
		}
		return fd
	}
	first := bind(1, false)
	if nonblock(first) {
		t.Fatal("holding changed a blocking socket")
	}
	unix.Close(first)
	s.Retire("a", 0, 1)
	second := bind(2, true)
	if !nonblock(second) {
		t.Error("a server with an event loop got a blocking socket: it would stand still in accept()")
	}
	third := bind(3, false)
	if !nonblock(second) || !nonblock(third) {
		t.Error("a reload made the socket of a living event loop blocking")
	}
	unix.Close(second)
	unix.Close(third)
	s.Retire("a", 0, 2)
	s.Retire("a", 0, 3)
	if nonblock(bind(4, false)) {
		t.Error("a blocking server got a non-blocking socket")
	}
}

func TestInstancesShareAPortAndOtherAppsDoNot(t *testing.T) {
	for _, c := range []struct {
		name         string
		domain       int
		held         string
		heldOptions  []int
		domain2      int
		asked        string
		askedOptions []int
		conflict     bool
	}{
		{"same address", unix.AF_INET, "127.0.0.1", nil, unix.AF_INET, "127.0.0.1", nil, true},
		{"wildcard and specific", unix.AF_INET, "0.0.0.0", nil, unix.AF_INET, "127.0.0.1", nil, true},
		{"two specific", unix.AF_INET, "127.0.0.1", nil, unix.AF_INET, "127.0.0.2", nil, false},
		{"dual stack and v4", unix.AF_INET6, "[::]", nil, unix.AF_INET, "127.0.0.1", nil, true},
		{"v6 only and v4", unix.AF_INET6, "[::]", []int{unix.IPV6_V6ONLY}, unix.AF_INET, "0.0.0.0", nil, false},
		{"v4 and dual stack", unix.AF_INET, "0.0.0.0", nil, unix.AF_INET6, "[::]", nil, true},
		{"v6 loopback and v4", unix.AF_INET6, "[::1]", nil, unix.AF_INET, "0.0.0.0", nil, false},
		{"only one asked to share", unix.AF_INET, "127.0.0.1", []int{unix.SO_REUSEPORT}, unix.AF_INET, "127.0.0.1", nil, true},
		{"both asked to share", unix.AF_INET, "127.0.0.1", []int{unix.SO_REUSEPORT}, unix.AF_INET, "127.0.0.1", []int{unix.SO_REUSEPORT}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, port := newStage(t), ":"+freePort(t)
			s.proc("a", 0, 1).serve(c.domain, c.held+port, c.heldOptions...)
			s.proc("a", 1, 1).serve(c.domain, c.held+port, c.heldOptions...)
			s.events = nil

			// What the kernel says to sockets that gpm did not touch decides what is right.
			s.plainAgrees(c.domain, c.held, c.heldOptions, c.domain2, c.asked, c.askedOptions, c.conflict)
			other := s.proc("b", 0, 1)
			errno := other.bind(other.socket(c.domain2, 0, c.askedOptions...), c.asked+port)
			if !c.conflict {
				if errno != 0 || len(s.events) != 0 {
					t.Fatalf("bind: %v, events %+v", errno, s.events)
				}
				return
			}
			if errno != unix.EADDRINUSE {
				t.Fatalf("bind: %v, want EADDRINUSE", errno)
			}
			if e := s.event(); e.Kind != Conflict || e.Other != `app "a"` || e.Owner.App != "b" {
				t.Errorf("event %+v", e)
			}
		})
	}
}

// plainAgrees checks the expectation with two ordinary sockets on another port.
func (s *stage) plainAgrees(d1 int, held string, o1 []int, d2 int, asked string, o2 []int, conflict bool) {
	s.t.Helper()
	port := ":" + freePort(s.t)
	p := s.proc("plain", 0, 1)
	first, second := p.socket(d1, 0, o1...), p.socket(d2, 0, o2...)
	bind := func(fd int, addr string) error {
		sa, err := sockaddr(fd, netip.MustParseAddrPort(addr))
		if err != nil {
			s.t.Fatal(err)
		}
		return unix.Bind(fd, sa)
	}
	if err := errors.Join(bind(first, held+port), unix.Listen(first, 1)); err != nil {
		s.t.Fatal(err)
	}
	if err := bind(second, asked+port); (err == unix.EADDRINUSE) != conflict {
		s.t.Fatalf("without gpm the kernel says %v", err)
	}
}

func TestAStrangerIsNamed(t *testing.T) {
	reuse := func(shared bool) net.Listener {
		t.Helper()
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				if shared {
					unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
				}
			})
		}}
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("stranger shares ", shared), func(t *testing.T) {
			s, l := newStage(t), reuse(shared)
			p := s.proc("a", 0, 1)
			if errno := p.bind(p.socket(unix.AF_INET, 0), l.Addr().String()); errno != unix.EADDRINUSE {
				t.Fatalf("bind: %v, want EADDRINUSE", errno)
			}
			want := fmt.Sprintf("process %d (", os.Getpid())
			if e := s.event(); e.Kind != Conflict || !strings.HasPrefix(e.Other, want) {
				t.Errorf("event %+v, want it to name %s", e, want)
			}
			if len(s.Listeners("a", 0)) != 0 {
				t.Error("a refused socket is held")
			}
			if _, err := s.Open(owner("a", 0, 1), l.Addr().String()); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), want) {
				t.Errorf("open: %v, want it to name %s", err, want)
			}
		})
	}
	t.Run("both share", func(t *testing.T) {
		s, l := newStage(t), reuse(true)
		p := s.proc("a", 0, 1)
		if errno := p.bind(p.socket(unix.AF_INET, 0, unix.SO_REUSEPORT), l.Addr().String()); errno != 0 {
			t.Errorf("bind: %v, but the app asked for SO_REUSEPORT itself", errno)
		}
	})
}

func TestWhatIsNotHeldContinues(t *testing.T) {
	s := newStage(t)
	verdict := func(tag string, c trap.Call, addr string) trap.Verdict {
		fd := s.proc("a", 0, 1).socket(unix.AF_INET, 0)
		tr := &trap.Trap{Call: c, Tag: tag, Socket: quiet(t, fd)}
		if addr != "" {
			tr.Address = netip.MustParseAddrPort(addr)
		}
		v := s.Handle(tr)
		if err := tr.Socket.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the socket of a call that is not held stays open (%v)", err)
		}
		return v
	}
	for name, v := range map[string]trap.Verdict{
		"port 0":               verdict("a 0 1", trap.Bind, "127.0.0.1:0"),
		"unknown tag":          verdict("nobody", trap.Bind, "127.0.0.1:1"),
		"listen without bind":  verdict("a 0 1", trap.Listen, ""),
		"listen elsewhere":     verdict("a 0 1", trap.Listen, "127.0.0.1:9"),
		"a call of the future": verdict("a 0 1", "accept", ""),
	} {
		if v.Action != trap.ActContinue {
			t.Errorf("%s: %+v, want it to continue", name, v)
		}
	}
}

func TestInterruptedCallsAreAnsweredTwiceAlike(t *testing.T) {
	s, addr := newStage(t), "127.0.0.1:"+freePort(t)
	p := s.proc("a", 0, 1)
	fd := p.socket(unix.AF_INET, 0)
	for range 3 {
		if errno := p.bind(fd, addr); errno != 0 {
			t.Fatalf("bind: %v", errno)
		}
	}
	for range 3 {
		if errno := p.listen(fd, 5); errno != 0 {
			t.Fatalf("listen: %v", errno)
		}
	}
	if n := len(s.Listeners("a", 0)); n != 1 || s.given != 0 {
		t.Errorf("%d listeners, %d sockets replaced; want one and none", n, s.given)
	}
}

// The daemon dies after it performed the bind: before it could answer, or
// before listen() came. The next one knows nothing of it.
func TestABindOfADeadDaemonCounts(t *testing.T) {
	addr := "127.0.0.1:" + freePort(t)
	dead := newStage(t)
	fd := dead.proc("a", 0, 1).socket(unix.AF_INET, 0)
	if errno := dead.proc("a", 0, 1).bind(fd, addr); errno != 0 {
		t.Fatal(errno)
	}
	dead.Release("a", 0)

	answered := newStage(t)
	p := answered.proc("a", 0, 1)
	if errno := p.listen(fd, 5); errno != 0 || !answered.LearnedPorts("a", 0) {
		t.Errorf("listen: %v, learned %v", errno, answered.LearnedPorts("a", 0))
	}
	answered.Release("a", 0)

	asked := newStage(t)
	p = asked.proc("a", 0, 1)
	if errno := p.bind(fd, addr); errno != 0 || len(asked.Listeners("a", 0)) != 1 {
		t.Errorf("bind: %v, listeners %v", errno, asked.Listeners("a", 0))
	}
}

func TestListenersComeBackFromTheKeeper(t *testing.T) {
	port := ":" + freePort(t)
	app := "a"
	old := newStage(t)
	fd := old.proc(app, 0, 3).serve(unix.AF_INET, "127.0.0.1"+port)
	files := map[string]*os.File{}
	for name, f := range old.kept {
		files[name] = duplicate(t, f)
	}
	if len(files) != 1 {
		t.Fatalf("the keeper has %v", old.kept)
	}
	old.Release(app, 0) // the old daemon's duplicates go

	s := newStage(t)
	for name, f := range files {
		if !IsName(name) {
			t.Fatalf("%q is not known as a listener", name)
		}
		s.kept[name] = duplicate(t, f)
		if err := s.Restore(name, f); err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(name, duplicate(t, f)); err == nil {
			t.Error("one name was restored twice")
		}
	}
	if err := s.Adopt(owner(app, 0, 3), nil); err != nil {
		t.Fatal(err)
	}
	if !s.LearnedPorts(app, 0) {
		t.Fatal("the restored listener is not listening")
	}
	next := s.proc(app, 0, 4).serve(unix.AF_INET, "127.0.0.1"+port)
	if cookie(t, fd) != cookie(t, next) {
		t.Error("the next generation got another socket")
	}
	if err := errors.Join(s.Settle(app, 0, 4), s.Retire(app, 0, 3)); err != nil || !s.LearnedPorts(app, 0) {
		t.Errorf("after the change of generations: %v, learned %v", err, s.LearnedPorts(app, 0))
	}
	if err := s.Release(app, 0); err != nil || len(s.kept) != 0 {
		t.Errorf("release: %v, the keeper has %v", err, s.kept)
	}
}

func TestRestoreRefusesWhatDoesNotListen(t *testing.T) {
	s := newStage(t)
	fd := s.proc("a", 0, 1).socket(unix.AF_INET, 0)
	name := storeName(place{"a", 0}, &entry{key: at("127.0.0.1:1")})
	for _, n := range []string{name, "listen/nonsense"} {
		f := quiet(t, fd)
		if err := s.Restore(n, f); err == nil {
			t.Errorf("%q was restored", n)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the refused file stays open (%v)", err)
		}
	}
}

func TestCandidatesDoNotStay(t *testing.T) {
	s, port := newStage(t), ":"+freePort(t)
	free := func() {
		t.Helper()
		l, err := net.Listen("tcp4", "127.0.0.1"+port)
		if err != nil {
			t.Fatalf("the port is not free: %v", err)
		}
		l.Close()
	}
	probe := func(pid int) {
		t.Helper()
		p := s.proc("a", 0, 1)
		p.pid = pid
		fd := p.socket(unix.AF_INET, 0)
		if errno := p.bind(fd, "127.0.0.1"+port); errno != 0 {
			t.Fatal(errno)
		}
		null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Dup3(null, fd, unix.O_CLOEXEC) // the app closes it
		unix.Close(null)
	}
	probe(os.Getpid())
	s.Sweep()
	if len(s.Listeners("a", 0)) != 1 {
		t.Fatal("a candidate of a living process was swept")
	}
	s.Retire("a", 0, 1)
	free()
	probe(1 << 30) // above the highest pid there can be
	s.Sweep()
	free()
}

func TestOpenedSocketsAreHeldLikeTheOthers(t *testing.T) {
	s, hostport := newStage(t), "localhost:"+freePort(t)
	addr := strings.Replace(hostport, "localhost", "127.0.0.1", 1)
	f, err := s.Open(owner("a", 0, 1), hostport)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Open(owner("a", 0, 2), hostport)
	if err != nil || again != f {
		t.Fatalf("the next generation gets %v, %v; want the same socket", again, err)
	}
	second, err := s.Open(owner("a", 1, 1), hostport)
	if err != nil || second == f {
		t.Fatalf("the other instance gets %v, %v; want one of its own", second, err)
	}
	if len(s.kept) != 2 {
		t.Errorf("the keeper has %v, want both", s.kept)
	}
	if _, err := s.Open(owner("b", 0, 1), addr); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), `app "a"`) {
		t.Errorf("another app: %v", err)
	}
	own := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	opened, _ := describe(f)
	if cookie(t, own) != opened.cookie {
		t.Error("an app that binds the address itself got another socket")
	}
	s.Release("a", 1)
	c := dial(t, addr)
	conn, _, err := unix.Accept(own)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(conn, []byte("hello"))
	unix.Close(conn)
	if b, err := io.ReadAll(c); string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
	for _, bad := range []string{"", "80", "127.0.0.1:0", "127.0.0.1:99999", "no such host.invalid:1"} {
		if _, err := s.Open(owner("a", 0, 1), bad); err == nil {
			t.Errorf("open %q gave no error", bad)
		}
	}
}

func TestAKeeperThatFailsIsReported(t *testing.T) {
	s, addr := newStage(t), "127.0.0.1:"+freePort(t)
	s.broken = errors.New("keeper is away")
	s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	if len(s.events) != 2 || s.events[0].Kind != Unsaved || s.events[1].Kind != Listening {
		t.Fatalf("events %+v", s.events)
	}
	s.broken = nil
	s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	if len(s.kept) != 1 {
		t.Error("the next listen() did not store it")
	}
}
