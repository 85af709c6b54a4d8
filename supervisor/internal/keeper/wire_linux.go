package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxInline = 64 << 10 // a longer body travels in a memfd
	maxBody   = 32 << 20
	maxRights = 250 // descriptors of one packet; the kernel's SCM_MAX_FD is 253
)

// elsewhere is the whole body of a packet whose body is in its first descriptor.
const elsewhere = '@'

// conn is one end of the socket between keeper and daemon: packets of JSON with
// descriptors. One goroutine reads; any may write.
type conn struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte // of the reader
	oob  []byte
}

// newConn takes ownership of fd. It is made CLOEXEC: an app that inherited the
// daemon's end would keep the keeper from seeing the daemon's death.
func newConn(fd int) (*conn, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil { // lets the runtime poll it
		return nil, fmt.Errorf("open descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), "keeper socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &conn{file: f, raw: raw, buf: make([]byte, maxInline), oob: make([]byte, unix.CmsgSpace(4*(maxRights+1)))}, nil
}

// pair is a connected pair; the second end is for another process.
func pair() (*conn, int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make a socket pair: %w", err)
	}
	c, err := newConn(p[0])
	if err != nil {
		closeAll(p[:])
		return nil, -1, err
	}
	return c, p[1], nil
}

func (c *conn) close() { c.file.Close() }

// finish makes the reader see the end after what has been sent already, even if
// somebody inherited the other end.
func (c *conn) finish() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}

// packet is a received message. Whoever has the packet closes its descriptors.
type packet struct {
	message
	fds []int
	bad error // body or descriptors are damaged
}

// take hands the i-th descriptor over to the caller.
func (p *packet) take(i int) (int, error) {
	if i < 0 || i >= len(p.fds) || p.fds[i] < 0 {
		return -1, errors.New("the message lacks a descriptor")
	}
	fd := p.fds[i]
	p.fds[i] = -1
	return fd, nil
}

func (p *packet) close() {
	closeAll(p.fds)
	p.fds = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// send waits until the packet is on its way. The descriptors remain the caller's.
func (c *conn) send(m message, fds []int) error { return c.transmit(m, fds, true) }

// trySend returns EAGAIN instead of waiting.
func (c *conn) trySend(m message, fds []int) error { return c.transmit(m, fds, false) }

func (c *conn) transmit(m message, fds []int, wait bool) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(fds) > maxRights {
		return fmt.Errorf("send %d descriptors: at most %d fit into a message", len(fds), maxRights)
	}
	if len(body) > maxInline {
		memfd, err := memory(body)
		if err != nil {
			return err
		}
		defer unix.Close(memfd)
		fds = append([]int{memfd}, fds...)
		body = []byte{elsewhere}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var sent error
	if err := c.raw.Write(func(fd uintptr) bool {
		sent = ignoringEINTR(func() error {
			return unix.Sendmsg(int(fd), body, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		})
		return !wait || sent != unix.EAGAIN
	}); err != nil {
		return err
	}
	return sent
}

// memory is a memfd with body in it.
func memory(body []byte) (int, error) {
	if len(body) > maxBody {
		return -1, fmt.Errorf("send a message: %d bytes are more than %d", len(body), maxBody)
	}
	fd, err := unix.MemfdCreate("gpm message", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a memfd: %w", err)
	}
	for off := 0; off < len(body); {
		n, err := unix.Pwrite(fd, body[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("write a memfd: %w", err)
		}
		off += max(n, 0)
	}
	return fd, nil
}

// recv waits for a packet. An error is the end of the connection (io.EOF if the
// other side closed it); a damaged packet is not, it says so itself.
func (c *conn) recv() (packet, error) {
	for {
		var n, oobn, flags int
		var got error
		err := c.raw.Read(func(fd uintptr) bool {
			got = ignoringEINTR(func() (err error) {
				n, oobn, flags, _, err = unix.Recvmsg(int(fd), c.buf, c.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
				return err
			})
			return got != unix.EAGAIN
		})
		switch {
		case err != nil:
			return packet{}, err
		case got == unix.ECONNRESET:
			// The other side died with unread packets. The kernel tells it once,
			// and before what that side had sent: go on to that.
			continue
		case got != nil:
			return packet{}, got
		case n == 0:
			return packet{}, io.EOF
		}
		return decode(c.buf[:n], c.oob[:oobn], flags), nil
	}
}

func decode(body, oob []byte, flags int) packet {
	p := packet{fds: rights(oob)}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		p.bad = errors.New("the message was cut: it is too long, or no descriptors are free")
	}
	if len(body) == 1 && body[0] == elsewhere {
		memfd, err := p.take(0)
		if err != nil {
			p.bad = err
			return p
		}
		p.fds = p.fds[1:]
		body, err = contents(memfd)
		unix.Close(memfd)
		if err != nil {
			p.bad = err
			return p
		}
	}
	if err := json.Unmarshal(body, &p.message); err != nil && p.bad == nil {
		p.bad = fmt.Errorf("decode a message: %w", err)
	}
	return p
}

func rights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// contents reads a memfd. Its size is what the sender made it, so it is bounded.
func contents(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxBody {
		return nil, fmt.Errorf("read a message: it is no memfd of at most %d bytes", maxBody)
	}
	body := make([]byte, st.Size)
	for off := 0; off < len(body); {
		n, err := unix.Pread(fd, body[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read a message: %w", err)
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		off += n
	}
	return body, nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
