package daemon

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
)

const (
	standbyDelay = time.Second            // before the first one is started: instances come first
	standbySoon  = 200 * time.Millisecond // after one was used: whoever got it has the machine first
	standbyPause = 5 * time.Second        // after one that died
	standbyTime  = 30 * time.Second       // for one to be spawned
)

// reserve are the standbys of an app: processes that were started, have loaded
// what they load, and wait in bind(). Launch gives one to a place whose process
// has died. They are born in places of their own (index below zero) and keep
// the tag and the names of that birth for life.
//
// Its goroutine starts and replaces them; it ends when none is wanted.
type reserve struct {
	h    *hands
	app  *config.App
	want int
	stop chan struct{}      // closed when they are not wanted any more
	due  chan time.Duration // one is missing; to be replaced after that

	mu    sync.Mutex
	procs []*process
}

// relay passes facts about a standby on, once it has a place.
type relay struct {
	mu    sync.Mutex
	to    func(supervisor.Fact)
	early []supervisor.Fact
	died  func() // somebody died without a place
}

func (r *relay) report(f supervisor.Fact) {
	r.mu.Lock()
	to := r.to
	if to == nil {
		r.early = append(r.early, f)
	}
	r.mu.Unlock()
	if to != nil {
		to(f)
	} else if f.Kind == supervisor.Ended {
		r.died()
	}
}

// seat gives what was reported so far, and all that follows, to a new owner.
func (r *relay) seat(to func(supervisor.Fact)) {
	r.mu.Lock()
	early := r.early
	r.to, r.early = to, nil
	r.mu.Unlock()
	for _, f := range early {
		to(f)
	}
}

// reserve keeps n standbys of an app. Those of an earlier call are ended: they
// may be of an earlier version.
func (h *hands) reserve(app *config.App, n int) {
	h.mu.Lock()
	old := h.reserves[app.Name]
	delete(h.reserves, app.Name)
	if n > 0 && app.Hold && h.hold == "" {
		r := &reserve{h: h, app: app, want: n, stop: make(chan struct{}), due: make(chan time.Duration, 1)}
		h.reserves[app.Name] = r
		go r.run()
	}
	h.mu.Unlock()
	if old != nil {
		close(old.stop)
	}
}

func (r *reserve) run() {
	timer := time.NewTimer(standbyDelay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			r.fill(timer)
		case pause := <-r.due:
			timer.Reset(pause)
		case <-r.stop:
			r.end()
			return
		}
	}
}

// fill starts what is missing.
func (r *reserve) fill(timer *time.Timer) {
	for {
		r.mu.Lock()
		r.procs = slices.DeleteFunc(r.procs, (*process).gone)
		missing := r.want - len(r.procs)
		r.mu.Unlock()
		if missing <= 0 {
			return
		}
		p, err := r.h.warm(r)
		if err != nil {
			r.h.log.Error("start a standby", "app", r.app.Name, "error", err)
			timer.Reset(standbyPause)
			return
		}
		r.mu.Lock()
		r.procs = append(r.procs, p)
		r.mu.Unlock()
	}
}

// miss makes the goroutine look again, after a pause.
func (r *reserve) miss(pause time.Duration) {
	select {
	case r.due <- pause:
	default:
	}
}

// end ends the standbys that have no place.
func (r *reserve) end() {
	r.mu.Lock()
	procs := r.procs
	r.procs = nil
	r.mu.Unlock()
	for _, p := range procs {
		ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
		r.h.complain(p, "end a standby", p.tree.Kill(ctx))
		cancel()
	}
}

// warm starts one standby.
func (h *hands) warm(r *reserve) (*process, error) {
	h.mu.Lock()
	h.births++
	at := place{r.app.Name, -1, h.births}
	h.mu.Unlock()
	line := &relay{died: func() { r.miss(standbyPause) }}
	ctx, cancel := context.WithTimeout(context.Background(), standbyTime)
	defer cancel()
	l := supervisor.Launch{App: r.app, ID: -1, Index: at.Index, Gen: at.Gen, Report: line.report}
	p := h.newProcess(l)
	p.line = line
	_, err := h.spawn(ctx, p, l)
	return p, err
}

// gone tells whether a standby has died without a place.
func (p *process) gone() bool {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	return slices.ContainsFunc(p.line.early, func(f supervisor.Fact) bool { return f.Kind == supervisor.Ended })
}

// take takes a standby that waits in bind(), for a launch of the very app that
// it was started for; nil: there is none.
func (h *hands) take(l supervisor.Launch) *process {
	h.mu.Lock()
	r := h.reserves[l.App.Name]
	h.mu.Unlock()
	if r == nil || !alike(r.app, l.App) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range r.procs {
		if h.holder.Gated(p.tag()) && !p.gone() {
			r.procs = slices.Delete(r.procs, i, i+1)
			r.miss(standbySoon)
			return p
		}
	}
	return nil
}

// errDied: a standby ended before it could be used.
var errDied = errors.New("the standby died")

// alike tells whether two configs make the same process.
func alike(a, b *config.App) bool {
	x, y := *a, *b
	x.Instances, y.Instances = 0, 0
	return reflect.DeepEqual(x, y)
}

// seat gives a standby the place of a launch: its facts, its listeners, its
// logs. Its bind() is answered before its logs move, because clients wait.
func (h *hands) seat(p *process, l supervisor.Launch) (*supervisor.Process, error) {
	<-p.attached
	h.mu.Lock()
	if p.dying {
		h.mu.Unlock()
		return nil, errDied
	}
	delete(h.procs, p.place)
	p.place, p.id = place{l.App.Name, l.Index, l.Gen}, l.ID
	h.procs[p.place] = p
	h.mu.Unlock()
	p.line.seat(l.Report)
	for _, a := range h.holder.Ungate(p.tag()) {
		if err := h.link.Answer(a.Trap, a.Verdict); err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, err
		}
	}
	h.rehome(p)
	return h.handle(p, time.Now()), nil
}

// rehome has the output of a standby written to the files of its place, as the
// next daemon would.
func (h *hands) rehome(p *process) {
	fresh := map[string]logs.Pipe{}
	for stream, pipe := range p.pipes {
		var err error
		if fresh[stream], err = duplicate(pipe); err != nil {
			h.complain(p, "take over the output of a standby", err)
			return // it goes on into the files of the standbys
		}
	}
	readers := h.swap(p, map[string]*logs.Reader{})
	for _, r := range readers {
		h.complain(p, "end the reader of a standby", r.Close())
	}
	p.pipes = fresh
	h.read(p)
}

// swap exchanges the readers of a process.
func (h *hands) swap(p *process, readers map[string]*logs.Reader) map[string]*logs.Reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := p.readers
	p.readers = readers
	return was
}

// standbys are how many of an app wait in bind().
func (h *hands) standbys(app string) (n int) {
	h.mu.Lock()
	r := h.reserves[app]
	h.mu.Unlock()
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.procs {
		if h.holder.Gated(p.tag()) {
			n++
		}
	}
	return n
}

// gate tells the holder whether a tag is of a standby without a place.
func (h *hands) gate(tag string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byTag[tag]
	return p != nil && p.Index < 0
}

// suffix is what the log files of an instance have before their extension.
func suffix(id int) string {
	if id < 0 {
		return "standby"
	}
	return strconv.Itoa(id)
}
