package trampoline

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// failed is the exit code of a shell that could not run a command.
const failed = 127

// Main replaces the process by args (as Command made them, from the "--" on)
// and returns, an exit code, only if that fails. The caller dispatches to it
// before anything else is set up: it is paid for on every start of an app.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return fail("start a program: none given")
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return fail("start %q: %v", args[0], err)
	}
	err = syscall.Exec(path, args, environment(os.Environ(), os.Getpid()))
	return fail("start %q: %v", path, err)
}

// environment is env with LISTEN_PID for pid: the receiver ignores descriptors
// that are meant for another process, as the children of an app would see them.
func environment(env []string, pid int) []string {
	const name = "LISTEN_PID="
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, name) {
			out = append(out, e)
		}
	}
	return append(out, name+strconv.Itoa(pid))
}

func fail(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "gpm: "+format+"\n", args...)
	return failed
}
