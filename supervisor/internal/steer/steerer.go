package steer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"gpm/supervisor/internal/aim"
)

// maxSlots bounds the listeners of a group. With the header of the slots map it
// makes two pages.
const maxSlots = 1023

// group is one reuseport group under steering. Its methods are called with the
// Steerer's lock held.
type group interface {
	// join takes l, or takes it back, and tries to steer it.
	join(l Listener, t Traffic) error
	route(cookie uint64, t Traffic) error
	setPolicy(p Policy) error
	leave(cookie uint64)
	// left ends a leave; it returns how many listeners remain.
	left(cookie uint64) int
	// mark adds the load of each listener.
	mark(loads map[uint64]int64)
	correct(m Mark, actual map[uint64]int) error
	// slot is what an aim says.
	slot(cookie uint64) (int, bool)
	how() string
	verify(live []uint64) error
	// files are what the keeper should have, by the last part of the name.
	files() map[string]*os.File
	close()
}

// Steerer steers all groups of this machine. It has no goroutine. Mark, Correct,
// How, Aim and Files may be called from any goroutine; the others from one at
// a time, as what they do depends on when listeners are opened and closed.
type Steerer struct {
	o Options

	mu     sync.Mutex
	groups map[string]*entry
	of     map[uint64]string              // the group of a listener
	kept   map[string]*os.File            // what the keeper has, by its name
	found  map[string]map[string]*os.File // restored, and nobody has joined yet: by group and part
	stale  map[string]bool                // groups that a daemon of another mode has steered
	told   map[[2]string]bool             // problems, by group and cause
	calls  []func()                       // callbacks due when mu is free
}

// entry is a group and what is known of it before anything else.
type entry struct {
	group
	addr  netip.AddrPort
	only6 bool
}

// New makes a Steerer that steers nothing yet.
func New(o Options) *Steerer {
	return &Steerer{o: o, groups: map[string]*entry{}, of: map[uint64]string{}, kept: map[string]*os.File{},
		found: map[string]map[string]*os.File{}, stale: map[string]bool{}, told: map[[2]string]bool{}}
}

// Mode is how connections are steered here.
func (s *Steerer) Mode() Mode { return s.o.Mode }

// lock returns what unlocks, and then makes the calls that have become due:
// whoever waits for mu must not wait for the keeper.
func (s *Steerer) lock() (unlock func()) {
	s.mu.Lock()
	return func() {
		calls := s.calls
		s.calls = nil
		s.mu.Unlock()
		for _, call := range calls {
			call()
		}
	}
}

// Restore takes back a file that the keeper kept over a restart of the daemon
// (IsName tells which). It takes f, and closes it on an error; the keeper should
// then drop it. All of a group must be restored before its first Join.
func (s *Steerer) Restore(name string, f *os.File) error {
	defer s.lock()()
	g, part, ok := parseName(name)
	switch {
	case !ok:
		f.Close()
		return fmt.Errorf("restore %q: not a file of steering", name)
	case s.groups[g] != nil || s.kept[name] != nil:
		f.Close()
		return fmt.Errorf("restore %q: the group is steered already", name)
	case !slices.Contains(parts[s.o.Mode], part):
		// Another mode than the last daemon's. Its program is still attached
		// and would follow a table that nobody keeps.
		f.Close()
		s.stale[g] = true
		s.drop(name)
		return nil
	}
	if s.found[g] == nil {
		s.found[g] = map[string]*os.File{}
	}
	s.found[g][part], s.kept[name] = f, f
	return nil
}

// parts are the files of a group in each mode.
var parts = map[Mode][]string{EBPF: {"socks", "slots"}, CBPF: {"order"}}

// Prune forgets restored groups that nobody has joined: their listeners are
// gone. Call it once, when all listeners of the last daemon have joined.
func (s *Steerer) Prune() {
	defer s.lock()()
	for g, files := range s.found {
		for part, f := range files {
			f.Close()
			s.drop(storeName(g, part))
		}
	}
	clear(s.found)
	clear(s.stale)
}

// Files are what the keeper should have, by name: for a new keeper. They stay
// the Steerer's.
func (s *Steerer) Files() map[string]*os.File {
	defer s.lock()()
	out := map[string]*os.File{}
	for g, files := range s.found {
		for part, f := range files {
			out[storeName(g, part)] = f
		}
	}
	for g, e := range s.groups {
		for part, f := range e.files() {
			out[storeName(g, part)] = f
		}
	}
	return out
}

