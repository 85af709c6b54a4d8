package sock

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"gpm/supervisor/internal/aim"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/streams"
)

// errMPTCP: the kernel attaches no program to a multipath socket.
var errMPTCP = errors.New("a multipath TCP socket cannot be steered")

func (h *Holder) steered() bool { return h.o.Steer != nil && h.o.Steer.Mode() != steer.None }

// group names what the kernel takes together under SO_REUSEPORT: sockets with
// the same address, family, IPV6_V6ONLY and network namespace. Two apps that
// both asked to share are in one.
func (k key) group() string {
	name := k.addr.String()
	if k.only6 {
		name += " v6only"
	}
	return fmt.Sprintf("%s@%d", name, k.ns)
}

// enter brings a listener that a process has just come to under control. What
// goes wrong the Steerer tells (its Problem): the app listens all the same.
func (h *Holder) enter(p place, e *entry, want steer.Policy) {
	changed := e.joined && e.policy != want
	h.mu.Lock()
	e.policy = want
	policy := h.table.policy(p, e)
	h.mu.Unlock()
	if changed {
		_ = h.o.Steer.SetPolicy(e.key.group(), policy)
	}
	_ = h.steer(p, e)
}

// steer gives a listener the traffic that is due to it; its first time, it
// joins its group. The Steerer leaves a group in which one could not be steered
// to the kernel's hash, so that nobody starves: such a one is a member, too, and
// joins again each time.
func (h *Holder) steer(p place, e *entry) error {
	if h.o.Steer == nil || !e.listening {
		return nil
	}
	h.mu.Lock()
	due, policy := h.table.due(p, e), h.table.policy(p, e)
	h.mu.Unlock()
	if e.joined && e.fault == nil {
		return h.route(e, due)
	}
	if !h.steered() && e.fault != nil {
		return nil // mode None has been told: it detaches what an earlier daemon attached
	}
	h.moved[e.key.group()] = true
	err := errMPTCP
	if !e.mptcp {
		l := steer.Listener{File: e.file, Cookie: e.cookie, Inode: e.inode, Addr: e.key.addr, Only6: e.key.only6}
		err = h.o.Steer.Join(e.key.group(), policy, l, due)
	}
	h.mu.Lock()
	e.fault = err
	if h.steered() && !e.mptcp {
		e.joined, e.traffic = true, due
	}
	h.mu.Unlock()
	if err != nil && e.joined {
		return fmt.Errorf("steer %s: %w", e.key.addr, err)
	}
	return nil // how it is, and nobody's failure
}

func (h *Holder) route(e *entry, t steer.Traffic) error {
	if e.traffic == t {
		return nil
	}
	if err := h.o.Steer.Route(e.cookie, t); err != nil {
		return fmt.Errorf("steer %s: %w", e.key.addr, err)
	}
	h.mu.Lock()
	e.traffic = t
	h.mu.Unlock()
	return nil
}

// leave takes a listener out of its group. What it returns is to be called
// when it is closed.
func (h *Holder) leave(e *entry) (closed func()) {
	if e.joined {
		h.moved[e.key.group()] = true
		if closed = h.o.Steer.Leave(e.cookie); closed != nil {
			return closed
		}
	}
	return func() {}
}

// Route says what the listeners of a generation get, those that it does not
// have yet included: an app may open a second port after it was ready.
func (h *Holder) Route(app string, index, gen int, t steer.Traffic) error {
	h.op.Lock()
	defer h.op.Unlock()
	p := place{app, index}
	h.mu.Lock()
	list := h.table.route(p, gen, t)
	h.mu.Unlock()
	var errs []error
	for _, e := range list {
		errs = append(errs, h.steer(p, e))
	}
	return errors.Join(errs...)
}

// Verify is called once per tick with all listening sockets of this network
// namespace, listed since the last call. It steers what is not yet (Restore),
// and tells the Steerer which sockets of each group live: others than ours may
// be among them.
func (h *Holder) Verify(list []streams.Listener) error {
	h.op.Lock()
	defer h.op.Unlock()
	if h.o.Steer == nil {
		return nil
	}
	h.join()
	var errs []error
	if len(list) > 0 { // else it could not be read: ours are always there
		for group, live := range h.live(list) {
			if err := h.o.Steer.Verify(group, live); err != nil {
				errs = append(errs, fmt.Errorf("verify %s: %w", group, err))
			}
		}
	}
	clear(h.moved)
	return errors.Join(errs...)
}

