package logs

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// drain writes all that waits in the journal and is due. An error: the file
// cannot be written and the lines must not be dropped; they wait.
func (r *Reader) drain(end ending) error {
	for {
		more, err := r.work(end)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if end == show {
		r.held, r.showAt = r.journal.waiting(), time.Time{}
	}
	return nil
}

// work writes one batch. more tells that there may be another.
func (r *Reader) work(end ending) (more bool, err error) {
	j := r.journal
	n, goesOn := j.waiting(), j.rec.open == 1
	if n == 0 && !(end == final && goesOn) {
		return false, nil
	}
	buf := r.book.inputs.Get().(*[]byte)
	defer r.book.inputs.Put(buf)
	in, err := r.load(*buf, n, end)
	if err != nil || (in == nil && n > 0) {
		return false, err
	}
	if len(in) < n {
		end = keep // the end is not in sight
	}

	now := time.Now()
	r.format.stamp(now)
	room := len(r.format.head) + 1
	store := r.book.outputs.Get().(*[]byte)
	defer r.release(store)
	out := *store
	if cap(out) < room {
		out = make([]byte, room)
	}
	b := r.format.lines(out[:room], in, end, goesOn, r.limit(room))
	*store = b.text
	if b.used == 0 && b.lines == 0 {
		r.looked = n
		return false, nil
	}
	if err := r.commit(b, room, now); err != nil {
		return false, err
	}
	r.trouble(r.notice)
	r.retry = firstRetry
	if r.room *= 2; r.room > textLimit {
		r.room = 0
	}
	r.looked, r.held, r.showAt = 0, 0, time.Time{}
	if err := j.free(); err != nil {
		return false, fmt.Errorf("free log journal: %w", err)
	}
	return j.waiting() > 0, nil
}

// load reads waiting output into buf; nil: no line of it is whole.
func (r *Reader) load(buf []byte, n int, end ending) ([]byte, error) {
	j := r.journal
	head := int64(j.rec.head)
	// An app that writes dot by dot must not cost a look at the whole line each time.
	if end == keep && r.looked > 0 && n <= r.format.maxLine {
		fresh := buf[:n-r.looked]
		if _, err := j.file.ReadAt(fresh, head+int64(r.looked)); err != nil {
			return nil, fmt.Errorf("read log journal: %w", err)
		}
		if bytes.IndexByte(fresh, '\n') < 0 {
			r.looked = n
			return nil, nil
		}
	}
	in := buf[:min(n, len(buf))]
	if _, err := j.file.ReadAt(in, head); err != nil {
		return nil, fmt.Errorf("read log journal: %w", err)
	}
	return in, nil
}

// limit is how long the text of a batch may become, so that it fits into a file.
func (r *Reader) limit(room int) int {
	limit := uint64(textLimit)
	if most := r.spec.Rotation.MaxSize; most > 0 {
		limit = min(limit, most)
	}
	if r.room > 0 {
		limit = min(limit, uint64(r.room))
	}
	return max(1, int(limit)-room)
}

// release gives an output buffer back, unless a rare batch has made it huge.
func (r *Reader) release(store *[]byte) {
	if cap(*store) <= textLimit+textLimit/2 {
		r.book.outputs.Put(store)
	}
}

// commit writes b.text[room:] to the file, exactly once whenever gpm is killed,
// and shows it to followers.
func (r *Reader) commit(b body, room int, at time.Time) error {
	f, j := r.file, r.journal
	f.mu.Lock()
	defer f.mu.Unlock()
	goesOn := j.rec.open == 1
	r.notice = nil
	if f.path == "" {
		out, text := r.start(b, room, goesOn)
		j.begin(applying, f, b.used, len(out), b.open)
		j.apply()
		r.publish(text, goesOn, at)
		return nil
	}
	if err := r.prepare(len(b.text)); err != nil {
		_, text := r.start(b, room, goesOn)
		return r.failed(b, text, 0, 0, err)
	}
	goesOn = goesOn && f.midline && j.rec.openEnd == uint64(f.size) && f.id == fileID{j.rec.openDev, j.rec.openIno}
	out, text := r.start(b, room, goesOn)
	if len(out) == 0 { // the newline of a line that somebody else's has ended
		j.begin(applying, f, b.used, 0, false)
		j.apply()
		return nil
	}
	j.begin(writing, f, b.used, len(out), b.open)
	if n, err := f.append(out); err != nil {
		return r.failed(b, text, n, n-(len(out)-len(text)), err)
	}
	j.apply()
	r.publish(text, goesOn, at)
	r.notice = f.stuck
	return nil
}

// prepare opens the file and rotates it if n bytes are too many for it.
func (r *Reader) prepare(n int) error {
	// A cut that failed has left the write of the last try half done.
	if atomic.LoadUint64(&r.journal.rec.phase) != idle {
		if err := r.journal.settle(); err != nil {
			return err
		}
	}
	if err := r.file.ready(); err != nil {
		return err
	}
	if r.file.full(n) {
		return r.file.rotate()
	}
	return nil
}

// start puts before b's text what belongs before its first line: nothing if that
// goes on in the file; else the head, behind a newline if the file ends within
// somebody else's line. text is out without that newline.
func (r *Reader) start(b body, room int, goesOn bool) (out, text []byte) {
	from := room
	switch {
	case goesOn:
	case r.journal.rec.open == 1 && len(b.text) > room && b.text[room] == '\n':
		from++ // the line it would end is ended
	default:
		from -= len(r.format.head)
		copy(b.text[from:], r.format.head)
	}
	text = b.text[from:]
	if len(text) > 0 && r.file.midline && !goesOn {
		from--
		b.text[from] = '\n'
	}
	return b.text[from:], text
}

// failed deals with a write that failed after n bytes, of them k of text.
func (r *Reader) failed(b body, text []byte, n, k int, err error) error {
	f, j := r.file, r.journal
	if r.spec.Full == Block && r.asked() != giveUp {
		if cut := f.cut(n); cut != nil {
			return errors.Join(err, cut) // the journal remembers: prepare tries again
		}
		j.undo()
		r.room = max(1, k) // the next try must not fail because a batch is long
		return err
	}
	r.left = r.spec.Full == Block
	lost := b.lines
	if b.open {
		lost++
	}
	if n > 0 {
		whole := bytes.LastIndexByte(text[:max(k, 0)], '\n') + 1
		lost -= bytes.Count(text[:whole], []byte{'\n'})
		_ = f.cut(k - whole) // where it fails the next line begins behind a newline
	} else {
		j.undo()
		j.begin(idle, f, b.used, 0, false)
	}
	j.giveUp(uint64(lost))
	j.apply()
	r.dropped.Store(j.rec.dropped)
	r.publish(text, false, time.Now())
	r.notice = err
	return nil
}

// publish shows text to the followers and remembers its last lines. f.mu is held.
func (r *Reader) publish(text []byte, goesOn bool, at time.Time) {
	r.mu.Lock()
	r.recent.add(text, goesOn, at)
	r.mu.Unlock()
	if len(r.followers) > 0 {
		r.followers = push(r.followers, r.source, text, at)
	}
}
