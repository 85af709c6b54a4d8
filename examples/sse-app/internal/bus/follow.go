package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	chunk     = 256       // entries read at a time
	chunkSize = 1 << 20   // bytes of them, but for the last one
	held      = 64        // newest entries of a topic that are held for its followers
	heldSize  = 256 << 10 // bytes of them
)

// topic is a log that has followers here. It holds the newest entries that were
// heard, a run without holes, for a moment; followers have nothing but a
// position. One who is too slow for what is held reads the log itself, so nobody
// is slow for others and ten thousand followers are cheap.
type topic struct {
	name string

	mu        sync.Mutex
	followers map[*Follower]struct{}
	live      bool   // subscribed in this session
	gen       int    // number of the subscription: what was said before it may be unheard
	heard     uint64 // number of the newest entry heard
	run       []Entry
	size      int  // bytes in run
	quiet     bool // nothing was heard since the last beat
}

// Follower is one reader of a log. It belongs to one goroutine.
type Follower struct {
	b      *Bus
	t      *topic
	ready  chan struct{}
	after  string // as readScript wants it, while pos is not known
	pos    uint64 // number of the last entry that Next gave
	known  bool   // pos is known
	synced int    // the subscription since which the log was read up to its end
}

// Follow follows a log from a cursor (or Now, Start, Unseen). It does not wait
// for the bus. The error is ErrCursor. The caller closes the follower.
func (b *Bus) Follow(log, after string) (*Follower, error) {
	from, err := place(after)
	if err == nil {
		err = check(log, Entry{})
	}
	if err != nil {
		return nil, err
	}
	f := &Follower{b: b, ready: make(chan struct{}, 1), after: from}
	f.pos, err = strconv.ParseUint(from, 10, 64)
	f.known = err == nil

	b.mu.Lock()
	defer b.mu.Unlock()
	f.t = b.topics[log]
	if f.t == nil {
		f.t = &topic{name: log, followers: map[*Follower]struct{}{}}
		b.topics[log] = f.t
		b.change(log)
	}
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.followers[f] = struct{}{}
	if f.t.live {
		f.poke() // else when the subscription is acknowledged
	}
	return f, nil
}

