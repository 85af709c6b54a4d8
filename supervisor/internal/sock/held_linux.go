package sock

import (
	"errors"
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
	for p, r := range h.table.rooms {
		if len(r.held) > 0 {
			out[p.app] = true
		}
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

// Adopt says, after Restore, that a generation from before this daemon lives,
// and uses the sockets of its place that its process tree has open, by inode;
// nil: unknown, all of them. Several generations of a place may live.
//
// When all are adopted, Resume has to follow.
func (h *Holder) Adopt(o Owner, inodes map[uint64]bool) error {
	return h.change(func(t *table) []*entry {
		t.adopt(o.place(), o.Gen, inodes, o.Balance)
		return nil
	})
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
	n, err := parseName(name)
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
	e.shared, e.opened, e.file, e.stored, e.kept = n.shared, n.opened, f, name, true
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.table.byCookie(n.place, e.cookie) != nil {
		return fmt.Errorf("restore listener %q: held already", name)
	}
	if err := h.table.keep(n.place, e); err != nil {
		return fmt.Errorf("restore listener %q: %w", name, err)
	}
	return nil
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
	// is not known any more, and to think it had would hide strangers. Nor is
	// it known whether gpm had opened it: to think it had refuses no bind.
	e.file, e.listening, e.shared, e.opened, e.policy = f, true, false, true, o.Balance
	h.mu.Lock()
	held := h.table.byCookie(o.place(), e.cookie)
	if held == nil {
		held, err = e, h.table.keep(o.place(), e)
	}
	if err == nil {
		held.gens[o.Gen] = true
	}
	h.mu.Unlock()
	if held != e || err != nil {
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
