package load

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// sourceIPs are the addresses to connect from. All of 127.0.0.0/8 is this
// machine on Linux without any setup; 127.0.1.x leaves alone 127.77.x.x, by
// which gpm reaches one certain instance. Nil: let the kernel choose.
func sourceIPs(addr string) []net.IP {
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host).To4()
	if ip == nil || !ip.IsLoopback() {
		return nil
	}
	var out []net.IP
	for i := byte(1); i <= 8; i++ {
		out = append(out, net.IPv4(127, 0, 1, i))
	}
	return out
}

// latePort makes the kernel choose the source port at connect() instead of
// bind(): a port is then taken for one destination only (Linux 4.2).
func latePort(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	if ctlErr != nil {
		return ctlErr
	}
	return err
}
