package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// TestMain lets the test binary play two parts. As PROC_TEST_ROLE "count" it is
// a process of a tree (see countSignals). Else it runs the tests, in a pid
// namespace of their own: code that kills trees is never let loose on the
// machine of whoever runs its tests.
func TestMain(m *testing.M) {
	switch os.Getenv("PROC_TEST_ROLE") {
	case "count":
		countSignals(os.Getenv("PROC_TEST_DEPTH"))
	case "inside":
		os.Unsetenv("PROC_TEST_ROLE")
		if err := enterProc(); err != nil {
			notContained = err
		}
		os.Exit(m.Run())
	default:
		code, err := runInside()
		if err != nil {
			notContained = err
			code = m.Run()
		}
		os.Exit(code)
	}
}

// notContained is why the tests share their pids with strangers; nil: they do not.
var notContained error

// contained skips a test that kills trees if it could reach strangers.
func contained(t *testing.T) {
	t.Helper()
	if notContained != nil {
		t.Skipf("needs a pid namespace of its own, so that a bug cannot kill strangers: %v", notContained)
	}
}

// runInside runs this test binary as process 1 of a new pid namespace.
func runInside() (int, error) {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PROC_TEST_ROLE=inside")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig fires when the starting thread ends
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return max(exit.ExitCode(), 1), nil
		}
		return 1, nil
	}
	return 0, nil
}

// enterProc mounts the /proc of this pid namespace.
func enterProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d of the namespace, not 1", os.Getpid())
	}
	return nil
}

// countSignals starts PROC_TEST_DEPTH levels below itself and writes one line
// to standard output for each SIGUSR1.
func countSignals(depth string) {
	got := make(chan os.Signal, 16)
	signal.Notify(got, syscall.SIGUSR1)
	if depth != "" {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PROC_TEST_DEPTH="+depth[1:]) // the role is inherited
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			fmt.Println("error", err)
		}
	}
	fmt.Printf("ready %d\n", len(depth))
	for range got {
		fmt.Printf("got %d\n", len(depth))
	}
}

// eventually waits for a condition about other processes; the kernel does not
// announce those that the tests ask for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// withToken lists processes whose command line holds the token: a second
// opinion that knows nothing of trees.
func withToken(t *testing.T, token string) []int {
	t.Helper()
	all, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for pid, st := range all {
		if pid != os.Getpid() && !st.Dead() && strings.Contains(command(procRoot, st), token) {
			out = append(out, pid)
		}
	}
	return out
}

// bothKinds runs a test in a forest of each kind.
func bothKinds(t *testing.T, test func(t *testing.T, f *Forest)) {
	for _, kind := range []Kind{Cgroup, Session} {
		t.Run(string(kind), func(t *testing.T) {
			f, err := Plant(Options{Name: fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name()), Force: kind})
			if err != nil {
				t.Skipf("this machine has no %s trees: %v", kind, err)
			}
			if got, why := f.Kind(); got != kind || why == "" {
				t.Fatalf("kind %q (%q), want %q", got, why, kind)
			}
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(f.dir); f.dir != "" && err == nil {
					t.Errorf("folder %q is left behind", f.dir)
				}
			})
			test(t, f)
		})
	}
}

