package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/api"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/notify"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/trampoline"
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
	log    *slog.Logger
	home   string
	exe    string
	boot   string // boot id
	link   *keeper.Link
	hold   string // why listeners cannot be held; "" if they can
	forest *proc.Forest
	holder *sock.Holder
	book   *logs.Book
	notify string // NOTIFY_SOCKET for apps with wait_ready

	emit func(supervisor.Event)

	traps chan *trap.Trap

	graves sync.WaitGroup // deaths that are being dealt with

	mu    sync.Mutex
	procs map[place]*process
}

// process is a live process, or one whose end is being dealt with.
type process struct {
	place
	id       int
	app      *config.App
	pid      int
	start    uint64
	tree     *proc.Tree
	pipes    map[string]logs.Pipe // by stream; the readers close them
	readers  map[string]*logs.Reader
	ipc      *os.File // our end of Node's channel, or nil
	report   func(supervisor.Fact)
	attached chan struct{} // closed when report and readers are set
}

var streams = []string{"out", "err"}

// launch spawns the process of l. It is called from a goroutine of the brain's.
func (h *hands) launch(ctx context.Context, l supervisor.Launch) (*supervisor.Process, error) {
	p := &process{
		place: place{l.App.Name, l.Index, l.Gen}, id: l.ID, app: l.App, report: l.Report,
		pipes: map[string]logs.Pipe{}, readers: map[string]*logs.Reader{}, attached: make(chan struct{}),
	}
	defer close(p.attached)
	s, cleanup, err := h.prepare(p, l)
	defer cleanup()
	if err != nil {
		h.abandon(p)
		return nil, err
	}
	h.mu.Lock()
	h.procs[p.place] = p // before the spawn: its first bind() may come before the answer
	h.mu.Unlock()
	began := time.Now()
	child, err := h.link.Spawn(ctx, s)
	if errors.Is(err, keeper.ErrNoHold) {
		s.Filtered = false
		child, err = h.link.Spawn(ctx, s)
	}
	if err != nil {
		h.forget(p)
		h.abandon(p)
		return nil, fmt.Errorf("start %q: %w", s.Argv[0], err)
	}
	h.mu.Lock()
	p.pid, p.start = child.PID, child.Start
	h.mu.Unlock()
	p.tree.Root(h.identity(p))
	h.read(p)
	return h.handle(p, began), nil
}

// handle is the process as the brain holds it.
func (h *hands) handle(p *process, started time.Time) *supervisor.Process {
	return &supervisor.Process{
		PID: p.pid, Start: p.start, Boot: h.boot, Started: started, Hold: h.holds(p.app),
		Signal: func(name string) error {
			sig, err := proc.ParseSignal(name)
			if err != nil {
				return err
			}
			_, err = p.tree.Signal(sig)
			return err
		},
		Kill: func() error {
			go func() { // one for each SIGKILL; ends with its deadline
				ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
				defer cancel()
				if err := p.tree.Kill(ctx); err != nil {
					h.log.Error("kill", "app", p.App, "instance", p.Index, "error", err)
				}
			}()
			return nil
		},
	}
}

func (h *hands) holds(app *config.App) string {
	switch {
	case !app.Hold:
		return "off"
	case h.hold != "":
		return "unavailable: " + h.hold
	}
	return supervisor.Held
}

