package sock

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// heard is a listening socket of this machine.
type heard struct {
	key   key
	inode uint64
}

// stranger says who listens on an overlapping address without being held by
// us, "" if nobody does.
func (h *Holder) stranger(k key) string {
	list, ns, err := listeners(k.addr.Port())
	if err != nil || k.ns != ns {
		return "" // cannot tell, or the app lives in another network than we see: the kernel decides
	}
	h.mu.Lock()
	ours := h.table.inodes()
	h.mu.Unlock()
	for _, l := range list {
		l.key.ns = ns
		if !ours[l.inode] && overlap(l.key, k) {
			return processOf(l.inode)
		}
	}
	return ""
}

// somebody is stranger for when the kernel has said that there is one.
func (h *Holder) somebody(k key) string {
	if s := h.stranger(k); s != "" {
		return s
	}
	return "another process"
}

// listeners lists the listening TCP sockets on a port, and the network
// namespace they are in.
func listeners(port uint16) ([]heard, uint64, error) {
	list, ns, err := diagListeners(port)
	if err == nil {
		return list, ns, nil
	}
	// tcp_diag may be missing (a module; some containers). The text files do
	// not tell IPV6_V6ONLY: a "::" in them counts as both families.
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		more, e := textListeners(path, port)
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			return nil, 0, errors.Join(err, e)
		}
		list = append(list, more...)
	}
	return list, ns, nil
}

// diagListeners asks sock_diag(7) for both families.
func diagListeners(port uint16) (list []heard, ns uint64, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	ns = namespace(fd)
	// The kernel answers at once; the deadline is for one that does not.
	wait := unix.NsecToTimeval(int64(2 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, ns, fmt.Errorf("set deadline of sock_diag: %w", err)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if list, err = diagFamily(fd, family, port, list); err != nil {
			return nil, ns, fmt.Errorf("ask sock_diag: %w", err)
		}
	}
	return list, ns, nil
}

func diagFamily(fd int, family uint8, port uint16, list []heard) ([]heard, error) {
	const sockDiagByFamily, stateListen = 20, 10 // <linux/sock_diag.h>, <net/tcp_states.h>
	m := make([]byte, 16+56)                     // nlmsghdr, inet_diag_req_v2
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req := m[16:]
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], 1<<stateListen)
	binary.BigEndian.PutUint16(req[8:], port) // only listeners on this port are dumped
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return list, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return list, err
		}
		for b := buf[:n]; len(b) >= 16; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < 16 || size > len(b) {
				return list, unix.EBADMSG
			}
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return list, nil
			case unix.NLMSG_ERROR:
				if size >= 20 {
					return list, unix.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))
				}
				return list, unix.EBADMSG
			}
			if l, ok := parseDiag(b[16:size]); ok && l.key.addr.Port() == port {
				list = append(list, l)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// parseDiag reads an inet_diag_msg with its attributes.
func parseDiag(b []byte) (heard, bool) {
	const header, attrV6Only = 72, 11 // INET_DIAG_SKV6ONLY: always sent for IPv6 listeners, Linux 4.2
	if len(b) < header {
		return heard{}, false
	}
	ip := netip.AddrFrom16([16]byte(b[8:24]))
	if b[0] == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(b[8:12]))
	}
	l := heard{inode: uint64(binary.NativeEndian.Uint32(b[68:]))}
	l.key.addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[4:]))
	for a := b[header:]; len(a) >= 4; {
		size := int(binary.NativeEndian.Uint16(a))
		if size < 4 || size > len(a) {
			break
		}
		if binary.NativeEndian.Uint16(a[2:]) == attrV6Only && size >= 5 {
			l.key.only6 = a[4] != 0
		}
		a = a[min((size+3)&^3, len(a)):]
	}
	return l, true
}

// textListeners reads /proc/net/tcp or tcp6 (proc_pid_net(5)).
func textListeners(path string, port uint16) ([]heard, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	defer f.Close()
	var list []heard
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if l, ok := parseText(sc.Text()); ok && l.key.addr.Port() == port {
			list = append(list, l)
		}
	}
	return list, nil
}

// parseText reads one line: addresses are 32-bit words in the machine's order.
func parseText(line string) (heard, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != "0A" {
		return heard{}, false
	}
	host, portText, _ := strings.Cut(f[1], ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	raw, err2 := hex.DecodeString(host)
	inode, err3 := strconv.ParseUint(f[9], 10, 64)
	if errors.Join(err, err2, err3) != nil || len(raw)%4 != 0 {
		return heard{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return heard{}, false
	}
	return heard{key: key{addr: netip.AddrPortFrom(ip, uint16(port))}, inode: inode}, true
}

// processOf names a process that has the socket: "process 812 (nginx)". Other
// users' descriptors are hidden from all but root.
func processOf(inode uint64) string {
	want := "socket:[" + strconv.FormatUint(inode, 10) + "]"
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return "another process"
	}
	late := time.Now().Add(2 * time.Second) // an app waits in bind() meanwhile
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if hasSocket(pid, want) {
			comm, _ := os.ReadFile("/proc/" + p.Name() + "/comm")
			return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(comm)))
		}
		if time.Now().After(late) {
			break
		}
	}
	return "another process"
}

func hasSocket(pid int, want string) bool {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	var buf [64]byte
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf[:])
		if err == nil && string(buf[:n]) == want {
			return true
		}
	}
	return false
}
