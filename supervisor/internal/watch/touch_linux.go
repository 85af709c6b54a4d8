package watch

import (
	"os"
	"syscall"
	"time"
)

// touched tells whether the attributes that changed last of a file include its
// time of modification: touch(1) sets it to now, and with it the time of the
// change itself. chmod and chown leave it where it was, and copying tools set
// it to the past.
func touched(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || fi.IsDir() {
		return false
	}
	s, ok := fi.Sys().(*syscall.Stat_t)
	// The kernel's clock of files ticks every 4 ms or so, the one of utimes(2) finer.
	return ok && time.Unix(s.Ctim.Unix()).Sub(fi.ModTime()).Abs() <= 10*time.Millisecond
}
