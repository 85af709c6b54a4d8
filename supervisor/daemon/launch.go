package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/notify"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/trampoline"
)

// launch spawns the process of l. It is called from a goroutine of the brain's.
func (h *hands) launch(ctx context.Context, l supervisor.Launch) (*supervisor.Process, error) {
	if err := h.vacant(ctx, place{l.App.Name, l.Index, l.Gen}); err != nil {
		return nil, err
	}
	if p := h.take(l); p != nil {
		if s, err := h.seat(p, l); !errors.Is(err, errDied) {
			return s, err
		}
	}
	return h.spawn(ctx, h.newProcess(l), l)
}

// vacant waits until nobody is dealt with any more who had this very place: an
// app that was deleted, or scaled down, and comes back begins to count anew. What
// is still to be closed in the name of the dead would be the next one's.
func (h *hands) vacant(ctx context.Context, at place) error {
	h.mu.Lock()
	before := h.procs[at]
	h.mu.Unlock()
	if before == nil {
		return nil
	}
	select {
	case <-before.rested:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start %s: process %d, which had its place, is not put to rest: %w", at, before.pid, ctx.Err())
	}
}

func (h *hands) newProcess(l supervisor.Launch) *process {
	at := place{l.App.Name, l.Index, l.Gen}
	attached := make(chan struct{})
	return &process{
		born: at, place: at, id: l.ID, app: l.App, report: l.Report,
		pipes: map[string]logs.Pipe{}, readers: map[string]*logs.Reader{}, uid: -1,
		attached: attached, news: attached, rested: make(chan struct{}),
	}
}

// spawn starts a process of its own for l.
func (h *hands) spawn(ctx context.Context, p *process, l supervisor.Launch) (*supervisor.Process, error) {
	defer close(p.attached)
	s, cleanup, err := h.prepare(p, l)
	defer cleanup()
	if err != nil {
		h.abandon(p)
		return nil, err
	}
	h.mu.Lock()
	h.procs[p.place], h.byTag[p.tag()] = p, p // before the spawn: its first bind() may come before the answer
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
		PID: p.pid, Start: p.start, Boot: h.boot, Started: started, Hold: h.holds(p.app), Unsteered: h.unsteered(), Tag: p.tag(),
		Signal: func(name string) error {
			sig, err := proc.ParseSignal(name)
			if err != nil {
				return err
			}
			_, err = p.tree.Signal(sig)
			h.mark(p)
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

// mark has the keeper remember that a process was told to end: the record is on
// disk only milliseconds later, and a daemon that comes in between would tell it
// again. Before the signal would be worse: a daemon that dies between the two
// would leave a process that nobody tells.
func (h *hands) mark(p *process) {
	f, err := os.Open(os.DevNull)
	if err == nil {
		err = h.link.Store(p.born.told(), f)
		f.Close()
	}
	h.complain(p, "remember that it was told to end", err)
	h.mu.Lock()
	p.marked = err == nil
	late := p.buried
	h.mu.Unlock()
	if late && err == nil {
		h.drop(p.born.told())
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
	if u != nil {
		p.uid = int(u.cred.UID)
	}
	files := make([]*os.File, 3, 8) // stdin is /dev/null
	for i, stream := range outputs {
		pipe, end, err := logs.NewPipe(p.born.log(stream))
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
		if err := h.keep(p.born.log(stream), pipe); err != nil {
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
		if err := h.link.Store(p.born.ipc(), ours); err != nil {
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
		Tag: p.tag(), Path: path, Argv: argv, Env: append(flatten(env), p.tree.Env()), Dir: l.App.Cwd,
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
	t, err := h.forest.Tree(p.tag())
	if err == nil {
		return t, nil
	}
	old, openErr := h.forest.Open(p.tag(), proc.Identity{})
	if openErr != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	if err := errors.Join(old.Kill(ctx), old.Close()); err != nil {
		return nil, err
	}
	return h.forest.Tree(p.tag())
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
		f, err := h.holder.Open(sock.Owner{App: p.App, Index: p.Index, Gen: p.Gen, UID: p.uid, Balance: steer.Policy(p.app.Balance)}, addr)
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
		h.mu.Lock()
		p.readers[stream] = r
		h.mu.Unlock()
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
