package sock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/aim"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/streams"
)

// fake is a Steerer that only writes down what it is told.
type fake struct {
	t       *testing.T
	mode    steer.Mode
	broken  error // what Join answers
	members map[uint64]*member
	none    map[uint64]bool     // asked for in mode none
	live    map[string][]uint64 // by Verify
	told    []string            // everything else
}

type member struct {
	group   string
	policy  steer.Policy
	traffic steer.Traffic
	l       steer.Listener
}

func (f *fake) Mode() steer.Mode { return f.mode }

func (f *fake) Join(group string, p steer.Policy, l steer.Listener, t steer.Traffic) error {
	if f.mode == steer.None {
		if f.none[l.Cookie] {
			f.told = append(f.told, fmt.Sprint("asked again for ", l.Cookie))
		}
		f.none[l.Cookie] = true
		return steer.ErrUnsupported
	}
	if f.broken != nil { // a member all the same
		f.members[l.Cookie] = &member{group, p, t, l}
		return f.broken
	}
	if f.members[l.Cookie] != nil {
		f.t.Errorf("socket %d joins twice", l.Cookie)
	}
	if on, err := accepts(l.File); err != nil || !on {
		f.t.Errorf("socket %d joins, but does not listen (%v)", l.Cookie, err)
	}
	f.members[l.Cookie] = &member{group, p, t, l}
	return nil
}

func (f *fake) Route(cookie uint64, t steer.Traffic) error {
	m := f.members[cookie]
	if m == nil {
		f.t.Errorf("socket %d is routed, but has not joined", cookie)
		return os.ErrNotExist
	}
	m.traffic = t
	return nil
}

func (f *fake) Leave(cookie uint64) func() {
	m := f.members[cookie]
	if m == nil {
		f.t.Errorf("socket %d leaves, but has not joined", cookie)
		return nil
	}
	if on, err := accepts(m.l.File); err != nil || !on {
		f.t.Errorf("socket %d was closed before it left (%v)", cookie, err)
	}
	delete(f.members, cookie)
	return func() {
		if _, err := m.l.File.SyscallConn(); err == nil {
			if err := m.l.File.Close(); !errors.Is(err, os.ErrClosed) {
				f.t.Errorf("socket %d is said to be closed, but is not", cookie)
			}
		}
		f.told = append(f.told, fmt.Sprint("closed ", cookie))
	}
}

func (f *fake) Aim(cookie uint64) (aim.Aim, bool) {
	if f.members[cookie] == nil {
		return aim.Aim{}, false
	}
	return aim.IPv4(int(cookie)), true
}

func (f *fake) How(group string) string {
	if f.mode == steer.None || f.broken != nil {
		return "hash: why"
	}
	return "fake " + group
}

func (f *fake) Verify(group string, live []uint64) error {
	if f.live == nil {
		f.live = map[string][]uint64{}
	}
	f.live[group] = live
	return nil
}

func (f *fake) SetPolicy(group string, p steer.Policy) error {
	f.told = append(f.told, fmt.Sprint("policy of ", group, " ", p))
	return nil
}

// traffic is what the socket of an app's descriptor gets; "" if it is not steered.
func (f *fake) traffic(fd int) steer.Traffic {
	if m := f.members[cookie(f.t, fd)]; m != nil {
		return m.traffic
	}
	return ""
}

