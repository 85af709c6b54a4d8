package steer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// swapPause is the least time between two programs that only differ in weights.
const swapPause = 2 * time.Second

// errOrder says that indexes mean nothing until the group has been empty.
var errOrder = errors.New("the order of the listeners is not known")

// classicGroup is a group under a classic program, which can only answer with
// an index into the kernel's order. The program is replaced when a state
// changes, and now and then when the weights do.
type classicGroup struct {
	p       Policy
	report  func(error)
	file    *os.File // memfd of the record
	record  record
	order   order
	lost    bool               // order is not known
	waiting bool               // restored: not all have joined again
	kept    map[uint64]Traffic // by inode: what those are to get
	members map[uint64]*member // by cookie
	ghosts  map[uint64]bool    // inodes that left and are open elsewhere: still in the order
	counts  map[uint64]int     // streams, by cookie
	weights []int              // of the program that is attached, by cookie of those who share
	shared  []uint64
	swapped time.Time
	now     func() time.Time
	seen    func(Listener) ([]uint64, error) // live sockets of the group; fails in another network namespace
	err     error                            // of the last attach
}

func newClassicGroup(p Policy, old *os.File, report func(error)) (*classicGroup, error) {
	g := &classicGroup{p: p, report: report, file: old, members: map[uint64]*member{}, ghosts: map[uint64]bool{},
		counts: map[uint64]int{}, now: time.Now, seen: seen}
	if old == nil {
		fd, err := unix.MemfdCreate("gpm_order", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("make the record of the order: %w", err)
		}
		g.file = os.NewFile(uintptr(fd), "gpm_order")
	}
	g.record.f = g.file
	if old == nil {
		return g, nil
	}
	var err error
	if g.order, g.kept, err = g.record.read(); err != nil {
		report(err)
		g.lost = true
	}
	g.waiting = len(g.order) > 0
	return g, nil
}

// seen reads who is in a group from /proc, and fails if l itself is not there.
func seen(l Listener) ([]uint64, error) {
	live, err := listening(l.Addr)
	for range 3 { // not a snapshot: a long list is read in pieces
		var again []uint64
		if err == nil {
			again, err = listening(l.Addr)
		}
		if err != nil {
			return nil, err
		}
		if slices.Equal(live, again) {
			break
		}
		live = again
	}
	if !slices.Contains(live, l.Inode) {
		return nil, fmt.Errorf("listener %s is not in this network namespace", l.Addr)
	}
	return live, nil
}

func (g *classicGroup) join(l Listener, t Traffic) error {
	m := g.members[l.Cookie]
	if m == nil {
		m = &member{}
		g.members[l.Cookie] = m
	}
	if t == Kept {
		if t = g.kept[l.Inode]; t == Kept {
			t = Queue
		}
	}
	delete(g.kept, l.Inode)
	m.Listener, m.traffic, m.leaving = l, t, false
	delete(g.ghosts, l.Inode)
	live, err := g.seen(l)
	if err == nil {
		g.observe(live)
	} else if g.order.index(l.Inode) < 0 && !g.lost {
		g.order = g.order.listened(l.Inode)
	}
	return errors.Join(g.save(), g.swap())
}

// observe brings the order to what the kernel has now.
func (g *classicGroup) observe(live []uint64) {
	for inode := range g.ghosts {
		if !slices.Contains(live, inode) {
			delete(g.ghosts, inode)
		}
	}
	if g.lost && len(live) > 1 {
		return
	}
	next, ok := g.order.after(live)
	g.order, g.lost = next, !ok
	if !ok {
		g.report(fmt.Errorf("%w; the kernel's hash decides", errOrder))
	}
}

// save records the order. A lost one is recorded as one that fits nothing.
func (g *classicGroup) save() error {
	if g.lost {
		if err := g.file.Truncate(0); err != nil {
			return fmt.Errorf("record that %w: %w", errOrder, err)
		}
		return nil
	}
	traffic := maps.Clone(g.kept)
	if traffic == nil {
		traffic = map[uint64]Traffic{}
	}
	for _, m := range g.members {
		traffic[m.Inode] = m.traffic
	}
	return g.record.write(g.order, traffic)
}

func (g *classicGroup) route(cookie uint64, t Traffic) error {
	g.members[cookie].traffic = t
	return errors.Join(g.swap(), g.save())
}

func (g *classicGroup) setPolicy(p Policy) error {
	if g.p == p {
		return nil
	}
	g.p = p
	return g.swap()
}

// leave attaches a program that is right before and after the close.
func (g *classicGroup) leave(cookie uint64) {
	g.members[cookie].leaving = true
	if err := g.swap(); err != nil {
		g.report(err)
	}
}

func (g *classicGroup) left(cookie uint64) int {
	m := g.members[cookie]
	delete(g.members, cookie)
	delete(g.counts, cookie)
	if len(g.members) == 0 {
		return 0
	}
	g.ghosts[m.Inode] = true
	if live, err := g.seen(g.any().Listener); err == nil {
		g.observe(live)
	} else if !g.lost {
		delete(g.ghosts, m.Inode)
		g.order = g.order.closed(m.Inode)
	}
	if err := errors.Join(g.save(), g.swap()); err != nil {
		g.report(err)
	}
	return len(g.members)
}

