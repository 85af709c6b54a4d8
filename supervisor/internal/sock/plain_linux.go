package sock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// substitute puts a plain TCP socket into e in place of the app's multipath one
// (MPTCP, the default of Go's servers since 1.24), which no program can steer.
// Clients notice nothing: one that asks for more than one path gets one. False:
// it was not needed or cannot be; the app's own socket does, unsteered.
func (h *Holder) substitute(o Owner, e *entry) bool {
	if !e.mptcp || !h.steered() {
		return false
	}
	h.mu.Lock()
	kin := h.table.kin(o.App, e.key, e.cookie)
	h.mu.Unlock()
	if kin != nil && kin.mptcp {
		// Of an earlier gpm. In a group with both kinds the program would find
		// only the plain one.
		return false
	}
	plain, err := plainTwin(e)
	if err != nil {
		return false
	}
	twin, err := describe(plain)
	if err != nil {
		plain.Close()
		return false
	}
	e.file, e.mptcp = plain, false
	e.cookie, e.inode, e.uid = twin.cookie, twin.inode, twin.uid
	return true
}

// option is a socket option with an int as its value.
type option struct{ level, name int }

// inherited are the options that a server may have set before bind() and that
// mean something for a listener or go over to what it accepts.
var inherited = []option{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX},
	{unix.SOL_SOCKET, unix.SO_RCVBUF},
	{unix.SOL_SOCKET, unix.SO_SNDBUF},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_FREEBIND},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND},
	{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
}

// plainTwin makes a TCP socket like that of e, not bound yet.
func plainTwin(e *entry) (*os.File, error) {
	var twin *os.File
	err := with(e.file, func(fd int) error {
		if now, err := sockname(fd); err != nil || now.Port() != 0 {
			return fmt.Errorf("replace socket: bound to %s already: %w", now, unix.EINVAL)
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		// O_NONBLOCK only after os.NewFile, which would take it for a wish to be polled.
		s, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		twin = os.NewFile(uintptr(s), "listener "+e.key.addr.String())
		if err := copyOptions(fd, s); err != nil {
			return err
		}
		if err := unix.SetNonblock(s, flags&unix.O_NONBLOCK != 0); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(s, &st); err != nil || int(st.Uid) == e.uid {
			return err
		}
		return unix.Fchown(s, e.uid, -1)
	})
	if err != nil && twin != nil {
		twin.Close()
		twin = nil
	}
	return twin, err
}

// copyOptions sets what differs. A multipath socket does not tell all of them;
// what it tells must be kept, or the app does not get what it asked for.
func copyOptions(from, to int) error {
	for _, o := range inherited {
		want, err := unix.GetsockoptInt(from, o.level, o.name)
		if err != nil {
			continue
		}
		have, err := unix.GetsockoptInt(to, o.level, o.name)
		if err != nil || have == want {
			continue
		}
		if o.name == unix.SO_RCVBUF && o.level == unix.SOL_SOCKET || o.name == unix.SO_SNDBUF && o.level == unix.SOL_SOCKET {
			want /= 2 // the kernel doubles what is asked for, socket(7)
		}
		if err := unix.SetsockoptInt(to, o.level, o.name, want); err != nil {
			return fmt.Errorf("copy socket option %d of level %d: %w", o.name, o.level, err)
		}
	}
	return nil
}