func newSteeredStage(t *testing.T) (*stage, *fake) {
	s := newStage(t)
	f := &fake{t: t, mode: steer.EBPF, members: map[uint64]*member{}, none: map[uint64]bool{}}
	s.o.Steer = f
	t.Cleanup(func() { // before the stage's own
		for _, app := range []string{"a", "b"} {
			if err := s.ReleaseApp(app); err != nil {
				t.Error(err)
			}
		}
		if len(f.members) != 0 {
			t.Errorf("closed sockets are still steered: %v", f.members)
		}
	})
	return s, f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// ends plays the death of a process: its descriptors close, then gpm hears of
// it and buries it.
func (s *stage) ends(app string, index, gen int, fds ...int) {
	s.t.Helper()
	for _, fd := range fds {
		gone(s.t, fd)
	}
	must(s.t, s.Down(app, index, gen), s.Retire(app, index, gen))
}

// gone closes what a descriptor refers to, but not its number: the test closes that.
func gone(t *testing.T, fd int) {
	t.Helper()
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	must(t, unix.Dup3(null, fd, unix.O_CLOEXEC))
}

func TestAReloadGetsAListenerOfItsOwn(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	if got := f.traffic(old); got != steer.Queue {
		t.Errorf("the first generation gets %q before it is ready, want it to queue", got)
	}
	must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
	next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	if cookie(t, old) == cookie(t, next) {
		t.Fatal("both generations accept from one socket")
	}
	if f.traffic(old) != steer.Serve || f.traffic(next) != steer.Away {
		t.Errorf("before it is ready: %q and %q", f.traffic(old), f.traffic(next))
	}
	if g := f.members[cookie(t, old)].group; g != f.members[cookie(t, next)].group {
		t.Errorf("the two are in different groups")
	}
	must(t, s.Route("a", 0, 2, steer.Serve), s.Route("a", 0, 1, steer.Away), s.Settle("a", 0, 2))
	if f.traffic(old) != steer.Away || f.traffic(next) != steer.Serve {
		t.Errorf("while the old one drains: %q and %q", f.traffic(old), f.traffic(next))
	}
	was := cookie(t, old)
	s.ends("a", 0, 1, old)
	if list := s.Listeners("a", 0); len(list) != 1 || list[0].Cookie != cookie(t, next) || list[0].Traffic != steer.Serve {
		t.Errorf("listeners %+v, want that of the new generation", list)
	}
	if !slices.Contains(f.told, fmt.Sprint("closed ", was)) {
		t.Errorf("the steerer was told %q, not that %d is closed", f.told, was)
	}
	dial(t, addr)
}

func TestAFailedReloadTakesItsListenerWithIt(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
	next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	s.ends("a", 0, 2, next)
	if list := s.Listeners("a", 0); len(list) != 1 || list[0].Cookie != cookie(t, old) {
		t.Errorf("listeners %+v, want that of the old generation", list)
	}
	if f.traffic(old) != steer.Serve {
		t.Errorf("the old generation gets %q", f.traffic(old))
	}
}

// The next process may bind before the dead one is buried.
func TestARestartTakesTheQueueOver(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	first := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
	was := cookie(t, first)
	for range 10 {
		dial(t, addr)
	}
	gone(t, first)
	must(t, s.Down("a", 0, 1))
	if f.members[was].traffic != steer.Queue {
		t.Errorf("the listener of the dead gets %q", f.members[was].traffic)
	}
	second := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	must(t, s.Retire("a", 0, 1))
	if cookie(t, second) != was {
		t.Fatal("the next process got another socket: the queue is lost")
	}
	if f.traffic(second) != steer.Queue {
		t.Errorf("the next process gets %q before it is ready", f.traffic(second))
	}
	for range 10 {
		conn, _, err := unix.Accept(second)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(conn)
	}
}

func TestFourGenerationsOfOnePlace(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	fds := map[int]int{}
	for gen := 1; gen <= 4; gen++ {
		fds[gen] = s.proc("a", 0, gen).serve(unix.AF_INET, addr)
		want := steer.Away
		if gen == 1 {
			want = steer.Queue
		}
		if got := f.traffic(fds[gen]); got != want {
			t.Errorf("generation %d starts with %q, want %q", gen, got, want)
		}
		if gen < 4 {
			must(t, s.Route("a", 0, gen, steer.Serve), s.Settle("a", 0, gen))
			if gen > 1 {
				must(t, s.Route("a", 0, gen-1, steer.Away))
			}
		}
	}
	if len(f.members) != 4 {
		t.Fatalf("%d listeners, want one for each generation", len(f.members))
	}
	s.ends("a", 0, 2, fds[2]) // has drained before the first
	was := cookie(t, fds[3])
	s.ends("a", 0, 3, fds[3]) // crashes while its successor starts
	if len(f.members) != 3 || f.members[was] == nil || f.members[was].traffic != steer.Queue {
		t.Fatalf("after the crash: %+v", f.members)
	}
	fifth := s.proc("a", 0, 5).serve(unix.AF_INET, addr) // restarted at once
	if cookie(t, fifth) != was {
		t.Error("the queue of the crashed generation was not taken over")
	}
	must(t, s.Route("a", 0, 5, steer.Serve), s.Settle("a", 0, 5))
	s.ends("a", 0, 4, fds[4])
	s.ends("a", 0, 1, fds[1])
	if list := s.Listeners("a", 0); len(list) != 1 || list[0].Cookie != was || !slices.Equal(list[0].Gens, []int{5}) {
		t.Errorf("listeners %+v, want one of generation 5", list)
	}
}

func TestACrashDuringAReload(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
	next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	was := cookie(t, old)
	s.ends("a", 0, 1, old)
	if m := f.members[was]; m == nil || m.traffic != steer.Queue {
		t.Fatalf("nobody is online, and the dead one's listener is %+v", m)
	}
	must(t, s.Route("a", 0, 2, steer.Serve), s.Settle("a", 0, 2))
	if list := s.Listeners("a", 0); len(list) != 1 || list[0].Cookie != cookie(t, next) {
		t.Errorf("listeners %+v, want that of the new generation", list)
	}
}

func TestWithoutSteeringGenerationsShare(t *testing.T) {
	for name, set := range map[string]func(*fake){
		"mode none":       func(f *fake) { f.mode = steer.None },
		"it cannot join":  func(f *fake) { f.broken = errors.New("no program for you") },
		"no such steerer": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newSteeredStage(t)
			if set == nil {
				s.o.Steer = nil
			} else {
				set(f)
			}
			addr := "127.0.0.1:" + freePort(t)
			old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
			if err := s.Route("a", 0, 1, steer.Serve); !errors.Is(err, f.broken) {
				t.Errorf("route: %v, want %v", err, f.broken)
			}
			next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
			if cookie(t, old) != cookie(t, next) {
				t.Error("they have a socket each: the hash would send connections to the one that is not ready")
			}
			l := s.Listeners("a", 0)
			if len(l) != 1 || l[0].Traffic != steer.Serve || !strings.HasPrefix(l[0].How, "hash") {
				t.Errorf("listeners %+v", l)
			}
			must(t, s.Verify(nil))
			if n := len(f.told); n != 0 && f.mode == steer.None {
				t.Errorf("mode none, and the steerer is asked %d times more: %q", n, f.told)
			}
		})
	}
}

