// Package logs carries what apps write from their pipes to disk and to
// followers. The daemon that does it may be killed at any instant: the pipe and
// its journal are descriptors that somebody else holds too, and the next daemon
// goes on with no line lost and none doubled. It imports nothing of gpm, and is
// the only user of lumberjack.
package logs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// Source says whose lines they are.
type Source struct {
	ID       int    // pm_id
	Name     string // of the app
	Instance int    // 0..N-1
	Stream   string // "out" or "err"
}

// Policy says what happens to lines that cannot be written.
type Policy string

// What to do while a log file cannot be written.
const (
	Drop  Policy = "drop"  // count them and read on; the app never waits. The default
	Block Policy = "block" // leave them in the pipe and try again; the app waits when it is full
)

// Rotation says when a log file is set aside and what becomes of the old ones.
type Rotation struct {
	MaxSize  uint64        // bytes per file; zero: never rotated. Exceeded by a longer line, and by a flood within one millisecond
	MaxFiles int           // old files kept; zero: all
	MaxAge   time.Duration // old files older than this go, in whole days, rounded up; zero: kept
	Compress bool          // gzip old files
}

// Owner is who a new log file belongs to.
type Owner struct{ UID, GID int }

// File says where the lines of a pipe go, and how.
type File struct {
	Path     string // absolute; empty: written nowhere, followers and Tail still get the lines
	Format   Format
	Rotation Rotation // of several readers of one path, the last to start decides
	Full     Policy   // empty: Drop
	Owner    *Owner   // nil: the daemon's own; otherwise new files are given to this one
}

// Options are what a Book needs of its owner.
type Options struct {
	// Problem, if set, is told when the lines of a source cannot be written
	// (a sentence) and when they can again (""). It is called on the reader's
	// goroutine: it must not wait, nor call back into the Book.
	Problem func(s Source, problem string)
}

// Book is every log file of a daemon. Make one with NewBook, for the daemon's
// life: each path that was ever written costs one idle goroutine of lumberjack, and
// the first Read starts one that wakes the readers.
type Book struct {
	problem      func(Source, string)
	partialAfter time.Duration
	write        func(l *lumberjack.Logger, p []byte) (int, error) // tests fill the disk here

	inputs, outputs sync.Pool // *[]byte; only readers with something to do hold one

	// mu is never held while a file's mu is taken: a file on a disk that hangs
	// must not stop the other apps. The other way round is the order.
	mu        sync.Mutex
	files     map[string]*file
	readers   map[*Reader]struct{}
	followers map[*Follower]struct{}
	poll      *poll // nil until the first Read
	closed    bool
}

// ErrClosed is the error of a Book or a Follower that was closed.
var ErrClosed = errors.New("logs are closed")

// NewBook makes an empty Book. The caller closes it.
func NewBook(o Options) *Book {
	b := &Book{
		problem:      o.Problem,
		partialAfter: time.Second,
		write:        (*lumberjack.Logger).Write,
		files:        map[string]*file{},
		readers:      map[*Reader]struct{}{},
		followers:    map[*Follower]struct{}{},
	}
	if b.problem == nil {
		b.problem = func(Source, string) {}
	}
	b.inputs.New = func() any { p := make([]byte, batchSize); return &p }
	b.outputs.New = func() any { p := make([]byte, 0, 64<<10); return &p }
	return b
}

