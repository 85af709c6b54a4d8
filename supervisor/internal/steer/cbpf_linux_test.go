package steer

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"gpm/supervisor/internal/aim"
)

// The model of order.go against the kernel: sockets are opened and closed, and
// copies of closed ones stay open for a while; then each index is asked who it
// is, by a connection from its source.
func TestOrderIsTheKernels(t *testing.T) {
	if !asNobody(t) {
		return
	}
	open(t, CBPF)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, open: map[uint64]*server{}, copies: map[uint64]*os.File{}}
		defer w.end()
		w.listen()
		t.Repeat(map[string]func(*rapid.T){
			"listen": func(*rapid.T) { w.listen() },
			"close":  func(t *rapid.T) { w.close(w.pick(t)) },
			"ghost": func(t *rapid.T) {
				l := w.pick(t)
				fd, err := duplicate(l.File)
				if err != nil {
					t.Fatal(err)
				}
				w.copies[l.Inode] = os.NewFile(uintptr(fd), "ghost")
				l.stop() // no change: a copy is open
				delete(w.open, l.Inode)
			},
			"lay": func(t *rapid.T) {
				if len(w.copies) == 0 {
					t.Skip("no ghost")
				}
				inode := rapid.SampledFrom(sortedKeys(w.copies)).Draw(t, "ghost")
				w.copies[inode].Close()
				delete(w.copies, inode)
				w.order = w.order.closed(inode)
			},
			"": func(*rapid.T) { w.check() },
		})
	})
}

type world struct {
	t      *rapid.T
	addr   string
	order  order
	open   map[uint64]*server
	copies map[uint64]*os.File
}

func sortedKeys[V any](m map[uint64]V) (keys []uint64) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w *world) listen() {
	if len(w.order) >= 12 {
		w.t.Skip("enough")
	}
	if len(w.order) == 0 {
		w.addr = "127.0.0.1:0"
	}
	l, err := tryListen("tcp4", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = l.Addr.String()
	w.open[l.Inode] = l
	w.order = w.order.listened(l.Inode)
}

func (w *world) pick(t *rapid.T) *server {
	if len(w.open) == 0 {
		t.Skip("none is open")
	}
	return w.open[rapid.SampledFrom(sortedKeys(w.open)).Draw(t, "socket")]
}

func (w *world) close(l *server) {
	l.stop()
	delete(w.open, l.Inode)
	w.order = w.order.closed(l.Inode)
}

func (w *world) end() {
	for _, l := range w.open {
		l.stop()
	}
	for _, f := range w.copies {
		f.Close()
	}
}

func (w *world) file(inode uint64) *os.File {
	if l := w.open[inode]; l != nil {
		return l.File
	}
	return w.copies[inode]
}

// check connects to each index, and looks which socket's queue has it.
func (w *world) check() {
	if len(w.order) == 0 {
		return
	}
	if err := attachClassic(w.file(w.order[0]), filter(Least, nil)); err != nil {
		w.t.Fatal(err)
	}
	for i, inode := range w.order {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 77, 0, byte(i)}})
		if err == nil {
			to := netip.MustParseAddrPort(w.addr)
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		}
		if err != nil {
			w.t.Fatalf("connect to index %d: %v", i, err)
		}
		if !w.queued(inode) {
			w.t.Fatalf("index %d of %v is another socket", i, w.order)
		}
		unix.Close(fd)
	}
}

func (w *world) queued(inode uint64) (ok bool) {
	_ = with(w.file(inode), func(fd int) error {
		_ = unix.SetNonblock(fd, true)
		// On a slow machine the last packet of the handshake comes a moment later.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if ok = err == nil; ok {
			unix.Close(c)
		}
		return nil
	})
	return ok
}

func TestClassicUnderChange(t *testing.T) {
	if !asNobody(t) {
		return
	}
	s, k := open(t, CBPF)
	churn(t, s, 60, false)
	if len(k.files) != 0 || len(s.Files()) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
	if told := k.told(); len(told) > 0 {
		t.Error(told)
	}
}

// A close moves the last listener. The program of Leave must be right before and
// after it.
func TestClassicLeaveIsRightThroughout(t *testing.T) {
	s, _ := open(t, CBPF)
	list, addr := four(t, s, "127.0.0.1")
	must(t, s.Route(list[0].Cookie, Away))
	must(t, s.Route(list[2].Cookie, Away))
	check := func(when string) {
		t.Helper()
		for range 60 {
			if got := ask(t, addr, aim.Aim{}); got != 1 && got != 3 {
				t.Fatalf("%s: server %d answered, which is away", when, got)
			}
		}
	}
	closed := s.Leave(list[0].Cookie)
	check("before the close")
	list[0].stop()
	check("after the close")
	closed()
	check("at the end")
	wantHow(t, s, "least (cBPF)")
}

func TestClassicPolicies(t *testing.T) {
	if !asNobody(t) {
		return
	}
	s, _ := open(t, CBPF)
	list, addr := four(t, s, "127.0.0.1")
	must(t, s.Route(list[0].Cookie, Away))
	for _, p := range []Policy{Least, Random, Hash} {
		must(t, s.SetPolicy(site, p))
		wantHow(t, s, string(p)+" (cBPF)")
		got := make([]int, 4)
		const n = 1500
		for range n {
			got[ask(t, addr, aim.Aim{})]++
		}
		if got[0] != 0 {
			t.Errorf("%s: %v, the first is away", p, got)
		}
		for _, x := range got[1:] {
			if x < n/3-150 || x > n/3+150 {
				t.Errorf("%s: %v is not even", p, got)
			}
		}
	}
}