func TestOpenFollowsTheSameRule(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	open := func(gen int) *os.File {
		t.Helper()
		file, err := s.Open(owner("a", 0, gen), addr)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	first := open(1)
	if open(1) != first {
		t.Error("one generation gets two sockets for one address")
	}
	must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
	second := open(2)
	if second == first {
		t.Error("a reload gets the socket of the old process")
	}
	s.inUse = func(uint64) bool { return true } // LISTEN_FDS stay open
	if own := s.proc("a", 0, 2).serve(unix.AF_INET, addr); f.traffic(own) != steer.Away || len(f.members) != 2 {
		t.Errorf("an app that binds the address itself gets another: %+v", f.members)
	}
	s.ends("a", 0, 1)
	s.ends("a", 0, 2)
	if third := open(3); third != first && third != second {
		t.Error("a restart gets another socket")
	}
}

func TestALaterPortGetsTheTrafficOfItsGeneration(t *testing.T) {
	s, f := newSteeredStage(t)
	p := s.proc("a", 0, 1)
	p.serve(unix.AF_INET, "127.0.0.1:"+freePort(t))
	must(t, s.Route("a", 0, 1, steer.Serve))
	if late := p.serve(unix.AF_INET, "127.0.0.1:"+freePort(t)); f.traffic(late) != steer.Serve {
		t.Errorf("the second port gets %q", f.traffic(late))
	}
	must(t, s.Route("a", 0, 1, steer.Away))
	for _, m := range f.members {
		if m.traffic != steer.Away {
			t.Errorf("a port of a draining generation gets %q", m.traffic)
		}
	}
}

func TestThePolicyFollowsTheConfig(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	balance := steer.Policy("")
	of := s.o.Owner
	s.o.Owner = func(tag string) (Owner, bool) {
		o, ok := of(tag)
		o.Balance = balance
		return o, ok
	}
	first := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
	if m := f.members[cookie(t, first)]; m.policy != steer.Least {
		t.Errorf("policy %q, want least", m.policy)
	}
	s.ends("a", 0, 1, first)
	balance = steer.Random
	second := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	if want := fmt.Sprint("policy of ", f.members[cookie(t, second)].group, " random"); !slices.Contains(f.told, want) {
		t.Errorf("told %q, want %q", f.told, want)
	}
}

func TestAListenerThatCameBackForNobodyLeavesThePolicyAlone(t *testing.T) {
	addr := "127.0.0.1:" + freePort(t)
	dead, _ := newSteeredStage(t)
	live := dead.proc("a", 0, 1).serve(unix.AF_INET, addr)
	dead.proc("a", 1, 1).serve(unix.AF_INET, addr)
	s, f := newSteeredStage(t)
	for name, file := range dead.kept {
		s.kept[name] = duplicate(t, file)
		must(t, s.Restore(name, duplicate(t, file)))
	}
	o := owner("a", 0, 1)
	o.Balance = steer.Random
	must(t, s.Adopt(o, map[uint64]bool{inode(t, live): true}), s.Verify(nil))
	if len(f.members) != 2 {
		t.Fatalf("steered %+v, want both", f.members)
	}
	for _, m := range f.members {
		if m.policy != steer.Random {
			t.Errorf("socket %d joins with policy %q", m.l.Cookie, m.policy)
		}
	}
}

func TestRestoredGenerationsKeepTheirOwnListeners(t *testing.T) {
	addr := "127.0.0.1:" + freePort(t)
	dead, _ := newSteeredStage(t)
	one := dead.proc("a", 0, 1).serve(unix.AF_INET, addr)
	two := dead.proc("a", 0, 2).serve(unix.AF_INET, addr)
	files := map[string]*os.File{}
	for name, f := range dead.kept {
		files[name] = duplicate(t, f)
	}
	must(t, dead.Release("a", 0))
	if len(files) != 2 {
		t.Fatalf("the keeper has %d listeners, want that of each generation", len(files))
	}

	s, f := newSteeredStage(t)
	for name, file := range files {
		s.kept[name] = duplicate(t, file)
		must(t, s.Restore(name, file))
	}
	must(t,
		s.Adopt(owner("a", 0, 1), map[uint64]bool{inode(t, one): true}),
		s.Adopt(owner("a", 0, 2), map[uint64]bool{inode(t, two): true}))
	if len(f.members) != 0 {
		t.Errorf("steered before it is known what they get: %+v", f.members)
	}
	must(t, s.Route("a", 0, 1, steer.Away), s.Route("a", 0, 2, steer.Serve))
	if f.traffic(one) != steer.Away || f.traffic(two) != steer.Serve {
		t.Errorf("traffic %q and %q", f.traffic(one), f.traffic(two))
	}
	must(t, s.Settle("a", 0, 2))
	s.ends("a", 0, 1, one)
	if l := s.Listeners("a", 0); len(l) != 1 || l[0].Cookie != cookie(t, two) || !slices.Equal(l[0].Gens, []int{2}) {
		t.Errorf("listeners %+v, want that of generation 2", l)
	}
}

func TestVerifyJoinsWhatWaitsAndTellsWhoLives(t *testing.T) {
	s, f := newSteeredStage(t)
	port := freePort(t)
	one := s.proc("a", 0, 1).serve(unix.AF_INET, "127.0.0.1:"+port)
	six := s.proc("a", 0, 1).serve(unix.AF_INET6, "[::1]:"+port, unix.IPV6_V6ONLY)
	list := func() []streams.Listener {
		t.Helper()
		l, _, err := streams.Listeners(s.Ports()...)
		must(t, err)
		return l
	}
	before := list()
	two := s.proc("a", 1, 1).serve(unix.AF_INET, "127.0.0.1:"+port)
	must(t, s.Verify(before))
	if len(f.live) != 0 {
		t.Errorf("%v is told of groups that have changed since the list was made", f.live)
	}
	must(t, s.Verify(nil), s.Verify(list()))
	group := func(fd int) string { return f.members[cookie(t, fd)].group }
	want := []uint64{inode(t, one), inode(t, two)}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(f.live[group(one)])); !slices.Equal(got, want) {
		t.Errorf("live %v, want %v", got, want)
	}
	if got := f.live[group(six)]; !slices.Equal(got, []uint64{inode(t, six)}) {
		t.Errorf("live in IPv6 %v, want %d", got, inode(t, six))
	}
	var n uint16
	fmt.Sscan(port, &n)
	if got := s.Ports(); !slices.Equal(got, []uint16{n}) {
		t.Errorf("ports %v, want %d", got, n)
	}
	// A listener that was found in a process is steered by the next Verify at the latest.
	other, _ := newSteeredStage(t)
	three := other.proc("a", 2, 1).serve(unix.AF_INET, "127.0.0.1:"+freePort(t))
	must(t, s.Retake(owner("a", 2, 1), quiet(t, three)))
	must(t, s.Verify(list()))
	if f.traffic(three) != steer.Queue {
		t.Errorf("the retaken listener gets %q", f.traffic(three))
	}
	must(t, s.Release("a", 2))
}

