package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	pageSize = 4096 // of the record; the data follows, also where the machine's pages are larger
	magic    = 0x31676f6c6d7067
	maxPath  = pageSize - recordHead
)

// The phases of a record. Only the word phase switches between them, so a
// record is always wholly in one of them, whenever its daemon was killed.
const (
	idle     = 0 // [head, end) of the journal is waiting, nothing is being written
	writing  = 1 // the log file gets length bytes at off; then next holds
	applying = 2 // next holds, whatever the log file says
)

const recordHead = 16 * 8

// record is page 0 of a journal, shared with whoever maps it next. Fields may be
// added at the end of the fixed part by shrinking spare; magic changes otherwise.
type record struct {
	magic uint64
	phase uint64

	head    uint64 // the first byte of the journal that is not in the log file
	open    uint64 // 1: the last line written has no newline yet, it ends at openEnd of openFile
	openEnd uint64
	openDev uint64
	openIno uint64
	dropped uint64 // lines that could not be written

	nextHead    uint64
	nextOpen    uint64
	nextDropped uint64

	off     uint64 // size of the log file before the write
	length  uint64
	dev     uint64 // which log file; dev and ino zero: none
	ino     uint64
	pathLen uint64
	path    [maxPath]byte
}

var _ [pageSize]byte = [unsafe.Sizeof(record{})]byte{}

// fileID says which file it is, whatever its name.
type fileID struct{ dev, ino uint64 }

func idOf(info os.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(st.Dev), st.Ino} // Dev has another width elsewhere
}

// journal is what was taken from a pipe and is not yet in the log file. New
// bytes are appended, whole lines are taken from head; offsets only grow until
// the journal is empty, and the memory before head is given back. Only the
// pipe's reader uses it.
type journal struct {
	file   *os.File
	page   []byte
	rec    *record
	end    int64 // its size
	holeTo int64 // memory is given back up to here
}

func openJournal(f *os.File) (*journal, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < pageSize {
		return nil, fmt.Errorf("journal has %d bytes, want at least %d", info.Size(), pageSize)
	}
	page, err := mapRecord(f)
	if err != nil {
		return nil, fmt.Errorf("map journal: %w", err)
	}
	j := &journal{file: f, page: page, rec: (*record)(unsafe.Pointer(&page[0])), end: info.Size(), holeTo: pageSize}
	switch j.rec.magic {
	case 0:
		j.rec.head = pageSize
		atomic.StoreUint64(&j.rec.magic, magic)
	case magic:
	default:
		return nil, errors.Join(fmt.Errorf("journal is of another version of gpm"), unmapRecord(page))
	}
	return j, nil
}

// unmap ends the use of j; its file stays open.
func (j *journal) unmap() error {
	j.rec = nil
	return unmapRecord(j.page)
}

// take appends up to n bytes of the pipe. io.EOF: no writer is left.
func (j *journal) take(pipe, n int) (int, error) {
	k, err := splice(pipe, j.file, j.end, n)
	if err != nil {
		return 0, err
	}
	if k == 0 {
		return 0, io.EOF
	}
	j.end += int64(k)
	return k, nil
}

// waiting is how many bytes are not yet in the log file.
func (j *journal) waiting() int { return int(j.end - int64(j.rec.head)) }

// begin records that [head, head+used) becomes length bytes at off of the log
// file; open tells that the last of its lines is not at its end.
func (j *journal) begin(phase uint64, f *file, used, length int, open bool) {
	r := j.rec
	r.nextHead, r.nextOpen, r.nextDropped = r.head+uint64(used), 0, r.dropped
	if open {
		r.nextOpen = 1
	}
	r.off, r.length = uint64(f.size), uint64(length)
	r.dev, r.ino = f.id.dev, f.id.ino
	r.pathLen = uint64(copy(r.path[:], f.path))
	atomic.StoreUint64(&r.phase, phase)
}

// giveUp makes a write that failed final: lines of it are not in the file.
func (j *journal) giveUp(lines uint64) {
	j.rec.nextOpen = 0
	j.rec.nextDropped = j.rec.dropped + lines
	atomic.StoreUint64(&j.rec.phase, applying)
}

// undo forgets what begin recorded: the log file is as it was.
func (j *journal) undo() { atomic.StoreUint64(&j.rec.phase, idle) }

// apply makes next current. Done twice it does the same.
func (j *journal) apply() {
	r := j.rec
	r.head, r.open, r.dropped = r.nextHead, r.nextOpen, r.nextDropped
	r.openEnd, r.openDev, r.openIno = r.off+r.length, r.dev, r.ino
	atomic.StoreUint64(&r.phase, idle)
}

// free gives memory back that is not needed any more.
func (j *journal) free() error {
	head := int64(j.rec.head)
	if head == j.end {
		// Killed between these two, the record has a head beyond the end: settle.
		if j.end == pageSize {
			return nil
		}
		if err := j.file.Truncate(pageSize); err != nil {
			return err
		}
		j.end, j.holeTo = pageSize, pageSize
		atomic.StoreUint64(&j.rec.head, pageSize)
		return nil
	}
	if to := head &^ (pageSize - 1); to-j.holeTo >= 64<<10 {
		if err := punch(j.file, j.holeTo, to); err != nil {
			return err
		}
		j.holeTo = to
	}
	return nil
}

// settle brings a journal whose daemon was killed, and its log file, back into
// the phase idle.
func (j *journal) settle() error {
	r := j.rec
	switch atomic.LoadUint64(&r.phase) {
	case applying:
		j.apply()
	case writing:
		written, err := j.settleFile()
		if err != nil {
			return err
		}
		if written {
			j.apply()
		} else {
			j.undo()
		}
	}
	if int64(r.head) > j.end {
		r.head = uint64(j.end)
	}
	return nil
}

// settleFile tells whether the recorded write is complete; a torn one is cut off.
func (j *journal) settleFile() (written bool, err error) {
	r := j.rec
	if r.pathLen > maxPath {
		return false, errors.New("journal is damaged")
	}
	f, size, err := findFile(string(r.path[:r.pathLen]), fileID{r.dev, r.ino})
	if err != nil || f == nil {
		return false, err // a file that is gone: the lines go to the new one
	}
	defer f.Close()
	off, end := int64(r.off), int64(r.off+r.length)
	switch {
	case size == end:
		return true, nil
	case size > off && size < end:
		if err := f.Truncate(off); err != nil {
			return false, fmt.Errorf("cut torn lines off: %w", err)
		}
	}
	// Shorter than off, or longer than end: somebody else was there too. Then
	// rather twice than never, and nobody else's lines are cut off.
	return false, nil
}

// findFile opens the file id, which was at path; it may have been moved within
// its folder since, as logrotate does. nil: it is gone.
func findFile(path string, id fileID) (*os.File, int64, error) {
	try := func(path string) (*os.File, int64, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil || idOf(info) != id {
			return nil, 0, errors.Join(err, f.Close())
		}
		return f, info.Size(), nil
	}
	f, size, err := try(path)
	if f != nil || (err != nil && !errors.Is(err, os.ErrNotExist)) {
		return f, size, err
	}
	entries, _ := os.ReadDir(filepath.Dir(path)) // no folder: gone
	for _, e := range entries {
		if info, err := e.Info(); err == nil && idOf(info) == id {
			return try(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return nil, 0, nil
}
