package trap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errOther is a call that is none of gpm's business: it should continue.
var errOther = errors.New("not a TCP socket")

// Look reads what the stopped call is about and duplicates its socket. It needs
// to be an ancestor of the process where Yama's ptrace_scope is 1. On an error
// the call should continue: it is not about a TCP socket, or not readable. The
// caller closes the socket, and trusts the answer only if Valid says so after.
func Look(n Notification) (t Trap, socket int, err error) {
	sys := natives[runtime.GOARCH]
	t = Trap{Notification: n, FD: int(int32(n.Args[0]))}
	if t.PID, err = process(n.TID); err != nil {
		return t, -1, err
	}
	family := 0
	switch uint32(n.Nr) {
	case sys.bind:
		t.Call = Bind
		if t.Address, family, err = address(t.PID, n.Args[1], n.Args[2]); err != nil {
			return t, -1, err
		}
	case sys.listen:
		t.Call, t.Backlog = Listen, int(int32(n.Args[1]))
	default:
		return t, -1, errOther
	}
	if socket, err = duplicate(t.PID, t.FD); err != nil {
		return t, -1, err
	}
	if err := t.describe(socket, family); err != nil {
		unix.Close(socket)
		return t, -1, err
	}
	return t, socket, nil
}

// describe checks that socket is a TCP one, of the given family unless that is
// 0, and fills in the rest.
func (t *Trap) describe(socket, family int) error {
	domain, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	protocol, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	// Go servers listen with MPTCP by default since Go 1.24. SCTP streams are another matter.
	stream := protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP
	inet := domain == unix.AF_INET || domain == unix.AF_INET6
	if !stream || !inet || (family != 0 && family != domain) {
		return errOther
	}
	if t.Call == Listen {
		t.Address = bound(socket)
	}
	t.CloseOnExec, err = closeOnExec(t.PID, t.FD)
	return err
}

// address reads the sockaddr of a bind.
func address(pid int, pointer, length uint64) (netip.AddrPort, int, error) {
	b := make([]byte, min(length, unix.SizeofSockaddrInet6))
	if err := readMemory(pid, pointer, b); err != nil {
		return netip.AddrPort{}, 0, err
	}
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, 0, errOther
	}
	family := int(binary.NativeEndian.Uint16(b))
	port := binary.BigEndian.Uint16(b[2:])
	switch {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), family, nil
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		scope := binary.NativeEndian.Uint32(b[24:])
		return netip.AddrPortFrom(scoped([16]byte(b[8:24]), scope), port), family, nil
	}
	return netip.AddrPort{}, 0, errOther
}

// bound is the address a socket has, zero if none.
func bound(socket int) netip.AddrPort {
	switch sa, _ := unix.Getsockname(socket); sa := sa.(type) {
	case *unix.SockaddrInet4:
		if sa.Port != 0 {
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		}
	case *unix.SockaddrInet6:
		if sa.Port != 0 {
			return netip.AddrPortFrom(scoped(sa.Addr, sa.ZoneId), uint16(sa.Port))
		}
	}
	return netip.AddrPort{}
}

// scoped is an IPv6 address with its interface, by number, as zone.
func scoped(b [16]byte, scope uint32) netip.Addr {
	a := netip.AddrFrom16(b)
	if scope != 0 && !a.Is4In6() {
		a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	return a
}

func readMemory(pid int, pointer uint64, b []byte) error {
	if len(b) == 0 {
		return errOther
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(pointer), Len: len(b)}}
	n, err := unix.ProcessVMReadv(pid, local, remote, 0)
	if err != nil {
		return fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	if n != len(b) {
		return fmt.Errorf("read memory of process %d: got %d of %d bytes", pid, n, len(b))
	}
	return nil
}

func duplicate(pid, fd int) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	dup, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d of process %d: %w", fd, pid, err)
	}
	return dup, nil
}

// process is the process of a thread. A notification names the thread: Go and
// Java bind from any, and pidfd_open takes thread-group leaders only.
func process(tid int) (int, error) {
	s, err := field("/proc/"+strconv.Itoa(tid)+"/status", "Tgid:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

func closeOnExec(pid, fd int) (bool, error) {
	s, err := field(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd), "flags:")
	if err != nil {
		return false, err
	}
	flags, err := strconv.ParseUint(s, 8, 64)
	return flags&unix.O_CLOEXEC != 0, err
}

// field is the value of a "name: value" line of a small /proc file.
func field(path, name string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("read %q: no %q", path, name)
}
