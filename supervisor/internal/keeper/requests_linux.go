package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// Spawn starts a program. An error of the exec is an *fs.PathError with the
// errno; ErrNoHold is wrapped if it was to be filtered and cannot be. If ctx
// ends first, a child that comes into being nevertheless is killed, and its exit
// reported. After ErrGone it is not known whether there is a child.
func (l *Link) Spawn(ctx context.Context, s Spawn) (Child, error) {
	o := &spawnOrder{
		Tag: s.Tag, Path: s.Path, Argv: s.Argv, Env: s.Env, Dir: s.Dir,
		Cred: s.Cred, Filtered: s.Filtered, Cgroup: -1,
	}
	var files []*os.File
	for _, f := range s.Files {
		if f == nil {
			o.Files = append(o.Files, -1)
			continue
		}
		_ = f.Fd() // makes the end of an os.Pipe blocking, as a program expects of its output
		o.Files = append(o.Files, len(files))
		files = append(files, f)
	}
	if s.Cgroup != nil {
		o.Cgroup = len(files)
		files = append(files, s.Cgroup)
	}
	r, err := l.call(ctx, message{Type: msgSpawn, Spawn: o}, files...)
	return child(r, err)
}

// Adopt has a live process watched that is not the keeper's child, as after both
// keeper and daemon have died. Its exit is known on Linux 6.15 and later, if its
// zombie can be read before, or if it has become the keeper's orphan; else it is
// Unknown. ESRCH is wrapped if the process with that start time is gone.
func (l *Link) Adopt(ctx context.Context, pid int, start uint64, tag string) (Child, error) {
	r, err := l.call(ctx, message{Type: msgAdopt, PID: pid, Start: start, Name: tag})
	return child(r, err)
}

func child(r message, err error) (Child, error) {
	if err != nil {
		return Child{}, err
	}
	if r.Child == nil {
		return Child{}, errors.New("the keeper answers without a child")
	}
	return *r.Child, nil
}

// Store has the keeper keep a duplicate of f under name, in place of what it
// kept there, for this daemon's successors. f remains the caller's.
func (l *Link) Store(name string, f *os.File) error {
	return l.ask(message{Type: msgStore, Name: name}, f)
}

// Drop closes what the keeper keeps under name.
func (l *Link) Drop(name string) error {
	return l.ask(message{Type: msgDrop, Name: name})
}

// Ack has the keeper forget the exit of a child: the daemon has recorded it.
func (l *Link) Ack(pid int) error {
	return l.ask(message{Type: msgAck, PID: pid})
}

// Answer ends a trapped call. ENOENT is wrapped if nobody waits in it any more:
// the process was killed, or a signal interrupted it and it calls again. After
// any other error the call still waits. A File of the verdict remains the
// caller's. t.Socket may be closed before.
func (l *Link) Answer(t *trap.Trap, v trap.Verdict) error {
	var files []*os.File
	if v.Action == trap.ActInject {
		if v.File == nil {
			return fmt.Errorf("answer %s of process %d: no socket to inject", t.Call, t.PID)
		}
		files = append(files, v.File)
	}
	err := l.ask(message{Type: msgAnswer, Serial: t.Serial, Verdict: &v}, files...)
	if err == nil || errors.Is(err, unix.ENOENT) {
		l.mu.Lock()
		delete(l.pending, t.Serial)
		l.mu.Unlock()
	}
	return err
}

// Unanswered is every trap without an Answer, oldest first, for Replace.
func (l *Link) Unanswered() []*trap.Trap {
	l.mu.Lock()
	defer l.mu.Unlock()
	traps := make([]*trap.Trap, 0, len(l.pending))
	for _, serial := range slices.Sorted(maps.Keys(l.pending)) {
		traps = append(traps, l.pending[serial])
	}
	return traps
}

// Next names the gpm that the next daemon is started from, an absolute path; the
// caller then exits. If that one fails twice to become Ready, dying or within a
// minute, the keeper returns to the last one that did.
func (l *Link) Next(exe string) error {
	return l.ask(message{Type: msgNext, Name: exe})
}

// Ready tells that the daemon works: its binary is good, and systemd may go on.
func (l *Link) Ready() error { return l.ask(message{Type: msgReady}) }

// Quit has the keeper end, with exit code 0, as soon as this daemon has.
// Children that still run live on.
func (l *Link) Quit() error { return l.ask(message{Type: msgQuit}) }
