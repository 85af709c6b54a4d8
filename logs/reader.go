package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	batchSize = 1 << 20 // of output taken and written at once
	textLimit = 4 << 20 // of a batch after formatting: a million empty lines with dates are more

	// A writer of single lines costs one wakeup per line, or one per nap. The
	// pipe must hold what is written meanwhile, or the app is slowed down.
	napBelow = 16 << 10
	napTime  = 3 * time.Millisecond
	napPipe  = 256 << 10

	patience   = 5 * time.Second // for a write that is under way when nobody wants it any more
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
)

// request is what others want of a reader's goroutine. It only grows.
type request int32

const (
	running   request = iota
	finishing         // read what is there, then end
	giveUp            // end; what cannot be written is dropped
	closing           // end at once, the next daemon goes on
)

// Reader reads one pipe into one file, on one goroutine. Its methods may be
// called from any other.
type Reader struct {
	book    *Book
	source  Source
	spec    File
	file    *file
	in      *os.File
	raw     syscall.RawConn
	size    int   // of the pipe
	poll    *poll // the book's
	journal *journal
	format  *formatter

	request atomic.Int32
	wake    chan struct{} // one slot: request has changed
	ready   chan struct{} // one slot: poll says that the pipe has something
	done    chan struct{}

	// Of the goroutine alone.
	timer  *time.Timer
	looked int       // so many of the waiting bytes have no newline
	showAt time.Time // when the unfinished line is shown; zero: not
	held   int       // so many waiting bytes cannot be shown
	retry  time.Duration
	room   int   // what a full disk takes at once; zero: not known to be full
	notice error // what the last batch met, although it is done with
	left   bool  // Finish could not have everything written

	followers []*Follower // guarded by file.mu

	dropped atomic.Uint64

	mu      sync.Mutex // never held while anything waits
	recent  ring
	problem string
	result  error // of Finish
}

func newReader(b *Book, s Source, p Pipe, f File) (*Reader, error) {
	j, err := openJournal(p.Journal)
	if err != nil {
		return nil, err
	}
	if err := j.settle(); err != nil {
		return nil, errors.Join(err, j.unmap())
	}
	raw, err := p.Read.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, j.unmap())
	}
	r := &Reader{
		book: b, source: s, spec: f, in: p.Read, raw: raw, journal: j,
		format: newFormatter(s, f.Format),
		wake:   make(chan struct{}, 1),
		ready:  make(chan struct{}, 1),
		done:   make(chan struct{}),
		timer:  time.NewTimer(time.Hour),
		retry:  firstRetry,
	}
	r.timer.Stop()
	if err := r.pipe(func(fd int) error { r.size, err = pipeSize(fd); return err }); err != nil {
		return nil, errors.Join(err, j.unmap())
	}
	r.dropped.Store(j.rec.dropped)
	return r, nil
}

// Source is whose lines r reads.
func (r *Reader) Source() Source { return r.source }

// Done is closed when r has ended: no writer is left and everything is written,
// or Finish or Close ended it.
func (r *Reader) Done() <-chan struct{} { return r.done }

// Dropped counts the lines that could not be written, also those of earlier
// daemons on the same pipe.
func (r *Reader) Dropped() uint64 { return r.dropped.Load() }

// Problem says why lines cannot be written now; "" while they can.
func (r *Reader) Problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem == "" {
		return ""
	}
	if n := r.dropped.Load(); n > 0 {
		return fmt.Sprintf("%s; %d lines dropped", r.problem, n)
	}
	return r.problem
}

// Tail is the last n lines that r has seen, at most 20, each at most 4 KiB, as
// they were written; the end of a process stands in them. It waits for nothing.
func (r *Reader) Tail(n int) []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recent.last(n, r.source)
}

// Finish is for a process that has died: what it left in the pipe is written, up
// to the end, or up to where a child of it that lives on has nothing more to
// say; a last line without newline gets one. Then r ends and its files are
// closed. When ctx ends first, what cannot be written is dropped and counted,
// and the error says so.
func (r *Reader) Finish(ctx context.Context) error {
	r.ask(finishing)
	select {
	case <-r.done:
	case <-ctx.Done():
		r.ask(giveUp)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := r.wait(grace); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result
}

// Close ends r between two batches and closes its files; what is left stays in
// the pipe and the journal for the next daemon. It waits at most a few seconds
// for a disk that hangs; then the goroutine ends as soon as the disk lets it.
func (r *Reader) Close() error {
	r.ask(closing)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.wait(ctx)
}

func (r *Reader) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end log reader of %q: the disk under %q does not answer", r.source.Name, r.spec.Path)
	}
}

