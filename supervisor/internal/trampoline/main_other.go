//go:build !linux

package trampoline

import (
	"errors"
	"fmt"
	"os"
)

// ErrUnsupported is what Main reports on systems other than Linux.
var ErrUnsupported = errors.New("start through the trampoline: needs Linux")

// Main reports ErrUnsupported and returns 127.
func Main([]string) int {
	fmt.Fprintln(os.Stderr, "gpm:", ErrUnsupported)
	return 127
}
