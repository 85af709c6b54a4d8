package logs

import (
	"os"

	"golang.org/x/sys/unix"
)

// control runs fn with f's descriptor, which stays f's.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func mapRecord(f *os.File) (page []byte, err error) {
	err = control(f, func(fd int) error {
		page, err = unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	})
	return page, err
}

func unmapRecord(page []byte) error { return unix.Munmap(page) }

// splice moves up to n bytes from the pipe into f at off, without waiting. The
// kernel drops from the pipe what it has added to f and nothing else, also when
// SIGKILL comes between (iter_file_splice_write; tried on 5.10, 6.1 and 6.18).
func splice(pipe int, f *os.File, off int64, n int) (moved int, err error) {
	err = control(f, func(fd int) error {
		for {
			at := off
			k, err := unix.Splice(pipe, nil, fd, &at, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			if err != unix.EINTR {
				moved = int(k)
				return err
			}
		}
	})
	return moved, err
}

// punch gives the memory of [from, to) back; both are multiples of the page size.
func punch(f *os.File, from, to int64) error {
	return control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	})
}
