package aim

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestIPv4(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	d := IPv4(0x102).Dialer()
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); got != netip.MustParseAddr("127.77.1.2") {
		t.Errorf("from %v", got)
	}
}

// A connection that is begun behind net's back is as good as any: it carries
// data both ways, is refused, and is given up in time. (That the mark arrives is
// for the tests of steering.)
func TestIPv6(t *testing.T) {
	l := listen(t, "[::1]:0")
	d := IPv6(3).Dialer()
	for range 100 {
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range [][2]net.Conn{{c, s}, {s, c}} {
			if _, err := way[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if n, err := way[1].Read(make([]byte, 2)); n != 1 || err != nil {
				t.Fatalf("read %d, %v", n, err)
			}
		}
		c.Close()
		s.Close()
	}
	l.Close()
	if _, err := d.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := d.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Error("an IPv4 connection has no label")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.DialContext(ctx, "tcp", listen(t, "[::1]:0").Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A full accept queue answers nobody: the wait ends.
func TestIPv6Timeout(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.IPv6Loopback(), uint16(name.(*syscall.SockaddrInet6).Port)).String()
	d := IPv6(3).Dialer()
	d.Timeout = 50 * time.Millisecond
	for range 4 { // one waits to be accepted; who is beyond it gets no answer
		var c net.Conn
		if c, err = d.Dial("tcp", to); err != nil {
			break
		}
		defer c.Close()
	}
	if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("a full queue: %v", err)
	}
}
