package steer

import (
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/aim"
)

// four are servers that serve in one group, at addr.
func four(t testing.TB, s *Steerer, host string) (list []*server, addr string) {
	t.Helper()
	addr = net.JoinHostPort(host, "0")
	for i := range 4 {
		l := listen(t, addr).serve(i)
		addr = l.Addr.String()
		list = append(list, l)
		join(t, s, l, Serve)
	}
	return list, addr
}

func hold(t testing.TB, to string, n int) {
	t.Helper()
	for range n {
		c, _, err := dial(to, aim.Aim{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
}

func spread(list []*server) (counts []int, worst float64) {
	total := 0
	for _, l := range list {
		l.mu.Lock()
		counts = append(counts, len(l.conns))
		l.mu.Unlock()
		total += counts[len(counts)-1]
	}
	return counts, float64(slices.Max(counts)) * float64(len(list)) / float64(total)
}

func TestLeastIsExact(t *testing.T) {
	s, _ := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	hold(t, addr, 1000)
	if counts, worst := spread(list); worst > 1.01 {
		t.Errorf("1000 connections: %v", counts)
	}
	wantHow(t, s, "least (eBPF)")
}

func TestHerdAfterCorrect(t *testing.T) {
	s, _ := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	hold(t, addr, 400)
	list[0].hangUp() // its streams are gone; the program cannot know
	m := s.Mark()
	hold(t, addr, 8) // between count and correction: not lost
	actual := map[uint64]int{}
	for _, l := range list[1:] {
		actual[l.Cookie] = 100
	}
	must(t, s.Correct(m, actual))
	hold(t, addr, 92)
	if counts, worst := spread(list); worst > 1.05 {
		t.Errorf("after the herd: %v", counts)
	}
}

func TestCorrectKeepsWhatCameSince(t *testing.T) {
	s, _ := open(t, EBPF)
	l := listen(t, "127.0.0.1:0").serve(0)
	join(t, s, l, Serve)
	hold(t, l.Addr.String(), 5)
	m := s.Mark()
	hold(t, l.Addr.String(), 3)
	must(t, s.Correct(m, map[uint64]int{l.Cookie: 2}))
	if got := s.Mark().loads[l.Cookie]; got != 2+3 {
		t.Errorf("load %d, want 5", got)
	}
	must(t, s.Correct(m, nil)) // a mark used twice must not make it negative
	must(t, s.Correct(m, nil))
	if got := s.Mark().loads[l.Cookie]; got != 0 {
		t.Errorf("load %d, want 0", got)
	}
}

func TestTraffic(t *testing.T) {
	s, _ := open(t, EBPF)
	a := listen(t, "127.0.0.1:0").serve(0)
	addr := a.Addr.String()
	b := listen(t, addr).serve(1)
	join(t, s, a, Away)
	join(t, s, b, Away)
	refused(t, addr, aim.Aim{})
	for id, l := range []*server{a, b} { // Away is no hindrance for a probe
		if got := ask(t, addr, mark(t, s, l)); got != id {
			t.Errorf("server %d answered for %d", got, id)
		}
	}
	want := func(id int) {
		t.Helper()
		for range 20 {
			if got := ask(t, addr, aim.Aim{}); got != id {
				t.Fatalf("server %d answered, want %d", got, id)
			}
		}
	}
	must(t, s.Route(a.Cookie, Queue))
	want(0)
	must(t, s.Route(b.Cookie, Serve))
	want(1)
	must(t, s.Route(b.Cookie, Away))
	want(0)
	if s.Route(12345, Serve) == nil {
		t.Error("a listener that never joined was routed")
	}
}

// The kernel does not tell anybody when a socket is closed: the program meets
// an empty slot, and it may have the lowest load.
func TestClosedWithoutLeave(t *testing.T) {
	s, _ := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	must(t, s.Route(list[3].Cookie, Away))
	list[0].stop()
	for range 50 {
		if got := ask(t, addr, aim.Aim{}); got != 1 && got != 2 {
			t.Fatalf("server %d answered", got)
		}
	}
	src, ok := s.Aim(list[0].Cookie)
	if ok {
		refused(t, addr, src)
	}
	must(t, s.Verify(site, inodes(list[1:])))
	if _, ok := s.Aim(list[0].Cookie); ok {
		t.Error("a closed listener can be aimed at")
	}
	wantHow(t, s, "least (eBPF)")
}

func inodes(list []*server) (out []uint64) {
	for _, l := range list {
		out = append(out, l.Inode)
	}
	return out
}

func TestPolicies(t *testing.T) {
	s, _ := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	for _, p := range []Policy{Random, Hash} {
		must(t, s.SetPolicy(site, p))
		wantHow(t, s, string(p)+" (eBPF)")
		must(t, s.Route(list[3].Cookie, Away))
		got := make([]int, 4)
		const n = 1500
		for range n {
			got[ask(t, addr, aim.Aim{})]++
		}
		if got[3] != 0 {
			t.Errorf("%s: %v, the last is away", p, got)
		}
		for _, x := range got[:3] { // sd is 18
			if x < n/3-150 || x > n/3+150 {
				t.Errorf("%s: %v is not even", p, got)
			}
		}
	}
}

func TestHashSticksToTheFlow(t *testing.T) {
	s, _ := open(t, EBPF)
	_, addr := four(t, s, "127.0.0.1")
	must(t, s.SetPolicy(site, Hash))
	for done := 0; done < 20; {
		c, first, err := dial(addr, aim.Aim{})
		must(t, err)
		from := c.LocalAddr().(*net.TCPAddr)
		must(t, c.(*net.TCPConn).SetLinger(0))
		c.Close()
		d := net.Dialer{LocalAddr: from, Timeout: limit}
		again, err := d.Dial("tcp", addr)
		if errors.Is(err, unix.EADDRINUSE) {
			continue // an older connection waits on that port
		}
		must(t, err)
		done++
		b := make([]byte, 1)
		_, err = again.Read(b)
		must(t, err)
		must(t, again.(*net.TCPConn).SetLinger(0))
		again.Close()
		if int(b[0]) != first {
			t.Fatalf("port %d went to %d, then to %d", from.Port, first, b[0])
		}
	}
}

func TestFilledQueueMigrates(t *testing.T) {
	s, _ := open(t, EBPF)
	if !Migrates() {
		t.Skip("the queue of a closed listener is lost on this kernel: needs Linux 5.14")
	}
	a := listen(t, "127.0.0.1:0") // never accepts
	addr := a.Addr.String()
	join(t, s, a, Serve)
	var waiting []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", addr)
		must(t, err)
		defer c.Close()
		waiting = append(waiting, c)
	}
	b, never := listen(t, addr).serve(1), listen(t, addr).serve(2)
	join(t, s, b, Serve)
	join(t, s, never, Away)
	leave(s, a)
	for i, c := range waiting {
		got := make([]byte, 1)
		if _, err := c.Read(got); err != nil || got[0] != 1 {
			t.Fatalf("connection %d: answered by %d, %v", i, got[0], err)
		}
	}
}

func TestManyListeners(t *testing.T) {
	s, _ := open(t, EBPF)
	addr := "127.0.0.1:0"
	var list []*server
	for i := range 300 {
		l := listen(t, addr).serve(i % 256)
		addr = l.Addr.String()
		join(t, s, l, Serve)
		list = append(list, l)
	}
	for _, l := range list {
		before := l.count()
		ask(t, addr, mark(t, s, l))
		if l.count() != before+1 {
			t.Fatalf("%v did not lead to its listener", mark(t, s, l))
		}
	}
	for range 300 {
		ask(t, addr, aim.Aim{})
	}
	for i, l := range list {
		if l.count() != 2 {
			t.Fatalf("listener %d has %d connections, want the probe and one", i, l.count())
		}
	}
}

// Where steering is switched off, nothing of the last daemon's may go on.
func TestNoneAfterEBPF(t *testing.T) {
	s, k := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	for _, l := range list {
		must(t, s.Route(l.Cookie, Away))
	}
	refused(t, addr, aim.Aim{})
	die(s)
	s = k.restart(t, None)
	if err := s.Join(site, Least, list[0].Listener, Serve); err != ErrUnsupported {
		t.Errorf("join: %v", err)
	}
	ask(t, addr, aim.Aim{})
	if len(k.files) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
	must(t, s.Route(list[0].Cookie, Away))
	s.Leave(list[0].Cookie)()
	if _, ok := s.Aim(list[0].Cookie); ok {
		t.Error("somebody can be aimed at")
	}
}

// A listener whose clients another group gets cannot be aimed at: its probe would
// ask the other.
func TestShadowed(t *testing.T) {
	s, _ := open(t, EBPF)
	six := listen(t, "[::]:0").serve(6)
	join(t, s, six, Serve)
	mark(t, s, six)
	four := listen(t, "127.0.0.1:"+port(six)).serve(4)
	must(t, s.Join("other", Least, four.Listener, Serve))
	if a, ok := s.Aim(six.Cookie); ok {
		t.Errorf("%v leads to server %d", a, ask(t, loopback(six.Addr), a))
	}
	if got := ask(t, four.Addr.String(), mark(t, s, four)); got != 4 {
		t.Errorf("server %d answered", got)
	}
	only, err := tryListen("tcp6", "[::]:0")
	must(t, err)
	t.Cleanup(only.close)
	must(t, s.Join("six", Least, only.serve(1).Listener, Serve))
	mark(t, s, only)
	loop := listen(t, "[::1]:"+port(only)).serve(2)
	must(t, s.Join("loop", Least, loop.Listener, Serve))
	if a, ok := s.Aim(only.Cookie); ok {
		t.Errorf("%v leads to server %d", a, ask(t, loop.Addr.String(), a))
	}
	if got := ask(t, loop.Addr.String(), mark(t, s, loop)); got != 2 {
		t.Errorf("server %d answered", got)
	}
}

func TestListenerWithoutReuseport(t *testing.T) {
	s, k := open(t, EBPF)
	l, err := net.Listen("tcp", "127.0.0.1:0") // and perhaps MPTCP
	must(t, err)
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	must(t, err)
	defer f.Close()
	d, err := describe(f)
	must(t, err)
	if s.Join(site, Least, d, Serve) == nil {
		t.Error("it was steered")
	}
	if told := k.told(); len(told) != 1 {
		t.Errorf("told %q", told)
	}
	if how := s.How(site); how[:5] != "hash:" {
		t.Errorf("steered by %q", how)
	}
	s.Leave(d.Cookie)()
	if len(k.files) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
}

func BenchmarkRoute(b *testing.B) {
	s, _ := open(b, EBPF)
	l := listen(b, "127.0.0.1:0")
	join(b, s, l, Serve)
	for i := 0; b.Loop(); i++ {
		must(b, s.Route(l.Cookie, []Traffic{Away, Serve}[i%2]))
	}
}

func BenchmarkSwap(b *testing.B) {
	s, _ := open(b, CBPF)
	l := listen(b, "127.0.0.1:0")
	join(b, s, l, Serve)
	for i := 0; b.Loop(); i++ {
		must(b, s.Route(l.Cookie, []Traffic{Away, Serve}[i%2]))
	}
}

func BenchmarkNewGroup(b *testing.B) {
	open(b, EBPF)
	for b.Loop() {
		g, err := newProgramGroup(Least, nil, func(error) {})
		must(b, err)
		g.close()
	}
}
