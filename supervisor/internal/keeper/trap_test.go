//go:build linux

package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gpm/supervisor/internal/trap"
)

// holding is start of a keeper that can trap calls.
func holding(t testing.TB, change func(*exec.Cmd)) *rig {
	t.Helper()
	r := start(t, change)
	if hold := r.inventory().Inv.Hold; hold != "" {
		t.Skipf("this machine cannot hold listeners: %s", hold)
	}
	return r
}

// serves waits until addr is answered by a process and returns its pid.
func serves(t testing.TB, addr string) (pid int) {
	t.Helper()
	until(t, addr+" is served", func() bool { pid = served(addr); return pid != 0 })
	return pid
}

func TestAnUnmodifiedAppIsTrapped(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := r.app("web/0", true, "serve", addr)
	traps := r.must(request{Op: "traps", Count: 2}).Traps
	if pid := serves(t, addr); pid != c.PID {
		t.Errorf("served by %d, want %d", pid, c.PID)
	}
	bind, listen := traps[0], traps[1]
	if bind.Call != trap.Bind || bind.Address.String() != addr || bind.Tag != "web/0" || bind.PID != c.PID || bind.Child != c.PID || !bind.CloseOnExec {
		t.Errorf("bind is %+v", bind)
	}
	if listen.Call != trap.Listen || listen.Address.String() != addr || listen.Backlog <= 0 || listen.FD != bind.FD {
		t.Errorf("listen is %+v", listen)
	}
}

func TestAGrandchildIsOfItsChild(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	sh := r.must(request{Op: "spawn", Tag: "wrapped", Filtered: true, Argv: []string{"/bin/sh", "-c", self() + " app serve " + addr + "; :"}}).Child
	pid := serves(t, addr)
	if b := r.must(request{Op: "traps", Count: 1}).Traps[0]; b.Tag != "wrapped" || b.Child != sh.PID || b.PID != pid || pid == sh.PID {
		t.Errorf("got %+v; the shell is %d, the server %d", b, sh.PID, pid)
	}
}

func TestAnUnfilteredAppIsNot(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := r.app("plain", false, "serve", addr)
	serves(t, addr)
	if traps := r.must(request{Op: "traps"}).Traps; len(traps) != 0 {
		t.Errorf("trapped: %+v", traps)
	}
	if s := status(c.PID, "Seccomp_filters"); s != status(os.Getpid(), "Seccomp_filters") {
		t.Errorf("the app has %s filters", s)
	}
}

func TestOnlyTheSpawnerThreadIsFiltered(t *testing.T) {
	r := holding(t, nil)
	r.must(request{Op: "bench", Count: 300, Filtered: true})
	r.must(request{Op: "bench", Count: 300})
	r.killDaemon()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	own, filtered := status(os.Getpid(), "Seccomp_filters"), 0
	for _, task := range tasks {
		var tid int
		_, _ = fmt.Sscan(task.Name(), &tid)
		if s := status(tid, "Seccomp_filters"); s != own && s != "" {
			filtered++
		}
	}
	if filtered != 1 {
		t.Errorf("%d of %d threads are filtered, want 1", filtered, len(tasks))
	}
	if s := status(r.inventory().PID, "Seccomp_filters"); s != own {
		t.Errorf("the daemon has %s filters", s)
	}
}

func TestTwoAppsShareAPort(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	a, b := r.app("web/0", true, "serve", addr), r.app("web/1", true, "serve", addr)
	r.must(request{Op: "traps", Count: 4})
	seen := map[int]bool{}
	until(t, "both apps serve", func() bool { seen[served(addr)] = true; return seen[a.PID] && seen[b.PID] })
}

func TestAConnectionWaitsForTheNextProcess(t *testing.T) {
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	first := r.app("web/0", true, "serve", addr)
	serves(t, addr)
	kill(t, first.PID)
	r.exit("web/0")
	answer := make(chan int)
	go func() { answer <- served(addr) }() // connects while no process is there
	r.killDaemon()
	second := r.app("web/0", true, "serve", addr)
	if pid := <-answer; pid != second.PID {
		t.Errorf("served by %d, want the second process %d", pid, second.PID)
	}
}

func TestAnOutstandingTrapSurvivesTheDaemon(t *testing.T) {
	r := holding(t, nil)
	silent := filepath.Join(r.home, "silent")
	write(t, silent, "")
	r.killDaemon()
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := r.app("web/0", true, "serve", addr)
	first := r.must(request{Op: "traps", Count: 1}).Traps[0]
	r.killDaemon()
	again := r.must(request{Op: "traps", Count: 1}).Traps[0]
	if again.Serial != first.Serial || again.Address != first.Address {
		t.Errorf("got %+v, want %+v again", again, first)
	}
	if err := os.Remove(silent); err != nil {
		t.Fatal(err)
	}
	r.killDaemon()
	if pid := serves(t, addr); pid != c.PID {
		t.Errorf("served by %d, want %d", pid, c.PID)
	}
}

