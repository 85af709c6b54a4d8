package trap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install puts the filter on the calling OS thread, which the caller has locked
// and never unlocks: everything it forks from now on is filtered, the other
// threads of the process are not. It returns the notify descriptor (CLOEXEC;
// it must outlive every filtered process, else their bind() fails with ENOSYS),
// and whether no_new_privs had to be set, as for anyone without CAP_SYS_ADMIN:
// setuid programs then gain nothing in the children.
func Install() (fd int, noNewPrivs bool, err error) {
	prog, err := program()
	if err != nil {
		return -1, false, err
	}
	fd, err = install(prog)
	if errors.Is(err, unix.EACCES) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, false, fmt.Errorf("set no_new_privs: %w", err)
		}
		noNewPrivs = true
		fd, err = install(prog)
	}
	if err != nil {
		return -1, noNewPrivs, err
	}
	if err := probe(fd); err != nil {
		unix.Close(fd)
		return -1, noNewPrivs, err
	}
	return fd, noNewPrivs, nil
}

// install tries with WAIT_KILLABLE_RECV (5.19: a signal no longer interrupts a
// call that has been reported) and without. SPEC_ALLOW keeps kernels before
// 5.16 from switching on the slow speculation mitigations for filtered tasks.
func install(prog *unix.SockFprog) (int, error) {
	base := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	var errno unix.Errno
	for _, flags := range []uintptr{base | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, base} {
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(prog)))
		runtime.KeepAlive(prog)
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINVAL {
			break
		}
	}
	switch errno {
	case unix.EBUSY:
		return -1, fmt.Errorf("install seccomp filter: an ancestor listens already (gpm inside gpm): %w", errno)
	case unix.ENOSYS, unix.EINVAL:
		return -1, fmt.Errorf("install seccomp filter: this kernel has no user notification: %w", errno)
	}
	return -1, fmt.Errorf("install seccomp filter: %w", errno)
}

// System call numbers and the audit architecture the filter is made for. A call
// under another architecture (a 32-bit program) has other numbers: it passes.
type native struct{ arch, bind, listen uint32 }

var natives = map[string]native{
	"amd64": {unix.AUDIT_ARCH_X86_64, 49, 50},
	"arm64": {unix.AUDIT_ARCH_AARCH64, 200, 201},
}

// program is the filter: listen, and bind with an addrlen of sockaddr_in or
// sockaddr_in6, notify; all else is allowed. The actions of the other calls do
// not depend on arguments, so the kernel's bitmap (5.11) answers them unrun.
func program() (*unix.SockFprog, error) {
	sys, ok := natives[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("install seccomp filter: not made for %s", runtime.GOARCH)
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K

		offNr, offArch, offLen = 0, 4, 16 + 2*8 // in struct seccomp_data; low word of args[2]
	)
	code := []unix.SockFilter{
		{Code: load, K: offArch},
		{Code: equal, Jf: 7, K: sys.arch},
		{Code: load, K: offNr},
		{Code: equal, Jt: 4, K: sys.listen},
		{Code: equal, Jf: 4, K: sys.bind},
		{Code: load, K: offLen},
		{Code: equal, Jt: 1, K: unix.SizeofSockaddrInet4},
		{Code: equal, Jf: 1, K: unix.SizeofSockaddrInet6},
		{Code: result, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: result, K: unix.SECCOMP_RET_ALLOW},
	}
	return &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}, nil
}

// probe makes sure before any app depends on it that a trapped call can be
// answered here: ADDFD is of 5.9, pidfd_getfd of 5.6, and a container's own
// seccomp profile may forbid the latter and process_vm_readv.
func probe(notify int) error {
	add := addFD{Flags: unix.SECCOMP_ADDFD_FLAG_SETFD, SrcFD: uint32(notify)}
	if err := ioctl(notify, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("inject a socket: needs Linux 5.9: %w", err)
	}
	fd, err := duplicate(os.Getpid(), notify)
	if err != nil {
		return err
	}
	unix.Close(fd)
	var word [4]byte
	if err := readMemory(os.Getpid(), uint64(uintptr(unsafe.Pointer(&word))), make([]byte, len(word))); err != nil {
		return err
	}
	runtime.KeepAlive(&word)
	return nil
}
