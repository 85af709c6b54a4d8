package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"gpm/logs"
	"gpm/supervisor/internal/keeper"
)

// duplicate is a log pipe for another reader; the first one closes its own.
func duplicate(p logs.Pipe) (d logs.Pipe, err error) {
	if d.Read, err = again(p.Read); err != nil {
		return d, err
	}
	if d.Journal, err = again(p.Journal); err != nil {
		d.Read.Close()
	}
	return d, err
}

func again(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, os.NewSyscallError("duplicate", err)
	}
	return keeper.Quiet(fd, f.Name())
}
