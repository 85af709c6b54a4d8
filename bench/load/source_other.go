//go:build !linux

package load

import (
	"net"
	"syscall"
)

// sourceIPs lets the kernel choose: other systems have no 127.0.1.x.
func sourceIPs(string) []net.IP { return nil }

func latePort(_, _ string, _ syscall.RawConn) error { return nil }
