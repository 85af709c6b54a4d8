package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// scanSession lists the living members of a tree without a cgroup, and
// remembers them.
func (t *Tree) scanSession(thorough bool) []Stat {
	all, err := snapshot(t.proc)
	if err != nil {
		return nil
	}
	found := sighting{all: all, root: t.root, seen: t.seen, marked: t.marked, self: os.Getpid(), thorough: thorough}.members()
	t.seen = make(map[int]uint64, len(found))
	var out []Stat
	for pid := range found {
		if st := all[pid]; !st.Dead() {
			t.seen[pid] = st.Start
			out = append(out, st)
		}
	}
	return out
}

// marked tells whether the environment the process was executed with names
// this tree. False if it may not be read (another user's process), or if the
// process wrote over it, as some do to change their title.
func (t *Tree) marked(pid int) bool {
	const longest = 2 << 20 // what execve takes in all with an 8 MiB stack
	f, err := os.Open(t.proc + "/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	defer f.Close()
	want := append([]byte(t.Env()), 0)
	var env []byte
	buf := make([]byte, 16<<10)
	for len(env) < longest {
		n, err := f.Read(buf)
		env = append(env, buf[:n]...)
		if n == 0 || err != nil {
			break
		}
	}
	return bytes.HasPrefix(env, want) || bytes.Contains(env, append([]byte{0}, want...))
}

// send signals one process, and never one that got its pid meanwhile: the
// pidfd is opened first, then it is checked that the pid is still a member.
// The pidfd cannot come to mean somebody else after that.
func (t *Tree) send(st Stat, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(st.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !t.still(st) {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

func (t *Tree) still(st Stat) bool {
	now, err := readStat(t.proc, st.PID)
	return err == nil && now.Start == st.Start && !now.Dead()
}

// sweep kills a tree without a cgroup: signal all, wait for those, look again,
// because a process may have forked between the look and the signal.
func (t *Tree) sweep(ctx context.Context) error {
	for {
		list := t.scan(true)
		if len(list) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// In portions: each process costs a descriptor while it dies.
		if err := t.killAll(ctx, list[:min(len(list), 128)]); err != nil {
			return err
		}
	}
}

// killAll kills these processes and waits until they are gone or ctx ends.
func (t *Tree) killAll(ctx context.Context, list []Stat) error {
	var fds []unix.PollFd
	defer func() {
		for _, p := range fds {
			unix.Close(int(p.Fd))
		}
	}()
	for _, st := range list {
		fd, err := unix.PidfdOpen(st.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open process %d: %w", st.PID, err)
		}
		if !t.still(st) { // the pid may be somebody else's by now: do not wait for him
			unix.Close(fd)
			continue
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", st.PID, err)
		}
	}
	for i := range fds {
		if err := pollUntil(ctx, fds[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// pollUntil waits for an event, at most until ctx ends. A cancelled context
// without a deadline is noticed within a second.
func pollUntil(ctx context.Context, fds []unix.PollFd) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll(fds, waitMillis(ctx))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the end of processes: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}
