package sock

import (
	"fmt"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// bind answers bind(): a held socket for a known address, else it binds here
// and keeps the socket.
func (h *Holder) bind(o Owner, t *trap.Trap) (v trap.Verdict, kept bool) {
	if t.Address.Port() == 0 {
		return trap.Continue(), false // nobody could ask for that port again
	}
	e, err := describe(t.Socket)
	if err != nil {
		h.event(o, t, Unheld, "", err)
		return trap.Continue(), false
	}
	e.key.addr, e.pid, e.gens, e.file, e.policy = t.Address, t.PID, map[int]bool{o.Gen: false}, t.Socket, o.Balance
	h.mu.Lock()
	same := h.table.byCookie(o.place(), e.cookie)
	h.mu.Unlock()
	if same != nil {
		return h.repeated(o, e, same), false
	}
	if h.clash(o, t, e) {
		h.event(o, t, Conflict, "the app itself", nil)
		return trap.Errno(unix.EADDRINUSE), false
	}
	if held := h.heir(o, e.key); held != nil {
		return h.again(o, t, held), false
	}
	if other := h.taken(o, e); other != "" {
		h.event(o, t, Conflict, other, nil)
		return trap.Errno(unix.EADDRINUSE), false
	}
	return h.first(o, t, e)
}

// repeated answers a bind of a socket that is held already: a signal had
// interrupted the call after it got the socket, and it asks again. The kernel
// knows what to say to another address.
func (h *Holder) repeated(o Owner, fresh, held *entry) trap.Verdict {
	if held.key != fresh.key {
		return trap.Continue()
	}
	h.mu.Lock()
	held.use(o.Gen)
	h.mu.Unlock()
	return trap.Errno(0)
}

// clash tells whether the generation itself has the address open, so that the
// kernel would refuse it without our SO_REUSEPORT. Addresses that it has closed
// meanwhile, as somebody who looks for a free port does, are let go if they
// would take away connections from this one; the same address is kept for it.
func (h *Holder) clash(o Owner, t *trap.Trap, e *entry) bool {
	if e.shared || h.o.InUse == nil {
		return false
	}
	h.mu.Lock()
	own := h.table.own(o.place(), e.key, o.Gen)
	h.mu.Unlock()
	for _, x := range own {
		listens := x.gens[o.Gen] // written under op
		switch {
		case x.opened: // LISTEN_FDS: it is open all the time
		case h.o.InUse(t.Tag, x.inode):
			if listens || !x.reuse || !e.reuse {
				return true
			}
		case x.key != e.key:
			if err := h.apply(func(tb *table) []*entry { return tb.leave(o.place(), x, o.Gen) }); err != nil {
				h.event(o, t, Unsaved, "", err)
			}
		}
	}
	return false
}

// heir is the held socket for a bind, or for an Open; nil: none, or they are
// others'.
func (h *Holder) heir(o Owner, k key) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.table.heir(o.place(), k, o.Gen, h.steered())
}

// again answers a bind with a socket that the place holds already.
func (h *Holder) again(o Owner, t *trap.Trap, held *entry) trap.Verdict {
	h.mu.Lock()
	others := !held.free(o.Gen)
	held.use(o.Gen)
	h.mu.Unlock()
	if err := copyNonblock(t.Socket, held.file, others); err != nil {
		h.event(o, t, Unheld, "", err)
		return trap.Continue()
	}
	return trap.Inject(held.file, t.CloseOnExec)
}