// Resume steers what came from Restore and Retake, as the daemon before did. It
// is to be called before anything of it is closed: the Steerer has to see one
// change after the other.
func (h *Holder) Resume() {
	h.op.Lock()
	defer h.op.Unlock()
	if h.o.Steer != nil {
		h.join()
	}
}

// join steers everything that waits for it.
func (h *Holder) join() {
	h.mu.Lock()
	waiting := map[*entry]place{}
	for p, r := range h.table.rooms {
		for _, e := range r.held {
			if fresh := !e.joined && e.fault == nil; fresh || e.joined && e.fault != nil {
				waiting[e] = p
			}
		}
	}
	h.mu.Unlock()
	for e, p := range waiting {
		_ = h.steer(p, e) // see enter
	}
}

// live are the inodes of each group, in the order of the list. A group that has
// changed since the list may have been made, or lives in another network
// namespace, is not told of: the list lacks some of it.
func (h *Holder) live(list []streams.Listener) map[string][]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out, ours := map[string][]uint64{}, map[uint64]string{}
	for _, e := range h.table.all(func(e *entry) bool { return e.joined }) {
		if g := e.key.group(); e.key.ns == here() && !h.moved[g] {
			out[g], ours[e.inode] = nil, g
		}
	}
	for _, l := range list {
		g, mine := ours[l.Inode]
		if !mine {
			g = key{l.Addr, l.Only6, here()}.group()
		}
		if _, known := out[g]; known {
			out[g] = append(out[g], l.Inode)
		}
	}
	return out
}

// Target is where to connect to reach exactly one generation of a place: its
// listener on a port, or its first one for port 0. A connection that
// bears the mark of aim goes to that generation whatever its traffic is; if aim
// is zero, whoever the kernel chooses answers. Not ok: it does not listen.
func (h *Holder) Target(app string, index, gen, port int) (addr netip.AddrPort, mark aim.Aim, ok bool) {
	h.mu.Lock()
	var e *entry
	for _, x := range h.table.entries(place{app, index}) {
		_, uses := x.gens[gen]
		if uses && x.listening && (port == 0 || port == int(x.key.addr.Port())) {
			e = x
			break
		}
	}
	joined := e != nil && e.joined
	h.mu.Unlock()
	if e == nil {
		return addr, mark, false
	}
	ip := e.key.addr.Addr().Unmap()
	switch v4, _ := e.key.reach(); {
	case v4.IsUnspecified(): // dual stack, too
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip.IsUnspecified():
		ip = netip.IPv6Loopback()
	}
	if joined {
		mark, _ = h.o.Steer.Aim(e.cookie) // else zero
	}
	return netip.AddrPortFrom(ip, e.key.addr.Port()), mark, true
}

// Ports are those of all listening sockets, in order.
func (h *Holder) Ports() []uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	ports := map[uint16]bool{}
	for _, e := range h.table.all(func(e *entry) bool { return e.listening }) {
		ports[e.key.addr.Port()] = true
	}
	return slices.Sorted(maps.Keys(ports))
}

// Listeners are the sockets held for a place, by address.
func (h *Holder) Listeners(app string, index int) []Listener {
	h.mu.Lock()
	var out []Listener
	var groups []string // of those that the Steerer knows
	for _, e := range h.table.entries(place{app, index}) {
		l := Listener{
			Addr: e.key.addr, Listening: e.listening, Inode: e.inode, Cookie: e.cookie,
			Gens: slices.Sorted(maps.Keys(e.gens)),
		}
		group := ""
		switch {
		case e.joined:
			l.Traffic, group = e.traffic, e.key.group()
		case e.listening:
			l.Traffic, l.How = steer.Serve, "hash"
			if e.mptcp && h.steered() {
				l.How += ": " + errMPTCP.Error()
			} else if h.o.Steer != nil {
				group = e.key.group()
			}
		}
		out, groups = append(out, l), append(groups, group)
	}
	h.mu.Unlock()
	for i, group := range groups {
		if group != "" {
			out[i].How = h.o.Steer.How(group)
		}
	}
	return out
}

// LearnedPorts tells whether the place holds a listening socket: its next
// process will call listen() on it when it is ready.
func (h *Holder) LearnedPorts(app string, index int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.table.entries(place{app, index}), func(e *entry) bool { return e.listening })
}
