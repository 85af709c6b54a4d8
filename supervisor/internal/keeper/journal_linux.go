package keeper

import (
	"fmt"
	"os"
	"time"
)

// journal writes the keeper's few lines to stderr from a goroutine of its own:
// in the foreground that is somebody's pipe, and when nobody reads it the keeper
// must go on. What does not fit is dropped.
type journal struct{ entries chan entry }

type entry struct {
	line    string
	written chan<- struct{} // closed when this and all before is written; may be nil
}

func newJournal() *journal {
	j := &journal{make(chan entry, 64)}
	go func() {
		for e := range j.entries {
			_, _ = os.Stderr.WriteString(e.line)
			if e.written != nil {
				close(e.written)
			}
		}
	}()
	return j
}

// printf writes one line. Any goroutine may call it.
func (j *journal) printf(format string, args ...any) {
	head := fmt.Sprintf("%s keeper[%d]: ", time.Now().Format("2006-01-02T15:04:05.000Z07:00"), os.Getpid())
	select {
	case j.entries <- entry{line: head + fmt.Sprintf(format, args...) + "\n"}:
	default:
	}
}

// flush waits a second at most for what is not written yet.
func (j *journal) flush() {
	limit, written := time.After(time.Second), make(chan struct{})
	select {
	case j.entries <- entry{written: written}:
	case <-limit:
		return
	}
	select {
	case <-written:
	case <-limit:
	}
}
