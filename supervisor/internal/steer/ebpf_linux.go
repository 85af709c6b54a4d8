package steer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// patience is how long a listener may be in another map before that is a
// problem. After a death of keeper and daemon the last program has to be freed
// first, and its map with it.
const patience = 10 * time.Second

// bounds are for how many slots programs are made. Most groups need the first.
var bounds = []int{32, 256, maxSlots}

// newGroup makes a group of a mode. It takes old, the files of an earlier
// daemon.
func newGroup(mode Mode, p Policy, old map[string]*os.File, report func(error)) (group, error) {
	if mode == CBPF {
		return newClassicGroup(p, old["order"], report)
	}
	return newProgramGroup(p, old, report)
}

// programGroup is a group under an SK_REUSEPORT program.
type programGroup struct {
	p         Policy
	report    func(error)
	slots     *slots
	program   *ebpf.Program
	bound     int                // of program
	owner     []uint64           // cookie by slot; 0: free
	members   map[uint64]*member // by cookie
	ghosts    map[uint64]bool    // inodes that left and may be open elsewhere
	strangers int
}

// member is a listener of a group.
type member struct {
	Listener
	traffic Traffic
	slot    int       // -1: not in the map
	leaving bool      // between Leave and closed
	gone    bool      // the kernel does not have it any more
	err     error     // why it is not in the map
	since   time.Time // when it was first tried
}

func newProgramGroup(p Policy, old map[string]*os.File, report func(error)) (*programGroup, error) {
	g := &programGroup{p: p, report: report, owner: make([]uint64, maxSlots), members: map[uint64]*member{}, ghosts: map[uint64]bool{}}
	var err error
	if len(old) > 0 {
		if g.slots, err = oldSlots(old); err != nil {
			report(err) // balance starts anew; the old program goes on until the new one is attached
			for _, f := range old {
				f.Close()
			}
		}
	}
	if g.slots == nil {
		if g.slots, err = newSlots(); err != nil {
			return nil, err
		}
	}
	if err = g.load(max(1, g.slots.inUse())); err != nil {
		g.slots.close()
		return nil, err
	}
	g.survey(g.slots.inUse())
	return g, nil
}

// load makes the program one for at least used slots. Who calls it attaches.
func (g *programGroup) load(used int) error {
	if used <= g.bound {
		return nil
	}
	bound := bounds[slices.IndexFunc(bounds, func(b int) bool { return b >= used })]
	p, err := newProgram(g.slots, bound)
	if err != nil {
		return err
	}
	if g.program != nil {
		g.program.Close() // it lives on where it is attached
	}
	g.program, g.bound = p, bound
	return nil
}

// survey finds who is in the map already. What has been closed meanwhile is
// freed; who has not joined again keeps the state that it had.
func (g *programGroup) survey(used int) {
	for i := range used {
		if g.owner[i] = g.slots.cookie(i); g.owner[i] == 0 {
			g.slots.empty(i)
		}
	}
}

func (g *programGroup) join(l Listener, t Traffic) error {
	m := g.members[l.Cookie]
	if m == nil {
		m = &member{slot: slices.Index(g.owner, l.Cookie)}
		g.members[l.Cookie] = m
	}
	if t == Kept {
		t = Queue
		if m.slot >= 0 {
			t = g.slots.traffic(m.slot)
		}
	}
	m.Listener, m.traffic, m.leaving, m.gone = l, t, false, false
	delete(g.ghosts, l.Inode)
	if m.slot >= 0 {
		g.slots.setTraffic(m.slot, t)
		g.choose()
		return g.attach(m)
	}
	_ = g.place() // also tries the others, which are not the caller's business now
	if m.waits() {
		return nil
	}
	return m.err
}

// waits tells whether a listener is only not in the map yet.
func (m *member) waits() bool { return errors.Is(m.err, unix.EBUSY) && time.Since(m.since) < patience }

func (g *programGroup) attach(m *member) error {
	if err := attach(m.File, g.program.FD()); err != nil {
		m.err = fmt.Errorf("attach the program: %w", err)
		return m.err
	}
	m.err = nil
	return nil
}

// place tries all who are not in the map.
func (g *programGroup) place() error {
	var errs []error
	for _, cookie := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[cookie]
		switch {
		case m.leaving || m.gone || m.slot >= 0 && m.err == nil:
			continue
		case m.slot >= 0:
			_ = g.attach(m)
		default:
			g.placeOne(m)
		}
		if m.err != nil && !m.waits() {
			errs = append(errs, m.err)
		}
	}
	g.choose()
	return errors.Join(errs...)
}

