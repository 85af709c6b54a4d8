package steer

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// with runs f on the descriptor of a file without touching its O_NONBLOCK,
// which belongs to the app.
func with(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// duplicate is a second descriptor of a file, close-on-exec.
func duplicate(file *os.File) (fd int, err error) {
	err = with(file, func(old int) error {
		var err error
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return fd, err
}

// attach makes an SK_REUSEPORT program that of the socket's whole group, in
// place of any other, at once (reuseport_attach_prog).
func attach(socket *os.File, program int) error {
	return with(socket, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, program)
	})
}

// attachClassic is attach for a classic program.
func attachClassic(socket *os.File, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the program: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return with(socket, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
	})
}

// detach leaves the socket's group to the kernel's hash. None attached is fine.
func detach(socket *os.File) error {
	err := with(socket, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// listening are the inodes of all sockets of this network namespace that listen
// on exactly this address. /proc/net/tcp has the listening ones first, so the
// established, however many, are not read.
func listening(addr netip.AddrPort) ([]uint64, error) {
	path := "/proc/net/tcp"
	if addr.Addr().Is6() && !addr.Addr().Is4In6() {
		path = "/proc/net/tcp6"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return listeningIn(f, addr)
}

func listeningIn(r io.Reader, addr netip.AddrPort) ([]uint64, error) {
	const local, state, inode, listen = 1, 3, 9, "0A" // columns; TCP_LISTEN
	want := procAddr(addr)
	var found []uint64
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		col := strings.Fields(lines.Text())
		if len(col) <= inode || col[state] != listen {
			break
		}
		if col[local] != want {
			continue
		}
		n, err := strconv.ParseUint(col[inode], 10, 64)
		if err != nil {
			return nil, err
		}
		found = append(found, n)
	}
	return found, lines.Err()
}

// procAddr is an address as /proc/net/tcp shows it: words in host order.
func procAddr(addr netip.AddrPort) string {
	b := addr.Addr().Unmap().AsSlice()
	if hostLittle {
		for i := 0; i < len(b); i += 4 {
			b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
		}
	}
	return fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(b)), addr.Port())
}
