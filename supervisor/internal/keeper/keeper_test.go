//go:build linux

package keeper

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExitsKeepCodeAndSignal(t *testing.T) {
	r := start(t, nil)
	r.sh("code", "exit 42")
	r.sh("fine", "true")
	killed := r.sh("signal", "kill -SEGV $$")
	if e := r.exit("code"); e.Code != 42 || e.Signal != 0 || e.Tag != "code" || e.Unknown {
		t.Errorf("got %+v, want code 42", e)
	}
	if e := r.exit("fine"); e.Code != 0 || e.Signal != 0 {
		t.Errorf("got %+v, want code 0", e)
	}
	if e := r.exit("signal"); e.Code != -1 || e.Signal != syscall.SIGSEGV || e.PID != killed.PID {
		t.Errorf("got %+v, want SIGSEGV of %d", e, killed.PID)
	}
}

func TestAnExitIsToldUntilItIsAcknowledged(t *testing.T) {
	r := start(t, nil)
	c := r.sh("a", "exit 7")
	r.exit("a")
	for range 2 {
		if inv := r.killDaemon(); len(inv.Children) != 1 || inv.Children[0].Exit == nil || inv.Children[0].Exit.Code != 7 {
			t.Fatalf("the next daemon got %+v", inv.Children)
		}
	}
	r.must(request{Op: "ack", PID: c.PID})
	if inv := r.killDaemon(); len(inv.Children) != 0 {
		t.Errorf("after the acknowledgement the next daemon got %+v", inv.Children)
	}
	if a := r.ask(request{Op: "ack", PID: c.PID}); a.Err == "" {
		t.Error("an exit can be acknowledged twice")
	}
}

func TestAnExitWhileThereIsNoDaemonIsDelivered(t *testing.T) {
	r := start(t, nil)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	r.sh("late", "cat "+gate+"; exit 5")
	broken := filepath.Join(r.home, "broken") // the next daemons die at once
	write(t, broken, "")
	kill(t, r.inventory().PID)
	write(t, gate, "go")
	r.until("the app has ended", func() bool { return status(r.child("late"), "State") == "" })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if e := r.exit("late"); e.Code != 5 {
		t.Errorf("got %+v, want code 5", e)
	}
}

// child is the pid that gpm.log does not tell: of the one child of the keeper
// that is no daemon.
func (r *rig) child(string) int {
	kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.cmd.Process.Pid, r.cmd.Process.Pid))
	for _, f := range strings.Fields(string(kids)) {
		cmd, _ := os.ReadFile("/proc/" + f + "/cmdline")
		if strings.HasPrefix(string(cmd), "/bin/sh") {
			pid, _ := strconv.Atoi(f)
			return pid
		}
	}
	return -1
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheNextDaemonHasDescriptorsAndChildren(t *testing.T) {
	r := start(t, nil)
	c := r.sh("sleeper", "sleep 1000")
	r.must(request{Op: "store", Name: "log/1", Data: "first"})
	r.must(request{Op: "store", Name: "log/2", Data: "words in a pipe"})
	r.must(request{Op: "store", Name: "log/1", Data: "replaced"})
	r.must(request{Op: "store", Name: "log/3", Data: "dropped"})
	r.must(request{Op: "drop", Name: "log/3"})
	inv := r.killDaemon()
	want := []string{APIFile, LockFile, "log/1", "log/2"}
	if inv.Inv.Hold == "" {
		want = []string{APIFile, LockFile, NotifyPrefix + "0", "log/1", "log/2"}
	}
	if !slices.Equal(inv.Files, want) {
		t.Errorf("got files %q, want %q", inv.Files, want)
	}
	if len(inv.Children) != 1 || inv.Children[0] != c {
		t.Errorf("got children %+v, want %+v", inv.Children, c)
	}
	if a := r.must(request{Op: "read", Name: "log/2"}); a.Data != "words in a pipe" {
		t.Errorf("log/2 holds %q", a.Data)
	}
	if a := r.must(request{Op: "read", Name: "log/1"}); a.Data != "replaced" {
		t.Errorf("log/1 holds %q", a.Data)
	}
	if got := status(c.PID, "PPid"); got != strconv.Itoa(r.cmd.Process.Pid) {
		t.Errorf("the app's parent is %s, want the keeper %d", got, r.cmd.Process.Pid)
	}
}