// placeOne puts a listener into a free slot. The program is attached even if
// that fails: the one that is attached may be what keeps the listener from it.
// A state is set before the program can see it.
func (g *programGroup) placeOne(m *member) {
	i := slices.Index(g.owner, 0)
	if i < 0 {
		m.err = fmt.Errorf("more than %d listeners in a group", maxSlots)
		return
	}
	if m.err = g.load(i + 1); m.err != nil {
		return
	}
	err := g.slots.put(i, m.File)
	if err == nil {
		g.owner[i], m.slot = m.Cookie, i
		g.slots.setTraffic(i, m.traffic)
	}
	g.choose()
	if m.since.IsZero() {
		m.since = time.Now()
	}
	if g.attach(m) == nil && err != nil {
		m.err = fmt.Errorf("put it into the map: %w", err)
	}
}

// choose writes the header. While somebody cannot be steered who should get
// connections, the kernel's hash serves all.
func (g *programGroup) choose() {
	how := map[Policy]int{Least: chooseLeast, Random: chooseRandom, Hash: chooseHash}[g.p]
	if g.strangers > 0 || g.unplaced() != nil {
		how = chooseKernel
	}
	used := maxSlots
	for used > 0 && g.owner[used-1] == 0 {
		used--
	}
	g.slots.setHeader(used, how)
}

// unplaced is a listener that should get connections and is not in the map.
func (g *programGroup) unplaced() *member {
	for _, m := range g.members {
		if m.slot < 0 && !m.leaving && !m.gone && m.traffic != Away {
			return m
		}
	}
	return nil
}

func (g *programGroup) route(cookie uint64, t Traffic) error {
	m := g.members[cookie]
	m.traffic = t
	if m.slot >= 0 {
		g.slots.setTraffic(m.slot, t)
	}
	g.choose()
	return nil
}

func (g *programGroup) setPolicy(p Policy) error {
	if g.p != p {
		g.p = p
		g.choose()
	}
	return nil
}

func (g *programGroup) leave(cookie uint64) {
	m := g.members[cookie]
	m.leaving = true
	if m.slot >= 0 {
		g.slots.setTraffic(m.slot, Away)
	}
	g.choose()
}

func (g *programGroup) left(cookie uint64) int {
	m := g.members[cookie]
	delete(g.members, cookie)
	g.ghosts[m.Inode] = true // until Verify does not see it
	if m.slot >= 0 {
		g.free(m.slot)
	}
	if len(g.members) == 0 {
		// Should a copy be open in a process that is not ours any more, it
		// gets what it would get without us.
		g.slots.setHeader(0, chooseKernel)
		return 0
	}
	g.choose()
	return len(g.members)
}

func (g *programGroup) free(i int) {
	g.owner[i] = 0
	g.slots.empty(i)
}

func (g *programGroup) mark(loads map[uint64]int64) {
	for i, cookie := range g.owner {
		if cookie != 0 {
			loads[cookie] = g.slots.load(i)
		}
	}
}

func (g *programGroup) correct(m Mark, actual map[uint64]int) error {
	for i, cookie := range g.owner {
		if before, ok := m.loads[cookie]; ok && cookie != 0 {
			g.slots.addLoad(i, int64(actual[cookie])-before)
		}
	}
	if g.unplaced() == nil {
		return nil
	}
	return g.place()
}

func (g *programGroup) slot(cookie uint64) (int, bool) {
	m := g.members[cookie]
	if m == nil || m.slot < 0 || m.gone {
		return 0, false
	}
	return m.slot, true
}

func (g *programGroup) how() string {
	if g.strangers > 0 {
		return "hash: " + strangersText(g.strangers)
	}
	if m := g.unplaced(); m != nil {
		return fmt.Sprintf("hash: a listener cannot be steered: %v", m.err)
	}
	for _, m := range g.members {
		if m.err != nil {
			return fmt.Sprintf("hash: %v", m.err)
		}
	}
	return string(g.p) + " (eBPF)"
}

func strangersText(n int) string {
	return fmt.Sprintf("foreign listeners share the address: %d", n)
}

// verify trusts the map more than live, which may be a moment old: the kernel
// takes a socket out of the map in the instant that it stops listening.
func (g *programGroup) verify(live []uint64) error {
	strange := map[uint64]bool{}
	for _, inode := range live {
		strange[inode] = true
	}
	for inode := range g.ghosts {
		if !strange[inode] {
			delete(g.ghosts, inode)
		}
		delete(strange, inode)
	}
	for i, cookie := range g.owner {
		if cookie != 0 && g.slots.cookie(i) != cookie {
			g.free(i)
			if m := g.members[cookie]; m != nil {
				m.slot = -1
			}
		}
	}
	for _, m := range g.members {
		m.gone = m.slot < 0 && !strange[m.Inode]
		delete(strange, m.Inode)
	}
	if len(strange) > 0 && len(strange) != g.strangers {
		g.report(fmt.Errorf("%s; the kernel's hash decides", strangersText(len(strange))))
	}
	g.strangers = len(strange)
	return g.place()
}

func (g *programGroup) files() map[string]*os.File { return g.slots.file }

func (g *programGroup) close() {
	g.program.Close()
	g.slots.close()
}
