package keeper

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// duplicate is a descriptor of its own for f's open file.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn() // holds f open meanwhile, and leaves its O_NONBLOCK alone
	if err != nil {
		return -1, fmt.Errorf("duplicate %q: %w", f.Name(), err)
	}
	dup := -1
	if e := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		err = e
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate %q: %w", f.Name(), err)
	}
	return dup, nil
}

// duplicateAll is duplicate for many; nil stays -1.
func duplicateAll(files []*os.File) ([]int, error) {
	fds := make([]int, 0, len(files))
	for _, f := range files {
		fd := -1
		if f != nil {
			var err error
			if fd, err = duplicate(f); err != nil {
				closeAll(fds)
				return nil, err
			}
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// quietFile is fd, which it takes, as a file outside the runtime poller.
// os.NewFile would register a non-blocking socket with epoll, and then every
// connection that comes to an app would wake up gpm as well.
func quietFile(fd int, name string) (*os.File, error) {
	defer unix.Close(fd)
	place, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	f := os.NewFile(uintptr(place), name)
	if err := unix.Dup3(fd, place, unix.O_CLOEXEC); err != nil {
		f.Close()
		return nil, fmt.Errorf("duplicate %q: %w", name, err)
	}
	return f, nil
}

// Quiet is fd, which it takes, as a file outside the runtime poller, as all of
// an Inventory's are.
func Quiet(fd int, name string) (*os.File, error) { return quietFile(fd, name) }

// Pollable is f, which it takes, as a file that the runtime poller watches: the
// opposite of Quiet, for what is read from by a goroutine.
func Pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %q pollable: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
