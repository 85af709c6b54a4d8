package aim

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/in6.h.
const (
	flowLabelManager = 32 // IPV6_FLOWLABEL_MGR
	flowInfoSend     = 33 // IPV6_FLOWINFO_SEND

	flowLabelGet    = 0   // IPV6_FL_A_GET
	flowLabelCreate = 1   // IPV6_FL_F_CREATE: if there is none
	flowLabelAny    = 255 // IPV6_FL_S_ANY: others may use it at the same time
)

// flowLabelRequest is struct in6_flowlabel_req.
type flowLabelRequest struct {
	dst           [16]byte
	label         [4]byte // in network byte order
	action, share uint8
	flags         uint16
	_             [8]byte // times to live: the shortest
}

// connectLabelled connects a socket with class and flow label before net does: net knows
// no labels. Its own connect() then finds the socket connecting or connected,
// which it takes for an interruption, or gets the error.
func connectLabelled(label uint32) func(network, address string, c syscall.RawConn) error {
	return func(_, address string, c syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		outer := c.Control(func(fd uintptr) { err = connect(int(fd), to, label) })
		return errors.Join(outer, err)
	}
}

func connect(fd int, to netip.AddrPort, label uint32) error {
	request := flowLabelRequest{dst: to.Addr().As16(), action: flowLabelGet, share: flowLabelAny, flags: flowLabelCreate}
	binary.BigEndian.PutUint32(request.label[:], label)
	// A label has to be leased only while somebody on this machine has one for
	// himself (ip6_flowlabel.c); without the lease connect() says so.
	_ = unix.SetsockoptString(fd, unix.IPPROTO_IPV6, flowLabelManager, string(unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))))
	for option, value := range map[int]int{unix.IPV6_TCLASS: class, flowInfoSend: 1} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	binary.BigEndian.PutUint32((*[4]byte)(unsafe.Pointer(&sa.Flowinfo))[:], label)
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet6)
	if e != 0 && e != unix.EINPROGRESS {
		return os.NewSyscallError("connect", e)
	}
	return nil
}