// first performs the app's bind on the duplicate, so that its result is known
// and nobody can change the address in between; or on a socket that can be
// steered, which takes the place of the app's.
func (h *Holder) first(o Owner, t *trap.Trap, e *entry) (v trap.Verdict, kept bool) {
	own := !h.substitute(o, e)
	abort := func() {
		if !own {
			e.file.Close()
		}
	}
	h.mu.Lock()
	err := h.table.keep(o.place(), e)
	h.mu.Unlock()
	if err != nil {
		abort()
		h.event(o, t, Unheld, "", err)
		return trap.Continue(), false
	}
	h.befriend(o, e)
	errno := bindShared(e.file, e.key.addr)
	switch {
	case errno == 0 && own:
		return trap.Errno(0), true
	case errno == 0:
		return trap.Inject(e.file, t.CloseOnExec), false
	}
	h.mu.Lock()
	h.table.remove(o.place(), func(x *entry) bool { return x == e })
	h.mu.Unlock()
	abort()
	switch errno {
	case unix.EACCES, unix.EPERM:
		// The program may do what gpm may not (a file capability): let it try.
		// If it can, its listen() makes the socket ours.
		if err := sharePort(t.Socket); err != nil {
			h.event(o, t, Unheld, "", err)
		}
		return trap.Continue(), false
	case unix.EADDRINUSE:
		h.event(o, t, Conflict, h.somebody(e.key), nil)
	}
	return trap.Errno(errno), false
}

// befriend gives a new socket the user of those that it will share the port
// with: the app may have got another user since, and the kernel would refuse.
// Where it cannot be done, the bind will say so.
func (h *Holder) befriend(o Owner, e *entry) {
	h.mu.Lock()
	kin := h.table.kin(o.App, e.key, e.cookie)
	h.mu.Unlock()
	if kin != nil && kin.uid != e.uid && chown(e.file, kin.uid) == nil {
		e.uid = kin.uid
	}
}

// listen answers listen() on a socket of the table, and takes one that is not
// in it if an earlier daemon bound it: that one died before listen() came.
func (h *Holder) listen(o Owner, t *trap.Trap) (v trap.Verdict, kept bool) {
	seen, err := describe(t.Socket)
	if err != nil {
		return trap.Continue(), false
	}
	h.mu.Lock()
	e := h.table.byCookie(o.place(), seen.cookie)
	if e == nil {
		e = h.inherit(o, t, seen)
		kept = e != nil
	}
	h.mu.Unlock()
	if e == nil {
		return trap.Continue(), false
	}
	h.store(o, e) // before: a daemon that comes between finds a listener and knows whose it is
	if errno := listenOn(t.Socket, max(t.Backlog, backlog)); errno != 0 {
		return trap.Errno(errno), kept
	}
	h.mu.Lock()
	e.gens[o.Gen], e.listening = true, true
	h.mu.Unlock()
	h.enter(o.place(), e, o.Balance)
	h.event(o, t, Listening, "", nil)
	return trap.Errno(0), kept
}

// inherit takes a socket into the table that was bound but is not in it: its
// SO_REUSEPORT says that we bound it, before this daemon was started, or let
// the app do it. Called with mu held; nil: it is not ours, or cannot be.
func (h *Holder) inherit(o Owner, t *trap.Trap, seen *entry) *entry {
	if !seen.shared || t.Address.Port() == 0 {
		return nil
	}
	seen.shared, seen.policy = false, o.Balance
	seen.key.addr, seen.pid, seen.file = t.Address, t.PID, t.Socket
	if h.table.elsewhere(o.place(), seen.cookie) || h.table.rival(o.App, seen.key, false) != "" {
		return nil
	}
	if h.table.keep(o.place(), seen) != nil {
		return nil
	}
	return seen
}

// taken says who else listens there, "" if nobody does: another app of ours, or
// somebody on this machine. SO_REUSEPORT, which gpm sets, would hide both from
// the app, and clients would reach one or the other by chance.
func (h *Holder) taken(o Owner, e *entry) string {
	h.mu.Lock()
	rival := h.table.rival(o.App, e.key, e.shared)
	h.mu.Unlock()
	if rival != "" {
		return fmt.Sprintf("app %q", rival)
	}
	if e.shared {
		return "" // it asked to share
	}
	return h.stranger(e.key)
}
