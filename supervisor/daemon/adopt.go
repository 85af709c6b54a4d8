package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/steer"
)

// recover brings back what an earlier daemon looked after. The keeper says what
// lives and gives its descriptors; the records say what was wanted.
func (d *daemon) recover() {
	records, problems := d.store.Load()
	for _, p := range problems {
		d.warn(p)
	}
	known := map[string]*supervisor.Record{}
	for i := range records {
		known[records[i].App.Name] = &records[i]
	}
	d.restoreListeners(known)
	children := append(slices.Clone(d.inventory.Children), d.strays(records)...)
	pipes := d.keptPipes() // also what was just taken out of strays
	var all []logs.Pipe
	for _, p := range pipes {
		all = append(all, p)
	}
	if err := d.hands.book.Recover(all...); err != nil {
		d.warn("some log lines of the last moments may be missing or doubled: " + err.Error())
	}
	var alive []supervisor.Survivor
	for _, c := range children {
		born, err := parsePlace(c.Tag)
		at := seatOf(known[born.App], born)
		if err != nil || !wanted(known[at.App], at.Index) {
			d.putAway(c)
			continue
		}
		alive = append(alive, d.survivor(born, at, c, known[at.App], pipes))
	}
	d.hands.catchUp()
	d.hands.holder.Resume() // before the brain closes any of it
	d.brain.Recover(records, alive)
	d.clear(alive)
}

// seatOf is where the process is that was born somewhere: elsewhere if it was a
// standby.
func seatOf(r *supervisor.Record, born place) place {
	if r == nil || born.Index >= 0 {
		return born
	}
	for _, ir := range r.Instances {
		for _, p := range ir.Procs {
			if p.Tag == born.String() {
				return place{born.App, ir.Index, p.Gen}
			}
		}
	}
	return born
}

// wanted tells whether a record speaks of that place.
func wanted(r *supervisor.Record, index int) bool {
	return r != nil && index >= 0 && (index < r.App.Instances ||
		slices.ContainsFunc(r.Instances, func(ir supervisor.InstanceRecord) bool { return ir.Index == index }))
}

// survivor makes the process of a child that the keeper still has.
func (d *daemon) survivor(born, at place, c keeper.Child, r *supervisor.Record, pipes map[string]logs.Pipe) supervisor.Survivor {
	h := d.hands
	attached := make(chan struct{})
	p := &process{
		born: born, place: at, pid: c.PID, start: c.Start,
		pipes: map[string]logs.Pipe{}, readers: map[string]*logs.Reader{},
		app: &r.App, uid: -1,
		attached: attached, news: attached, rested: make(chan struct{}), unseen: c.Exit != nil && !d.childOfKeeper(c.Tag),
	}
	if u, err := accountOf(&r.App); err == nil && u != nil {
		p.uid = int(u.cred.UID)
	}
	if f := d.inventory.Files[born.ipc()]; f != nil {
		ipc, err := keeper.Pollable(f)
		if err != nil {
			d.warn(fmt.Sprintf("take over the IPC channel of %s: %v", at, err))
		}
		p.ipc = ipc
	}
	started := time.Now()
	for _, ir := range r.Instances {
		if ir.Index == at.Index {
			p.id = ir.ID
			for _, was := range ir.Procs {
				if was.PID == c.PID {
					started = was.Started
				}
			}
		}
	}
	for _, stream := range outputs {
		if pipe, ok := pipes[born.log(stream)]; ok {
			p.pipes[stream] = pipe
		}
	}
	tree, err := h.forest.Open(born.String(), proc.Identity{PID: c.PID, Start: c.Start, Boot: h.boot})
	if err != nil {
		d.warn(fmt.Sprintf("find the process tree of %s: %v", at, err))
	}
	p.tree = tree
	h.mu.Lock()
	h.procs[at], h.byTag[p.tag()] = p, p
	owner := h.ownerLocked(p)
	h.mu.Unlock()
	open := openSockets(tree)
	dead := c.Exit != nil || !h.identity(p).Alive() // else open is all that it has
	var heard []string
	for _, l := range h.holder.Listeners(at.App, at.Index) {
		if open == nil || open[l.Inode] {
			heard = append(heard, l.Addr.String())
		}
	}
	// One that has none is about to listen, or about to be dead: its descriptors
	// are closed before it is seen to end. What it may have had must not be taken
	// for nobody's, and be closed with all who wait in it.
	if len(heard) == 0 {
		open = nil
	}
	// What the dead had is free for who comes next.
	if !dead {
		h.complain(p, "adopt its sockets", h.holder.Adopt(owner, open))
	}
	told := d.inventory.Files[born.told()] != nil
	h.mu.Lock()
	p.marked = told
	h.mu.Unlock()
	return supervisor.Survivor{App: at.App, Index: at.Index, Gen: at.Gen, Told: told, Heard: heard, Bound: len(heard) > 0, Dead: dead, Attach: func(app *config.App, report func(supervisor.Fact)) *supervisor.Process {
		h.mu.Lock()
		p.app = app
		h.mu.Unlock()
		p.report = report
		h.read(p)
		close(p.attached)
		if c.Exit != nil {
			h.graves.Go(func() { h.bury(p, *c.Exit) })
		}
		return h.handle(p, started)
	}}
}

