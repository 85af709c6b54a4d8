package logs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewPipe makes the pipe for one output stream of a process. app is the end to
// give to the process as fd 1 or 2; the caller closes it after the start. It is
// open for reading too, so that the process meets no SIGPIPE while no daemon
// lives. name is for /proc only.
func NewPipe(name string) (p Pipe, app *os.File, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return Pipe{}, nil, fmt.Errorf("make log pipe for %q: %w", name, err)
	}
	defer unix.Close(fd[1])
	for _, size := range pipeSizes {
		if _, err := unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
	p.Read = os.NewFile(uintptr(fd[0]), name)
	// A description of its own: that of fd[1] cannot be read from.
	own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd[1]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Pipe{}, nil, errors.Join(fmt.Errorf("reopen log pipe for %q: %w", name, err), p.Read.Close())
	}
	app = os.NewFile(uintptr(own), name)
	if p.Journal, err = newJournal(name); err != nil {
		return Pipe{}, nil, errors.Join(err, p.Read.Close(), app.Close())
	}
	return p, app, nil
}

// Reopen takes the pipe behind path, such as /proc/<pid>/fd/1 of a process that
// was given its app end by an earlier daemon, when everybody who held the read
// end is dead. What is in the pipe is still there: the process holds it open.
func Reopen(path, name string) (Pipe, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Pipe{}, fmt.Errorf("reopen log pipe for %q: %w", name, err)
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		return Pipe{}, fmt.Errorf("reopen log pipe for %q: %q is no pipe", name, path)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Pipe{}, fmt.Errorf("reopen log pipe for %q: %w", name, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil { // it was for the open, which else waits for a writer
		unix.Close(fd)
		return Pipe{}, fmt.Errorf("reopen log pipe for %q: %w", name, err)
	}
	p := Pipe{Read: os.NewFile(uintptr(fd), name)}
	if p.Journal, err = newJournal(name); err != nil {
		return Pipe{}, errors.Join(err, p.Read.Close())
	}
	return p, nil
}

func newJournal(name string) (*os.File, error) {
	short := name[:min(len(name), 200)] // memfd names end at 249 bytes
	// Without MFD_NOEXEC_SEAL Linux 6.3 warns, and refuses where vm.memfd_noexec
	// is 2; before 6.3 it is not known.
	fd, err := unix.MemfdCreate(short, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(short, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make log journal for %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(pageSize); err != nil {
		return nil, errors.Join(fmt.Errorf("make log journal for %q: %w", name, err), f.Close())
	}
	return f, nil
}

// pipeSize is how many bytes the pipe holds.
func pipeSize(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) }
