package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// fakeProc makes a /proc with one process in it.
func fakeProc(t *testing.T, pid int, state string, threads int, start uint64, boot string) string {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/kernel/random/boot_id", boot+"\n")
	write(strconv.Itoa(pid)+"/stat", fmt.Sprintf(
		"%d (a) (b c) %s 1 %d %d 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 %d 0 %d 1000 10 0 0 0\n",
		pid, state, pid, pid, threads, start))
	return root
}

func TestAliveKnowsAPidThatWasGivenOutAgain(t *testing.T) {
	id := Identity{PID: 4242, Start: 1000, Boot: "boot-a"}
	for _, c := range []struct {
		name    string
		state   string
		threads int
		start   uint64
		boot    string
		want    bool
	}{
		{"the same process", "S", 1, 1000, "boot-a", true},
		{"another process with its pid", "S", 1, 1001, "boot-a", false},
		{"the same numbers after a reboot", "S", 1, 1000, "boot-b", false},
		{"a zombie", "Z", 1, 1000, "boot-a", false},
		{"main thread ended, others run", "Z", 3, 1000, "boot-a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fakeProc(t, id.PID, c.state, c.threads, c.start, c.boot)
			if got := id.aliveIn(root); got != c.want {
				t.Errorf("alive = %v, want %v", got, c.want)
			}
		})
	}
}

func TestParseStatReadsNamesWithParentheses(t *testing.T) {
	root := fakeProc(t, 7, "S", 2, 99, "b")
	st, err := readStat(root, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := Stat{PID: 7, PPid: 1, PGrp: 7, Session: 7, Start: 99, State: 'S', Threads: 2, Comm: "a) (b c"}
	if st != want {
		t.Errorf("got %+v, want %+v", st, want)
	}
	for _, bad := range []string{"", "7", "7 (x", "7 (x) S 1 2", "7 (x) S a b c d e f g h i j k l m n o p q r s t"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) gave no error", bad)
		}
	}
}

func TestIdentityOfRealProcesses(t *testing.T) {
	me, err := Read(os.Getpid())
	if err != nil || !me.Alive() || me.Boot == "" || me.Start == 0 {
		t.Fatalf("own identity %+v, alive %v, error %v", me, me.Alive(), err)
	}
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Read(cmd.Process.Pid)
	if err != nil || !id.Alive() {
		t.Fatalf("identity of a child: %+v, %v", id, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if id.Alive() {
		t.Error("a reaped process is said to be alive")
	}
	if _, err := Read(id.PID); !errors.Is(err, ErrGone) {
		t.Errorf("read of a dead pid: %v, want ErrGone", err)
	}
}

func TestSnapshotHasThisProcessAndItsChild(t *testing.T) {
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	all, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if me, ok := all[os.Getpid()]; !ok || me.PPid != os.Getppid() || me.Threads < 1 {
		t.Errorf("own entry: %+v, found %v", me, ok)
	}
	if child, ok := all[cmd.Process.Pid]; !ok || child.PPid != os.Getpid() {
		t.Errorf("entry of the child: %+v, found %v", child, ok)
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"SIGINT": syscall.SIGINT, "INT": syscall.SIGINT, "int": syscall.SIGINT, "2": syscall.SIGINT,
		" sigusr2 ": syscall.SIGUSR2, "KILL": syscall.SIGKILL, "64": 64,
	} {
		got, err := ParseSignal(text)
		if err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "SIG", "SIGFOO", "0", "-2", "65", "2x", "SIGSIGINT"} {
		if got, err := ParseSignal(bad); err == nil {
			t.Errorf("ParseSignal(%q) = %v, want an error", bad, got)
		}
	}
	if got := SignalName(syscall.SIGKILL); got != "SIGKILL" {
		t.Errorf("name of SIGKILL: %q", got)
	}
	if got := SignalName(37); got != "signal 37" {
		t.Errorf("name of 37: %q", got)
	}
}