func TestATrapOfADeadProcessIsForgotten(t *testing.T) {
	r := holding(t, nil)
	write(t, filepath.Join(r.home, "silent"), "")
	r.killDaemon()
	c := r.app("web/0", true, "serve", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	r.must(request{Op: "traps", Count: 1})
	before := descriptors(r.cmd.Process.Pid)
	kill(t, c.PID)
	r.exit("web/0")
	if after := descriptors(r.cmd.Process.Pid); after >= before {
		t.Errorf("the keeper had %d descriptors, and still has %d", before, after)
	}
	r.killDaemon()
	if traps := r.must(request{Op: "traps"}).Traps; len(traps) != 0 {
		t.Errorf("the next daemon got %+v", traps)
	}
}

func descriptors(pid int) int {
	e, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(e)
}

func TestInterruptedBindsSucceed(t *testing.T) {
	r := holding(t, nil)
	r.app("storm", true, "interrupted", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if e := r.exit("storm"); e.Code != 0 {
		t.Errorf("got %+v, want code 0", e)
	}
}

func TestAnOrdinaryUserHolds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	home := publicDir(t)
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	r := launch(t, home, asNobody(t))
	if r.stderr != "" {
		t.Fatal(r.stderr)
	}
	defer r.end()
	inv := r.inventory().Inv
	if inv.Hold != "" || !inv.NoNewPrivs {
		t.Fatalf("hold %q, no_new_privs %v", inv.Hold, inv.NoNewPrivs)
	}
	exe := "/proc/" + fmt.Sprint(inv.KeeperPID) + "/exe"
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	spawn := func(tag string, filtered bool, args ...string) *Child {
		return r.must(request{Op: "spawn", Tag: tag, Filtered: filtered, Argv: append([]string{exe, "app"}, args...)}).Child
	}
	first := spawn("web/0", true, "serve", addr)
	if pid := serves(t, addr); pid != first.PID {
		t.Errorf("served by %d, want %d", pid, first.PID)
	}
	if status(first.PID, "NoNewPrivs") != "1" || status(r.inventory().PID, "NoNewPrivs") != "0" {
		t.Error("no_new_privs is not that of filtered apps alone")
	}
	kill(t, first.PID)
	r.exit("web/0")
	second := spawn("web/0", true, "serve", addr)
	if pid := serves(t, addr); pid != second.PID {
		t.Errorf("after the restart served by %d, want %d", pid, second.PID)
	}
}

func TestRootNeedsNoNewPrivsNot(t *testing.T) {
	r := holding(t, nil)
	if os.Geteuid() == 0 && r.inventory().Inv.NoNewPrivs {
		t.Error("no_new_privs is set")
	}
}

func TestAnAppOfAnotherUserIsHeld(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to start an app as another user")
	}
	r := holding(t, nil)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	copied := &exec.Cmd{SysProcAttr: &syscall.SysProcAttr{}}
	asNobody(t)(copied)
	c := r.must(request{
		Op: "spawn", Tag: "web/0", Filtered: true, Cred: &Credential{UID: nobody, GID: nobody},
		Argv: []string{copied.Path, "app", "serve", addr},
	}).Child
	if pid := serves(t, addr); pid != c.PID {
		t.Errorf("served by %d, want %d", pid, c.PID)
	}
	if uid := status(c.PID, "Uid"); !strings.HasPrefix(uid, fmt.Sprint(nobody)) {
		t.Errorf("the app runs as %s", uid)
	}
	if got := len(r.must(request{Op: "traps", Count: 2}).Traps); got != 2 {
		t.Errorf("%d traps, want 2", got)
	}
}

func TestAKeeperInsideAFilteredAppSaysWhyItCannotHold(t *testing.T) {
	r := holding(t, nil)
	inner := t.TempDir()
	r.must(request{Op: "spawn", Tag: "inner", Filtered: true, Env: append(os.Environ(), envHome+"="+inner), Argv: []string{self(), "keeper"}})
	in := &rig{t: t, home: inner, cmd: exec.Command("true")}
	var first reply
	r.until("the inner daemon answers", func() bool { return in.try(request{Op: "inventory"}, &first) == nil })
	inv := first.Inv
	if !strings.Contains(inv.Hold, "gpm inside gpm") {
		t.Errorf("the inner keeper's reason is %q", inv.Hold)
	}
	if a := in.ask(request{Op: "spawn", Tag: "x", Filtered: true, Argv: []string{"/bin/true"}}); !a.NoHold {
		t.Errorf("a filtered spawn gives %q", a.Err)
	}
	in.sh("y", "exit 4")
	if e := in.exit("y"); e.Code != 4 {
		t.Errorf("got %+v, want code 4", e)
	}
	in.end()
}

func TestHoldingCanBeSwitchedOff(t *testing.T) {
	r := start(t, func(c *exec.Cmd) { c.Env = append(c.Env, envNoHold+"=1") })
	if hold := r.inventory().Inv.Hold; hold != "GPM_NO_HOLD is set" {
		t.Errorf("the reason is %q", hold)
	}
	a := r.ask(request{Op: "spawn", Tag: "x", Filtered: true, Argv: []string{"/bin/true"}})
	if want := "cannot hold listeners: GPM_NO_HOLD is set"; a.Err != want || !a.NoHold {
		t.Errorf("got %q, want %q", a.Err, want)
	}
}
