package trampoline

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Face {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// through runs argv through the trampoline and returns its pid and output.
func through(t *testing.T, env []string, argv ...string) (pid int, stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path, args := Command(exe, argv)
	var out, errs bytes.Buffer
	cmd := &exec.Cmd{Path: path, Args: args, Env: env, Stdout: &out, Stderr: &errs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.Process.Pid, out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestThePIDIsKeptAndTold(t *testing.T) {
	env := []string{"LISTEN_PID=1", "LISTEN_FDS=2", "KEEP=me", "PATH=" + os.Getenv("PATH")}
	pid, out, errs, code := through(t, env, "sh", "-c", `echo "$$ $LISTEN_PID $LISTEN_FDS $KEEP $1"`, "sh", "--")
	want := fmt.Sprintf("%d %d 2 me --\n", pid, pid)
	if out != want || errs != "" || code != 0 {
		t.Errorf("got %q, %q, code %d; want %q", out, errs, code, want)
	}
}

func TestExitCodeIsTheProgramsOwn(t *testing.T) {
	if _, _, _, code := through(t, nil, "/bin/sh", "-c", "exit 42"); code != 42 {
		t.Errorf("got code %d, want 42", code)
	}
}

func TestWhatCannotStartSaysSoWith127(t *testing.T) {
	for _, argv := range [][]string{{"/no/such/program"}, {"/etc/passwd"}, {"/"}, {}} {
		_, out, errs, code := through(t, nil, argv...)
		if code != failed || out != "" || !strings.HasPrefix(errs, "gpm: start ") {
			t.Errorf("%q: got code %d, %q, %q", argv, code, out, errs)
		}
		if len(argv) > 0 && !strings.Contains(errs, strconv.Quote(argv[0])) {
			t.Errorf("%q is not named in %q", argv[0], errs)
		}
	}
}

func TestEnvironmentHasOneListenPID(t *testing.T) {
	got := strings.Join(environment([]string{"A=1", "LISTEN_PID=3", "LISTEN_PIDX=4", "LISTEN_PID=5"}, 7), " ")
	if want := "A=1 LISTEN_PIDX=4 LISTEN_PID=7"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
