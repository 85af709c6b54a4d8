package sock

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"

	"gpm/supervisor/internal/steer"
)

// maxPerPlace bounds what one instance may make gpm hold. An app that opens
// ports without end (passive FTP, a port scanner) is not held beyond this.
const maxPerPlace = 128

var errFull = errors.New("too many held listeners")

// place is one instance of an app. Listeners belong to it, not to a process.
type place struct {
	app   string
	index int
}

// key tells which of a place's binds mean the same listener.
type key struct {
	addr  netip.AddrPort
	only6 bool   // IPV6_V6ONLY: "::" without IPv4
	ns    uint64 // network namespace cookie; zero where the kernel has none
}

// entry is one held socket: a candidate after bind(), a listener after listen().
type entry struct {
	key       key
	cookie    uint64 // SO_COOKIE: the socket, whoever has it under whatever number
	inode     uint64
	uid       int  // of the socket; the kernel lets no two share an address
	mptcp     bool // cannot be steered
	shared    bool // the app itself had set SO_REUSEPORT
	reuse     bool // it has SO_REUSEADDR
	opened    bool // made for LISTEN_FDS; an app may still bind the address itself
	listening bool
	pid       int          // process that bound a candidate
	gens      map[int]bool // living generations that use it; true: it has called listen()
	file      *os.File     // owned by the Holder
	stored    string       // name under which the keeper has it

	policy  steer.Policy
	kept    bool          // from an earlier daemon, which knew what it is to get
	joined  bool          // it is in its group in the Steerer
	traffic steer.Traffic // what it gets there
	fault   error         // why it could not join; the kernel's hash decides
}

// free tells whether no living generation but this one uses the entry.
func (e *entry) free(gen int) bool {
	_, mine := e.gens[gen]
	return len(e.gens) == 0 || mine && len(e.gens) == 1
}

// use counts a generation that has got the socket and may listen on it.
func (e *entry) use(gen int) {
	if _, known := e.gens[gen]; !known {
		e.gens[gen] = false
	}
}

// oldest is the oldest living generation that uses the entry; 0: none does.
func (e *entry) oldest() int {
	low := 0
	for g := range e.gens {
		if low == 0 || g < low {
			low = g
		}
	}
	return low
}

// table is who holds what. It decides and touches no socket.
type table struct {
	rooms map[place]*room
}

type room struct {
	held    map[uint64]*entry     // by cookie; several may have one key
	settled int                   // generation that is online; zero: none
	traffic map[int]steer.Traffic // by generation, for what it will listen on, too
	dead    map[int]bool          // generations that have died lately
}

func newTable() *table { return &table{rooms: map[place]*room{}} }

func (t *table) room(p place) *room {
	r := t.rooms[p]
	if r == nil {
		r = &room{held: map[uint64]*entry{}, traffic: map[int]steer.Traffic{}, dead: map[int]bool{}}
		t.rooms[p] = r
	}
	return r
}

// heir finds the held socket that a bind by a generation gets, nil if it gets
// one of its own. With steering, what another living generation uses is left
// alone: the new one of a reload must not accept before it is ready, and its
// predecessor not after. After a crash, and without steering, the socket passes
// from one to the next, with its queue.
func (t *table) heir(p place, k key, gen int, steered bool) *entry {
	var best *entry
	list := t.entries(p)
	steered = steered && len(list) < maxPerPlace // there is no room for a second one
	for _, e := range list {
		if e.key != k || steered && !e.mptcp && e.fault == nil && !e.free(gen) {
			continue
		}
		if best == nil || e.listening && !best.listening ||
			e.listening == best.listening && e.free(gen) && !best.free(gen) {
			best = e
		}
	}
	return best
}

// own are the entries that a generation uses and that overlap with an address.
func (t *table) own(p place, k key, gen int) []*entry {
	return slices.DeleteFunc(t.entries(p), func(e *entry) bool {
		_, mine := e.gens[gen]
		return !mine || !overlap(e.key, k)
	})
}