func TestManyDescriptorsAreHandedOver(t *testing.T) {
	r := start(t, nil)
	for i := range 300 { // more than fit into two packets
		r.must(request{Op: "store", Name: fmt.Sprintf("pipe/%03d", i), Data: strconv.Itoa(i)})
	}
	r.killDaemon()
	for _, i := range []int{0, 124, 125, 126, 299} {
		if a := r.must(request{Op: "read", Name: fmt.Sprintf("pipe/%03d", i)}); a.Data != strconv.Itoa(i) {
			t.Errorf("pipe %d holds %q", i, a.Data)
		}
	}
}

func TestReservedAndUnknownNamesAreRefused(t *testing.T) {
	r := start(t, nil)
	for _, q := range []request{
		{Op: "store", Name: LockFile}, {Op: "store", Name: ""}, {Op: "drop", Name: APIFile}, {Op: "drop", Name: "none"},
	} {
		if a := r.ask(q); a.Err == "" {
			t.Errorf("%s %q works", q.Op, q.Name)
		}
	}
}

func TestAHugeEnvironmentArrives(t *testing.T) {
	r := start(t, nil)
	// One variable may have 128 KiB (MAX_ARG_STRLEN): many of them.
	q := request{Op: "spawn", Tag: "env", Argv: []string{"/bin/sh", "-c", `[ ${#V0} = 100000 ] && [ ${#V9} = 100000 ] && exit 3`}}
	for i := range 10 {
		q.Env = append(q.Env, fmt.Sprintf("V%d=%s", i, strings.Repeat("v", 100000)))
	}
	r.must(q)
	if e := r.exit("env"); e.Code != 3 {
		t.Errorf("got %+v, want code 3", e)
	}
}

func TestSpawnErrorsKeepTheirErrno(t *testing.T) {
	r := start(t, nil)
	for _, c := range []struct {
		q     request
		errno syscall.Errno
		text  string
	}{
		{request{Argv: []string{"/no/such"}}, unix.ENOENT, "fork/exec /no/such: no such file or directory"},
		{request{Argv: []string{"/etc/passwd"}}, unix.EACCES, "fork/exec /etc/passwd: permission denied"},
		{request{Argv: []string{"/bin/true"}, Dir: "/no/dir"}, unix.ENOENT, "chdir /no/dir: no such file or directory"},
		{request{Argv: []string{"/bin/true", "a\x00b"}}, unix.EINVAL, "fork/exec /bin/true: invalid argument"},
		{request{}, 0, "keeper: spawn: the message says not what"},
	} {
		c.q.Op, c.q.Tag = "spawn", "x"
		for _, c.q.Filtered = range []bool{false, r.inventory().Inv.Hold == ""} {
			if a := r.ask(c.q); a.Errno != c.errno || a.Err != c.text {
				t.Errorf("%q: got %q (%d), want %q", c.q.Argv, a.Err, a.Errno, c.text)
			}
		}
	}
}