// change tells ask that a topic came or went. b.mu is held.
func (b *Bus) change(log string) {
	b.dirty[log] = true
	select {
	case b.changed <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// Close ends the following. The channel is left with the last follower.
func (f *Follower) Close() {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if _, open := f.t.followers[f]; !open {
		return
	}
	delete(f.t.followers, f)
	delete(f.b.waiting, f)
	if len(f.t.followers) == 0 {
		delete(f.b.topics, f.t.name)
		delete(f.b.loud, f.t)
		f.b.change(f.t.name)
	}
}

// Ready has a value when Next has something to say.
func (f *Follower) Ready() <-chan struct{} { return f.ready }

func (f *Follower) poke() {
	select {
	case f.ready <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// Cursor is where the follower stands: after what Next has given. It is empty as
// long as a follower that began Now has not reached the bus yet.
func (f *Follower) Cursor() string {
	if !f.known {
		return ""
	}
	return cursor(f.pos)
}

// Next gives the entries since the last call, in order, each once; there may be
// none. gap: before them some were lost, because they are not kept any more or
// the bus has lost its memory. ErrDown: not now; Ready will have a value when it
// is worth another try.
func (f *Follower) Next(ctx context.Context) (entries []Entry, gap bool, err error) {
	f.t.mu.Lock()
	live, gen := f.t.live, f.t.gen
	if live && f.synced == gen {
		if held, ok := f.t.since(f.pos); ok {
			f.t.mu.Unlock()
			f.pos += uint64(len(held))
			return held, false, nil
		}
	}
	f.t.mu.Unlock()
	if !live {
		if !f.b.Up() {
			return nil, false, ErrDown
		}
		return nil, false, nil // the acknowledgement is on its way
	}
	p, err := f.b.shared(ctx, f.t.name, f.from(), gen)
	if err != nil {
		f.b.later(f)
		return nil, false, err
	}
	f.pos, f.known = p.pos, true
	if p.pos >= p.last {
		f.synced = gen
	}
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.synced != f.t.gen || f.t.heard > f.pos {
		f.poke()
	}
	return slices.Clone(p.entries), p.gap, nil
}

func (f *Follower) from() string {
	if f.known {
		return digits(f.pos)
	}
	return f.after
}

// since is what was heard after pos; not ok if some of it is not held.
func (t *topic) since(pos uint64) (entries []Entry, ok bool) {
	if pos >= t.heard {
		return nil, true
	}
	first := t.heard + 1 - uint64(len(t.run))
	if pos+1 < first {
		return nil, false
	}
	return slices.Clone(t.run[pos+1-first:]), true
}

// Seen marks what Next has given as seen, for Unseen. The mark never goes back.
func (f *Follower) Seen(ctx context.Context) error {
	if !f.known {
		return nil
	}
	_, err := f.b.call(ctx, seenScript, []string{key(f.t.name, "meta")}, digits(f.pos))
	return err
}

// later wakes f at the next sign of life, if there is a session at all; else the
// next one does.
func (b *Bus) later(f *Follower) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[f] = struct{}{}
}

// beat: the bus is alive. Those who doubted try again, and what was held for
// followers who are not slow is let go.
func (b *Bus) beat() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.waiting {
		f.poke()
	}
	clear(b.waiting)
	for t := range b.loud {
		t.mu.Lock()
		if t.quiet {
			t.run, t.size = nil, 0
			delete(b.loud, t)
		}
		t.quiet = true
		t.mu.Unlock()
	}
}

// hear takes a message to those who follow its log.
func (b *Bus) hear(channel, payload string) {
	n, e, err := unpack(payload)
	if err != nil {
		return // of somebody else on our channel
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[channel]
	if t == nil {
		return // the last follower has just left
	}
	b.loud[t] = struct{}{}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hold(n, e)
	for f := range t.followers {
		f.poke()
	}
}

// hold adds an entry to the run; one that does not follow begins a new run.
func (t *topic) hold(n uint64, e Entry) {
	t.quiet = false
	if n != t.heard+1 {
		t.run, t.size = nil, 0
	}
	t.heard = n
	t.run, t.size = append(t.run, e), t.size+len(e.Data)
	for len(t.run) > held || (t.size > heldSize && len(t.run) > 1) {
		t.size -= len(t.run[0].Data)
		t.run = slices.Delete(t.run, 0, 1)
	}
}

// subscribed: from now on everything on this channel is heard. What was said
// before is in the log.
func (b *Bus) subscribed(channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[channel]
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = true
	t.gen++
	for f := range t.followers {
		f.poke()
	}
}

// deafen: nothing is heard any more.
func (b *Bus) deafen() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.topics {
		t.mu.Lock()
		t.live, t.heard, t.run, t.size = false, 0, nil, 0
		t.mu.Unlock()
	}
}

func (b *Bus) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.topics {
		t.mu.Lock()
		for f := range t.followers {
			f.poke()
		}
		t.mu.Unlock()
	}
}

// page is what one read of a log found.
type page struct {
	entries []Entry
	gap     bool   // before the first of them some are lost
	pos     uint64 // the position after them
	last    uint64 // number of the newest entry
}

// shared reads as read does, once for all who ask for the same at the same time.
func (b *Bus) shared(ctx context.Context, log, after string, gen int) (page, error) {
	id := fmt.Sprint(gen, " ", after, " ", log)
	read := b.reads.DoChan(id, func() (any, error) { // ends within patience
		return b.read(b.ctx, log, after, chunk)
	})
	select {
	case r := <-read:
		p, _ := r.Val.(page)
		return p, r.Err
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}

// read reads at most count entries after a position.
func (b *Bus) read(ctx context.Context, log, after string, count int) (page, error) {
	said, err := b.call(ctx, readScript, []string{key(log, "log"), key(log, "meta")}, after, count, chunkSize, ms(max(memory, b.Keep)))
	if err != nil {
		return page{}, err
	}
	a, ok := said.([]any)
	if !ok || len(a) != 4 {
		return page{}, fmt.Errorf("%w: it said %v", ErrDown, said)
	}
	last, err1 := strconv.ParseUint(fmt.Sprint(a[1]), 10, 64)
	from, err2 := strconv.ParseUint(fmt.Sprint(a[2]), 10, 64)
	found, err3 := entriesOf(a[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return page{}, fmt.Errorf("%w: %v", ErrDown, err)
	}
	_, asked := strconv.ParseUint(after, 10, 64)
	numbered := asked == nil
	if numbered && from > last { // a position that this bus has not reached: it has lost its memory
		p, err := b.read(ctx, log, "start", count)
		p.gap = true
		return p, err
	}
	p := judge(found, from, last, numbered || after == "unseen")
	p.gap = p.gap || numbered && a[0] == int64(1)
	return p, nil
}

// judge finds what is missing between from and last. Only a hole before the first
// entry is told; at a later one the page ends, and the next one begins with it.
func judge(found []Entry, from, last uint64, strict bool) page {
	p := page{pos: from, last: last}
	for i, e := range found {
		n, _ := number(e.Cursor)
		if n != p.pos+1 {
			if i > 0 {
				return p
			}
			p.gap = strict
		}
		p.entries, p.pos = append(p.entries, e), n
	}
	if len(found) == 0 && from < last {
		p.pos, p.gap = last, strict
	}
	return p
}

// entriesOf reads what XRANGE answers: [[id, [e, text]], ...].
func entriesOf(said any) ([]Entry, error) {
	list, ok := said.([]any)
	if !ok {
		return nil, fmt.Errorf("it said %v", said)
	}
	entries := make([]Entry, 0, len(list))
	for _, item := range list {
		pair, _ := item.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("it said %v", item)
		}
		fields, _ := pair[1].([]any)
		if len(fields) != 2 {
			return nil, fmt.Errorf("it said %v", item)
		}
		id, _ := pair[0].(string)
		digits, _, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(digits, 10, 64)
		text, _ := fields[1].(string)
		_, e, err2 := unpack(fmt.Sprint(n, " ", text))
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
