package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Environment variables between gpm's processes.
const (
	envHome     = "GPM_HOME"
	envNoHold   = "GPM_NO_HOLD"  // set: never trap calls
	envTakeover = "GPM_TAKEOVER" // descriptor on which a keeper's successor is told what to take over
)

// Main is the keeper process: it takes possession of home, starts "exe daemon"
// (an absolute path) and returns an exit code when it is over. Its starter makes
// it a session leader and gives it a pipe as stderr: text on it is the error,
// its end without text means that the keeper runs and gpm.sock accepts.
func Main(home, exe string, opts ...Option) int {
	foreground := slices.Contains(opts, Foreground)
	k, err := build(home, exe, foreground)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpm:", err)
		if errors.Is(err, errBusy) {
			return ExitBusy
		}
		return ExitFailed
	}
	return k.run()
}

// build makes everything the loop needs.
func build(home, exe string, foreground bool) (*keeper, error) {
	if !filepath.IsAbs(exe) {
		return nil, fmt.Errorf("run the keeper: the path of gpm, %q, is not absolute", exe)
	}
	back, twice := reclaim()
	if err := closeInherited(os.Getenv(envTakeover)); err != nil {
		return nil, err
	}
	program, err := newProgram(exe)
	if err != nil {
		return nil, err
	}
	before, err := inherit(os.Getenv(envTakeover))
	if err != nil {
		return nil, err
	}
	var h house
	if before != nil {
		h, err = before.house(home)
	} else {
		h, err = enter(home, back[APIFile])
	}
	if err != nil {
		return nil, err
	}
	k := newKeeper(h, program)
	k.foreground = foreground
	k.files[LockFile] = h.lock
	if foreground {
		if k.fdstore, err = newFDStore(); err != nil {
			return nil, fmt.Errorf("talk to systemd: %w", err)
		}
	}
	k.comeBack(back, twice)
	if h.api != back[APIFile] {
		k.keep(APIFile, h.api)
	}
	if k.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	if err := k.settle(); err != nil {
		return nil, err
	}
	if before != nil {
		k.takeOver(before)
	}
	return k, nil
}

// closeInherited closes what the starter had left open by mistake (a lock of the
// shell, a pipe of a build): the keeper and all apps would hold it for ever.
// What has no CLOEXEC was inherited, for else the exec had closed it.
func closeInherited(except string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || e.Name() == except {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// settle makes the process what a keeper is.
func (k *keeper) settle() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	if err := unix.Chdir("/"); err != nil { // keeps no file system busy
		return fmt.Errorf("change to /: %w", err)
	}
	if err := unix.Dup3(k.null, 0, 0); err != nil {
		return fmt.Errorf("close stdin: %w", err)
	}
	k.catch()
	k.holdFiltered()
	if k.foreground {
		return nil
	}
	return k.home.detach()
}
