package sock

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
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
	shared    bool // the app itself had set SO_REUSEPORT
	listening bool
	pid       int          // process that bound a candidate
	gens      map[int]bool // living generations that use it
	file      *os.File     // owned by the Holder
	stored    string       // name under which the keeper has it
}

// table is who holds what. It decides and touches no socket.
type table struct {
	rooms map[place]*room
}

type room struct {
	held    map[key]*entry
	settled int // generation that is online; zero: none
}

func newTable() *table { return &table{rooms: map[place]*room{}} }

func (t *table) room(p place) *room {
	r := t.rooms[p]
	if r == nil {
		r = &room{held: map[key]*entry{}}
		t.rooms[p] = r
	}
	return r
}

func (t *table) find(p place, k key) *entry {
	if r := t.rooms[p]; r != nil {
		return r.held[k]
	}
	return nil
}

func (t *table) byCookie(p place, cookie uint64) *entry {
	if r := t.rooms[p]; r != nil {
		for _, e := range r.held {
			if e.cookie == cookie {
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
	r.held[e.key] = e
	return nil
}

// retire takes a generation out that has ended, and returns the entries that
// nobody needs any more: candidates of the dead, and, if another generation is
// online, listeners that only the dead had bound. Without one they stay: the
// next process will want them, and meanwhile connections queue.
func (t *table) retire(p place, gen int) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	if r.settled == gen {
		r.settled = 0
	}
	for _, e := range r.held {
		delete(e.gens, gen)
	}
	return t.remove(p, func(e *entry) bool {
		return len(e.gens) == 0 && (!e.listening || r.settled != 0)
	})
}

// settle says that a generation is online: what it did not bind and no other
// living one uses is returned, so that a changed port does not stay open.
func (t *table) settle(p place, gen int) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	r.settled = gen
	return t.remove(p, func(e *entry) bool { return len(e.gens) == 0 })
}

// adopt counts everything of a place as used by a generation that lived before
// this daemon did.
func (t *table) adopt(p place, gen int) {
	if r := t.rooms[p]; r != nil {
		for _, e := range r.held {
			e.gens[gen] = true
		}
	}
}

// release takes everything of a place.
func (t *table) release(p place) []*entry {
	if r := t.rooms[p]; r != nil {
		r.settled = 0
	}
	return t.remove(p, func(*entry) bool { return true })
}

func (t *table) remove(p place, gone func(*entry) bool) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	var out []*entry
	for k, e := range r.held {
		if gone(e) {
			out = append(out, e)
			delete(r.held, k)
		}
	}
	if len(r.held) == 0 && r.settled == 0 {
		delete(t.rooms, p)
	}
	return out
}

// entries are those of a place by address.
func (t *table) entries(p place) []*entry {
	r := t.rooms[p]
	if r == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(r.held), func(a, b *entry) int {
		return a.key.addr.Compare(b.key.addr)
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