// Recover finishes or takes back what a killed daemon was writing. Call it once
// at the start, with every pipe that was kept, before the first Read: where
// pipes share a file, an unfinished write must be settled before anybody else
// writes behind it. The pipes stay the caller's.
func (b *Book) Recover(pipes ...Pipe) error {
	var errs []error
	for _, p := range pipes {
		j, err := openJournal(p.Journal)
		if err == nil {
			err = errors.Join(j.settle(), j.unmap())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("recover log pipe %q: %w", p.Journal.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// Read starts the one goroutine that reads p and writes to f. With a pipe of an
// earlier daemon it goes on exactly where that one ended. The Reader owns p from
// here on and closes it; on an error p stays the caller's.
func (b *Book) Read(s Source, p Pipe, f File) (*Reader, error) {
	f.Path = clean(f.Path)
	if len(f.Path) > maxPath {
		return nil, fmt.Errorf("read log pipe of %q: path of %d bytes is too long", s.Name, len(f.Path))
	}
	r, err := newReader(b, s, p, f)
	if err != nil {
		return nil, fmt.Errorf("read log pipe of %q: %w", s.Name, err)
	}
	if err := b.enter(r); err != nil {
		_ = r.journal.unmap()
		return nil, err
	}
	go r.run() // the pipe's reader; ends at the end of the pipe, by Finish or by Close
	return r, nil
}

// enter makes r known to the book, its file and the followers.
func (b *Book) enter(r *Reader) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	if err := b.watchLocked(r); err != nil {
		b.mu.Unlock()
		return fmt.Errorf("read log pipe of %q: %w", r.source.Name, err)
	}
	r.file = b.fileLocked(r.spec.Path)
	b.readers[r] = struct{}{}
	b.mu.Unlock()

	f := r.file
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers = append(f.readers, r)
	f.rotation, f.owner = r.spec.Rotation, r.spec.Owner
	// Asked again under f.mu: a follower that comes after this finds r in f.readers.
	b.mu.Lock()
	fans := make([]*Follower, 0, len(b.followers))
	for fl := range b.followers {
		fans = append(fans, fl)
	}
	b.mu.Unlock()
	for _, fl := range fans {
		f.attach(r, fl)
	}
	return nil
}

// watchLocked makes the poll watch r's pipe; r removes it. The first pipe starts
// the poll. b.mu is held.
func (b *Book) watchLocked(r *Reader) (err error) {
	if b.poll == nil {
		if b.poll, err = newPoll(); err != nil {
			return err
		}
	}
	r.poll = b.poll
	return r.pipe(func(fd int) error { return r.poll.add(fd, r.ready) })
}

// leave is the opposite of enter.
func (b *Book) leave(r *Reader) {
	f := r.file
	f.mu.Lock()
	for i, x := range f.readers {
		if x == r {
			f.readers = append(f.readers[:i], f.readers[i+1:]...)
			break
		}
	}
	r.followers = nil
	if len(f.readers) == 0 {
		f.close()
	}
	f.mu.Unlock()

	b.mu.Lock()
	delete(b.readers, r)
	b.mu.Unlock()
}

// clean is path as files has it; "" stays "".
func clean(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Clean(path)
}

// fileLocked is the file at path, which is "" or clean. b.mu is held.
func (b *Book) fileLocked(path string) *file {
	if path == "" {
		return newFile(b, "") // nothing to share
	}
	f := b.files[path]
	if f == nil {
		f = newFile(b, path)
		b.files[path] = f
	}
	return f
}

// Flush empties the log file at path, which need not be in use. Nothing else is
// touched; no line is torn. A file that does not exist is empty already.
func (b *Book) Flush(path string) error {
	b.mu.Lock()
	f := b.fileLocked(clean(path))
	b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" {
		return nil
	}
	return f.flush()
}

// Reopen closes every log file; the next line opens, or creates, whatever is at
// the path then. It is for an external logrotate, which gpm also notices itself.
func (b *Book) Reopen() {
	b.mu.Lock()
	files := make([]*file, 0, len(b.files))
	for _, f := range b.files {
		files = append(files, f)
	}
	b.mu.Unlock()
	for _, f := range files {
		f.mu.Lock()
		f.close()
		f.mu.Unlock()
	}
}

// Close stops every reader as Reader.Close does, and ends every follower. It
// waits at most a few seconds for a disk that hangs.
func (b *Book) Close() error {
	b.mu.Lock()
	b.closed = true
	readers := make([]*Reader, 0, len(b.readers))
	for r := range b.readers {
		readers = append(readers, r)
	}
	followers := make([]*Follower, 0, len(b.followers))
	for fl := range b.followers {
		followers = append(followers, fl)
	}
	poll := b.poll
	b.mu.Unlock()

	for _, fl := range followers {
		fl.Close()
	}
	for _, r := range readers { // all first: then they end side by side
		r.ask(closing)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for _, r := range readers {
		errs = append(errs, r.wait(ctx))
	}
	if poll != nil {
		poll.close() // last; a reader that a disk still holds waits for no pipe any more
	}
	return errors.Join(errs...)
}