// prepare makes everything that the process needs before it is spawned.
// cleanup closes what only the child needs.
func (h *hands) prepare(p *process, l supervisor.Launch) (s keeper.Spawn, cleanup func(), err error) {
	var temporary []*os.File
	cleanup = func() {
		for _, f := range temporary {
			f.Close()
		}
	}
	u, err := accountOf(l.App)
	if err != nil {
		return s, cleanup, fmt.Errorf("find user of %q: %w", l.App.Name, err)
	}
	files := make([]*os.File, 3, 8) // stdin is /dev/null
	for i, stream := range streams {
		pipe, end, err := logs.NewPipe(p.log(stream))
		if err != nil {
			return s, cleanup, err
		}
		p.pipes[stream] = pipe
		temporary = append(temporary, end)
		files[i+1] = end
		if u != nil { // else it cannot open /dev/stdout, where many programs log to
			if err := end.Chown(int(u.cred.UID), int(u.cred.GID)); err != nil {
				return s, cleanup, fmt.Errorf("give log pipe of %q to user %d: %w", l.App.Name, u.cred.UID, err)
			}
		}
		if err := h.keep(p.log(stream), pipe); err != nil {
			return s, cleanup, err
		}
	}
	env := environ(l, h.home, u)
	argv := l.App.Command()
	path := argv[0]
	if len(l.App.Listen) > 0 {
		socks, err := h.open(p)
		if err != nil {
			return s, cleanup, err
		}
		files = append(files, socks...)
		env["LISTEN_FDS"], env["LISTEN_FDNAMES"] = fmt.Sprint(len(socks)), strings.Join(l.App.Listen, ":")
		path, argv = trampoline.Command(h.exe, argv)
	}
	if speaksIPC(l.App) {
		ours, theirs, err := notify.NewChannel()
		if err != nil {
			return s, cleanup, err
		}
		p.ipc = ours
		temporary = append(temporary, theirs)
		if err := h.link.Store(p.place.ipc(), ours); err != nil {
			return s, cleanup, err
		}
		env["NODE_CHANNEL_FD"], env["NODE_CHANNEL_SERIALIZATION_MODE"] = fmt.Sprint(len(files)), "json"
		files = append(files, theirs)
	}
	if l.App.WaitReady {
		env["NOTIFY_SOCKET"] = h.notify
	}
	if p.tree, err = h.plant(p); err != nil {
		return s, cleanup, err
	}
	s = keeper.Spawn{
		Tag: p.String(), Path: path, Argv: argv, Env: append(flatten(env), p.tree.Env()), Dir: l.App.Cwd,
		Filtered: l.App.Hold && h.hold == "", Files: files, Cgroup: p.tree.Cgroup(),
	}
	if u != nil {
		s.Cred = &u.cred
	}
	return s, cleanup, nil
}

// plant makes the place for the process tree. A cgroup that cannot be had
// costs only the certainty that nobody escapes it.
func (h *hands) plant(p *process) (*proc.Tree, error) {
	t, err := h.forest.Tree(p.String())
	if err == nil {
		return t, nil
	}
	old, openErr := h.forest.Open(p.String(), proc.Identity{})
	if openErr != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	if err := errors.Join(old.Kill(ctx), old.Close()); err != nil {
		return nil, err
	}
	return h.forest.Tree(p.String())
}

// keep stores a log pipe with the keeper, who outlives us.
func (h *hands) keep(name string, p logs.Pipe) error {
	if err := h.link.Store(name, p.Read); err != nil {
		return err
	}
	return h.link.Store(name+journal, p.Journal)
}

// open makes the sockets of the listen key, or finds them; they stay the
// holder's.
func (h *hands) open(p *process) (socks []*os.File, err error) {
	for _, addr := range p.app.Listen {
		f, err := h.holder.Open(sock.Owner{App: p.App, Index: p.Index, Gen: p.Gen}, addr)
		if err != nil {
			return socks, err
		}
		socks = append(socks, f)
	}
	return socks, nil
}

// read starts the goroutines that read what the process says.
func (h *hands) read(p *process) {
	out, errs := logPaths(p.app, p.id)
	for stream, path := range map[string]string{"out": out, "err": errs} {
		pipe, ok := p.pipes[stream]
		if !ok {
			continue
		}
		r, err := h.book.Read(
			logs.Source{ID: p.id, Name: p.App, Instance: p.Index, Stream: stream}, pipe,
			logs.File{
				Path:   path,
				Format: logs.Format{Date: p.app.LogDateFormat, JSON: p.app.LogType == "json"},
				Rotation: logs.Rotation{
					MaxSize: p.app.LogMaxSize, MaxFiles: p.app.LogMaxFiles, MaxAge: p.app.LogMaxAge.D(), Compress: p.app.LogCompress,
				},
				Full: logs.Policy(p.app.LogFull),
			})
		if err != nil {
			h.log.Error("read output", "app", p.App, "instance", p.Index, "stream", stream, "error", err)
			continue
		}
		p.readers[stream] = r
	}
	if p.ipc != nil {
		go h.listenIPC(p) // ends with the channel
	}
}