func TestClassicWeights(t *testing.T) {
	s, _ := open(t, CBPF)
	list, addr := four(t, s, "127.0.0.1")
	g := s.groups[site].group.(*classicGroup)
	clock := time.Now()
	g.now = func() time.Time { return clock }
	full := map[uint64]int{}
	for _, l := range list[1:] {
		full[l.Cookie] = 1000
	}
	clock = clock.Add(swapPause)
	must(t, s.Correct(s.Mark(), full))
	got := make([]int, len(list))
	const n = 600
	for range n {
		got[ask(t, addr, aim.Aim{})]++
	}
	if got[0] < n/2-100 || got[0] > n/2+100 {
		t.Errorf("%v answered; the first is empty: half are to come to it", got)
	}
	swapped := g.swapped
	clock = clock.Add(swapPause)
	full[list[1].Cookie]++
	must(t, s.Correct(s.Mark(), full))
	if g.swapped != swapped {
		t.Error("swapped for one stream more")
	}
	full = map[uint64]int{list[0].Cookie: 5000}
	clock = clock.Add(swapPause / 2)
	must(t, s.Correct(s.Mark(), full))
	must(t, s.Correct(s.Mark(), full))
	if got := g.swapped; got.Equal(clock) && got.Sub(swapped) < swapPause {
		t.Error("swapped too soon")
	}
}

func TestClassicRestart(t *testing.T) {
	if !asNobody(t) {
		return
	}
	for _, change := range []string{"nothing", "listened", "closed", "damaged"} {
		t.Run(change, func(t *testing.T) {
			s, k := open(t, CBPF)
			list, addr := four(t, s, "127.0.0.1")
			leave(s, list[0]) // now the order is 3 1 2
			list = list[1:]
			must(t, s.Route(list[0].Cookie, Away))
			c := newCrowd(t, addr, 2)
			c.more(t, 20)
			die(s)
			switch change {
			case "listened":
				list = append(list, listen(t, addr).serve(7))
			case "closed":
				c.gate.Lock() // who waits in its queue would be reset
				list[0].stop()
				c.gate.Unlock()
				list = list[1:]
			case "damaged":
				for _, f := range k.files {
					must(t, f.Truncate(3))
				}
			}
			s = k.restart(t, CBPF)
			away := list[0].count()
			for _, l := range list[1:] {
				join(t, s, l, Serve)
				c.more(t, 20)
			}
			if change == "nothing" && list[0].count() != away {
				t.Error("the listener that is away was served before it could join")
			}
			join(t, s, list[0], Serve)
			must(t, s.Verify(site, inodes(list)))
			c.check(t)
			if change == "damaged" {
				wantHow(t, s, "hash: "+errOrder.Error())
				if _, ok := s.Aim(list[0].Cookie); ok {
					t.Error("somebody can be aimed at")
				}
				leave(s, list[0])
				leave(s, list[1])
				list = list[2:] // with one alone the order is known again
			}
			wantHow(t, s, "least (cBPF)")
			for _, l := range list {
				if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
		})
	}
}

// Keeper and daemon are killed, and the listeners found again in some order.
func TestClassicLostOrder(t *testing.T) {
	s, k := open(t, CBPF)
	list, _ := four(t, s, "127.0.0.1")
	die(s)
	s = New(k.options(CBPF))
	for _, i := range []int{2, 0, 3, 1} {
		join(t, s, list[i], Serve)
	}
	wantHow(t, s, "hash: "+errOrder.Error())
	if told := k.told(); len(told) != 1 {
		t.Errorf("told %q", told)
	}
}

func TestListening(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: 0100007F:1F90 0100007F:B5D4 01 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0
`
	if !hostLittle {
		t.Skip("addresses are in host order")
	}
	got, err := listeningIn(strings.NewReader(text), netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil || !slices.Equal(got, []uint64{111, 333}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, host := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"} {
		l := listen(t, host)
		if got, err := listening(l.Addr); err != nil || !slices.Equal(got, []uint64{l.Inode}) {
			t.Errorf("%s: %v, %v; want %d", host, got, err, l.Inode)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, mode := range []Mode{EBPF, CBPF, None} {
		t.Setenv("GPM_STEER", string(mode))
		got, why := Detect(false)
		if rank := []Mode{EBPF, CBPF, None}; slices.Index(rank, got) < slices.Index(rank, mode) {
			t.Errorf("asked for %s, got %s", mode, got)
		}
		if got != EBPF && why == "" {
			t.Errorf("%s without a reason", got)
		}
	}
	t.Setenv("GPM_STEER", "fast")
	if _, why := Detect(false); !strings.Contains(why, "ignored") {
		t.Errorf("a wrong value is not told of: %q", why)
	}
	for text, want := range map[string]bool{
		"0000 t reuseport_add_sock\n0000 t sk_reuseport_prog_free_rcu\n": true,
		"0000 T sk_reuseport_prog_free\n":                                false,
	} {
		if freesLate(strings.NewReader(text)) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}

func TestDetectAsNobody(t *testing.T) {
	if !asNobody(t) {
		return
	}
	open(t, CBPF)
	t.Setenv("GPM_STEER", "")
	mode, why := Detect(false)
	if mode != CBPF || !strings.Contains(why, "CAP_BPF") {
		t.Errorf("%s: %q", mode, why)
	}
}
