package sock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Files are the listeners that the keeper has, by the keeper's names; for a new
// keeper after the old one was killed. The files stay the Holder's.
func (h *Holder) Files() map[string]*os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]*os.File{}
	for _, r := range h.table.rooms {
		for _, e := range r.held {
			if e.stored != "" {
				out[e.stored] = e.file
			}
		}
	}
	return out
}

// Apps are the names of all apps that have a listener.
func (h *Holder) Apps() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]bool{}
	for p := range h.table.rooms {
		out[p.app] = true
	}
	return out
}

// ReleaseApp is Release for all places of an app.
func (h *Holder) ReleaseApp(app string) error {
	return h.change(func(t *table) []*entry {
		var out []*entry
		for p := range t.rooms {
			if p.app == app {
				out = append(out, t.release(p)...)
			}
		}
		return out
	})
}

// Retake takes a listener that was found in a live process, because everybody
// who held it for us is dead. It takes f, and closes it if it is no listening
// TCP socket or is held already (a child of that process has it, too).
func (h *Holder) Retake(o Owner, f *os.File) error {
	h.op.Lock()
	defer h.op.Unlock()
	taken, err := h.retake(o, f)
	if !taken {
		f.Close()
	}
	return err
}

func (h *Holder) retake(o Owner, f *os.File) (taken bool, err error) {
	if !isTCP(f) {
		return false, nil
	}
	if listening, err := accepts(f); err != nil || !listening {
		return false, err
	}
	e, err := describe(f)
	if err == nil {
		e.key.addr, err = boundTo(f)
	}
	if err != nil {
		return false, fmt.Errorf("retake a listener of app %q: %w", o.App, err)
	}
	// SO_REUSEPORT is there because gpm set it; whether the app had asked for it
	// is not known any more, and to think it had would hide strangers.
	e.file, e.listening, e.shared, e.gens[o.Gen] = f, true, false, true
	h.mu.Lock()
	held := h.table.find(o.place(), e.key) != nil
	if !held {
		err = h.table.keep(o.place(), e)
	}
	h.mu.Unlock()
	if held || err != nil {
		return false, err
	}
	h.store(o, e)
	return true, nil
}

func isTCP(f *os.File) bool {
	tcp := false
	_ = with(f, func(fd int) error {
		domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		proto, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		// Go's servers listen on MPTCP where the kernel has it (Go 1.24).
		tcp = err1 == nil && err2 == nil && (domain == unix.AF_INET || domain == unix.AF_INET6) &&
			(proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_MPTCP)
		return nil
	})
	return tcp
}
