package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Line is one line of output.
type Line struct {
	Source  Source
	At      time.Time // when it was read
	Text    string    // as written to the file, with the prefix, without the newline
	Partial bool      // it has no newline yet: the next Line of this Source goes on with it
	Skipped int       // above zero: so many lines are missing here, of whatever source; the rest is empty
}

const (
	minQueue = 64 << 10
	chunkFee = 256     // what a chunk costs beside its text
	nextText = 1 << 20 // what one Next returns at most, but at least one chunk
)

// chunk is lines of one source, in one piece as they were written.
type chunk struct {
	skipped int // lines that are missing before it
	source  Source
	at      time.Time
	text    string
}

// Follower receives lines as they are written. Nobody waits for it: what does
// not fit into its queue is left out and counted. Next and Close may be called
// from different goroutines; whoever called Follow closes it.
type Follower struct {
	book   *Book
	filter func(Source) bool
	limit  int

	ready chan struct{} // one slot: there is something, or it is closed

	mu      sync.Mutex
	queue   []chunk
	bytes   int
	skipped int // behind the queue
	closed  bool

	// cuts has, while TailAndFollow runs, each file as it was when its first
	// reader began to feed the queue; nil once it is read. Guarded by mu.
	cuts map[*file]*cut
}

// cut is a log file up to a certain size, whatever becomes of its path.
type cut struct {
	file *os.File
	size int64
}

// Follow sends the lines of all sources that pass the filter (nil: all), also of
// those that start later. The filter is called with locks held: it must be quick
// and call nothing of this package. The queue holds at most queueBytes, but at
// least 64 KiB and at least one line.
func (b *Book) Follow(filter func(Source) bool, queueBytes int) (*Follower, error) {
	_, fl, err := b.TailAndFollow(filter, nil, 0, queueBytes)
	return fl, err
}

// Tailed is the end of one log file.
type Tailed struct {
	Path    string
	Sources []Source // who writes to it now
	Lines   []string
	Err     error // why there are no lines, other than that there is no file
}

// TailAndFollow returns the last n lines of the files of all sources that pass
// the filter, and of those at paths (apps that do not run), and follows as Follow
// does. A line is either in a tail or comes from the follower, never both, never
// neither. An unfinished line may be in both, each with its part.
func (b *Book) TailAndFollow(filter func(Source) bool, paths []string, n, queueBytes int) ([]Tailed, *Follower, error) {
	if filter == nil {
		filter = func(Source) bool { return true }
	}
	fl := &Follower{book: b, filter: filter, limit: max(queueBytes, minQueue), ready: make(chan struct{}, 1)}
	if n > 0 {
		fl.cuts = map[*file]*cut{}
	}
	files, err := b.join(fl, paths)
	if err != nil {
		return nil, nil, err
	}
	asked := map[string]bool{}
	for _, p := range paths {
		asked[clean(p)] = true
	}
	var tails []Tailed
	for _, f := range files {
		if t, ok := f.tailAndFeed(fl, n, asked[f.path]); ok {
			tails = append(tails, t)
		}
	}
	fl.mu.Lock()
	cuts := fl.cuts
	fl.cuts = nil // whoever starts from now on is new to the viewer
	fl.mu.Unlock()
	for _, c := range cuts {
		if c != nil {
			_ = c.file.Close()
		}
	}
	return tails, fl, nil
}

// join makes fl known and returns the files to look at.
func (b *Book) join(fl *Follower, paths []string) ([]*file, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	b.followers[fl] = struct{}{}
	var files []*file
	for _, p := range paths {
		if p = clean(p); p != "" {
			files = append(files, b.fileLocked(p))
		}
	}
	for r := range b.readers {
		if fl.filter(r.source) {
			files = append(files, r.file)
		}
	}
	slices.SortFunc(files, func(x, y *file) int { return strings.Compare(x.path, y.path) })
	return slices.Compact(files), nil
}

// tailAndFeed attaches fl to the readers of f and reads the end of f up to there.
func (f *file) tailAndFeed(fl *Follower, n int, asked bool) (t Tailed, ok bool) {
	f.mu.Lock()
	t.Path = f.path
	for _, r := range f.readers {
		if f.attach(r, fl) {
			t.Sources = append(t.Sources, r.source)
		}
	}
	if asked {
		fl.remember(f)
	}
	f.mu.Unlock()

	fl.mu.Lock()
	c := fl.cuts[f]
	if fl.cuts != nil {
		fl.cuts[f] = nil // done: not again for a reader that starts now
	}
	fl.mu.Unlock()
	if c == nil {
		return t, false
	}
	t.Lines, t.Err = tailOf(c.file, c.size, n)
	_ = c.file.Close()
	return t, true
}

