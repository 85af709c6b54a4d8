package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/api"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/trap"
)

const (
	drainTime = 5 * time.Second // for the pipes of a dead process: a grandchild may hold them
	sweepTime = 5 * time.Second // for what a dead process left behind
	tailLines = 20              // kept of each death
)

// hands do what the brain asks for, with the keeper's help. The map of
// processes is all they remember; mu guards it and nothing else.
type hands struct {
	log      *slog.Logger
	home     string
	exe      string
	boot     string // boot id
	link     *keeper.Link
	hold     string // why listeners cannot be held; "" if they can
	forest   *proc.Forest
	holder   *sock.Holder
	steer    *steer.Steerer
	steerWhy string // why connections are not steered better
	book     *logs.Book
	notify   string // NOTIFY_SOCKET for apps with wait_ready

	emit func(supervisor.Event)

	traps chan *trap.Trap

	graves sync.WaitGroup // deaths that are being dealt with

	mu        sync.Mutex
	procs     map[place]*process
	byTag     map[string]*process // the same, by what the keeper calls them
	reserves  map[string]*reserve // standbys, by app
	births    int                 // of standbys
	known     chan struct{}       // closed when all processes of the daemon before are known
	recovered bool                // the same, guarded by mu
	early     []keeper.Exit       // of processes that were not known yet
}

// process is a live process, or one whose end is being dealt with.
type process struct {
	place           // where it is; a standby gets another one, under hands.mu
	born     place  // its name for life: with the keeper, in cgroups
	line     *relay // of a standby
	id       int
	app      *config.App
	pid      int
	start    uint64
	uid      int // that it runs as; -1: ours
	tree     *proc.Tree
	dying    bool                 // its end is being dealt with: it gets no place any more; guarded by hands.mu
	away     bool                 // it gets no new connections; guarded by hands.mu
	pipes    map[string]logs.Pipe // by stream; the readers close them
	readers  map[string]*logs.Reader
	marked   bool     // the keeper knows that it was told to end; guarded by hands.mu
	unseen   bool     // it ended while there was no keeper: none has an exit of it
	buried   bool     // what was made for it is given up; guarded by hands.mu
	ipc      *os.File // our end of Node's channel, or nil
	report   func(supervisor.Fact)
	attached chan struct{}   // closed when report and readers are set
	news     <-chan struct{} // closed when all that was heard of its sockets is told; guarded by hands.mu
	rested   chan struct{}   // closed when it has been dealt with: another may have its place
}

var outputs = []string{"out", "err"}

func (p *process) tag() string { return p.born.String() }

// told is called for each sd_notify message.
func (h *hands) told(pid int, state map[string]string) {
	if state["READY"] != "1" {
		return
	}
	if p := h.owner(pid); p != nil {
		<-p.attached
		p.report(supervisor.Fact{Kind: supervisor.Told})
	}
}

// owner finds whose descendant pid is.
func (h *hands) owner(pid int) *process {
	all, err := proc.Snapshot()
	if err != nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if pid == p.pid || all[pid].Session == p.pid {
			return p
		}
	}
	for up := all[pid].PPid; up > 1; up = all[up].PPid {
		for _, p := range h.procs {
			if up == p.pid {
				return p
			}
		}
	}
	return nil
}

// Trapped implements keeper.Handler.
func (h *hands) Trapped(t *trap.Trap) { h.traps <- t }

// judgeTraps is the goroutine in which the holder lives. It begins when it is
// known whose the calls may be.
func (h *hands) judgeTraps(stop <-chan struct{}) {
	select {
	case <-h.known:
	case <-stop:
		return
	}
	for {
		select {
		case t := <-h.traps:
			v := h.holder.Handle(t)
			if v.Action == trap.ActLater {
				continue // seat answers
			}
			if err := h.link.Answer(t, v); err != nil && !errors.Is(err, syscall.ENOENT) { // ENOENT: the caller is gone
				h.log.Error("answer a trapped call", "call", t.Call, "pid", t.PID, "error", err)
			}
		case <-stop:
			return
		}
	}
}

// heard passes on what the holder learned about a process's sockets.
func (h *hands) heard(e sock.Event) {
	f := supervisor.Fact{Kind: supervisor.Refused}
	switch e.Kind {
	case sock.Listening:
		f = supervisor.Fact{Kind: supervisor.Listening, Text: e.Addr.String()}
	case sock.Conflict:
		f.Text = fmt.Sprintf("address %s is in use by %s", e.Addr, e.Other)
	default:
		f.Text = fmt.Sprintf("address %s is %s: %v", e.Addr, e.Kind, e.Err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.procs[place{e.Owner.App, e.Owner.Index, e.Owner.Gen}]
	if p == nil {
		return
	}
	// The spawn may not have returned yet, and the holder must not wait for it.
	// One after the other: that a port was refused is told before the death that
	// follows from it.
	before, told := p.news, make(chan struct{})
	p.news = told
	go func() {
		<-before
		p.report(f)
		close(told)
	}()
}

// release closes what is held for a place; clients are refused from now on.
func (h *hands) release(app string, index int) {
	if err := h.holder.Release(app, index); err != nil {
		h.log.Error("close listeners", "app", app, "instance", index, "error", err)
	}
}

func (h *hands) settled(app string, index, gen int) {
	if err := h.holder.Settle(app, index, gen); err != nil {
		h.log.Error("close listeners of earlier generations", "app", app, "instance", index, "error", err)
	}
}

func (h *hands) complain(p *process, what string, err error) {
	if err != nil {
		h.log.Error(what, "app", p.App, "instance", p.Index, "error", err)
	}
}

func (h *hands) identity(p *process) proc.Identity {
	return proc.Identity{PID: p.pid, Start: p.start, Boot: h.boot}
}

func (h *hands) listeners(app string, index int) []sock.Listener {
	return h.holder.Listeners(app, index)
}

// newest is the process of a place with the highest generation.
func (h *hands) newest(app string, index int) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	var best *process
	for at, p := range h.procs {
		if at.App == app && at.Index == index && (best == nil || at.Gen > best.Gen) {
			best = p
		}
	}
	return best
}

func (h *hands) tree(app string, index int) []api.Proc {
	r := []api.Proc{}
	if p := h.newest(app, index); p != nil && p.tree != nil {
		for _, m := range p.tree.Members() {
			r = append(r, api.Proc{PID: m.PID, Parent: m.Parent, Command: m.Command})
		}
	}
	return r
}

// logProblem says what is wrong with the logs of an instance, if anything.
func (h *hands) logProblem(app string, index int) (problem string, dropped uint64) {
	p := h.newest(app, index)
	if p == nil {
		return "", 0
	}
	select {
	case <-p.attached:
	default:
		return "", 0
	}
	h.mu.Lock()
	readers := maps.Clone(p.readers)
	h.mu.Unlock()
	for _, r := range readers {
		dropped += r.Dropped()
		if s := r.Problem(); s != "" {
			problem = s
		}
	}
	return problem, dropped
}