// ask tells the goroutine what is wanted and wakes it.
func (r *Reader) ask(q request) {
	r.mu.Lock()
	if q > r.asked() {
		r.request.Store(int32(q))
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reader) asked() request { return request(r.request.Load()) }

// run is the reader's goroutine.
func (r *Reader) run() {
	defer r.end()
	end, short := keep, false
	for {
		switch r.asked() {
		case closing:
			return
		case giveUp:
			r.left = r.left || end != final
			end = final
		}
		err := r.drain(end)
		// After that: what has come since may have ended the line.
		if err == nil && end == keep && !r.showAt.IsZero() && !time.Now().Before(r.showAt) {
			err = r.drain(show)
		}
		if err != nil {
			r.trouble(err)
			r.pause(r.retry)
			r.retry = min(2*r.retry, lastRetry)
			continue
		}
		if end == final {
			return
		}
		end = keep
		if short && r.size >= napPipe && r.asked() == running {
			r.pause(napTime)
		}
		last := r.asked() >= finishing
		var n int
		n, err = r.fetch()
		short = n > 0 && n < napBelow
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, syscall.EAGAIN):
			end = final
		default: // the journal takes nothing: memory. Or nobody wakes r. The pipe holds on to it
			r.trouble(fmt.Errorf("take output: %w", err))
			r.pause(lastRetry)
			if last {
				r.fail(err)
				end = final
			}
		}
	}
}

// end is the last thing the goroutine does.
func (r *Reader) end() {
	if r.left {
		r.fail(errors.New("the time is over"))
	}
	r.book.leave(r)
	_ = r.pipe(func(fd int) error { r.poll.remove(fd); return nil }) // fails on a closed pipe; r alone closes it
	_ = r.journal.unmap()
	_ = r.in.Close()
	_ = r.journal.file.Close()
	close(r.done)
}

// fail sets what Finish returns.
func (r *Reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != "" {
		err = errors.New(r.problem)
	}
	r.result = fmt.Errorf("finish log of %q: output was left behind: %w", r.source.Name, err)
}

// pipe runs fn with the pipe's descriptor. File.Fd is not used: it could change
// the description, which others hold too.
func (r *Reader) pipe(fn func(fd int) error) (err error) {
	if e := r.raw.Control(func(fd uintptr) { err = fn(int(fd)) }); e != nil {
		return e
	}
	return err
}

// fetch moves output into the journal. While running it waits for some, until
// the unfinished line must be shown or somebody wants something (0, nil);
// afterwards it does not wait (EAGAIN). io.EOF: no writer is left.
func (r *Reader) fetch() (n int, err error) {
	r.due()
	for again := true; ; {
		// Asked before the look: once a process has died, only a look after that
		// tells that its pipe is empty.
		waits := r.asked() == running
		empty := false
		err = r.pipe(func(fd int) (err error) {
			n, err = r.journal.take(fd, batchSize)
			if empty = waits && errors.Is(err, syscall.EAGAIN); empty {
				return r.poll.arm(fd)
			}
			return err
		})
		if !empty || err != nil {
			return n, err
		}
		if !again {
			return 0, nil
		}
		// A look at the end too: a daemon that stood still finds the time over
		// and output waiting, and the line is not unfinished then.
		again = r.sleep()
	}
}

// due sets when the unfinished line must be shown.
func (r *Reader) due() {
	n := r.journal.waiting()
	switch {
	case n == 0 || r.format.json:
		r.showAt = time.Time{}
	case r.showAt.IsZero() && n != r.held:
		r.showAt = time.Now().Add(r.book.partialAfter)
	}
}

// sleep waits until the pipe, which is armed, has something; false: until there
// is another reason to go on.
func (r *Reader) sleep() bool {
	var show <-chan time.Time
	if !r.showAt.IsZero() {
		r.timer.Reset(time.Until(r.showAt))
		defer r.timer.Stop()
		show = r.timer.C
	}
	select {
	case <-r.ready:
		return true
	case <-r.wake:
	case <-show:
	case <-r.poll.done: // the next arm says why
	}
	return false
}

// pause waits for d, or until somebody wants something.
func (r *Reader) pause(d time.Duration) {
	r.timer.Reset(d)
	select {
	case <-r.timer.C:
	case <-r.wake:
		r.timer.Stop()
	}
}

// trouble tells that lines cannot be written, or with nil that they can again.
func (r *Reader) trouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	old := r.problem
	r.problem = text
	r.mu.Unlock()
	if old != text {
		r.book.problem(r.source, text)
	}
}