func (h *hands) listenIPC(p *process) {
	err := notify.Read(p.ipc, func(msg json.RawMessage) {
		if notify.IsReady(msg) {
			p.report(supervisor.Fact{Kind: supervisor.Told})
		}
	})
	if err != nil {
		h.log.Debug("ipc channel ended", "app", p.App, "instance", p.Index, "error", err)
	}
}

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

// Exited implements keeper.Handler.
func (h *hands) Exited(e keeper.Exit) {
	at, err := parsePlace(e.Tag)
	h.mu.Lock()
	p := h.procs[at]
	h.mu.Unlock()
	if err != nil || p == nil {
		h.ack(e.PID) // of a spawn that was given up
		return
	}
	h.graves.Go(func() { h.bury(p, e) }) // one for each death; ends with its deadlines
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
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	h.complain(p, "keep its queues long", h.holder.Down(p.App, p.Index))
	if len(p.tree.PIDs()) > 0 {
		if err := p.tree.Kill(ctx); err != nil {
			h.log.Error("end what was left behind", "app", p.App, "instance", p.Index, "error", err)
		}
	}
	x := supervisor.Exit{At: e.At, PID: e.PID, Code: e.Code, Unknown: e.Unknown}
	if e.Signal != 0 {
		x.Signal = proc.SignalName(e.Signal)
	}
	p.report(supervisor.Fact{Kind: supervisor.Ended, Exit: x})
	p.report(supervisor.Fact{Kind: supervisor.Tail, Exit: x, Tail: h.lastWords(p)})
	h.complain(p, "close its old sockets", h.holder.Retire(p.App, p.Index, p.Gen))
	h.abandon(p)
	h.forget(p)
	h.ack(e.PID)
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
		h.drop(p.log(stream))
		h.drop(p.log(stream) + journal)
	}
	if p.ipc != nil {
		p.ipc.Close()
		h.drop(p.place.ipc())
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
	}
}

// Trapped implements keeper.Handler.
func (h *hands) Trapped(t *trap.Trap) { h.traps <- t }

// judgeTraps is the goroutine in which the holder lives.
func (h *hands) judgeTraps(stop <-chan struct{}) {
	for {
		select {
		case t := <-h.traps:
			if err := h.link.Answer(t, h.holder.Handle(t)); err != nil && !errors.Is(err, syscall.ENOENT) { // ENOENT: the caller is gone
				h.log.Error("answer a trapped call", "call", t.Call, "pid", t.PID, "error", err)
			}
		case <-stop:
			return
		}
	}
}

// heard passes on what the holder learned about a process's sockets.
func (h *hands) heard(e sock.Event) {
	h.mu.Lock()
	p := h.procs[place{e.Owner.App, e.Owner.Index, e.Owner.Gen}]
	h.mu.Unlock()
	if p == nil {
		return
	}
	f := supervisor.Fact{Kind: supervisor.Refused}
	switch e.Kind {
	case sock.Listening:
		f = supervisor.Fact{Kind: supervisor.Listening, Text: e.Addr.String()}
	case sock.Conflict:
		f.Text = fmt.Sprintf("address %s is in use by %s", e.Addr, e.Other)
	default:
		f.Text = fmt.Sprintf("address %s is %s: %v", e.Addr, e.Kind, e.Err)
	}
	go func() { // the spawn may not have returned yet, and the holder must not wait for it
		<-p.attached
		p.report(f)
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
	for _, r := range p.readers {
		dropped += r.Dropped()
		if s := r.Problem(); s != "" {
			problem = s
		}
	}
	return problem, dropped
}