// attach feeds fl with the lines of r, if it wants them. f.mu is held.
func (f *file) attach(r *Reader, fl *Follower) bool {
	if !fl.filter(r.source) {
		return false
	}
	r.followers = slices.DeleteFunc(r.followers, (*Follower).isClosed)
	if !slices.Contains(r.followers, fl) {
		fl.remember(f)
		r.followers = append(r.followers, fl)
	}
	return true
}

// remember keeps f as it is now, the first time. f.mu is held.
func (fl *Follower) remember(f *file) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.cuts == nil || f.path == "" {
		return
	}
	if _, known := fl.cuts[f]; known {
		return
	}
	own, err := os.Open(f.path)
	if err != nil {
		return // no file, no tail
	}
	info, err := own.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = own.Close()
		return
	}
	fl.cuts[f] = &cut{own, info.Size()}
}

// push gives text to each follower and returns those that are still there.
func push(to []*Follower, s Source, text []byte, at time.Time) []*Follower {
	return slices.DeleteFunc(to, func(fl *Follower) bool { return !fl.push(s, text, at) })
}

// push queues as many lines of text as there is room for. false: fl is closed.
func (fl *Follower) push(s Source, text []byte, at time.Time) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.closed {
		return false
	}
	fits := len(text)
	if room := max(0, fl.limit-fl.bytes-chunkFee); fits > room {
		fits = bytes.LastIndexByte(text[:room], '\n') + 1
		if fits == 0 && len(fl.queue) == 0 { // longer than the whole queue
			fits = bytes.IndexByte(text, '\n') + 1
			if fits == 0 {
				fits = len(text)
			}
		}
	}
	if fits > 0 {
		fl.queue = append(fl.queue, chunk{fl.skipped, s, at, string(text[:fits])})
		fl.bytes += fits + chunkFee
		fl.skipped = 0
	}
	if rest := text[fits:]; len(rest) > 0 {
		fl.skipped += bytes.Count(rest, []byte{'\n'})
		if rest[len(rest)-1] != '\n' {
			fl.skipped++
		}
	}
	select {
	case fl.ready <- struct{}{}:
	default:
	}
	return true
}

// Next waits for lines and returns those that have come, in the order in which
// they were written per file. The error is ErrClosed, or that of ctx.
func (fl *Follower) Next(ctx context.Context) ([]Line, error) {
	for {
		chunks, skipped, closed := fl.take()
		if lines := unpack(chunks, skipped); len(lines) > 0 {
			return lines, nil
		}
		if closed {
			return nil, ErrClosed
		}
		select {
		case <-fl.ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for log lines: %w", context.Cause(ctx))
		}
	}
}

// take removes the front of the queue, about nextText bytes.
func (fl *Follower) take() (chunks []chunk, skipped int, closed bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	n, size := 0, 0
	for n < len(fl.queue) && (n == 0 || size+len(fl.queue[n].text) <= nextText) {
		size += len(fl.queue[n].text)
		n++
	}
	chunks = slices.Clone(fl.queue[:n])
	fl.bytes -= size + n*chunkFee
	fl.queue = slices.Delete(fl.queue, 0, n)
	if len(fl.queue) == 0 {
		fl.queue = nil
		skipped, fl.skipped = fl.skipped, 0
	}
	return chunks, skipped, fl.closed
}

func unpack(chunks []chunk, skipped int) []Line {
	var lines []Line
	for _, c := range chunks {
		if c.skipped > 0 {
			lines = append(lines, Line{At: c.at, Skipped: c.skipped})
		}
		for text := c.text; text != ""; {
			line, rest, whole := strings.Cut(text, "\n")
			lines = append(lines, Line{Source: c.source, At: c.at, Text: line, Partial: !whole})
			text = rest
		}
	}
	if skipped > 0 {
		lines = append(lines, Line{At: time.Now(), Skipped: skipped})
	}
	return lines
}

// Close ends fl: its queue is gone, Next returns ErrClosed.
func (fl *Follower) Close() {
	fl.mu.Lock()
	fl.closed = true
	fl.queue, fl.bytes, fl.skipped = nil, 0, 0
	fl.mu.Unlock()
	select {
	case fl.ready <- struct{}{}:
	default:
	}
	fl.book.mu.Lock()
	delete(fl.book.followers, fl)
	fl.book.mu.Unlock()
}

func (fl *Follower) isClosed() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.closed
}
