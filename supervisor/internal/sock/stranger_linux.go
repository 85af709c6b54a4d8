package sock

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/streams"
)

// stranger says who listens on an overlapping address without being held by
// us, "" if nobody does.
func (h *Holder) stranger(k key) string {
	list, ns, err := streams.Listeners(k.addr.Port())
	if err != nil || k.ns != ns {
		return "" // cannot tell, or the app lives in another network than we see: the kernel decides
	}
	h.mu.Lock()
	ours := h.table.inodes()
	h.mu.Unlock()
	for _, l := range list {
		if !ours[l.Inode] && overlap(key{l.Addr, l.Only6, ns}, k) {
			return processOf(l.Inode)
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
