package sock

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open makes a listening socket for an app that takes it as LISTEN_FDS, or
// finds the one the place holds, as bind() would. An app that binds the address itself gets the
// same one. The file stays the Holder's: pass it on, do not close it.
func (h *Holder) Open(o Owner, hostport string) (*os.File, error) {
	h.op.Lock()
	defer h.op.Unlock()
	f, e, err := h.open(o, hostport)
	if err != nil {
		return nil, fmt.Errorf("listen on %q for app %q: %w", hostport, o.App, err)
	}
	h.store(o, e)
	h.enter(o.place(), e, o.Balance)
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
	e.key.addr, e.file, e.policy = addr, f, o.Balance
	e.opened, e.listening, e.shared = true, true, false
	if held := h.heir(o, e.key); held != nil {
		f.Close()
		if errno := listenOn(held.file, backlog); errno != 0 {
			return nil, nil, errno
		}
		h.mu.Lock()
		held.gens[o.Gen], held.listening, held.opened = true, true, true
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
	if o.UID >= 0 && o.UID != e.uid && chown(e.file, o.UID) == nil {
		e.uid = o.UID
	}
	h.befriend(o, e)
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
