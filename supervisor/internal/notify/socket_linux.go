package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket receives sd_notify messages of all apps. The kernel tells which
// process sent each (SO_PASSCRED), so the path is no secret.
type Socket struct {
	conn *net.UnixConn
}

// Listen makes the socket that NOTIFY_SOCKET names. A file in its place is
// removed: the caller knows that no other daemon uses it. A path with '@' in
// front is an abstract name. Apps of other users must reach it, so a file has
// mode 0666; the folder says who can.
func Listen(path string) (*Socket, error) {
	abstract := strings.HasPrefix(path, "@")
	if !abstract {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("listen for notifications: %w", err)
		}
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notifications: %w", err)
	}
	conn.SetReadBuffer(256 << 10) // a start of many apps at once; the kernel may give less
	s := &Socket{conn: conn}
	if err := s.passCredentials(); err != nil {
		conn.Close()
		return nil, err
	}
	if !abstract {
		if err := os.Chmod(path, 0o666); err != nil {
			conn.Close()
			return nil, fmt.Errorf("open notify socket %q to apps: %w", path, err)
		}
	}
	return s, nil
}

// FromFile goes on with a socket that Listen made in an earlier daemon. The
// caller still owns f and closes it.
func FromFile(f *os.File) (*Socket, error) {
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over notify socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("take over notify socket: it is a %T", c)
	}
	s := &Socket{conn: conn}
	if err := s.passCredentials(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// Name is what NOTIFY_SOCKET has to be.
func (s *Socket) Name() string { return s.conn.LocalAddr().String() }

func (s *Socket) passCredentials() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("set SO_PASSCRED: %w", err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("set SO_PASSCRED: %w", err)
	}
	return nil
}

// File is a duplicate for the keeper. The caller closes it.
func (s *Socket) File() (*os.File, error) { return s.conn.File() }

// Serve calls hear for each message, on the caller's goroutine, until Close. The
// pid is the sender's, which may be any process of an app's tree, or one that
// has ended since. Too long messages and those of unknown senders are dropped.
func (s *Socket) Serve(hear func(pid int, state map[string]string)) error {
	buf, oob := make([]byte, maxDatagram), make([]byte, 4096)
	for {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive notification: %w", err)
		}
		pid, files := control(oob[:oobn])
		if pid > 0 && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
			hear(pid, parseState(string(buf[:n])))
		}
		// Descriptors come with FDSTORE=1, which gpm has no use for, and with
		// BARRIER=1, where the sender waits for us to close: so close them last.
		for _, fd := range files {
			unix.Close(fd)
		}
	}
}

// control reads who sent a message, and which descriptors came with it.
func control(oob []byte) (pid int, files []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range msgs {
		if cred, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			files = append(files, fds...)
		}
	}
	return pid, files
}

// Close ends Serve. The socket's file stays: apps name it in NOTIFY_SOCKET.
func (s *Socket) Close() error { return s.conn.Close() }