// any is a member to attach to; all are of one group.
func (g *classicGroup) any() *member {
	cookies := slices.Sorted(maps.Keys(g.members))
	for _, c := range cookies {
		if !g.members[c].leaving {
			return g.members[c]
		}
	}
	if len(cookies) == 0 {
		return nil
	}
	return g.members[cookies[0]]
}

// swap attaches the program for what is so now.
func (g *classicGroup) swap() error {
	if g.waiting && !g.complete() {
		return nil // the last daemon's program knows more than this one
	}
	g.waiting = false
	m := g.any()
	if m == nil {
		return nil
	}
	g.shared, g.weights = nil, nil
	var program []bpf.Instruction
	if g.lost {
		program = []bpf.Instruction{bpf.RetConstant{Val: nobody}}
	} else {
		g.shared = g.sharing()
		g.weights = g.weigh(g.shared)
		program = filter(g.p, g.parts())
	}
	g.err = attachClassic(m.File, program)
	if g.err != nil {
		g.err = fmt.Errorf("attach the program: %w", g.err)
	}
	g.swapped = g.now()
	return g.err
}

// complete tells whether everybody of a restored order has joined again.
func (g *classicGroup) complete() bool { return g.strangers() == 0 }

// strangers are in the order and not ours.
func (g *classicGroup) strangers() int {
	known := maps.Clone(g.ghosts)
	for _, m := range g.members {
		known[m.Inode] = true
	}
	n := 0
	for _, inode := range g.order {
		if !known[inode] {
			n++
		}
	}
	return n
}

// sharing are the cookies of those who share new connections: who serves, else
// who queues. Nobody means the kernel's hash, also while strangers are there.
func (g *classicGroup) sharing() []uint64 {
	if g.strangers() > 0 {
		return nil
	}
	for _, t := range []Traffic{Serve, Queue} {
		var all, steady []uint64
		for _, cookie := range slices.Sorted(maps.Keys(g.members)) {
			m := g.members[cookie]
			if m.traffic != t || m.leaving || g.order.index(m.Inode) < 0 {
				continue
			}
			all = append(all, cookie)
			if !g.moves(m) {
				steady = append(steady, cookie)
			}
		}
		if len(steady) > 0 {
			return steady
		}
		if len(all) > 0 {
			return all
		}
	}
	return nil
}

// moves tells whether a close that is about to happen gives m another index.
func (g *classicGroup) moves(m *member) bool {
	next := g.order
	for _, other := range g.members {
		if other.leaving {
			next = next.closed(other.Inode)
		}
	}
	return next.index(m.Inode) != g.order.index(m.Inode)
}

func (g *classicGroup) weigh(cookies []uint64) []int {
	counts := make([]int, len(cookies))
	for i, c := range cookies {
		counts[i] = g.counts[c]
	}
	if g.p == Least {
		return fill(counts)
	}
	for i := range counts {
		counts[i] = 1
	}
	return counts
}

func (g *classicGroup) parts() []part {
	var out []part
	for i, cookie := range g.shared {
		if g.weights[i] > 0 {
			out = append(out, part{g.order.index(g.members[cookie].Inode), g.weights[i]})
		}
	}
	return out
}

// mark has nothing to add: a classic program counts nothing.
func (g *classicGroup) mark(map[uint64]int64) {}

func (g *classicGroup) correct(_ Mark, actual map[uint64]int) error {
	for cookie := range g.members {
		g.counts[cookie] = actual[cookie]
	}
	if g.p != Least || g.lost || g.waiting || g.now().Sub(g.swapped) < swapPause {
		return nil
	}
	if shared := g.sharing(); !slices.Equal(shared, g.shared) || differ(g.weigh(shared), g.weights) {
		return g.swap()
	}
	return nil
}

func (g *classicGroup) slot(cookie uint64) (int, bool) {
	m := g.members[cookie]
	if m == nil || m.leaving || g.lost || g.waiting || g.err != nil {
		return 0, false
	}
	i := g.order.index(m.Inode)
	return i, i >= 0 && i < maxIndex
}

func (g *classicGroup) how() string {
	switch n := g.strangers(); {
	case g.err != nil:
		return fmt.Sprintf("hash: %v", g.err)
	case g.lost:
		return "hash: " + errOrder.Error()
	case n > 0 && !g.waiting:
		return "hash: " + strangersText(n)
	}
	return string(g.p) + " (cBPF)"
}

// verify looks itself where it can, as live may be a moment old, and an order
// that is wrong is worse than one that is late.
func (g *classicGroup) verify(live []uint64) error {
	if m := g.any(); m != nil {
		if now, err := g.seen(m.Listener); err == nil {
			live = now
		}
	}
	g.waiting = false
	before, lost := g.order, g.lost
	g.observe(live)
	if n := g.strangers(); n > 0 && !g.lost {
		g.report(fmt.Errorf("%s; the kernel's hash decides", strangersText(n)))
	}
	if slices.Equal(before, g.order) && lost == g.lost && g.err == nil && slices.Equal(g.sharing(), g.shared) {
		return nil
	}
	return errors.Join(g.save(), g.swap())
}

func (g *classicGroup) files() map[string]*os.File { return map[string]*os.File{"order": g.file} }

// close leaves the group to the kernel: a copy that is open in a process which
// is not ours any more gets what it would get without us.
func (g *classicGroup) close() { g.file.Close() }
