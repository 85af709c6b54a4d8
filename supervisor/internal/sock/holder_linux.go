package sock

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// Holder owns every held listener. It has no goroutine. Handle is called from
// one goroutine, in the order of the traps; the other methods from any.
type Holder struct {
	o Options
	// op is held for a whole change, callbacks to the keeper included, so that
	// a Store and a Drop of one name cannot overtake each other.
	op sync.Mutex
	// mu guards the table and is never held across a callback: a slow keeper
	// must not make the list of apps slow.
	mu    sync.Mutex
	table *table
}

// New makes a Holder that holds nothing.
func New(o Options) *Holder {
	if o.Event == nil {
		o.Event = func(Event) {}
	}
	return &Holder{o: o, table: newTable()}
}

// Handle decides about a trapped call. It takes t.Socket: it keeps or closes
// it. The file of an Inject verdict stays the Holder's; should a Release close
// it before the verdict is carried out, sending it fails and the call should
// be continued instead.
func (h *Holder) Handle(t *trap.Trap) trap.Verdict {
	h.op.Lock()
	defer h.op.Unlock()
	kept := false
	defer func() {
		if !kept && t.Socket != nil {
			t.Socket.Close()
		}
	}()
	owner, ok := h.o.Owner(t.Tag)
	if !ok || t.Socket == nil {
		return trap.Continue()
	}
	var v trap.Verdict
	switch t.Call {
	case trap.Bind:
		v, kept = h.bind(owner, t)
	case trap.Listen:
		v, kept = h.listen(owner, t)
	default:
		v = trap.Continue()
	}
	return v
}

// bind answers bind(): the held socket for a known address, else it binds here
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
	e.key.addr, e.pid, e.gens, e.file = t.Address, t.PID, map[int]bool{o.Gen: true}, t.Socket
	h.mu.Lock()
	held := h.table.find(o.place(), e.key)
	h.mu.Unlock()
	if held != nil {
		return h.again(o, t, held, e), false
	}
	if other := h.taken(o, e); other != "" {
		h.event(o, t, Conflict, other, nil)
		return trap.Errno(unix.EADDRINUSE), false
	}
	return h.first(o, t, e)
}

// again answers a bind to an address that the place holds already.
func (h *Holder) again(o Owner, t *trap.Trap, held, fresh *entry) trap.Verdict {
	h.mu.Lock()
	others := len(held.gens) > 1 || len(held.gens) == 1 && !held.gens[o.Gen]
	held.gens[o.Gen] = true
	h.mu.Unlock()
	if held.cookie == fresh.cookie {
		return trap.Errno(0) // interrupted by a signal after it got the socket: it asks again
	}
	if err := copyNonblock(t.Socket, held.file, others); err != nil {
		h.event(o, t, Unheld, "", err)
		return trap.Continue()
	}
	return trap.Inject(held.file, t.CloseOnExec)
}

// first performs the app's bind on the duplicate, so that its result is known
// and nobody can change the address in between.
func (h *Holder) first(o Owner, t *trap.Trap, e *entry) (v trap.Verdict, kept bool) {
	h.mu.Lock()
	err := h.table.keep(o.place(), e)
	h.mu.Unlock()
	if err != nil {
		h.event(o, t, Unheld, "", err)
		return trap.Continue(), false
	}
	errno := bindShared(t.Socket, e.key.addr)
	if errno == 0 {
		return trap.Errno(0), true
	}
	h.mu.Lock()
	h.table.remove(o.place(), func(x *entry) bool { return x == e })
	h.mu.Unlock()
	switch errno {
	case unix.EACCES, unix.EPERM:
		// The program may do what gpm may not (a file capability): let it try.
		// If it can, its listen() makes the socket ours.
		return trap.Continue(), false
	case unix.EADDRINUSE:
		h.event(o, t, Conflict, h.somebody(e.key), nil)
	}
	return trap.Errno(errno), false
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
	if errno := listenOn(t.Socket, max(t.Backlog, backlog)); errno != 0 {
		return trap.Errno(errno), kept
	}
	h.mu.Lock()
	e.gens[o.Gen] = true
	e.listening = true
	h.mu.Unlock()
	h.store(o, e)
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
	seen.shared = false
	seen.key.addr, seen.pid, seen.file = t.Address, t.PID, t.Socket
	if h.table.find(o.place(), seen.key) != nil || h.table.rival(o.App, seen.key, false) != "" {
		return nil
	}
	if h.table.keep(o.place(), seen) != nil {
		return nil
	}
	return seen
}

