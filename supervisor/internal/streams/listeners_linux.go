package streams

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Listeners lists the TCP sockets that listen on these ports, on all of them if
// none is given, in the network namespace of the caller. ns is that namespace
// (SO_NETNS_COOKIE), 0 on a kernel that has no such thing (before 5.14); it is
// true even if there is an error. Where tcp_diag is missing the list comes from
// /proc/net, with less in it: see Listener.
func Listeners(ports ...uint16) (list []Listener, ns uint64, err error) {
	q := question{states: allListeners, ports: sorted(ports)}
	conn, err := dial()
	if err == nil {
		defer conn.Close()
		ns = namespace(conn)
		err = ask(conn, q, func(s *socket) { list = append(list, s.listener()) })
		if err == nil {
			return list, ns, nil
		}
	}
	// tcp_diag is a module, and some containers cannot load it.
	list = nil
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		more, e := textListeners(path, q)
		if e != nil && !errors.Is(e, os.ErrNotExist) { // tcp6: no IPv6 here
			return nil, ns, errors.Join(err, e)
		}
		list = append(list, more...)
	}
	return list, ns, nil
}

func sorted(ports []uint16) []uint16 {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return slices.Compact(ports)
}

// namespace is the network namespace of conn: the one that it shows.
func namespace(conn *netlink.Conn) (ns uint64) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if v, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			ns = v
		}
	})
	return ns
}

// textListeners reads /proc/net/tcp or tcp6 (proc_pid_net(5)).
func textListeners(path string, q question) ([]Listener, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	defer f.Close()
	var list []Listener
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if l, ok := parseText(lines.Text()); ok && q.has(l.Addr.Port()) {
			list = append(list, l)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	return list, nil
}

// parseText reads one line: addresses are 32-bit words in the machine's order.
func parseText(line string) (Listener, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != "0A" {
		return Listener{}, false
	}
	host, portText, _ := strings.Cut(f[1], ":")
	_, queueText, _ := strings.Cut(f[4], ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	queue, err2 := strconv.ParseUint(queueText, 16, 32)
	raw, err3 := hex.DecodeString(host)
	inode, err4 := strconv.ParseUint(f[9], 10, 64)
	if errors.Join(err, err2, err3, err4) != nil || len(raw)%4 != 0 {
		return Listener{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return Listener{}, false
	}
	return Listener{Addr: netip.AddrPortFrom(ip, uint16(port)), Inode: inode, Queue: int(queue)}, true
}
