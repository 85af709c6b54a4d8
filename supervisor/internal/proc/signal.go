package proc

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSignal is the highest signal number of Linux, SIGRTMAX.
const maxSignal = 64

// ParseSignal reads a signal as people write it: "SIGINT", "INT", "int" or "2".
func ParseSignal(s string) (syscall.Signal, error) {
	text := strings.ToUpper(strings.TrimSpace(s))
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > maxSignal {
			return 0, fmt.Errorf("parse signal %q: numbers go from 1 to %d", s, maxSignal)
		}
		return syscall.Signal(n), nil
	}
	if !strings.HasPrefix(text, "SIG") {
		text = "SIG" + text
	}
	if sig := unix.SignalNum(text); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("parse signal %q: unknown signal", s)
}

// SignalName is the name of a signal, "SIGKILL", or "signal 37" for those
// without one. ParseSignal reads the names.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}
