package trap

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structs of <linux/seccomp.h>, unchanged since 5.0 (addFD: 5.9).
type (
	notif struct {
		ID    uint64
		PID   uint32
		Flags uint32
		Nr    int32
		Arch  uint32
		IP    uint64
		Args  [6]uint64
	}
	response struct {
		ID    uint64
		Val   int64
		Error int32
		Flags uint32
	}
	addFD struct {
		ID         uint64
		Flags      uint32
		SrcFD      uint32
		NewFD      uint32
		NewFDFlags uint32
	}
)

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// Receive waits for the next stopped call. It returns io.EOF when no process
// uses the filter any more; it does not retry after another error.
func Receive(notify int) (Notification, error) {
	for {
		if err := wait(notify); err != nil {
			return Notification{}, err
		}
		var n notif
		err := ioctl(notify, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
		if errors.Is(err, unix.ENOENT) { // its thread was interrupted or killed before it could be received
			continue
		}
		if err != nil {
			return Notification{}, err
		}
		return Notification{ID: n.ID, TID: int(n.PID), Nr: n.Nr, Args: n.Args}, nil
	}
}

// wait polls first because RECV alone would not end with the last process.
func wait(notify int) error {
	p := []unix.PollFd{{Fd: int32(notify), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case p[0].Revents&unix.POLLIN != 0:
			return nil
		default: // POLLHUP; POLLNVAL would be a bug and must not spin either
			return io.EOF
		}
	}
}

// Valid tells whether the call still waits. Whatever was read from the process
// before is of that process only if it does: its pid was not reused meanwhile.
func Valid(notify int, id uint64) bool {
	return ioctl(notify, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// Pass lets the kernel perform the call. ENOENT: nobody waits any more.
func Pass(notify int, id uint64) error {
	return send(notify, response{ID: id, Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Fail makes the call return errno; 0 is success. ENOENT: nobody waits any more.
func Fail(notify int, id uint64, errno unix.Errno) error {
	return send(notify, response{ID: id, Error: -int32(errno)})
}

// Replace puts fd over the caller's descriptor target and makes the call
// succeed. If the caller is interrupted between the two it calls again, with
// the replaced socket.
func Replace(notify int, id uint64, fd, target int, closeOnExec bool) error {
	add := addFD{ID: id, Flags: unix.SECCOMP_ADDFD_FLAG_SETFD, SrcFD: uint32(fd), NewFD: uint32(target)}
	if closeOnExec {
		add.NewFDFlags = unix.O_CLOEXEC
	}
	if err := ioctl(notify, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)); err != nil {
		return err
	}
	return Fail(notify, id, 0)
}

func send(notify int, r response) error {
	return ioctl(notify, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}