// store gives a listener to the keeper, once.
func (h *Holder) store(o Owner, e *entry) {
	if e.stored != "" || h.o.Store == nil {
		return
	}
	name := storeName(o.place(), e)
	if err := h.o.Store(name, e.file); err != nil {
		h.o.Event(Event{Kind: Unsaved, Owner: o, Addr: e.key.addr, Err: fmt.Errorf("store listener %s: %w", e.key.addr, err)})
		return
	}
	e.stored = name
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

func (h *Holder) event(o Owner, t *trap.Trap, kind EventKind, other string, err error) {
	h.o.Event(Event{Kind: kind, Owner: o, Addr: t.Address, Other: other, Err: err})
}

// Release closes everything of a place: its app was stopped or deleted. Queued
// connections are reset.
func (h *Holder) Release(app string, index int) error {
	return h.change(func(t *table) []*entry { return t.release(place{app, index}) })
}

// Retire says that all processes of a generation have ended. Sockets that it
// bound but never listened on are closed, and, if another generation is online
// (Settle), listeners that only the ended one had. Else listeners stay: that is
// the point of holding them.
func (h *Holder) Retire(app string, index, gen int) error {
	return h.change(func(t *table) []*entry { return t.retire(place{app, index}, gen) })
}

// Settle says that a generation is online. Listeners that neither it nor
// another living generation bound are closed: the app has changed its port.
func (h *Holder) Settle(app string, index, gen int) error {
	return h.change(func(t *table) []*entry { return t.settle(place{app, index}, gen) })
}

// Adopt says, after Restore, that a generation from before this daemon lives
// and uses what its place holds.
func (h *Holder) Adopt(app string, index, gen int) error {
	return h.change(func(t *table) []*entry {
		t.adopt(place{app, index}, gen)
		return nil
	})
}

// Sweep closes sockets that were bound, never listened on, and whose process is
// gone: an app that looks for a free port leaves them. Should a child of that
// process still have the socket, its listen() brings it back.
func (h *Holder) Sweep() error {
	return h.change(func(t *table) []*entry {
		var out []*entry
		for p := range t.rooms {
			out = append(out, t.remove(p, func(e *entry) bool {
				return !e.listening && unix.Kill(e.pid, 0) == unix.ESRCH
			})...)
		}
		return out
	})
}

// change applies f and closes the entries that it took out of the table.
func (h *Holder) change(f func(*table) []*entry) error {
	h.op.Lock()
	defer h.op.Unlock()
	h.mu.Lock()
	gone := f(h.table)
	h.mu.Unlock()
	var errs []error
	for _, e := range gone {
		if e.stored != "" && h.o.Drop != nil {
			if err := h.o.Drop(e.stored); err != nil {
				errs = append(errs, fmt.Errorf("drop listener %s: %w", e.key.addr, err))
			}
		}
		e.file.Close()
	}
	return errors.Join(errs...)
}

// Down prepares a place for a time without a process: each listener queues as
// many connections as the kernel allows, however few the app had asked for.
func (h *Holder) Down(app string, index int) error {
	h.op.Lock()
	defer h.op.Unlock()
	h.mu.Lock()
	list := h.table.entries(place{app, index})
	h.mu.Unlock()
	var errs []error
	for _, e := range list {
		if !e.listening {
			continue
		}
		if errno := listenOn(e.file, backlog); errno != 0 {
			errs = append(errs, fmt.Errorf("raise queue of %s: %w", e.key.addr, errno))
		}
	}
	return errors.Join(errs...)
}

// Listeners are the sockets held for a place, by address.
func (h *Holder) Listeners(app string, index int) []Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Listener
	for _, e := range h.table.entries(place{app, index}) {
		out = append(out, Listener{Addr: e.key.addr, Listening: e.listening})
	}
	return out
}

