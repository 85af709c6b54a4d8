package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/bench/load"
)

// wound is the death of a process tree, and the connections that it had accepted
// then: those alone may break.
type wound struct {
	pids        []int
	from, until time.Time // it was stopped, it was killed
	peers       map[netip.AddrPort]bool
}

// behead kills a process and all its descendants while they stand still, so that
// what they have accepted, and what only waits in their queue, is known exactly.
func behead(t *testing.T, pid int) wound {
	t.Helper()
	w := wound{from: time.Now()}
	for grown := tree(pid); !slices.Equal(grown, w.pids); grown = tree(pid) { // it may have forked meanwhile
		w.pids = grown
		signal(t, w.pids, syscall.SIGSTOP)
		wait(t, "the processes stand still", func() bool { return !slices.ContainsFunc(w.pids, moves) })
	}
	w.peers = peersOf(t, w.pids)
	w.until = time.Now()
	signal(t, w.pids, syscall.SIGKILL)
	return w
}

// signal sends a signal to each; those that have gone meanwhile are fine.
func signal(t *testing.T, pids []int, sig syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if pid <= 1 {
			t.Fatalf("%s to pid %d", sig, pid)
		}
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("%s to %d: %v", sig, pid, err)
		}
	}
}

// wait waits for a condition that nobody announces, where there is no gpm.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("after %s this is not true: %s", patience, what)
		case <-tick.C:
		}
	}
}

// tree is a process and its descendants, sorted; none if it is dead.
func tree(pid int) []int {
	if !alive(pid) {
		return nil
	}
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && len(f) > 1 && f[0][0] != 'Z' {
			parents[child], _ = strconv.Atoi(string(f[1]))
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		for child, parent := range parents {
			if parent == all[i] {
				all = append(all, child)
			}
		}
	}
	slices.Sort(all)
	return all
}

// moves tells whether a thread of a process may still run.
func moves(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", pid))
	return slices.ContainsFunc(stats, func(path string) bool {
		b, err := os.ReadFile(path)
		i := bytes.LastIndexByte(b, ')')
		return err == nil && i > 0 && i+2 < len(b) && !bytes.ContainsAny(b[i+2:i+3], "TZX")
	})
}

// peersOf are the other ends of the connections that processes have. The kernel's
// table changes while it is read, so it is read twice: a row may be missed.
func peersOf(t *testing.T, pids []int) map[netip.AddrPort]bool {
	t.Helper()
	all := map[netip.AddrPort]bool{}
	for range 2 {
		for _, peer := range accepted(t, pids) {
			all[peer] = true
		}
	}
	return all
}

// sockets are the inodes of all sockets that processes have.
func sockets(pids []int) map[uint32]bool {
	all := map[uint32]bool{}
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			at, _ := os.Readlink(link)
			if rest, ok := strings.CutPrefix(at, "socket:["); ok {
				if inode, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 32); err == nil {
					all[uint32(inode)] = true
				}
			}
		}
	}
	return all
}

// unexplained are the losses that are no wound's.
func unexplained(l *load.Ledger, wounds []wound) (r []load.Loss) {
	for _, loss := range l.Losses {
		of := slices.ContainsFunc(wounds, func(w wound) bool {
			// A port may be used again: it must have been open at that very time.
			return loss.From.IsValid() && w.peers[loss.From] && loss.Began.Before(w.until) && loss.Ended.After(w.from)
		})
		silent := loss.Class != load.Reset && loss.Class != load.Empty && loss.Class != load.Cut
		if !of || silent {
			r = append(r, loss)
		}
	}
	return r
}

// onlyTheirOwn fails if anything broke that no killed process had accepted.
func onlyTheirOwn(t *testing.T, o load.Options, l *load.Ledger, wounds []wound) {
	t.Helper()
	had := 0
	for _, w := range wounds {
		had += len(w.peers)
	}
	t.Logf("%d kills; the dead had %d connections, %d of them broke:\n%v", len(wounds), had, l.Bad(), l)
	if l.Bad() != len(l.Losses) {
		t.Errorf("%d units broken, only %d are known one by one", l.Bad(), len(l.Losses))
	}
	if others := unexplained(l, wounds); len(others) > 0 {
		t.Errorf("%d units broke that no dead process had accepted, first of them:\n%s", len(others), firstLosses(others))
	}
	if l.Bad() == 0 {
		t.Error("nothing broke at all: nobody was killed in the middle of anything, this proves nothing")
	}
	loaded(t, o, l)
}
