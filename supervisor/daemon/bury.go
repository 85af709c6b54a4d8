package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/proc"
)

// Exited implements keeper.Handler.
func (h *hands) Exited(e keeper.Exit) {
	h.mu.Lock()
	p := h.byTag[e.Tag]
	early := p == nil && !h.recovered
	if early {
		h.early = append(h.early, e)
	}
	h.mu.Unlock()
	if early {
		return
	}
	if p == nil {
		h.ack(e.PID) // of a spawn that was given up
		return
	}
	h.graves.Go(func() { h.bury(p, e) }) // one for each death; ends with its deadlines
}

// catchUp deals with the exits that came before it was known whose they are.
func (h *hands) catchUp() {
	h.mu.Lock()
	early := h.early
	h.early, h.recovered = nil, true
	h.mu.Unlock()
	close(h.known)
	for _, e := range early {
		h.Exited(e)
	}
}

// rest waits, for a bounded time, until every death has been dealt with: gpm
// leaves nothing behind when it ends.
func (h *hands) rest() {
	done := make(chan struct{})
	go func() { h.graves.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drainTime + sweepTime):
		h.log.Error("some processes could not be put to rest in time")
	}
}

// bury deals with a death: first what is left of the tree, which may hold
// ports, then the news, then the last lines, then all that belonged to it.
func (h *hands) bury(p *process, e keeper.Exit) {
	<-p.attached
	h.mu.Lock()
	p.dying = true // its place does not change from here on
	news := p.news
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	h.holder.Forget(p.tag())
	h.complain(p, "keep its queues long", h.holder.Down(p.App, p.Index, p.Gen))
	if p.tree.Left() {
		if err := p.tree.Kill(ctx); err != nil {
			h.log.Error("end what was left behind", "app", p.App, "instance", p.Index, "error", err)
		}
	}
	x := supervisor.Exit{At: e.At, PID: e.PID, Code: e.Code, Unknown: e.Unknown}
	if e.Signal != 0 {
		x.Signal = proc.SignalName(e.Signal)
	}
	<-news
	p.report(supervisor.Fact{Kind: supervisor.Ended, Exit: x})
	p.report(supervisor.Fact{Kind: supervisor.Tail, Exit: x, Tail: h.lastWords(p)})
	h.complain(p, "close its old sockets", h.holder.Retire(p.App, p.Index, p.Gen))
	h.abandon(p)
	if !p.unseen {
		h.ack(e.PID)
	}
	h.forget(p)
}

// lastWords drains the pipes and returns the end of what was said.
func (h *hands) lastWords(p *process) []supervisor.Line {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var done sync.WaitGroup
	for _, r := range p.readers {
		done.Go(func() {
			if err := r.Finish(ctx); err != nil {
				h.log.Error("finish log", "app", p.App, "instance", p.Index, "stream", r.Source().Stream, "error", err)
			}
		})
	}
	done.Wait()
	var tail []supervisor.Line
	for stream, r := range p.readers {
		for _, l := range r.Tail(tailLines) {
			tail = append(tail, supervisor.Line{Stream: stream, At: l.At, Text: l.Text})
		}
	}
	slices.SortStableFunc(tail, func(a, b supervisor.Line) int { return a.At.Compare(b.At) })
	return tail[max(0, len(tail)-tailLines):]
}

// abandon gives up what was made for a process that is gone or never was.
func (h *hands) abandon(p *process) {
	for stream, pipe := range p.pipes {
		if p.readers[stream] == nil {
			pipe.Close()
		}
		h.drop(p.born.log(stream))
		h.drop(p.born.log(stream) + journal)
	}
	if p.ipc != nil {
		p.ipc.Close()
		h.drop(p.born.ipc())
	}
	h.mu.Lock()
	marked := p.marked
	p.buried = true
	h.mu.Unlock()
	if marked {
		h.drop(p.born.told())
	}
	if p.tree != nil {
		if err := p.tree.Close(); err != nil {
			h.log.Warn("give back the cgroup", "app", p.App, "instance", p.Index, "error", err)
		}
	}
}

func (h *hands) drop(name string) {
	if err := h.link.Drop(name); err != nil && !errors.Is(err, keeper.ErrGone) {
		h.log.Error("drop descriptor", "name", name, "error", err)
	}
}

func (h *hands) ack(pid int) {
	if err := h.link.Ack(pid); err != nil && !errors.Is(err, keeper.ErrGone) {
		h.log.Error("acknowledge exit", "pid", pid, "error", err)
	}
}

func (h *hands) forget(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[p.place] == p {
		delete(h.procs, p.place)
		close(p.rested)
	}
	delete(h.byTag, p.tag())
}