// LearnedPorts tells whether the place holds a listening socket: its next
// process will call listen() on it when it is ready.
func (h *Holder) LearnedPorts(app string, index int) bool {
	for _, l := range h.Listeners(app, index) {
		if l.Listening {
			return true
		}
	}
	return false
}

// Restore takes back a listener that the keeper kept over a restart of the
// daemon (IsName tells which of its files are). It takes f, and closes it on an
// error; the keeper should then drop it.
func (h *Holder) Restore(name string, f *os.File) error {
	h.op.Lock()
	defer h.op.Unlock()
	err := h.restore(name, f)
	if err != nil {
		f.Close()
	}
	return err
}

func (h *Holder) restore(name string, f *os.File) error {
	p, _, shared, err := parseName(name)
	if err != nil {
		return err
	}
	e, err := describe(f)
	if err == nil {
		e.key.addr, err = boundTo(f)
	}
	if err != nil {
		return fmt.Errorf("restore listener %q: %w", name, err)
	}
	if e.listening, err = accepts(f); err != nil || !e.listening {
		return errors.Join(fmt.Errorf("restore listener %q: it does not listen", name), err)
	}
	e.shared, e.file, e.stored = shared, f, name
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.table.find(p, e.key) != nil {
		return fmt.Errorf("restore listener %q: held already", name)
	}
	if err := h.table.keep(p, e); err != nil {
		return fmt.Errorf("restore listener %q: %w", name, err)
	}
	return nil
}

// Open makes a listening socket for an app that takes it as LISTEN_FDS, or
// finds the one the place holds. An app that binds the address itself gets the
// same one. The file stays the Holder's: pass it on, do not close it.
func (h *Holder) Open(o Owner, hostport string) (*os.File, error) {
	h.op.Lock()
	defer h.op.Unlock()
	f, e, err := h.open(o, hostport)
	if err != nil {
		return nil, fmt.Errorf("listen on %q for app %q: %w", hostport, o.App, err)
	}
	h.store(o, e)
	return f, nil
}

func (h *Holder) open(o Owner, hostport string) (*os.File, *entry, error) {
	addr, err := resolve(hostport)
	if err != nil {
		return nil, nil, err
	}
	f, err := newSocket(addr)
	if errors.Is(err, unix.EAFNOSUPPORT) && addr.Addr().IsUnspecified() {
		addr = unspecified4(addr.Port()) // ":8080" without IPv6
		f, err = newSocket(addr)
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := describe(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	e.key.addr, e.file, e.listening, e.shared = addr, f, true, false
	h.mu.Lock()
	held := h.table.find(o.place(), e.key)
	h.mu.Unlock()
	if held != nil {
		f.Close()
		if errno := listenOn(held.file, backlog); errno != 0 {
			return nil, nil, errno
		}
		h.mu.Lock()
		held.gens[o.Gen], held.listening = true, true
		h.mu.Unlock()
		return held.file, held, nil
	}
	if err := h.bindOpened(o, e); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, e, nil
}

func (h *Holder) bindOpened(o Owner, e *entry) error {
	if other := h.taken(o, e); other != "" {
		return fmt.Errorf("address is in use by %s: %w", other, syscall.EADDRINUSE)
	}
	errno := bindShared(e.file, e.key.addr)
	if errno == 0 {
		errno = listenOn(e.file, backlog)
	}
	if errno == unix.EADDRINUSE {
		return fmt.Errorf("address is in use by %s: %w", h.somebody(e.key), errno)
	}
	if errno != 0 {
		return errno
	}
	e.gens = map[int]bool{o.Gen: true}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.table.keep(o.place(), e)
}
