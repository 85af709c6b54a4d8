package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpm/config"
)

func command(line string) config.Probe {
	return config.Probe{Kind: config.ProbeExec, Command: line, Timeout: enough}
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	target := Target{Env: []string{"A=b c", "PATH=/usr/bin:/bin"}, Dir: dir}
	for line, want := range map[string]string{
		`true`:                                 "<nil>",
		`test "$A" = "b c" && test -z "$HOME"`: "<nil>",
		`test "$PWD" = "` + dir + `"`:          "<nil>",
		`exit 3`:                               "the command ended with 3",
		`echo not yet; echo why >&2; exit 1`:   "the command ended with 1: not yet why",
		`printf 'a\033[31m\377b'; exit 1`:      "the command ended with 1: a [31m?b",
		`kill -9 $$`:                           "the command was ended by SIGKILL",
		`read x && exit 0; exit 4`:             "the command ended with 4", // nothing to read
	} {
		expect(t, Check(t.Context(), command(line), target), want)
	}
	err := Check(t.Context(), command(`i=0; while [ $i -lt 20000 ]; do echo "$i abcdefghijklmnopqrstuvwxyz"; i=$((i+1)); done; exit 1`), target)
	if text := fmt.Sprint(err); len(text) > 300 || !strings.HasSuffix(text, "19999 abcdefghijklmnopqrstuvwxyz") {
		t.Errorf("much output: %s", text)
	}
	target.Dir = filepath.Join(dir, "none")
	if err := Check(t.Context(), command("true"), target); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "start the command: ") {
		t.Errorf("no folder: %v", err)
	}
}

func TestExecTimeout(t *testing.T) {
	p := command("echo begun; while :; do sleep 100; done")
	p.Timeout = config.Duration(50 * time.Millisecond)
	err := Check(t.Context(), p, Target{Env: []string{"PATH=/usr/bin:/bin"}})
	if text := fmt.Sprint(err); text != "the command did not end within 50ms: begun" && text != "the command did not end within 50ms" {
		t.Error(text)
	}
}

// Nothing that a command started is left, be it done or given up; what left its
// group is not waited for.
func TestExecLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	target := Target{Env: []string{"PATH=/usr/bin:/bin"}, Dir: dir}
	if err := Check(t.Context(), command("sleep 1000 & echo $! > pid"), target); err != nil {
		t.Error(err)
	}
	awaitGone(t, pidIn(t, filepath.Join(dir, "pid")))

	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("given up")
	path := filepath.Join(dir, "second")
	done := make(chan error, 1)
	go func() {
		done <- Check(ctx, command("trap '' TERM INT; sleep 1000 & echo $! > tmp; mv tmp second; wait"), target)
	}()
	for {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(reason)
	if err := <-done; err != reason {
		t.Error(err)
	}
	awaitGone(t, pidIn(t, path))

	if err := Check(t.Context(), command("setsid sh -c 'echo $$ > tmp; mv tmp third; exec sleep 1000' & until test -e third; do sleep 0.01; done"), target); err != nil {
		t.Error(err)
	}
	pid := pidIn(t, filepath.Join(dir, "third"))
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("what left the group: %v", err)
	}
	awaitGone(t, pid)
}

func pidIn(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("no pid: %q", text)
	}
	return pid
}

// awaitGone waits until pid is dead; whoever adopted it may leave it a zombie.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ") {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%d lives", pid)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestExecAsSomebody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	target := Target{Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Cred: &Credential{UID: 4242, GID: 4343, Groups: []uint32{4343, 4444}}}
	expect(t, Check(t.Context(), command("id -u; id -G; exit 1"), target), "the command ended with 1: 4242 4343 4444")
}