func (t *table) byCookie(p place, cookie uint64) *entry {
	if r := t.rooms[p]; r != nil {
		return r.held[cookie]
	}
	return nil
}

// elsewhere tells whether another place holds that very socket: a process has
// passed it on.
func (t *table) elsewhere(p place, cookie uint64) bool {
	for other, r := range t.rooms {
		if other != p && r.held[cookie] != nil {
			return true
		}
	}
	return false
}

// kin finds an entry of the same app that will share the port with a socket.
func (t *table) kin(app string, k key, cookie uint64) *entry {
	for p, r := range t.rooms {
		if p.app != app {
			continue
		}
		for _, e := range r.held {
			if e.cookie != cookie && overlap(e.key, k) {
				return e
			}
		}
	}
	return nil
}

// rival finds another app that holds an overlapping address, "" if none does.
// Two apps that both asked for SO_REUSEPORT themselves share the port, as they
// would without gpm.
func (t *table) rival(app string, k key, shared bool) string {
	for p, r := range t.rooms {
		if p.app == app {
			continue
		}
		for _, e := range r.held {
			if overlap(e.key, k) && !(shared && e.shared) {
				return p.app
			}
		}
	}
	return ""
}

// keep puts a new entry into its place.
func (t *table) keep(p place, e *entry) error {
	r := t.room(p)
	if len(r.held) >= maxPerPlace {
		return errFull
	}
	if e.gens == nil {
		e.gens = map[int]bool{}
	}
	r.held[e.cookie] = e
	return nil
}

// down takes a generation out that has died. What it alone used is free from
// now on: its successor may bind before the dead one is buried.
func (t *table) down(p place, gen int) {
	r := t.rooms[p]
	if r == nil {
		return
	}
	if r.settled == gen {
		r.settled = 0
	}
	delete(r.traffic, gen)
	for _, e := range r.held {
		delete(e.gens, gen)
	}
	r.dead[gen] = true
	bound(r.dead)
}

// bound forgets what was said of the oldest generation if it was said of too
// many: a living one is never that old.
func bound[V any](byGen map[int]V) {
	if len(byGen) > maxPerPlace {
		delete(byGen, slices.Min(slices.Collect(maps.Keys(byGen))))
	}
}

// retire takes a generation out that has ended, and returns the entries that
// nobody needs any more: candidates of the dead, and, if another generation is
// online, listeners that only the dead had bound. Without one they stay: the
// next process will want them, and meanwhile connections queue.
func (t *table) retire(p place, gen int) []*entry {
	t.down(p, gen)
	r := t.rooms[p]
	return t.remove(p, func(e *entry) bool {
		return len(e.gens) == 0 && (!e.listening || r.settled != 0)
	})
}

// settle says that a generation is online: what it did not bind and no other
// living one uses is returned, so that a changed port does not stay open. It may
// have died since: then its successor needs what it had, with all who wait there.
func (t *table) settle(p place, gen int) []*entry {
	r := t.rooms[p]
	if r == nil || r.dead[gen] {
		return nil
	}
	r.settled = gen
	return t.remove(p, func(e *entry) bool { return len(e.gens) == 0 })
}

// adopt counts what a process has open as used by its generation, which lived
// before this daemon did; with nil, all of the place.
func (t *table) adopt(p place, gen int, open map[uint64]bool, policy steer.Policy) {
	if r := t.rooms[p]; r != nil {
		for _, e := range r.held {
			if open == nil || open[e.inode] {
				e.gens[gen], e.policy = e.listening, policy
			}
		}
	}
}

// leave says that a generation has closed a socket; the entry is returned if
// that was the last one to use it.
func (t *table) leave(p place, e *entry, gen int) []*entry {
	delete(e.gens, gen)
	return t.remove(p, func(x *entry) bool { return x == e && len(x.gens) == 0 })
}

// route remembers what a generation is to get, and returns what it listens on.
func (t *table) route(p place, gen int, traffic steer.Traffic) []*entry {
	r := t.room(p)
	r.traffic[gen] = traffic
	bound(r.traffic)
	return slices.DeleteFunc(t.entries(p), func(e *entry) bool {
		_, mine := e.gens[gen]
		return !mine || !e.listening
	})
}

