//go:build linux

package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// killKeeper kills it and waits for the one that the daemon puts in its place.
func (r *rig) killKeeper() reply {
	r.t.Helper()
	write(r.t.(*testing.T), filepath.Join(r.home, "replace"), "")
	before := r.inventory()
	kill(r.t, before.Inv.KeeperPID)
	var after reply
	r.until("another keeper answers", func() bool {
		err := r.try(request{Op: "inventory"}, &after)
		return err == nil && after.Inv.KeeperPID != before.Inv.KeeperPID
	})
	if pid, ok := Running(r.home); !ok || pid != after.Inv.KeeperPID {
		r.t.Errorf("running: %d, %v; want %d", pid, ok, after.Inv.KeeperPID)
	}
	return after
}

func TestAfterTheKeepersDeathAnotherHasEverything(t *testing.T) {
	r := start(t, nil)
	a := r.sh("a", "sleep 1000; exit 1")
	b := r.sh("b", "read x <>/dev/null; sleep 1000")
	r.sh("ended", "exit 8")
	r.exit("ended")
	r.must(request{Op: "store", Name: "log/1", Data: "kept"})
	inv := r.killDaemon()
	names := inv.Files
	inv = r.killKeeper()
	if !slices.Contains(inv.Files, "log/1") || len(inv.Files) < len(names) {
		t.Errorf("got files %q, had %q", inv.Files, names)
	}
	if got := r.must(request{Op: "read", Name: "log/1"}).Data; got != "kept" {
		t.Errorf("log/1 holds %q", got)
	}
	if e := r.exit("ended"); e.Code != 8 {
		t.Errorf("the exit is %+v, want code 8", e)
	}
	for _, c := range inv.Children {
		if c.Exit == nil && !c.Adopted {
			t.Errorf("%+v is not adopted", c)
		}
	}
	kill(t, a.PID)
	checkAdopted(t, r.exit("a"), Exit{Code: -1, Signal: syscall.SIGKILL})
	c := r.sh("c", "exit 3") // the new keeper spawns
	if e := r.exit("c"); e.Code != 3 || e.PID != c.PID {
		t.Errorf("got %+v, want code 3", e)
	}
	inv = r.killKeeper() // and can be replaced as well
	if !slices.ContainsFunc(inv.Children, func(c Child) bool { return c.PID == b.PID && c.Exit == nil }) {
		t.Errorf("%d is not among %+v", b.PID, inv.Children)
	}
	if other := launch(t, r.home, nil); other.wait() != ExitBusy {
		t.Errorf("another keeper can start: %q", other.stderr)
	}
}

// checkAdopted compares what could be seen: an old kernel does not tell how a
// process ended that is nobody's child here.
func checkAdopted(t *testing.T, got, want Exit) {
	t.Helper()
	if got.Unknown {
		t.Logf("this kernel does not tell how an adopted process ended")
		return
	}
	if got.Code != want.Code || got.Signal != want.Signal {
		t.Errorf("got %+v, want code %d, signal %v", got, want.Code, want.Signal)
	}
}

func TestHeldListenersOutliveTheKeeper(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	first := r.app("web/0", true, "serve", addr)
	serves(t, addr)
	// An app of the first keeper that binds only when the second is there.
	gate, later := filepath.Join(t.TempDir(), "gate"), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	r.must(request{Op: "spawn", Tag: "late", Filtered: true, Argv: []string{"/bin/sh", "-c", "cat " + gate + "; exec " + self() + " app serve " + later}})
	inv := r.killKeeper()
	if pid := served(addr); pid != first.PID {
		t.Errorf("served by %d, want the unharmed %d", pid, first.PID)
	}
	if n := len(filters(inv.Files)); n != 2 {
		t.Errorf("got files %q, want two notify descriptors", inv.Files)
	}
	write(t, gate, "go")
	serves(t, later)
	if traps := r.must(request{Op: "traps", Count: 2}).Traps; traps[0].Tag != "late" || traps[0].Address.String() != later {
		t.Errorf("the late app's bind is %+v", traps[0])
	}
	kill(t, first.PID)
	r.exit("web/0")
	second := r.app("web/0", true, "serve", addr)
	if pid := serves(t, addr); pid != second.PID {
		t.Errorf("served by %d, want %d", pid, second.PID)
	}
	for _, c := range r.inventory().Children {
		if c.Tag == "late" {
			kill(t, c.PID)
		}
	}
	r.until("the old notify descriptor goes with its last process", func() bool {
		return len(filters(r.killDaemon().Files)) == 1
	})
}

func filters(names []string) (found []string) {
	for _, n := range names {
		if len(n) > len(NotifyPrefix) && n[:len(NotifyPrefix)] == NotifyPrefix {
			found = append(found, n)
		}
	}
	return found
}

func TestATrapSurvivesTheKeeper(t *testing.T) {
	r := holding(t, nil)
	silent := filepath.Join(r.home, "silent")
	write(t, silent, "")
	r.killDaemon()
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := r.app("web/0", true, "serve", addr)
	r.must(request{Op: "traps", Count: 1})
	if err := os.Remove(silent); err != nil {
		t.Fatal(err)
	}
	r.killKeeper()
	if pid := serves(t, addr); pid != c.PID {
		t.Errorf("served by %d, want %d", pid, c.PID)
	}
}

func TestALiveProcessIsAdopted(t *testing.T) {
	r := start(t, nil)
	for _, c := range []struct {
		command string
		want    Exit
	}{
		{"read x; exit 42", Exit{Code: 42}},
		{"read x; kill -TERM $$", Exit{Code: -1, Signal: syscall.SIGTERM}},
	} {
		cmd := exec.Command("/bin/sh", "-c", c.command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		st, err := readStat(pid)
		if err != nil {
			t.Fatal(err)
		}
		if a := r.ask(request{Op: "adopt", PID: pid, Start: st.start + 1, Tag: "x"}); a.Errno != unix.ESRCH {
			t.Errorf("adopting another start time: %q", a.Err)
		}
		a := r.must(request{Op: "adopt", PID: pid, Start: st.start, Tag: c.command})
		if !a.Child.Adopted || a.Child.PID != pid {
			t.Errorf("adopted %+v", a.Child)
		}
		r.must(request{Op: "adopt", PID: pid, Start: st.start, Tag: c.command}) // again is no error
		in.Close()
		checkAdopted(t, r.exit(c.command), c.want)
		_ = cmd.Wait()
	}
	if a := r.ask(request{Op: "adopt", PID: 1, Start: 0, Tag: "x"}); a.Err == "" {
		t.Error("process 1 can be adopted")
	}
}

func TestAnOrphanOfOursIsAdoptedWithItsExit(t *testing.T) {
	r := start(t, nil)
	dir := t.TempDir()
	gate, pidFile := filepath.Join(dir, "gate"), filepath.Join(dir, "pid")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	r.sh("parent", "setsid sh -c 'cat "+gate+"; exit 11' & echo $! >"+pidFile)
	r.exit("parent")
	var pid int
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	r.must(request{Op: "adopt", PID: pid, Start: st.start, Tag: "orphan"})
	write(t, gate, "go")
	if e := r.exit("orphan"); e.Code != 11 || e.Unknown {
		t.Errorf("got %+v, want code 11", e)
	}
}