// keptPipes are the log pipes that the keeper holds, by the name of their read
// end.
func (d *daemon) keptPipes() map[string]logs.Pipe {
	r := map[string]logs.Pipe{}
	for name, f := range d.inventory.Files {
		if j := d.inventory.Files[name+journal]; strings.HasPrefix(name, logPrefix) && j != nil {
			r[name] = logs.Pipe{Read: f, Journal: j}
		}
	}
	return r
}

// restoreListeners gives held sockets back to their places.
func (d *daemon) restoreListeners(known map[string]*supervisor.Record) {
	for name, f := range d.inventory.Files { // first what the listeners will want to find
		if !steer.IsName(name) {
			continue
		}
		if err := d.hands.steer.Restore(name, f); err != nil {
			d.warn(fmt.Sprintf("take over the steering %q: %v", name, err))
			d.hands.drop(name)
		}
	}
	for name, f := range d.inventory.Files {
		if !sock.IsName(name) {
			continue
		}
		if err := d.hands.holder.Restore(name, f); err != nil {
			d.warn(fmt.Sprintf("take over listener %q: %v", name, err))
			d.hands.drop(name)
		}
	}
	for app := range d.hands.holder.Apps() {
		if known[app] == nil {
			if err := d.hands.holder.ReleaseApp(app); err != nil {
				d.log.Error("close listeners of an app that is gone", "app", app, "error", err)
			}
		}
	}
}

// putAway ends a process that nothing on record asks for: its app was deleted,
// or its record could not be read.
func (d *daemon) putAway(c keeper.Child) {
	if c.Exit == nil {
		if born, err := parsePlace(c.Tag); err != nil || born.Index >= 0 { // else a standby of the daemon before: there will be others
			d.warn(fmt.Sprintf("process %d (%s) belongs to no app on record; it was ended", c.PID, c.Tag))
		}
		if t, err := d.hands.forest.Open(c.Tag, proc.Identity{PID: c.PID, Start: c.Start, Boot: d.hands.boot}); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
			defer cancel()
			if err := errors.Join(t.Kill(ctx), t.Close()); err != nil {
				d.log.Error("end a process without an app", "pid", c.PID, "error", err)
			}
		}
	}
	if d.childOfKeeper(c.Tag) {
		d.hands.ack(c.PID)
	}
}

// clear drops what the keeper holds for processes that are no more: their
// daemon died between their end and the drop.
func (d *daemon) clear(alive []supervisor.Survivor) {
	used := map[string]bool{}
	for _, s := range alive {
		at := d.hands.bornAt(place{s.App, s.Index, s.Gen})
		for _, stream := range outputs {
			used[at.log(stream)], used[at.log(stream)+journal] = true, true
		}
		used[at.ipc()], used[at.told()] = true, true
	}
	for name, f := range d.inventory.Files {
		if (strings.HasPrefix(name, logPrefix) || strings.HasPrefix(name, ipcPrefix) || strings.HasPrefix(name, toldPrefix)) && !used[name] {
			f.Close()
			d.hands.drop(name)
		}
	}
}

