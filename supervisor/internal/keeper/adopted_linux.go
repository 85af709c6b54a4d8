package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapWait is how long the real parent of an adopted process, usually init, may
// take to reap it. Only then do Linux 6.15 and later tell its exit code.
const reapWait = 10 * time.Second

// ending is the end of an adopted child as its watcher saw it.
type ending struct {
	child *Child
	exit  Exit
}

// adopt watches a process that is not ours by birth. A process that is watched
// already is simply told again.
func (k *keeper) adopt(pid int, start uint64, tag string) (*Child, error) {
	if c := k.live[pid]; c != nil && c.Start == start {
		return c, nil
	}
	if pid <= 1 || pid == os.Getpid() || (k.daemon != nil && pid == k.daemon.pid) {
		return nil, fmt.Errorf("adopt process %d: it is none to adopt", pid)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	// Read after the pidfd was opened: now the pid cannot change its owner unseen.
	st, err := readStat(pid)
	if err == nil && st.start != start {
		err = unix.ESRCH
	}
	if err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("adopt process %d: the one started at %d is gone: %w", pid, start, err)
	}
	c := &Child{PID: pid, Start: start, Tag: tag, Adopted: true}
	if err := k.watch(c, pidfd); err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	k.live[pid] = c
	return c, nil
}

// watch starts the goroutine that waits for the end of c; it takes pidfd.
func (k *keeper) watch(c *Child, pidfd int) error {
	if err := unix.SetNonblock(pidfd, true); err != nil { // lets the runtime poll it: no thread per child
		unix.Close(pidfd)
		return err
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return err
	}
	pid, start := c.PID, c.Start // the rest of c belongs to the loop
	go func() {
		defer f.Close()
		waitFor(raw, unix.POLLIN)
		exit, known := seen(raw, pid, start)
		if !known {
			_ = f.SetReadDeadline(time.Now().Add(reapWait))
			waitFor(raw, unix.POLLHUP)
			if exit, known = seen(raw, pid, start); !known {
				exit = Exit{Code: -1, Unknown: true}
			}
		}
		k.ends <- ending{c, exit}
	}()
	return nil
}

// waitFor waits for events on a pidfd: POLLIN is the death, POLLHUP (6.9) that
// it has been reaped.
func waitFor(raw syscall.RawConn, events int16) {
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		_ = ignoringEINTR(func() error { _, err := unix.Poll(p, 0); return err })
		return p[0].Revents&events != 0
	})
}

// seen is how a dead process ended, if it can be known: from the kernel once it
// is reaped (6.15), from its zombie before that.
func seen(raw syscall.RawConn, pid int, start uint64) (Exit, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := raw.Control(func(fd uintptr) {
		if unix.IoctlPidfdInfo(int(fd), &info) != nil { // ENOTTY, EINVAL: an older kernel
			info.Mask = 0
		}
	})
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return exitOf(unix.WaitStatus(info.Exit_code)), true
	}
	// The status reads 0 without the right to trace the process, as does its
	// exe link as EACCES; with the right a zombie's link does not exist.
	_, link := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	st, err := readStat(pid)
	if err != nil || !st.zombie || st.start != start || errors.Is(link, os.ErrPermission) {
		return Exit{}, false
	}
	return exitOf(st.status), true
}

// adoptedEnded records the end that a watcher saw. If the process was reparented
// to us, wait4 knows better.
func (k *keeper) adoptedEnded(e ending) {
	k.reap()
	if e.child.Exit == nil {
		k.exited(e.child, e.exit)
	}
}
