package daemon

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	houseEvery = time.Minute
	logMost    = 8 << 20 // of gpm.log; then its end is kept as gpm.log.1 and it begins anew
	logKept    = 1 << 20
)

// keepHouse is the goroutine that keeps what grows slowly from growing for ever.
func (d *daemon) keepHouse() {
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	for {
		if err := cutLog(filepath.Join(d.home, "gpm.log"), logMost, logKept); err != nil {
			d.log.Error("cut gpm.log", "error", err)
		}
		if err := d.hands.holder.Sweep(); err != nil {
			d.log.Error("close sockets that nobody listened on", "error", err)
		}
		select {
		case <-tick.C:
		case <-d.ending:
			return
		}
	}
}

// cutLog empties a log that is larger than most, after its last bytes went to
// path.1. Keeper and daemon have the file open for appending as their stderr,
// so it cannot be renamed away from them; a line that is written between the
// two steps is lost, which for gpm's own diary is fair.
func cutLog(path string, most, kept int64) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= most {
		return nil // in the foreground there is none
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := io.ReadAll(io.NewSectionReader(f, info.Size()-kept, kept))
	if err != nil {
		return fmt.Errorf("read its end: %w", err)
	}
	if err := writeFile(path+".1", end); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}
