package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// program chooses the binary of the next daemon: the one at path, unless that
// failed twice in a row to become ready; then the last one that was ready, which
// is kept open and so survives its replacement on disk. At first that is the
// keeper's own.
type program struct {
	path     string
	named    bool // by Next; not ready yet
	failures int  // in a row
	proven   int  // O_PATH descriptor
}

func newProgram(path string) (program, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return program{}, fmt.Errorf("open /proc/self/exe: %w", err)
	}
	return program{path: path, proven: fd}, nil
}

// choose returns the path to start, and whether it is on trial.
func (p *program) choose() (exe string, trial bool) {
	if p.failures/2%2 == 1 {
		return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(p.proven), false
	}
	return p.path, p.named
}

// failed counts a start that did not become ready. Both programs get two
// attempts in turn: if neither works, the cause may be outside and may pass.
func (p *program) failed() { p.failures++ }

// ready takes note that the daemon pid, started from exe, works.
func (p *program) ready(exe string, pid int) {
	if exe != p.path {
		p.failures = 2 // stay with the proven one until Next names another
		return
	}
	p.failures, p.named = 0, false
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(p.proven)
		p.proven = fd
	}
}

// setNext names the program of the following lives.
func (p *program) setNext(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("use %q as the next gpm: the path is not absolute", path)
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is not a file")
	}
	if err == nil {
		err = unix.Access(path, unix.X_OK)
	}
	if err != nil {
		return fmt.Errorf("use %q as the next gpm: %w", path, err)
	}
	p.path, p.named, p.failures = path, true, 0
	return nil
}
