package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/internal/probe"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/steer"
)

// traffics translates the brain's word for it.
var traffics = map[supervisor.Traffic]steer.Traffic{
	supervisor.Serving: steer.Serve, supervisor.Queueing: steer.Queue, supervisor.Away: steer.Away,
}

// route says what new connections a generation gets. Who is away is counted
// closely from now on.
func (h *hands) route(app string, index, gen int, t supervisor.Traffic) {
	if err := h.holder.Route(app, index, gen, traffics[t]); err != nil {
		h.log.Error("route traffic", "app", app, "instance", index, "generation", gen, "traffic", t, "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.procs[place{app, index, gen}]; p != nil {
		p.away = t == supervisor.Away
	}
}

// park gives up the listeners of a place that will be down for long while
// others serve. With eBPF their queues go to those others; by the kernel's hash
// new clients would be dealt to them. With cBPF neither is so: who waits there
// is better off waiting.
func (h *hands) park(app string, index int) {
	if h.steer.Mode() != steer.CBPF {
		h.release(app, index)
	}
}

// unsteered is why no traffic can be kept from a process; empty: it can.
func (h *hands) unsteered() string {
	if h.steer.Mode() != steer.None {
		return ""
	}
	return "new connections are dealt by the kernel's hash: " + h.steerWhy
}

// owner says for the holder whose process a tag is.
func (h *hands) ownerOf(tag string) (sock.Owner, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byTag[tag]
	if p == nil {
		return sock.Owner{}, false
	}
	return h.ownerLocked(p), true
}

func (h *hands) ownerLocked(p *process) sock.Owner {
	return sock.Owner{App: p.App, Index: p.Index, Gen: p.Gen, UID: p.uid, Balance: steer.Policy(p.app.Balance)}
}

// inUse tells whether the tree of a tag has a socket open.
func (h *hands) inUse(tag string, inode uint64) bool {
	h.mu.Lock()
	p := h.byTag[tag]
	h.mu.Unlock()
	if p == nil || p.tree == nil {
		return false
	}
	return openSockets(p.tree)[inode]
}

// openSockets are the inodes of the sockets that a tree has open; nil: they
// may not be looked at.
func openSockets(t *proc.Tree) map[uint64]bool {
	all := map[uint64]bool{}
	for _, pid := range t.PIDs() {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		list, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		for _, f := range list {
			link, err := os.Readlink(dir + "/" + f.Name())
			if err != nil {
				continue
			}
			if s, ok := strings.CutPrefix(link, "socket:["); ok {
				if n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
					all[n] = true
				}
			}
		}
	}
	return all
}

// probe does one check of a generation.
func (h *hands) probe(ctx context.Context, app *config.App, index, gen int, p *config.Probe) error {
	at := place{app.Name, index, gen}
	h.mu.Lock()
	proc := h.procs[at]
	h.mu.Unlock()
	if proc == nil {
		return errors.New("the process is gone")
	}
	if p.Kind == config.ProbeExec {
		u, err := accountOf(app)
		if err != nil {
			return err
		}
		t := probe.Target{Env: flatten(environ(supervisor.Launch{App: app, ID: proc.id, Index: index, Gen: gen}, h.home, u)), Dir: app.Cwd}
		t.Env = append(t.Env, "GPM_PID="+strconv.Itoa(proc.pid))
		if u != nil {
			t.Cred = &probe.Credential{UID: u.cred.UID, GID: u.cred.GID, Groups: u.cred.Groups}
		}
		return probe.Check(ctx, *p, t)
	}
	addr, mark, ok := h.holder.Target(app.Name, index, gen, p.Port)
	if !ok {
		if app.Hold && h.hold == "" {
			return errors.New("it does not listen yet" + onPort(p.Port))
		}
		port := p.Port
		if port == 0 {
			port = app.Port
		}
		if port == 0 {
			return errors.New(`its port is not known, because its listeners are not held: give the probe a "port"`)
		}
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	}
	return probe.Check(ctx, *p, probe.Target{Addr: addr, Aim: mark})
}

func onPort(port int) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprintf(" on port %d", port)
}