// spawn starts a command as the keeper would. It is reaped in the background:
// done is closed then.
func spawn(t *testing.T, tree *Tree, cmd *exec.Cmd) (id Identity, done chan struct{}) {
	t.Helper()
	contained(t)
	cmd.Env = append(append(os.Environ(), cmd.Env...), tree.Env())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d := tree.Cgroup(); d != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(d.Fd())
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	tree.Root(id)
	done = make(chan struct{})
	go func() { // reaper of one process, ends with it
		cmd.Process.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tree.Kill(ctx); err != nil {
			t.Error(err)
			return
		}
		<-done
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return id, done
}

// wild is a tree that resists: three levels that ignore SIGINT, a daemon in
// its own session, a grandchild whose parent is gone, a double fork into a
// session of its own. Six sleeps, all with the token.
func wild(token string) *exec.Cmd {
	return exec.Command("sh", "-c", `
trap "" INT
SLEEP="sleep 86399.`+token+`"
sh -c "trap '' INT; sh -c \"trap '' INT; $SLEEP & wait\" & $SLEEP & wait" &
setsid $SLEEP &
($SLEEP &)
(setsid sh -c "$SLEEP & exit 0" &)
$SLEEP &
wait`)
}

const wildSleeps = 6

func sleeping(t *testing.T, token string) int {
	t.Helper()
	n := 0
	for _, pid := range withToken(t, "sleep 86399."+token) {
		if line := command(procRoot, Stat{PID: pid}); strings.HasPrefix(line, "sleep ") {
			n++
		}
	}
	return n
}

func token() string { return fmt.Sprintf("%d%09d", os.Getpid(), time.Now().UnixNano()%1e9) }

func TestNothingIsLeftAfterKill(t *testing.T) {
	bothKinds(t, func(t *testing.T, f *Forest) {
		tree, err := f.Tree("wild/0/1")
		if err != nil {
			t.Fatal(err)
		}
		tok := token()
		id, done := spawn(t, tree, wild(tok))
		eventually(t, "the whole tree runs", func() bool { return sleeping(t, tok) == wildSleeps })
		found := tree.Members()
		if n := countCommand(found, "sleep 86399."+tok); n != wildSleeps {
			t.Errorf("members has %d of %d sleeps: %+v", n, wildSleeps, found)
		}
		if _, err := tree.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		if !id.Alive() || sleeping(t, tok) == 0 {
			t.Error("SIGINT ended a tree that ignores it")
		}
		if err := tree.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := withToken(t, tok); len(left) != 0 {
			t.Errorf("left after Kill: %v", left)
		}
		if m := tree.Members(); len(m) != 0 {
			t.Errorf("members after Kill: %+v", m)
		}
		<-done
	})
}

func countCommand(list []Proc, prefix string) int {
	n := 0
	for _, p := range list {
		if strings.HasPrefix(p.Command, prefix) {
			n++
		}
	}
	return n
}

func TestOrphansOfADeadRootAreKilled(t *testing.T) {
	bothKinds(t, func(t *testing.T, f *Forest) {
		tree, err := f.Tree("crash")
		if err != nil {
			t.Fatal(err)
		}
		tok := token()
		id, done := spawn(t, tree, wild(tok))
		eventually(t, "the whole tree runs", func() bool { return sleeping(t, tok) == wildSleeps })
		syscall.Kill(id.PID, syscall.SIGKILL)
		<-done
		if sleeping(t, tok) != wildSleeps {
			t.Fatal("the children died with their root: the test tests nothing")
		}
		if err := tree.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := withToken(t, tok); len(left) != 0 {
			t.Errorf("left after Kill: %v", left)
		}
	})
}

func TestATreeIsFoundAgainByTheNextDaemon(t *testing.T) {
	bothKinds(t, func(t *testing.T, f *Forest) {
		first, err := f.Tree("ünïcode / app\x000")
		if err != nil {
			t.Fatal(err)
		}
		tok := token()
		id, _ := spawn(t, first, wild(tok))
		eventually(t, "the whole tree runs", func() bool { return sleeping(t, tok) == wildSleeps })

		again, err := Plant(Options{Name: fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name()), Force: f.kind})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := again.Open("ünïcode / app\x000", id)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Kind() != f.kind {
			t.Errorf("kind %q after reopening, want %q", tree.Kind(), f.kind)
		}
		if err := tree.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := withToken(t, tok); len(left) != 0 {
			t.Errorf("left after Kill: %v", left)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTwoTreesDoNotTouchEachOther(t *testing.T) {
	bothKinds(t, func(t *testing.T, f *Forest) {
		var tokens [2]string
		var trees [2]*Tree
		for i := range trees {
			tree, err := f.Tree(fmt.Sprint("app/", i))
			if err != nil {
				t.Fatal(err)
			}
			trees[i], tokens[i] = tree, token()
			spawn(t, tree, wild(tokens[i]))
		}
		for i := range trees {
			eventually(t, "both trees run", func() bool { return sleeping(t, tokens[i]) == wildSleeps })
		}
		if err := trees[0].Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := sleeping(t, tokens[1]); n != wildSleeps {
			t.Errorf("the other tree has %d of %d sleeps left", n, wildSleeps)
		}
	})
}

func TestSignalReachesEachProcessOnce(t *testing.T) {
	bothKinds(t, func(t *testing.T, f *Forest) {
		tree, err := f.Tree("count")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{"PROC_TEST_ROLE=count", "PROC_TEST_DEPTH=xx"}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd.Stdout = w
		spawn(t, tree, cmd)
		w.Close()
		r.SetReadDeadline(time.Now().Add(patience))
		lines := bufio.NewScanner(r)
		read := func(n int) (out []string) {
			for len(out) < n && lines.Scan() {
				out = append(out, lines.Text())
			}
			slices.Sort(out)
			return out
		}
		if got := read(3); !slices.Equal(got, []string{"ready 0", "ready 1", "ready 2"}) {
			t.Fatalf("got %q", got)
		}
		for range 3 { // a second one to a process would show up as a line too many in the next round
			if n, err := tree.Signal(syscall.SIGUSR1); n != 3 || err != nil {
				t.Fatalf("signalled %d, %v", n, err)
			}
			if got := read(3); !slices.Equal(got, []string{"got 0", "got 1", "got 2"}) {
				t.Fatalf("got %q", got)
			}
		}
	})
}

func TestChildrenFirst(t *testing.T) {
	list := []Stat{{PID: 10, PPid: 1}, {PID: 11, PPid: 10}, {PID: 12, PPid: 11}, {PID: 13, PPid: 10}, {PID: 20, PPid: 1}, {PID: 21, PPid: 20}}
	var order []int
	for _, st := range childrenFirst(list, 10) {
		order = append(order, st.PID)
	}
	if want := []int{12, 11, 13, 21, 20, 10}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestAStrangerWithTheSamePidIsNotSignalled(t *testing.T) {
	contained(t)
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	id, err := Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	tree := &Tree{proc: procRoot, kind: Session}
	earlier := Stat{PID: id.PID, Start: id.Start - 1}
	if err := tree.send(earlier, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("send: %v, want ESRCH", err)
	}
	if err := tree.killAll(t.Context(), []Stat{earlier}); err != nil {
		t.Error(err)
	}
	if !id.Alive() {
		t.Error("the stranger was killed")
	}
}

// A process that cleared its environment and left session and parents is
// still known if it was seen while it belonged to the tree.
func TestSessionRemembersWhomItSaw(t *testing.T) {
	f, err := Plant(Options{Name: "seen", Force: Session})
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := f.Tree("a")
	tok := token()
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "env -i setsid sleep 86399."+tok+" & read x")
	cmd.Stdin = in
	_, done := spawn(t, tree, cmd)
	in.Close()
	eventually(t, "the daemon runs", func() bool { return sleeping(t, tok) == 1 })
	if n := countCommand(tree.Members(), "sleep"); n != 1 {
		t.Fatalf("%d sleeps among the members, want 1", n)
	}
	stdin.Close() // the root ends, its child has nobody left
	<-done
	if n := len(tree.PIDs()); n != 1 {
		t.Errorf("%d pids, want the daemon", n)
	}
	if err := tree.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := sleeping(t, tok); n != 0 {
		t.Errorf("%d left", n)
	}
}

func TestKillSaysWhoIsStillAlive(t *testing.T) {
	f, _ := Plant(Options{Name: "late", Force: Session})
	tree, _ := f.Tree("a")
	id, _ := spawn(t, tree, exec.Command("sleep", "300"))
	over, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	err := tree.Kill(over)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint(id.PID)) {
		t.Errorf("error %v, want the deadline and pid %d", err, id.PID)
	}
}

func TestFreezeAndKillForOldKernels(t *testing.T) {
	f, err := Plant(Options{Name: fmt.Sprint("freeze-", os.Getpid()), Force: Cgroup})
	if err != nil {
		t.Skipf("this machine has no cgroup trees: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	tree, err := f.Tree("a")
	if err != nil {
		t.Fatal(err)
	}
	tok := token()
	spawn(t, tree, wild(tok))
	eventually(t, "the whole tree runs", func() bool { return sleeping(t, tok) == wildSleeps })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := tree.freezeAndKill(ctx, tree.dir); err != nil {
		t.Fatal(err)
	}
	if left := withToken(t, tok); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if b, err := os.ReadFile(filepath.Join(tree.dir, "cgroup.freeze")); err != nil || strings.TrimSpace(string(b)) != "0" {
		t.Errorf("cgroup.freeze is %q, %v: the next process would never run", b, err)
	}
}

// A kernel file that is not there is missing, not forbidden: nothing asks for it
// to be made.
func TestAControlFileIsNeverMade(t *testing.T) {
	dir := t.TempDir()
	if err := writeControl(dir, "cgroup.kill", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("write to a file that is not there: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v was made", left)
	}
}

func TestAnOccupiedTreeIsRefused(t *testing.T) {
	f, err := Plant(Options{Name: fmt.Sprint("twice-", os.Getpid()), Force: Cgroup})
	if err != nil {
		t.Skipf("this machine has no cgroup trees: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	tree, err := f.Tree("a")
	if err != nil {
		t.Fatal(err)
	}
	spawn(t, tree, exec.Command("sleep", "300"))
	if _, err := f.Tree("a"); err == nil {
		t.Error("a second tree in an occupied folder was made")
	}
}

func TestCgroupDir(t *testing.T) {
	const hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	const part = "41 31 0:38 /docker/abc /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
	const blank = `41 31 0:38 / /mnt/my\040groups rw - cgroup2 cgroup2 rw` + "\n"
	for _, c := range []struct{ mounts, path, want string }{
		{hybrid, "/", "/sys/fs/cgroup/unified"},
		{"1 2 0:3 / / rw - ext4 /dev/a rw\n" + hybrid, "/user.slice/x", "/sys/fs/cgroup/unified/user.slice/x"},
		{part, "/docker/abc", "/sys/fs/cgroup"},
		{part, "/docker/abc/gpm", "/sys/fs/cgroup/gpm"},
		{part, "/docker/abcd", ""},
		{blank, "/a", "/mnt/my groups/a"},
		{"1 2 0:3 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "/", ""},
	} {
		got, err := cgroupDir([]byte(c.mounts), c.path)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("cgroupDir(%q, %q) = %q, %v; want %q", c.mounts, c.path, got, err, c.want)
		}
	}
}

func TestFolderNames(t *testing.T) {
	long := strings.Repeat("ä", 400)
	for _, name := range []string{"", ".", "..", "a/b", "cgroup.kill", "a\x00b", "a b", long, long + "x"} {
		got := folder("app-", name)
		if len(got) > 255 || strings.ContainsAny(got, "/.\x00 ") || !strings.HasPrefix(got, "app-") {
			t.Errorf("folder of %q is %q", name, got)
		}
	}
	if folder("", long) == folder("", long+"x") {
		t.Error("two long names share a folder")
	}
}