func TestAChildIsLeaderOfASessionWithCleanSignalsAndFiles(t *testing.T) {
	r := start(t, nil)
	out := filepath.Join(t.TempDir(), "out")
	r.must(request{Op: "spawn", Tag: "a", Name: out, Filtered: true, Dir: "/usr", Argv: []string{"/bin/sh", "-c",
		`ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$; grep SigIgn /proc/$$/status; ls /proc/$$/fd; pwd`}})
	r.exit("a")
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	if len(f) != 8 {
		t.Fatalf("the app says %q", b)
	}
	if f[0] != f[1] {
		t.Errorf("session %s is not that of the child, %s", f[0], f[1])
	}
	// 32 and 33 are the C library's own: make leaves them ignored in what it starts.
	if mask, err := strconv.ParseUint(f[3], 16, 64); err != nil || mask&^(3<<31) != 0 {
		t.Errorf("the app ignores signals: %s", f[3])
	}
	if got := strings.Join(f[4:7], " "); got != "0 1 2" {
		t.Errorf("the app has descriptors %s, want 0 1 2", got)
	}
	if f[7] != "/usr" {
		t.Errorf("the app is in %s, want /usr", f[7])
	}
}

func TestAChildThatNobodyWaitsForIsKilled(t *testing.T) {
	r := start(t, nil)
	tag := ""
	for i := 0; ; i++ { // the answer may come before the caller can give up
		tag = strconv.Itoa(i)
		if a := r.ask(request{Op: "give up", Tag: tag, Argv: []string{"/bin/sleep", "1000"}}); a.Err == "context canceled" {
			break
		} else if a.Err != "" || i == 1000 {
			t.Fatalf("spawn %d gives %q", i, a.Err)
		}
	}
	if e := r.exit(tag); e.Signal != syscall.SIGKILL {
		t.Errorf("got %+v, want SIGKILL", e)
	}
}

func TestAChildIsBornInItsCgroup(t *testing.T) {
	var root string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			root = dir
		}
	}
	name := fmt.Sprintf("gpm-test-%d", os.Getpid())
	if err := os.Mkdir(filepath.Join(root, name), 0o755); root == "" || err != nil {
		t.Skipf("no cgroup v2 can be made here: %v", err)
	}
	t.Cleanup(func() { os.Remove(filepath.Join(root, name)) })
	r := start(t, nil)
	for _, filtered := range []bool{false, r.inventory().Inv.Hold == ""} {
		c := r.must(request{Op: "spawn", Tag: "a", Cgroup: filepath.Join(root, name), Filtered: filtered, Argv: []string{"/bin/sleep", "1000"}}).Child
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID))
		if err != nil || !strings.Contains(string(b), "0::/"+name+"\n") {
			t.Errorf("the app is in %q (%v), want %q", b, err, name)
		}
		kill(t, c.PID)
		r.until("the cgroup is empty", func() bool {
			b, err := os.ReadFile(filepath.Join(root, name, "cgroup.procs"))
			return err == nil && len(b) == 0
		})
	}
}

func TestWhatTheStarterLeftOpenIsClosed(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	start(t, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{pw} })
	pw.Close()
	if err := pr.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := pr.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the keeper holds the pipe: %d, %v", n, err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	r := start(t, nil)
	pidFile := filepath.Join(t.TempDir(), "pid")
	// A grandchild in a session of its own, whose parent goes before it does.
	r.sh("parent", "setsid sh -c 'echo $$ >"+pidFile+".tmp; mv "+pidFile+".tmp "+pidFile+"; read x' <>/dev/null & wait_for() { while [ ! -e "+pidFile+" ]; do :; done; }; wait_for")
	r.exit("parent")
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(orphan, syscall.SIGKILL)
	r.until("the orphan is reaped", func() bool { return status(orphan, "State") == "" })
	r.until("the keeper has no zombies", func() bool { return zombies(r.cmd.Process.Pid) == 0 })
}

func zombies(parent int) (n int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.parent == parent && st.zombie {
			n++
		}
	}
	return n
}

func TestABadMessageHarmsNobody(t *testing.T) {
	r := start(t, nil)
	before := r.inventory()
	for _, k := range []kind{msgSpawn, msgStore, msgDrop, msgAck, msgAdopt, msgAnswer, msgNext, msgReply, msgHello, msgTakeover, "", "x"} {
		r.must(request{Op: "junk", Name: string(k), Data: strings.Repeat("junk", 30000)})
		r.must(request{Op: "junk", Name: string(k)})
	}
	if a := r.ask(request{Op: "unknown"}); a.Err != `keeper: the keeper does not know the request "no-such-request"` {
		t.Errorf("an unknown request is answered with %q", a.Err)
	}
	if after := r.inventory(); after.PID != before.PID {
		t.Errorf("the daemon is another one")
	}
	if pid, ok := Running(r.home); !ok || pid != before.Inv.KeeperPID {
		t.Errorf("keeper %d is running: %v", pid, ok)
	}
}

