package logs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// file is one log file, shared by the readers that write to it. All but path is
// guarded by mu. A file without a path takes lines and writes them nowhere.
type file struct {
	book *Book
	path string

	mu       sync.Mutex
	readers  []*Reader
	rotation Rotation
	owner    *Owner

	// A Logger's settings must not change, its mill goroutine reads them. Another
	// rotation needs another Logger, which is kept in case it comes back.
	loggers map[Rotation]*lumberjack.Logger
	log     *lumberjack.Logger
	own     *os.File // what log has open: to look at, to cut, to read
	id      fileID
	size    int64
	midline bool // its last byte is no newline

	rotated time.Time // when the last rotation ended
	stuck   error     // why the last rotation or chown failed; lines are written all the same
}

func newFile(b *Book, path string) *file {
	return &file{book: b, path: path, loggers: map[Rotation]*lumberjack.Logger{}}
}

// ready opens the file, or what is at its path by now: somebody else may have
// removed, moved or emptied it since the last batch.
func (f *file) ready() error {
	info, err := os.Stat(f.path)
	if err == nil && f.own != nil && idOf(info) == f.id {
		if info.Size() == f.size {
			return nil
		}
		f.size = info.Size()
		return f.look()
	}
	f.close()
	return f.open()
}

// open opens the file, and makes it where it is missing: lumberjack opens what
// exists with O_APPEND, but what it makes itself is 0600 and not O_APPEND, and
// after a cut it would write behind the end.
func (f *file) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o750); err != nil {
		return fmt.Errorf("make folder of log file: %w", err)
	}
	f.own, err = os.OpenFile(f.path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		f.own, err = f.create()
	}
	if err != nil {
		f.own = nil
		return fmt.Errorf("open log file: %w", err)
	}
	if err := f.bind(); err != nil {
		f.close()
		return err
	}
	return nil
}

func (f *file) create() (*os.File, error) {
	own, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err == nil && f.owner != nil {
		if err := own.Chown(f.owner.UID, f.owner.GID); err != nil {
			f.stuck = fmt.Errorf("give log file to its app: %w", err) // lines are worth more
		}
	}
	return own, err
}

// bind makes lumberjack open what own has open.
func (f *file) bind() error {
	info, err := f.own.Stat()
	if err != nil {
		return fmt.Errorf("look at log file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("open log file: %q is not a regular file", f.path)
	}
	f.id, f.size = idOf(info), info.Size()
	f.log = f.logger()
	if _, err := f.log.Write(nil); err != nil { // opens it
		return fmt.Errorf("open log file: %w", err)
	}
	// What it cannot open, lumberjack sets aside and makes anew.
	if info, err = os.Stat(f.path); err != nil {
		return fmt.Errorf("look at log file: %w", err)
	}
	if idOf(info) != f.id {
		return fmt.Errorf("open log file: %q was replaced meanwhile", f.path)
	}
	return f.look()
}

func (f *file) logger() *lumberjack.Logger {
	r := f.rotation
	r.MaxSize = 0 // ours, see full
	l := f.loggers[r]
	if l == nil {
		const day = 24 * time.Hour
		l = &lumberjack.Logger{
			Filename:   f.path,
			MaxSize:    1 << 30, // MiB. It must never rotate by itself: a journal's off would be wrong
			MaxBackups: r.MaxFiles,
			MaxAge:     int((r.MaxAge + day - 1) / day),
			Compress:   r.Compress,
		}
		f.loggers[r] = l
	}
	return l
}

// look finds out whether the file ends within a line.
func (f *file) look() error {
	f.midline = false
	if f.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.own.ReadAt(last[:], f.size-1); err != nil {
		return fmt.Errorf("read end of log file: %w", err)
	}
	f.midline = last[0] != '\n'
	return nil
}

// close closes the file; the next ready opens it again.
func (f *file) close() {
	if f.own != nil {
		_ = f.own.Close() // nothing is buffered
		f.own = nil
	}
	if f.log != nil {
		_ = f.log.Close()
		f.log = nil
	}
	f.id, f.size, f.midline = fileID{}, 0, false
}

// full tells whether n more bytes are too many for this file.
func (f *file) full(n int) bool {
	limit := int64(min(f.rotation.MaxSize, math.MaxInt64))
	return limit > 0 && f.size > 0 && f.size+int64(n) > limit
}

// rotate sets the file aside and opens a new one, before a batch is recorded in
// a journal. A file that grows too long is better than no log: where it cannot
// be set aside it is written on, and stuck says why.
func (f *file) rotate() error {
	// The old file's name ends in milliseconds: a second one within the same
	// millisecond would replace the first. The next batch will do.
	if now := time.Now(); now.UnixMilli() == f.rotated.UnixMilli() {
		return nil
	}
	if f.midline {
		_, _ = f.append([]byte{'\n'}) // a full disk must not prevent what makes room
	}
	old := f.id
	err := f.log.Rotate()
	f.rotated = time.Now()
	f.stuck = nil
	f.close() // lumberjack has the new file open without O_APPEND
	if err := f.open(); err != nil {
		return err
	}
	if err != nil && f.id == old {
		f.stuck = fmt.Errorf("rotate log file: %w", err)
	}
	return nil
}

// append writes p at the end, or as much of it as there is room for.
func (f *file) append(p []byte) (int, error) {
	n, err := f.book.write(f.log, p)
	f.size += int64(n)
	if n > 0 {
		f.midline = p[n-1] != '\n'
	}
	if err != nil {
		return n, fmt.Errorf("write log file: %w", err)
	}
	return n, nil
}

// cut takes the last n bytes back, which were written just now.
func (f *file) cut(n int) error {
	if n <= 0 {
		return nil
	}
	size := f.size - int64(n)
	err := f.own.Truncate(size)
	if err == nil {
		f.size = size
		err = f.look()
	}
	if err != nil {
		f.close()
		return fmt.Errorf("cut torn lines off log file: %w", err)
	}
	return nil
}

func (f *file) flush() error {
	err := os.Truncate(f.path, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("flush log file: %w", err)
	case f.own != nil:
		return f.ready()
	}
	return nil
}
