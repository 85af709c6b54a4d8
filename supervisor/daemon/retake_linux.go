package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gpm/logs"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
)

// retake takes the descriptors of a process out of it, because everybody who
// held them for us is dead: the read ends of its log pipes, by opening what is
// behind its fd 1 and 2 (the app has them open for reading too, so nothing in
// them was lost), and its listeners (pidfd_getfd, Linux 5.6). What the keeper
// holds is not taken again.
func (d *daemon) retake(at place, id proc.Identity) {
	pid := id.PID
	for i, stream := range outputs {
		if d.hasPipe(at.log(stream)) {
			continue // with its journal: what is between pipe and file is not lost
		}
		p, err := logs.Reopen(fmt.Sprintf("/proc/%d/fd/%d", pid, i+1), at.log(stream))
		if err == nil {
			d.inventory.Files[at.log(stream)], d.inventory.Files[at.log(stream)+journal] = p.Read, p.Journal
			err = d.hands.keep(at.log(stream), p)
		}
		if err != nil {
			d.warn(fmt.Sprintf("take over the output (%s) of process %d of %s: %v", stream, pid, at.App, err))
		}
	}
	pids := []int{pid}
	if tree, err := d.hands.forest.Open(at.String(), id); err == nil { // a shell or npm listens on nothing, its child does
		pids = append(pids, tree.PIDs()...)
	}
	for _, pid := range pids {
		if err := d.retakeListeners(at, pid); err != nil {
			d.warn(fmt.Sprintf("take over the listeners of process %d of %s: %v", pid, at.App, err))
		}
	}
}

func (d *daemon) retakeListeners(at place, pid int) error {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	defer unix.Close(pidfd)
	var errs []error
	for _, e := range entries {
		link, err := os.Readlink(folder + "/" + e.Name())
		n, nerr := strconv.Atoi(e.Name())
		if err != nil || nerr != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("duplicate descriptor %d: %w", n, err))
			continue
		}
		f, err := keeper.Quiet(fd, link)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, d.hands.holder.Retake(sock.Owner{App: at.App, Index: at.Index, Gen: at.Gen, UID: -1}, f))
	}
	return errors.Join(errs...)
}