// Join steers a listener. The group is any string that names the address, the
// flags and the network namespace that the kernel groups by. A listener that
// was steered before the daemon was restarted keeps its load. Joining again
// only sets the policy and the traffic. On an error the group is left to the
// kernel's hash, which Problem is told; it is tried again with every later
// Join, Verify and Correct. In mode None the error is ErrUnsupported.
func (s *Steerer) Join(name string, p Policy, l Listener, t Traffic) error {
	defer s.lock()()
	if s.o.Mode == None {
		return s.joinNone(name, l)
	}
	if other, ok := s.of[l.Cookie]; ok && other != name {
		return fmt.Errorf("steer listener %s: it is in group %q", l.Addr, other)
	}
	g := s.groups[name]
	if g == nil {
		old := s.found[name]
		delete(s.found, name)
		made, err := newGroup(s.o.Mode, p, old, func(err error) { s.problem(name, err) })
		if err != nil {
			s.sync(name)
			err = fmt.Errorf("steer %s: %w", l.Addr, err)
			s.problem(name, err)
			return err
		}
		g = &entry{made, l.Addr, l.Only6}
		s.groups[name] = g
	}
	s.of[l.Cookie] = name
	err := errors.Join(g.setPolicy(p), g.join(l, t))
	delete(s.stale, name) // what was attached is replaced
	s.sync(name)
	if err != nil {
		err = fmt.Errorf("steer %s: %w", l.Addr, err)
		s.problem(name, err)
	}
	return err
}

func (s *Steerer) joinNone(name string, l Listener) error {
	if s.stale[name] {
		delete(s.stale, name)
		if err := detach(l.File); err != nil {
			return fmt.Errorf("stop steering %s: %w", l.Addr, err)
		}
	}
	return ErrUnsupported
}

// Route says what a listener gets from now on. One that never joined is an
// error; in mode None nothing is.
func (s *Steerer) Route(cookie uint64, t Traffic) error {
	defer s.lock()()
	return s.in(cookie, func(g group) error { return g.route(cookie, t) })
}

// SetPolicy says how a group shares from now on. A group that does not exist
// gets its policy by Join.
func (s *Steerer) SetPolicy(name string, p Policy) error {
	defer s.lock()()
	if g := s.groups[name]; g != nil {
		return g.setPolicy(p)
	}
	return nil
}

func (s *Steerer) in(cookie uint64, do func(group) error) error {
	if s.o.Mode == None {
		return nil
	}
	g := s.groups[s.of[cookie]]
	if g == nil {
		return fmt.Errorf("steer listener %d: it has not joined: %w", cookie, ErrUnsupported)
	}
	return do(g)
}

// Leave takes a listener out. Call it before the last copy of the socket is
// closed, and closed after; between the two nothing else may join or leave the
// group. With the last one everything of the group is given back.
func (s *Steerer) Leave(cookie uint64) (closed func()) {
	defer s.lock()()
	name, ok := s.of[cookie]
	if !ok {
		return func() {}
	}
	delete(s.of, cookie)
	g := s.groups[name]
	g.leave(cookie)
	return sync.OnceFunc(func() {
		defer s.lock()()
		if s.of[cookie] == name || s.groups[name] != g {
			return // it has joined again
		}
		if g.left(cookie) == 0 {
			g.close()
			delete(s.groups, name)
			maps.DeleteFunc(s.told, func(k [2]string, _ bool) bool { return k[0] == name })
		}
		s.sync(name)
	})
}

// Mark reads what every listener has been given so far. Take it before the
// streams are counted.
func (s *Steerer) Mark() Mark {
	defer s.lock()()
	m := Mark{map[uint64]int64{}}
	for _, g := range s.groups {
		g.mark(m.loads)
	}
	return m
}

// Correct sets the load of every listener that was there at the Mark to its
// actual streams, by cookie, and what came after the Mark. A listener that is
// not in actual has none. Streams that wait to be accepted count, too: without
// them a listener whose process hangs looks empty and gets everything.
func (s *Steerer) Correct(m Mark, actual map[uint64]int) error {
	defer s.lock()()
	var errs []error
	for name, g := range s.groups {
		if err := g.correct(m, actual); err != nil {
			errs = append(errs, err)
			s.problem(name, err)
		}
	}
	return errors.Join(errs...)
}

