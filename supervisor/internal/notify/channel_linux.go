package notify

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewChannel makes the two ends of an IPC channel. The child's goes to the
// process (Env names it) and is closed by the caller after the spawn; ours is
// for Read and Send, and is closed by the caller when the process has ended.
// Node sees that as 'disconnect' and goes on.
func NewChannel() (ours, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make node channel: %w", err)
	}
	// Only our end: deadlines need it, and the ends do not share the flag.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make node channel: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "node channel"), os.NewFile(uintptr(fds[1]), "node channel of the app"), nil
}
