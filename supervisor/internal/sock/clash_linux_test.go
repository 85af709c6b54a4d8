package sock

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// opened are the inodes that the app has open.
type opened map[uint64]bool

func (o opened) has(inode uint64) bool { return o[inode] }

// Two sockets of one process on one address: what the kernel says to them
// without gpm decides what is right.
func TestTwoServersInOneApp(t *testing.T) {
	const (
		bound = iota
		listens
		closed
	)
	for _, c := range []struct {
		name                    string
		state                   int
		first, second           string
		domain, domain2         int
		options, secondsOptions []int
	}{
		{"both would listen", listens, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, nil, nil},
		{"with SO_REUSEADDR", listens, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, []int{unix.SO_REUSEADDR}, []int{unix.SO_REUSEADDR}},
		{"with SO_REUSEPORT", listens, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, []int{unix.SO_REUSEPORT}, []int{unix.SO_REUSEPORT}},
		{"bound only", bound, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, nil, nil},
		{"bound only, one with SO_REUSEADDR", bound, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, []int{unix.SO_REUSEADDR}, nil},
		{"bound only, both with SO_REUSEADDR", bound, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, []int{unix.SO_REUSEADDR}, []int{unix.SO_REUSEADDR}},
		{"wildcard and specific", listens, "0.0.0.0", "127.0.0.1", unix.AF_INET, unix.AF_INET, nil, nil},
		{"dual stack and IPv4", listens, "[::]", "127.0.0.1", unix.AF_INET6, unix.AF_INET, nil, nil},
		{"IPv6 only and IPv4", listens, "[::]", "0.0.0.0", unix.AF_INET6, unix.AF_INET, []int{unix.IPV6_V6ONLY}, nil},
		{"other addresses", listens, "127.0.0.1", "127.0.0.2", unix.AF_INET, unix.AF_INET, nil, nil},
		{"the first has closed", closed, "127.0.0.1", "127.0.0.1", unix.AF_INET, unix.AF_INET, nil, nil},
		{"the first has closed a wildcard", closed, "0.0.0.0", "127.0.0.1", unix.AF_INET, unix.AF_INET, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			// play is the first socket, then the bind of the second.
			play := func(bind func(fd int, addr string) unix.Errno, listen func(fd int) unix.Errno, p proc, port string, open opened) unix.Errno {
				one := p.socket(c.domain, 0, c.options...)
				if errno := bind(one, c.first+port); errno != 0 {
					t.Fatal(errno)
				}
				if c.state != bound {
					if errno := listen(one); errno != 0 {
						t.Fatal(errno)
					}
				}
				open[inode(t, one)] = true
				if c.state == closed {
					delete(open, inode(t, one))
					gone(t, one)
				}
				return bind(p.socket(c.domain2, 0, c.secondsOptions...), c.second+port)
			}
			s, _ := newSteeredStage(t)
			p := s.proc("a", 0, 1)
			plain := play(
				func(fd int, addr string) unix.Errno {
					sa, err := sockaddr(fd, netip.MustParseAddrPort(addr))
					must(t, err)
					return errnoOf(unix.Bind(fd, sa))
				},
				func(fd int) unix.Errno { return errnoOf(unix.Listen(fd, 1)) },
				p, ":"+freePort(t), opened{})

			open := opened{}
			s.inUse = open.has
			held := play(p.bind, func(fd int) unix.Errno { return p.listen(fd, 1) }, p, ":"+freePort(t), open)
			if held != plain {
				t.Errorf("bind: %v, but %v without gpm", held, plain)
			}
			if held == unix.EADDRINUSE {
				if e := s.events[len(s.events)-1]; e.Kind != Conflict || e.Other != "the app itself" {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}

func TestOnlyTheOddCaseIsLookedInto(t *testing.T) {
	s, _ := newSteeredStage(t)
	s.inUse = func(uint64) bool { return true }
	addr, more := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	s.proc("a", 0, 1).serve(unix.AF_INET, more)
	s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	s.proc("a", 1, 1).serve(unix.AF_INET, addr)
	s.ends("a", 0, 1)
	s.proc("a", 0, 3).serve(unix.AF_INET, more)
	if s.asked != 0 {
		t.Errorf("processes were searched %d times", s.asked)
	}
}

// As detect-port and its like do before the server starts.
func TestPortProbingLeavesNothingBehind(t *testing.T) {
	s, f := newSteeredStage(t)
	port := ":" + freePort(t)
	open := opened{}
	s.inUse = open.has
	p := s.proc("a", 0, 1)
	probe := func(domain int, addr string, options ...int) {
		t.Helper()
		fd := p.serve(domain, addr, options...)
		gone(t, fd)
	}
	for range 2 {
		probe(unix.AF_INET6, "[::]"+port)
		probe(unix.AF_INET, "0.0.0.0"+port)
		probe(unix.AF_INET, "127.0.0.1"+port)
	}
	server := p.serve(unix.AF_INET6, "[::]"+port)
	if len(f.members) != 1 || f.members[cookie(t, server)] == nil {
		t.Errorf("held: %+v; whoever comes to one of the probed addresses waits for ever", s.Listeners("a", 0))
	}
	c := dial(t, "127.0.0.1"+port)
	conn, _, err := unix.Accept(server)
	must(t, err)
	unix.Write(conn, []byte("hello"))
	unix.Close(conn)
	b := make([]byte, 5)
	if _, err := c.Read(b); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestASecondAddressForABoundSocketIsRefusedByTheKernel(t *testing.T) {
	s, _ := newSteeredStage(t)
	p := s.proc("a", 0, 1)
	fd := p.serve(unix.AF_INET, "127.0.0.1:"+freePort(t))
	if errno := p.bind(fd, "127.0.0.1:"+freePort(t)); errno != unix.EINVAL {
		t.Errorf("bind: %v, want EINVAL", errno)
	}
	if l := s.Listeners("a", 0); len(l) != 1 {
		t.Errorf("listeners %+v", l)
	}
}

func TestAStandbyWaitsInBind(t *testing.T) {
	s, f := newSteeredStage(t)
	place := "standby" // what Owner knows of the tag
	of := s.o.Owner
	s.o.Owner = func(tag string) (Owner, bool) {
		if tag == "spare" {
			tag = place
		}
		return of(tag)
	}
	s.gated["spare"] = true
	addr := "127.0.0.1:" + freePort(t)
	old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	was := cookie(t, old)

	tid := 0
	call := func(addr string) (*trap.Trap, trap.Verdict) {
		t.Helper()
		tid++
		fd := s.proc("a", 0, 2).socket(unix.AF_INET, 0)
		tr := &trap.Trap{Call: trap.Bind, Tag: "spare", PID: os.Getpid(), FD: fd, Address: netip.MustParseAddrPort(addr), Socket: quiet(t, fd)}
		tr.Notification.TID = tid
		return tr, s.Handle(tr)
	}
	if _, v := call("127.0.0.1:0"); v.Action != trap.ActContinue {
		t.Errorf("port 0: %+v", v)
	}
	if s.Gated("spare") {
		t.Error("gated before it binds")
	}
	dead, v := call(addr)
	if v.Action != trap.ActLater || !s.Gated("spare") || s.Gated("a 0 1") {
		t.Fatalf("verdict %+v, gated %v", v, s.Gated("spare"))
	}
	tid-- // interrupted: the same thread comes again
	first, _ := call(addr)
	second, _ := call("127.0.0.1:" + freePort(t))
	if err := dead.Socket.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("the socket of the interrupted call stays open")
	}

	gone(t, old)
	must(t, s.Down("a", 0, 1))
	place, s.gated["spare"] = "a 0 2", false
	answers := s.Ungate("spare")
	if len(answers) != 2 || answers[0].Trap != first || answers[1].Trap != second || s.Gated("spare") {
		t.Fatalf("answers %+v", answers)
	}
	if v := answers[0].Verdict; v.Action != trap.ActInject {
		t.Errorf("verdict %+v, want the socket of the dead instance", v)
	} else if e, err := describe(v.File); err != nil || e.cookie != was {
		t.Errorf("it gets socket %+v (%v), want %d", e, err, was)
	}
	if v := answers[1].Verdict; v.Action != trap.ActErrno || v.Errno != 0 {
		t.Errorf("verdict %+v, want its own socket bound", v)
	}
	if _, v := call("127.0.0.1:" + freePort(t)); v.Action != trap.ActErrno {
		t.Errorf("a later bind: %+v", v)
	}
	if s.Ungate("spare") != nil || len(f.members) != 1 {
		t.Errorf("steered %+v", f.members)
	}

	s.gated["spare"] = true
	last, _ := call(addr)
	s.Forget("spare")
	if err := last.Socket.Close(); !errors.Is(err, os.ErrClosed) || s.Gated("spare") {
		t.Error("the call of a dead process is kept")
	}
}