// Verify compares a group with live, the inodes of all listening sockets that
// the kernel has on its address. While a stranger shares the address, the
// kernel's hash decides. Call it now and then, but after a restart of the daemon
// not before all listeners have joined again: until then they are strangers.
func (s *Steerer) Verify(name string, live []uint64) error {
	defer s.lock()()
	g := s.groups[name]
	if g == nil {
		return nil
	}
	err := g.verify(live)
	s.sync(name)
	if err != nil {
		s.problem(name, err)
	}
	return err
}

// Aim is how to reach exactly this listener, whatever it is routed. It may change
// when others leave the group. False: there is none; the mode is None, the
// listener is not steered, or another group gets the connections.
func (s *Steerer) Aim(cookie uint64) (aim.Aim, bool) {
	defer s.lock()()
	name := s.of[cookie]
	g := s.groups[name]
	if g == nil || !s.reached(name, g) {
		return aim.Aim{}, false
	}
	i, ok := g.slot(cookie)
	switch {
	case !ok:
		return aim.Aim{}, false
	case g.v4():
		return aim.IPv4(i), true
	}
	return aim.IPv6(i), true
}

// v4 tells whether the group has IPv4 connections; it is aimed at by these, then.
func (g *entry) v4() bool {
	ip := g.addr.Addr()
	return ip.Is4() || ip.Is4In6() || ip.IsUnspecified() && !g.only6
}

// reached tells whether connections from this machine, of the family by which it
// is aimed at, come to the group: the kernel prefers 127.0.0.1 to 0.0.0.0, and
// that to a dual-stack "::"; and ::1 to "::".
func (s *Steerer) reached(name string, g *entry) bool {
	ip := g.addr.Addr().Unmap()
	if !ip.IsUnspecified() {
		return true
	}
	for other, o := range s.groups {
		if other == name || o.addr.Port() != g.addr.Port() {
			continue
		}
		their := o.addr.Addr().Unmap()
		switch {
		case their.Is4() != g.v4():
		case their.IsLoopback(), ip.Is6() && their.IsUnspecified():
			return false
		}
	}
	return true
}

// How says in a few words how a group is steered: "least (eBPF)", "random
// (cBPF)", "hash: " and why.
func (s *Steerer) How(name string) string {
	defer s.lock()()
	if g := s.groups[name]; g != nil {
		return g.how()
	}
	if s.o.Mode == None && s.o.Why != "" {
		return "hash: " + s.o.Why
	}
	return "hash: " + ErrUnsupported.Error()
}

// problem tells of a limit once.
func (s *Steerer) problem(name string, err error) {
	k := [2]string{name, err.Error()}
	if s.told[k] || s.o.Problem == nil {
		return
	}
	s.told[k] = true
	s.calls = append(s.calls, func() { s.o.Problem(name, err) })
}

// sync makes the keeper have the files of a group, and no other.
func (s *Steerer) sync(name string) {
	want := map[string]*os.File{}
	if g := s.groups[name]; g != nil {
		for part, f := range g.files() {
			want[storeName(name, part)] = f
		}
	}
	for _, part := range parts[s.o.Mode] {
		n := storeName(name, part)
		f := want[n]
		switch {
		case f == s.kept[n]:
		case f == nil:
			s.drop(n)
		default:
			s.store(name, n, f)
		}
	}
}

func (s *Steerer) store(group, name string, f *os.File) {
	s.kept[name] = f
	if s.o.Store == nil {
		return
	}
	s.calls = append(s.calls, func() {
		err := s.o.Store(name, f)
		if err == nil {
			return
		}
		s.mu.Lock()
		if s.kept[name] == f {
			delete(s.kept, name) // tried again with the next change
		}
		s.mu.Unlock()
		if s.o.Problem != nil {
			s.o.Problem(group, fmt.Errorf("keep the steering of a group beyond this daemon: %w", err))
		}
	})
}

func (s *Steerer) drop(name string) {
	delete(s.kept, name)
	if s.o.Drop == nil {
		return
	}
	s.calls = append(s.calls, func() {
		if err := s.o.Drop(name); err != nil && s.o.Problem != nil {
			g, _, _ := parseName(name)
			s.o.Problem(g, fmt.Errorf("drop %q: %w", name, err))
		}
	})
}
