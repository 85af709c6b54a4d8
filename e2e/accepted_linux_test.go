package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
)

// Of the kernel's sock_diag(7), Linux 3.3.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56
	diagAnswerSize   = 72
	// connected is every state but TIME_WAIT, CLOSE, LISTEN and the half open ones.
	connected = 1<<1 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11
)

// accepted are the other ends of all TCP connections that processes have; what
// waits in a listener's queue has no inode yet, and so no owner.
func accepted(t *testing.T, pids []int) (peers []netip.AddrPort) {
	t.Helper()
	own := sockets(pids)
	for _, family := range []uint8{syscall.AF_INET, syscall.AF_INET6} {
		err := diag(family, func(inode uint32, peer netip.AddrPort) {
			if own[inode] {
				peers = append(peers, peer)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return peers
}

// diag reads the kernel's table of TCP connections.
func diag(family uint8, row func(inode uint32, peer netip.AddrPort)) error {
	s, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	defer syscall.Close(s)
	ask := make([]byte, syscall.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(ask[0:], uint32(len(ask)))
	binary.NativeEndian.PutUint16(ask[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(ask[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	ask[16], ask[17] = family, syscall.IPPROTO_TCP
	binary.NativeEndian.PutUint32(ask[20:], connected)
	if err := syscall.Sendto(s, ask, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask sock_diag: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := syscall.Recvfrom(s, buf, 0)
		if err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == syscall.NLMSG_DONE:
				return nil
			case m.Header.Type == syscall.NLMSG_ERROR || len(m.Data) < diagAnswerSize:
				return fmt.Errorf("read sock_diag: message of type %d with %d bytes", m.Header.Type, len(m.Data))
			}
			ip := netip.AddrFrom4([4]byte(m.Data[24:28]))
			if m.Data[0] == syscall.AF_INET6 {
				ip = netip.AddrFrom16([16]byte(m.Data[24:40])).Unmap()
			}
			row(binary.NativeEndian.Uint32(m.Data[68:]), netip.AddrPortFrom(ip, binary.BigEndian.Uint16(m.Data[6:])))
		}
	}
}