// due is the traffic that an entry should get: what was said of the generations
// that use it, the most of them; else what an earlier daemon said; else nothing
// if it belongs to a candidate, and its turn to queue if it does not.
func (t *table) due(p place, e *entry) steer.Traffic {
	r := t.rooms[p]
	if said := r.said(e); said != "" {
		return said
	}
	if e.kept {
		return steer.Kept
	}
	for _, x := range r.held {
		// By age, and only beside one that may get traffic: never do all of a
		// place turn clients away of their own accord.
		if x.key == e.key && x.listening && x.oldest() != 0 && x.oldest() < e.oldest() && r.said(x) != steer.Away {
			return steer.Away
		}
	}
	return steer.Queue
}

// policy is how the group of an entry shares. Of a listener that came back for
// nobody only its siblings know it.
func (t *table) policy(p place, e *entry) steer.Policy {
	best := e.policy
	for q, r := range t.rooms {
		for _, x := range r.held {
			if best == "" && q.app == p.app && x.key == e.key {
				best = x.policy
			}
		}
	}
	return cmp.Or(best, steer.Least)
}

func (r *room) said(e *entry) steer.Traffic {
	rank := []steer.Traffic{"", steer.Away, steer.Queue, steer.Serve}
	var best steer.Traffic
	for g := range e.gens {
		if said := r.traffic[g]; slices.Index(rank, said) > slices.Index(rank, best) {
			best = said
		}
	}
	return best
}

// orphans are the steered listeners that nobody living uses, but that get more
// than what is left over.
func (t *table) orphans() []*entry {
	return t.all(func(e *entry) bool { return e.joined && len(e.gens) == 0 && e.traffic != steer.Queue })
}

// all are the entries of all places that are as asked.
func (t *table) all(ok func(*entry) bool) []*entry {
	var out []*entry
	for _, r := range t.rooms {
		for _, e := range r.held {
			if ok(e) {
				out = append(out, e)
			}
		}
	}
	return out
}

// release takes everything of a place.
func (t *table) release(p place) []*entry {
	if r := t.rooms[p]; r != nil {
		r.settled = 0
		clear(r.traffic)
	}
	return t.remove(p, func(*entry) bool { return true })
}

func (t *table) remove(p place, gone func(*entry) bool) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	var out []*entry
	for c, e := range r.held {
		if gone(e) {
			out = append(out, e)
			delete(r.held, c)
		}
	}
	if len(r.held) == 0 && r.settled == 0 && len(r.traffic) == 0 {
		delete(t.rooms, p)
	}
	return out
}

// entries are those of a place by address, then by age of the socket.
func (t *table) entries(p place) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(r.held), func(a, b *entry) int {
		return cmp.Or(a.key.addr.Compare(b.key.addr), cmp.Compare(a.cookie, b.cookie))
	})
}

// inodes are those of all held sockets.
func (t *table) inodes() map[uint64]bool {
	out := map[uint64]bool{}
	for _, r := range t.rooms {
		for _, e := range r.held {
			out[e.inode] = true
		}
	}
	return out
}

// overlap tells whether a connection to one address may reach the other:
// Linux refuses such a pair with EADDRINUSE unless both have SO_REUSEPORT.
func overlap(a, b key) bool {
	if a.addr.Port() != b.addr.Port() || a.ns != b.ns {
		return false
	}
	a4, a6 := a.reach()
	b4, b6 := b.reach()
	return meet(a4, b4) || meet(a6, b6)
}

// reach is what a socket listens on in IPv4 and in IPv6; the zero Addr: nothing.
func (k key) reach() (v4, v6 netip.Addr) {
	ip := k.addr.Addr()
	switch {
	case ip.Is4(), ip.Is4In6():
		return ip.Unmap(), netip.Addr{}
	case ip.IsUnspecified() && !k.only6:
		return netip.IPv4Unspecified(), ip
	}
	return netip.Addr{}, ip
}

func meet(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() {
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}
