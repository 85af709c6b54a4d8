package streams

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// From <linux/inet_diag.h>, <net/tcp_states.h>.
const (
	// tcpdiagGetsock is the request from before sock_diag(7), of all kernels
	// until today: unlike SOCK_DIAG_BY_FAMILY it gives IPv4 and IPv6 in one
	// dump, and walking the kernel's table costs more than a few hundred sockets.
	tcpdiagGetsock = 18

	attrBytecode = 1  // INET_DIAG_REQ_BYTECODE
	attrInfo     = 2  // INET_DIAG_INFO
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY: of IPv6 listeners, Linux 4.2

	stateEstablished = 1
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateCloseWait   = 8
	stateListen      = 10

	allListeners = 1 << stateListen
	allStreams   = 1<<stateEstablished | 1<<stateFinWait1 | 1<<stateFinWait2 | 1<<stateCloseWait
)

// patience is for a kernel that does not answer; it always answers at once. But
// the deadline passes as well while this process is not let run.
const patience = 10 * time.Second

// question selects sockets.
type question struct {
	states uint32   // a bit for each
	info   bool     // with tcp_info: the kernel locks each socket for it
	ports  []uint16 // sorted; none: all
	exact  *ident   // only this one; the rest does not matter
}

// ident is what the kernel finds one socket by: its family, and a struct
// inet_diag_sockid.
type ident struct {
	family uint8
	id     [48]byte
}

// cookie is the kernel's name for a socket. Other than an inode it is never
// given to another one while the machine runs.
func (i *ident) cookie() uint64 {
	return binary.NativeEndian.Uint64(i.id[40:]) // two words of 32 bits; their order does not matter
}

// socket is one of the kernel's answers. It is valid until the next one.
type socket struct {
	ident
	state      uint8
	port       uint16 // local
	addr       []byte // local, 16 bytes of which IPv4 uses 4
	queue, max uint32 // of a listener
	inode      uint64 // 0: no process has it: not accepted yet, or closed and not gone
	only6      bool
	info       []byte // struct tcp_info, as long as this kernel's; nil if not asked for
}

// dial opens a socket to sock_diag. The buffer is large because the kernel
// makes its answers (at most 32 KiB) as large as what they are read with. The
// library then costs little more than a bare recvfrom loop: BenchmarkDump and
// BenchmarkDumpBare.
func dial() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_INET_DIAG, &netlink.Config{MessageBufferSize: 64 << 10})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return conn, nil
}

// ask lists the sockets that q selects. An exact one that does not exist is no
// error. After an error conn is of no use any more: the rest of the answer may
// still be in it.
func ask(conn *netlink.Conn, q question, each func(*socket)) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("set deadline of sock_diag: %w", err)
	}
	flags := netlink.Request
	if q.exact == nil {
		flags |= netlink.Dump
	}
	sent, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: tcpdiagGetsock, Flags: flags},
		Data:   q.encode(),
	})
	if err != nil {
		return fmt.Errorf("ask sock_diag: %w", err)
	}
	var s socket
	for m, err := range conn.ReceiveIter() {
		if q.exact != nil && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		if m.Header.Sequence != sent.Header.Sequence || m.Header.Type != tcpdiagGetsock {
			return fmt.Errorf("read sock_diag: answer of type %d to another question: %w", m.Header.Type, unix.EBADMSG)
		}
		if err := s.decode(m.Data); err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		if q.has(s.port) {
			each(&s)
		}
	}
	return nil
}

func (q question) has(port uint16) bool {
	if len(q.ports) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(q.ports, port)
	return ok
}

