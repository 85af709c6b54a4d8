package logs

import (
	"errors"
	"os"
)

// ErrNoPipes is the error where the system has no splice(2) and memfd.
var ErrNoPipes = errors.New("log pipes are not supported on this system")

// Pipe is one output stream of a process, and what a daemon needs to go on with
// it where another one stopped. Both files must outlive the daemon: somebody
// else holds duplicates and hands them to the next.
type Pipe struct {
	Read    *os.File // the pipe's read end; without O_NONBLOCK, or Go's poller wakes us for each write() of the app
	Journal *os.File // memfd: what was taken from the pipe and is not yet in the log file
}

// Close closes both files. A Pipe given to Book.Read is closed by its Reader.
func (p Pipe) Close() error { return errors.Join(p.Read.Close(), p.Journal.Close()) }

// pipeSizes are tried in turn. An ordinary user has 64 MiB in all pipes
// (pipe-user-pages-soft); whoever is beyond that gets what the kernel gives.
// The size matters: Node with process.exit() loses what does not fit.
var pipeSizes = [...]int{1 << 20, 256 << 10}