// bornAt is the name for life of the process in a place.
func (h *hands) bornAt(at place) place {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.procs[at]; p != nil {
		return p.born
	}
	return at
}

// strays are processes on record that the keeper does not know: keeper and
// daemon both died. Those that live are watched from here on; descriptors that
// did not come back from systemd's store are taken out of them. Those that ended
// unseen since this machine was booted have died like others: what follows is for
// the brain to judge, and what was theirs to be put away. They may have left last
// words in a pipe that did come back.
func (d *daemon) strays(records []supervisor.Record) (r []keeper.Child) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, rec := range records {
		for _, ir := range rec.Instances {
			for _, p := range ir.Procs {
				at := place{rec.App.Name, ir.Index, p.Gen}
				if born, err := parsePlace(p.Tag); err == nil {
					at = born
				}
				id := proc.Identity{PID: p.PID, Start: p.Start, Boot: p.Boot}
				if d.childOfKeeper(at.String()) {
					continue
				}
				if !id.Alive() {
					if p.Boot == d.hands.boot || d.keeps(at) {
						r = append(r, keeper.Child{PID: p.PID, Start: p.Start, Tag: at.String(), Exit: &keeper.Exit{
							PID: p.PID, Tag: at.String(), Code: -1, Unknown: true, At: time.Now(),
						}})
					}
					continue
				}
				c, err := d.link.Adopt(ctx, p.PID, p.Start, at.String())
				if err != nil {
					d.warn(fmt.Sprintf("take over process %d of %s: %v", p.PID, rec.App.Name, err))
					continue
				}
				d.retake(at, id)
				r = append(r, c)
			}
		}
	}
	return r
}

// childOfKeeper tells whether the keeper knew a process by that tag when it
// told its inventory.
func (d *daemon) childOfKeeper(tag string) bool {
	return slices.ContainsFunc(d.inventory.Children, func(c keeper.Child) bool { return c.Tag == tag })
}

// keeps tells whether the keeper holds a log pipe of that process.
func (d *daemon) keeps(at place) bool {
	return slices.ContainsFunc(outputs, func(stream string) bool { return d.hasPipe(at.log(stream)) })
}

func (d *daemon) hasPipe(name string) bool {
	return d.inventory.Files[name] != nil && d.inventory.Files[name+journal] != nil
}

func closed(f *os.File) bool {
	raw, err := f.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// makeRoom is the daemon's last act when its keeper was killed and somebody else
// starts the next one, who waits for the lock that this daemon has too. What the
// keeper held is in systemd's store.
func (d *daemon) makeRoom() error {
	d.log.Warn("the keeper was killed; whoever started it starts the next one")
	return errors.Join(d.store.Sync(), keeper.Abandon(d.inventory.Files, d.link.Unanswered()))
}

// replaceKeeper is the daemon's last act when its keeper was killed: a new one
// gets everything, and starts a new daemon.
func (d *daemon) replaceKeeper() error {
	files := map[string]*os.File{}
	for name, f := range d.inventory.Files {
		if strings.HasPrefix(name, keeper.ReservedPrefix) {
			files[name] = f
		}
	}
	if f, err := d.notify.File(); err == nil {
		files[notifyFile] = f
	}
	for name, f := range d.hands.holder.Files() {
		files[name] = f
	}
	for name, f := range d.hands.steer.Files() {
		files[name] = f
	}
	var children []keeper.Child
	d.hands.mu.Lock()
	for _, p := range d.hands.procs {
		at := p.born
		for stream, pipe := range p.pipes {
			files[at.log(stream)], files[at.log(stream)+journal] = pipe.Read, pipe.Journal
		}
		if p.ipc != nil {
			files[at.ipc()] = p.ipc
		}
		if f, err := os.Open(os.DevNull); err == nil && p.marked {
			files[at.told()] = f
		}
		children = append(children, keeper.Child{PID: p.pid, Start: p.start, Tag: p.tag()})
	}
	d.hands.mu.Unlock()
	maps.DeleteFunc(files, func(_ string, f *os.File) bool { return closed(f) }) // of who has ended in this moment
	d.log.Warn("the keeper was killed; starting a new one", "children", len(children), "descriptors", len(files))
	return keeper.Replace(d.home, d.exe, files, children, d.link.Unanswered())
}
