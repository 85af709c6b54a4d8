package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// with runs f on the descriptor of a file without touching its O_NONBLOCK.
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

// errnoOf is the errno in an error of with; one without (the file was closed)
// counts as EBADF.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return unix.EBADF
}

// describe reads what makes a socket this socket. The address is the caller's.
func describe(file *os.File) (*entry, error) {
	e := &entry{gens: map[int]bool{}}
	err := with(file, func(fd int) error {
		var err error
		if e.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
			return err
		}
		reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err != nil {
			return err
		}
		readdr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		if err != nil {
			return err
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return err
		}
		var only int
		if domain == unix.AF_INET6 {
			if only, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil {
				return err
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		e.shared, e.reuse, e.mptcp = reuse != 0, readdr != 0, protocol == unix.IPPROTO_MPTCP
		e.inode, e.uid = st.Ino, int(st.Uid)
		e.key.only6, e.key.ns = only != 0, namespace(fd)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at socket: %w", err)
	}
	return e, nil
}

// namespace is the network namespace of a socket; zero before Linux 5.14,
// where all count as one.
func namespace(fd int) uint64 {
	ns, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return ns
}

// here is the network namespace of this process.
var here = sync.OnceValue(func() uint64 {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	return namespace(fd)
})

// chown gives a socket to another user, as far as SO_REUSEPORT is concerned:
// sockfs sets sk_uid, too (Linux 4.10). It takes CAP_CHOWN.
func chown(file *os.File, uid int) error {
	return with(file, func(fd int) error { return unix.Fchown(fd, uid, -1) })
}

// sharePort sets SO_REUSEPORT.
func sharePort(file *os.File) error {
	return with(file, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
}

// bindShared binds with SO_REUSEPORT. A socket that has the address already
// was bound by a daemon that died before it could answer.
func bindShared(file *os.File, addr netip.AddrPort) unix.Errno {
	if err := sharePort(file); err != nil {
		return errnoOf(err)
	}
	return errnoOf(with(file, func(fd int) error {
		sa, err := sockaddr(fd, addr)
		if err != nil {
			return err
		}
		err = unix.Bind(fd, sa)
		if err == unix.EINVAL {
			if now, e := sockname(fd); e == nil && now == addr {
				return nil
			}
		}
		return err
	}))
}

func listenOn(file *os.File, queue int) unix.Errno {
	return errnoOf(with(file, func(fd int) error { return unix.Listen(fd, queue) }))
}

// accepts tells whether a socket is listening.
func accepts(file *os.File) (bool, error) {
	var n int
	err := with(file, func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err
	})
	return n != 0, err
}

// copyNonblock gives the held socket the O_NONBLOCK of the app's fresh one,
// which is about to be replaced. If another process still uses the held one,
// the flag is only set, never cleared: an event loop whose socket suddenly
// blocks stands still in accept(). A program of the same kind will soon set it
// anyway, as its predecessor did.
func copyNonblock(fresh, held *os.File, inUse bool) error {
	var want int
	err := with(fresh, func(fd int) (err error) {
		want, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	})
	if err == nil {
		err = with(held, func(fd int) error {
			have, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil {
				return err
			}
			next := have&^unix.O_NONBLOCK | want&unix.O_NONBLOCK
			if next == have || inUse && next&unix.O_NONBLOCK == 0 {
				return nil
			}
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, next)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("copy O_NONBLOCK: %w", err)
	}
	return nil
}

func boundTo(file *os.File) (addr netip.AddrPort, err error) {
	err = with(file, func(fd int) error {
		addr, err = sockname(fd)
		return err
	})
	return addr, err
}

func sockname(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 && !ip.Is4In6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// sockaddr writes addr for the family of the socket.
func sockaddr(fd int, addr netip.AddrPort) (unix.Sockaddr, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, err
	}
	ip := addr.Addr()
	if domain == unix.AF_INET {
		if !ip.Is4() {
			return nil, unix.EAFNOSUPPORT
		}
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}, nil
	}
	if domain != unix.AF_INET6 || ip.Is4() {
		return nil, unix.EAFNOSUPPORT
	}
	sa := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			sa.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		}
	}
	return sa, nil
}

// newSocket makes a TCP socket for addr, blocking, as LISTEN_FDS hands them
// out, and outside the runtime poller: else every connection that comes to the
// app would wake up gpm as well.
func newSocket(addr netip.AddrPort) (*os.File, error) {
	domain := unix.AF_INET6
	if addr.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "listener "+addr.String())
	// As every server does: a restart must not wait for old connections in TIME_WAIT.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		f.Close()
		return nil, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	return f, nil
}

func unspecified4(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// resolve reads "host:port". No host means all addresses, IPv4 and IPv6; a
// name means its first address, IPv4 before IPv6.
func resolve(hostport string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if port == 0 {
		return netip.AddrPort{}, errors.New("port 0 is another port each time and cannot be held")
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip, uint16(port)), nil
	}
	for _, network := range []string{"ip4", "ip6"} {
		var ips []netip.Addr
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, network, host); err == nil && len(ips) > 0 {
			return netip.AddrPortFrom(ips[0].Unmap(), uint16(port)), nil
		}
	}
	return netip.AddrPort{}, err
}
