package proc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Kind is how the processes of a tree are found again.
type Kind string

// The kinds of trees.
const (
	// Cgroup: each tree is a cgroup v2 folder. Nothing escapes by forking.
	Cgroup Kind = "cgroup"
	// Session: a tree is the descendants of its root, its session, and whoever
	// carries its name in the environment. A process escapes that leaves all
	// three: a daemon (setsid, parent gone) with a cleared environment that
	// did so before it was seen once.
	Session Kind = "session"
)

// Options says where and how a forest grows.
type Options struct {
	// Name tells two gpms of one machine apart; it becomes a folder name and a
	// part of the environment marker.
	Name string
	// Force takes one kind and nothing else; empty: the best there is.
	Force Kind
}

// marker is the environment variable that every process of a tree inherits.
const marker = "GPM_TREE"

// killWait is how long Kill waits if its context has no deadline. SIGKILL
// needs microseconds unless a process hangs in the kernel (a dead disk).
const killWait = 10 * time.Second

// folder turns any name into a safe file name of bounded length: letters,
// digits, '-' and '_' stay, the rest is %XX. It cannot look like one of the
// kernel's own files ("cgroup.kill"), as those have a dot.
func folder(prefix, name string) string {
	const longest = 200 // NAME_MAX is 255
	var b strings.Builder
	b.WriteString(prefix)
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() <= longest {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	return b.String()[:longest] + "%" + hex.EncodeToString(sum[:8])
}