// encode makes a struct inet_diag_req. Few ports are selected by the kernel,
// which is much cheaper where there are other connections too: at least the
// proxy's halves of the same ones.
func (q question) encode() []byte {
	const size, few = 60, 64
	b := make([]byte, size, size+4+12*few)
	if q.exact != nil {
		b[0] = q.exact.family
		copy(b[4:], q.exact.id[:])
		return b
	}
	b[0] = unix.AF_INET // a dump has both families, whatever this says
	if q.info {
		b[3] = 1 << (attrInfo - 1)
	}
	binary.NativeEndian.PutUint32(b[52:], q.states)
	if len(q.ports) == 0 || len(q.ports) > few {
		return b
	}
	code := bytecode(q.ports)
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(code)))
	b = binary.NativeEndian.AppendUint16(b, attrBytecode)
	return append(b, code...)
}

// bytecode accepts a socket whose local port is one of ports (Linux 4.16).
// Jumps are relative; to land on the end is to accept, beyond it to reject.
// For each port but the last: S_EQ port, else skip the next; JMP to the end.
func bytecode(ports []uint16) []byte {
	const jmp, portEqual = 1, 11 // INET_DIAG_BC_JMP, INET_DIAG_BC_S_EQ
	var b []byte
	op := func(code, yes uint8, no uint16) {
		b = append(b, code, yes)
		b = binary.NativeEndian.AppendUint16(b, no)
	}
	end := 12*len(ports) - 4
	for i, port := range ports {
		op(portEqual, 8, 12)
		op(0, 0, port) // the operand of portEqual
		if i < len(ports)-1 {
			op(jmp, 4, uint16(end-len(b)))
		}
	}
	return b
}

// decode reads a struct inet_diag_msg with its attributes.
func (s *socket) decode(b []byte) error {
	const header = 72
	if len(b) < header {
		return fmt.Errorf("socket of %d bytes: %w", len(b), unix.EBADMSG)
	}
	*s = socket{
		ident: ident{family: b[0], id: [48]byte(b[4:])},
		state: b[1],
		port:  binary.BigEndian.Uint16(b[4:]),
		addr:  b[8:24],
		queue: binary.NativeEndian.Uint32(b[56:]),
		max:   binary.NativeEndian.Uint32(b[60:]),
		inode: uint64(binary.NativeEndian.Uint32(b[68:])),
	}
	for a := b[header:]; len(a) >= 4; {
		size := int(binary.NativeEndian.Uint16(a))
		if size < 4 || size > len(a) {
			return fmt.Errorf("socket attribute of %d bytes: %w", size, unix.EBADMSG)
		}
		switch binary.NativeEndian.Uint16(a[2:]) {
		case attrV6Only:
			s.only6 = size > 4 && a[4] != 0
		case attrInfo:
			s.info = a[4:size]
		}
		a = a[min((size+3)&^3, len(a)):]
	}
	return nil
}

// listener is s as a Listener.
func (s *socket) listener() Listener {
	ip := netip.AddrFrom16([16]byte(s.addr))
	if s.family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(s.addr))
	}
	return Listener{
		Addr:  netip.AddrPortFrom(ip, s.port),
		Only6: s.only6,
		Inode: s.inode,
		Queue: int(s.queue),
		Max:   int(s.max),
	}
}

// activity is what tcp_info tells of a connection's data.
type activity struct {
	quiet time.Duration // since data went in either direction, or since the connection exists
	sent  time.Duration // since data was last sent
	ever  bool          // data was sent at all
}

// activity reads a struct tcp_info. Both of its times begin to run when the
// connection is made, so only the number of bytes tells whether any was sent.
func (s *socket) activity() activity {
	const lastSent, lastRecv, bytesSent = 44, 52, 200 // tcpi_bytes_sent: Linux 4.19
	if len(s.info) < bytesSent+8 {
		return activity{} // just now, as far as one knows: nobody is cut for it
	}
	ms := func(at int) time.Duration {
		return time.Duration(binary.NativeEndian.Uint32(s.info[at:])) * time.Millisecond
	}
	return activity{
		quiet: min(ms(lastSent), ms(lastRecv)),
		sent:  ms(lastSent),
		ever:  binary.NativeEndian.Uint64(s.info[bytesSent:]) > 0,
	}
}