func TestOfFiveKeepersOneWins(t *testing.T) {
	home := t.TempDir()
	rigs := make(chan *rig, 5)
	for range cap(rigs) {
		go func() { rigs <- launch(t, home, nil) }()
	}
	var winner *rig
	for range cap(rigs) {
		r := <-rigs
		if r.stderr == "" {
			if winner != nil {
				t.Error("two keepers run")
			}
			winner = r
			continue
		}
		if code := r.wait(); code != ExitBusy {
			t.Errorf("a loser ends with %d", code)
		}
		if !strings.Contains(r.stderr, "another keeper has it") {
			t.Errorf("a loser says %q", r.stderr)
		}
	}
	if winner == nil {
		t.Fatal("no keeper runs")
	}
	defer winner.end()
	late := launch(t, home, nil)
	late.wait()
	if want := fmt.Sprintf("gpm: use home %q: another keeper has it, pid %d\n", home, winner.cmd.Process.Pid); late.stderr != want {
		t.Errorf("got %q, want %q", late.stderr, want)
	}
	if pid, ok := Running(home); !ok || pid != winner.cmd.Process.Pid {
		t.Errorf("running: %d, %v; want %d", pid, ok, winner.cmd.Process.Pid)
	}
}

func TestAStaleSocketIsReplacedAndPrivate(t *testing.T) {
	home := t.TempDir()
	sock := filepath.Join(home, sockName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	write(t, filepath.Join(home, lockName), "1 1\n")
	if pid, ok := Running(home); ok {
		t.Errorf("keeper %d is running", pid)
	}
	r := launch(t, home, nil)
	if r.stderr != "" {
		t.Fatal(r.stderr)
	}
	r.inventory()
	for name, want := range map[string]os.FileMode{sockName: 0o600, lockName: 0o600, pidName: 0o600, logName: 0o600} {
		st, err := os.Stat(filepath.Join(home, name))
		if err != nil {
			t.Error(err)
		} else if got := st.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	r.end()
	for _, name := range []string{sockName, pidName} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			t.Errorf("%s is left behind", name)
		}
	}
	if code := r.cmd.ProcessState.ExitCode(); code != ExitOK {
		t.Errorf("the keeper ends with %d", code)
	}
}

func TestWhatKeepsTheKeeperFromStartingIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for home, want := range map[string]string{
		filepath.Join(file, "home"): "make home",
		"/proc":                     "cannot write into it",
		t.TempDir() + "/" + strings.Repeat("x", 90): "choose a shorter GPM_HOME",
	} {
		r := launch(t, home, nil)
		if code := r.wait(); code != ExitFailed || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%q: code %d, %q; want 1 and %q", home, code, r.stderr, want)
		}
	}
}

func TestAHomeOfSomebodyElseIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run as another user")
	}
	r := launch(t, publicDir(t), asNobody(t))
	if code := r.wait(); code != ExitFailed || !strings.Contains(r.stderr, "cannot write into it") {
		t.Errorf("code %d, %q", code, r.stderr)
	}
}

const nobody = 65534

// asNobody runs the keeper as an ordinary user, from a copy of the test binary
// that this user may execute.
func asNobody(t testing.TB) func(*exec.Cmd) {
	t.Helper()
	b, err := os.ReadFile(self())
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(publicDir(t), "gpm")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Path = exe
		c.Env = append(c.Env, "GPM_TEST_EXE="+exe)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}

// publicDir is a folder of root's that others may read; t.TempDir is private.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
