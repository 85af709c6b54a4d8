package sock

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/steer"
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
	mu     sync.Mutex
	table  *table
	parked map[string][]*trap.Trap // by tag: they wait at the gate; guarded by op
	moved  map[string]bool         // groups that have changed since the last Verify; guarded by op
}

// New makes a Holder that holds nothing.
func New(o Options) *Holder {
	if o.Event == nil {
		o.Event = func(Event) {}
	}
	return &Holder{o: o, table: newTable(), parked: map[string][]*trap.Trap{}, moved: map[string]bool{}}
}

// Handle decides about a trapped call. It takes t.Socket: it keeps or closes
// it. The file of an Inject verdict stays the Holder's; should a Release close
// it before the verdict is carried out, sending it fails and the call should
// be continued instead. A verdict of trap.Later is not to be carried out: the
// call waits for Ungate.
func (h *Holder) Handle(t *trap.Trap) trap.Verdict {
	h.op.Lock()
	defer h.op.Unlock()
	if h.park(t) {
		return trap.Later()
	}
	return h.judge(t)
}

func (h *Holder) judge(t *trap.Trap) trap.Verdict {
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
// another living generation uses are closed: the app has changed its port, or a
// predecessor died while this one, its candidate, had a listener of its own.
func (h *Holder) Settle(app string, index, gen int) error {
	return h.change(func(t *table) []*entry { return t.settle(place{app, index}, gen) })
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
	return h.apply(f)
}

// apply is change with op held. A listener that is left without a process gets
// only what no other would take.
func (h *Holder) apply(f func(*table) []*entry) error {
	h.mu.Lock()
	gone := f(h.table)
	orphans := h.table.orphans()
	h.mu.Unlock()
	var errs []error
	for _, e := range orphans {
		errs = append(errs, h.route(e, steer.Queue))
	}
	for _, e := range gone {
		errs = append(errs, h.close(e))
	}
	return errors.Join(errs...)
}

// close ends a listener. The Steerer is told before, so that it sends nobody
// there any more, and after, when the kernel has given away its index.
func (h *Holder) close(e *entry) (err error) {
	closed := h.leave(e)
	if e.stored != "" && h.o.Drop != nil {
		if err = h.o.Drop(e.stored); err != nil {
			err = fmt.Errorf("drop listener %s: %w", e.key.addr, err)
		}
	}
	e.file.Close()
	closed()
	return err
}

// Down says that the process of a generation has died, before Retire: what it
// alone listened on is free for the next one, gets new connections only while no
// other serves, and queues as many as the kernel allows, however few the app had
// asked for.
func (h *Holder) Down(app string, index, gen int) error {
	h.op.Lock()
	defer h.op.Unlock()
	p := place{app, index}
	errs := []error{h.apply(func(t *table) []*entry { t.down(p, gen); return nil })}
	h.mu.Lock()
	list := h.table.entries(p)
	h.mu.Unlock()
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