func TestTargetIsOneGeneration(t *testing.T) {
	s, f := newSteeredStage(t)
	for _, c := range []struct {
		domain  int
		host    string
		options []int
		want    string
	}{
		{unix.AF_INET, "0.0.0.0", nil, "127.0.0.1"},
		{unix.AF_INET, "127.0.0.5", nil, "127.0.0.5"},
		{unix.AF_INET6, "[::]", nil, "127.0.0.1"},
		{unix.AF_INET6, "[::]", []int{unix.IPV6_V6ONLY}, "[::1]"},
		{unix.AF_INET6, "[::1]", nil, "[::1]"},
	} {
		t.Run(fmt.Sprint(c.host, c.options), func(t *testing.T) {
			port := freePort(t)
			fd := s.proc("a", 0, 1).serve(c.domain, c.host+":"+port, c.options...)
			next := s.proc("a", 0, 2).serve(c.domain, c.host+":"+port, c.options...)
			for gen, fd := range map[int]int{1: fd, 2: next} {
				addr, mark, ok := s.Target("a", 0, gen, 0)
				if !ok || addr.String() != c.want+":"+port {
					t.Errorf("target of generation %d: %v %v", gen, addr, ok)
				}
				if want, _ := f.Aim(cookie(t, fd)); mark != want {
					t.Errorf("aim at generation %d: %v, want %v", gen, mark, want)
				}
				dial(t, addr.String())
			}
			must(t, s.Release("a", 0))
		})
	}
	p := s.proc("a", 0, 1)
	first, second := freePort(t), freePort(t)
	p.serve(unix.AF_INET, "127.0.0.1:"+first)
	p.serve(unix.AF_INET, "127.0.0.1:"+second)
	for port, ok := range map[string]bool{first: true, second: true, freePort(t): false} {
		var n int
		fmt.Sscan(port, &n)
		if addr, _, got := s.Target("a", 0, 1, n); got != ok || ok && int(addr.Port()) != n {
			t.Errorf("target on %d: %v %v", n, addr, got)
		}
	}
	if _, _, ok := s.Target("a", 0, 2, 0); ok {
		t.Error("a generation that does not listen has a target")
	}
}

