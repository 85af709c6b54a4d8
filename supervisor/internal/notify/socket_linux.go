package notify

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Socket receives sd_notify datagrams (READY=1, STATUS=...) of many processes
// and knows their pids from the kernel (SO_PASSCRED).
type Socket struct {
	conn *net.UnixConn
	name string
}

// maxDatagram bounds a message; systemd itself takes 4 KiB.
const maxDatagram = 4096

// Listen opens the socket. A name that begins with "@" is in the abstract
// namespace: reachable for apps that run as another user, and gone with the
// last process that holds it. The caller closes it.
func Listen(name string) (*Socket, error) {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open notify socket %q: %w", name, err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); e != nil {
			err = e
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open notify socket %q: ask for credentials: %w", name, err), c.Close())
	}
	return &Socket{c, name}, nil
}

// Name is what NOTIFY_SOCKET has to be.
func (s *Socket) Name() string { return s.name }

// Close ends Serve.
func (s *Socket) Close() error { return s.conn.Close() }

// Serve calls told for each message, on the caller's goroutine, until the
// socket is closed; then it returns nil. Descriptors that come along are closed
// unread.
func (s *Socket) Serve(told func(pid int, state map[string]string)) error {
	buf, oob := make([]byte, maxDatagram), make([]byte, 512)
	for {
		n, on, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read notify socket: %w", err)
		}
		if pid := sender(oob[:on]); pid > 0 {
			told(pid, parse(buf[:n]))
		}
	}
}

// sender is the pid that the kernel vouches for.
func sender(oob []byte) (pid int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range msgs {
		if c, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
			pid = int(c.Pid)
		}
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
	return pid
}

func parse(b []byte) map[string]string {
	state := map[string]string{}
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("=")); ok {
			state[string(k)] = string(v)
		}
	}
	return state
}

// NewChannel makes the socket pair of Node's IPC: theirs becomes a descriptor
// of the child, its number NODE_CHANNEL_FD. The caller closes both.
func NewChannel() (ours, theirs *os.File, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make ipc channel: %w", err)
	}
	return os.NewFile(uintptr(fd[0]), "ipc"), os.NewFile(uintptr(fd[1]), "ipc of the child"), nil
}

func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	dup := -1
	if e := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate ipc channel: %w", err)
	}
	return os.NewFile(uintptr(dup), "ipc"), nil
}
