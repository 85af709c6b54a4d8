package streams

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listen returns a listener with its inode and the namespace cookie it has.
func listen(t *testing.T, network, addr string, backlog int) (l *net.TCPListener, inode, ns uint64) {
	t.Helper()
	l0, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l0.Close() })
	l = l0.(*net.TCPListener)
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	raw.Control(func(fd uintptr) {
		if err = syscall.Fstat(int(fd), &st); err == nil {
			err = syscall.Listen(int(fd), backlog)
		}
		ns, _ = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, st.Ino, ns
}

func TestListeners(t *testing.T) {
	needIPv6(t)
	for _, c := range []struct {
		network, addr, shown string
		only6                bool
	}{
		{"tcp4", "127.0.0.1:0", "127.0.0.1", false},
		{"tcp4", "0.0.0.0:0", "0.0.0.0", false},
		{"tcp6", "[::1]:0", "::1", true},
		{"tcp6", "[::]:0", "::", true},
		{"tcp", "[::]:0", "::", false},
	} {
		l, inode, ns := listen(t, c.network, c.addr, 7)
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		want := Listener{Addr: netip.AddrPortFrom(netip.MustParseAddr(c.shown), port), Only6: c.only6, Inode: inode, Max: 7}
		list, gotNS, err := Listeners(port)
		if err != nil || len(list) != 1 || list[0] != want || gotNS != ns {
			t.Errorf("%s %s: %+v in %d, %v; want %+v in %d", c.network, c.addr, list, gotNS, err, want, ns)
		}
		all, _, err := Listeners()
		if err != nil || !slices.Contains(all, want) {
			t.Errorf("%s %s: not among all: %v", c.network, c.addr, err)
		}
		l.Close()
		if list, _, err := Listeners(port); err != nil || len(list) != 0 {
			t.Errorf("%s %s: closed, and still there: %+v, %v", c.network, c.addr, list, err)
		}
	}
}

func TestListenersOfSomePorts(t *testing.T) {
	a, _, _ := listen(t, "tcp4", "127.0.0.1:0", 7)
	b, _, _ := listen(t, "tcp4", "127.0.0.1:0", 7)
	c, _, _ := listen(t, "tcp4", "127.0.0.1:0", 7)
	port := func(l *net.TCPListener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }
	list, _, err := Listeners(port(c), port(a), port(c))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, l := range list {
		if l.Addr.Port() == port(b) {
			t.Errorf("not asked for: %+v", l)
		}
	}
}

// The text files show the same, but for what is not in them.
func TestTextListeners(t *testing.T) {
	needIPv6(t)
	four, inode4, _ := listen(t, "tcp4", "127.0.0.1:0", 7)
	six, inode6, _ := listen(t, "tcp6", "[::1]:0", 7)
	dialTo(t, "127.0.0.1", uint16(four.Addr().(*net.TCPAddr).Port), 2)
	for path, want := range map[string]Listener{
		"/proc/net/tcp":  {Addr: four.Addr().(*net.TCPAddr).AddrPort(), Inode: inode4, Queue: 2},
		"/proc/net/tcp6": {Addr: six.Addr().(*net.TCPAddr).AddrPort(), Inode: inode6},
	} {
		until(t, path+" shows it", func() bool {
			list, err := textListeners(path, question{ports: []uint16{want.Addr.Port()}})
			if err != nil || len(list) != 1 || list[0].Inode != want.Inode || list[0].Addr != want.Addr {
				t.Fatalf("%s: %+v, %v; want %+v", path, list, err, want)
			}
			return list[0] == want
		})
	}
	if _, err := textListeners("/proc/net/none", question{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestMalformedSocket(t *testing.T) {
	good := make([]byte, 72)
	for name, b := range map[string][]byte{
		"empty":              {},
		"cut":                good[:71],
		"attribute too long": append(slices.Clone(good), 9, 0, 2, 0),
		"attribute of 0":     append(slices.Clone(good), 0, 0, 2, 0, 0, 0, 0, 0),
	} {
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 && len(b) > 72 {
			continue // written for a little endian machine
		}
		if err := new(socket).decode(b); err == nil {
			t.Errorf("%s: taken for a socket", name)
		}
	}
	if err := new(socket).decode(good); err != nil {
		t.Error(err)
	}
}

// FuzzDecode: whatever comes, it is a socket or an error.
func FuzzDecode(f *testing.F) {
	conn, err := dial()
	if err != nil {
		f.Skip(err)
	}
	defer conn.Close()
	n := 0
	ask(conn, question{states: allListeners | allStreams, info: true}, func(s *socket) {
		if n++; n <= 8 { // real ones, put together again
			b := append([]byte{s.family, s.state, 0, 0}, s.id[:]...)
			b = append(b, make([]byte, 20)...)
			b = binary.NativeEndian.AppendUint16(b, uint16(4+len(s.info)))
			b = binary.NativeEndian.AppendUint16(b, attrInfo)
			f.Add(append(b, s.info...))
		}
	})
	f.Add(append(make([]byte, 72), 5, 0, attrV6Only, 0, 1, 0, 0, 0))
	f.Add(append(make([]byte, 72), 4, 0, attrV6Only, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s socket
		if err := s.decode(b); err != nil {
			if len(b) == 72 {
				t.Errorf("a socket without attributes: %v", err)
			}
			return
		}
		if len(b) < 72 || len(s.info) > len(b)-76 && s.info != nil {
			t.Errorf("%d bytes: info of %d", len(b), len(s.info))
		}
		if l := s.listener(); l.Addr.Port() != s.port || !l.Addr.Addr().IsValid() {
			t.Errorf("%+v", l)
		}
		if a := s.activity(); a.quiet > a.sent || a.quiet < 0 {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzParseText(f *testing.F) {
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		if l, ok := parseText(line); ok && !l.Addr.Addr().IsValid() {
			t.Errorf("%q: %+v", line, l)
		}
	})
}