// Without gpm, the kernel lets only sockets of one user share a port.
func TestSocketsOfOneAppHaveOneUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can have apps of other users")
	}
	const nobody = 65534
	s, f := newSteeredStage(t)
	s.uid = nobody
	addr := "127.0.0.1:" + freePort(t)
	app := func(gen int) proc { return s.proc("a", 0, gen) }
	own := app(1).socket(unix.AF_INET, 0)
	must(t, unix.Fchown(own, nobody, -1)) // as if made by a process of that user
	if errno := errors.Join(errnoOrNil(app(1).bind(own, addr)), errnoOrNil(app(1).listen(own, 5))); errno != nil {
		t.Fatal(errno)
	}
	o := owner("a", 1, 1)
	o.UID = nobody
	if _, err := s.Open(o, addr); err != nil {
		t.Errorf("a socket of gpm's does not mix with the app's: %v", err)
	}
	s.uid = 0 // the config has changed
	next := app(2).serve(unix.AF_INET, addr)
	if len(f.members) != 3 || cookie(t, next) == cookie(t, own) {
		t.Errorf("the next generation, of another user, has no listener of its own: %+v", f.members)
	}
	plain := s.proc("a", 3, 1).socket(unix.AF_INET, 0)
	sa, _ := sockaddr(plain, netip.MustParseAddrPort(addr))
	must(t, unix.SetsockoptInt(plain, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if err := unix.Bind(plain, sa); err != unix.EADDRINUSE {
		t.Errorf("a socket of another user: %v; the test proves nothing", err)
	}
}

func errnoOrNil(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func TestAPlainSocketTakesThePlaceOfAMultipathOne(t *testing.T) {
	s, f := newSteeredStage(t)
	p := s.proc("a", 0, 1)
	multipath := func() int {
		t.Helper()
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_MPTCP)
		if err != nil {
			t.Skipf("this kernel has no MPTCP: %v", err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	get := func(fd, level, name int) int {
		t.Helper()
		n, err := unix.GetsockoptInt(fd, level, name)
		must(t, err)
		return n
	}
	fd := multipath()
	set := []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.IPPROTO_TCP, unix.TCP_NODELAY},
	}
	for _, o := range set {
		must(t, unix.SetsockoptInt(fd, o.level, o.name, 1))
	}
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 50_000))
	buffers := get(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	addr := "[::1]:" + freePort(t)
	if errno := p.bind(fd, addr); errno != 0 {
		t.Fatal(errno)
	}
	if get(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_TCP {
		t.Fatal("the app still has its multipath socket")
	}
	for _, o := range set {
		if get(fd, o.level, o.name) == 0 {
			t.Errorf("option %+v is lost", o)
		}
	}
	if got := get(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); got != buffers {
		t.Errorf("receive buffer %d, want %d", got, buffers)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("O_NONBLOCK is lost (%v)", err)
	}
	if errno := p.listen(fd, 5); errno != 0 {
		t.Fatal(errno)
	}
	if f.traffic(fd) != steer.Queue {
		t.Errorf("it is not steered: %+v", s.Listeners("a", 0))
	}
	dial(t, addr)
	if errno := p.bind(multipath(), "192.0.2.1:1"); errno == 0 {
		t.Error("an address that is not ours could be bound")
	}
	if l := s.Listeners("a", 0); len(l) != 1 {
		t.Errorf("a failed bind is held: %+v", l)
	}
}

func TestAMultipathListenerOfAnEarlierGpmIsShared(t *testing.T) {
	s, f := newSteeredStage(t)
	s.o.Steer = nil
	addr := "127.0.0.1:" + freePort(t)
	p := s.proc("a", 0, 1)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skipf("this kernel has no MPTCP: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(errnoOrNil(p.bind(fd, addr)), errnoOrNil(p.listen(fd, 5))); err != nil {
		t.Fatal(err)
	}
	s.o.Steer, s.events = f, nil
	must(t, s.Verify(nil), s.Route("a", 0, 1, steer.Serve))
	next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
	if cookie(t, next) != cookie(t, fd) || len(f.members) != 0 {
		t.Error("a plain socket beside it would take all its connections")
	}
	for _, e := range s.events {
		if e.Kind != Listening {
			t.Errorf("event %+v", e)
		}
	}
}

func TestAStoppedAppLeavesNoListener(t *testing.T) {
	s, f := newSteeredStage(t)
	addr := "127.0.0.1:" + freePort(t)
	fds := []int{s.proc("a", 0, 1).serve(unix.AF_INET, addr), s.proc("a", 0, 2).serve(unix.AF_INET, addr)}
	for _, fd := range fds {
		gone(t, fd)
	}
	must(t, s.Release("a", 0))
	if len(f.members) != 0 || len(s.kept) != 0 {
		t.Errorf("left: %v, %v", f.members, s.kept)
	}
	if c, err := net.Dial("tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect: %v %v, want it refused", c, err)
	}
}
