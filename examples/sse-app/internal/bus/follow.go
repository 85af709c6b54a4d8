package bus

import (
	"context"
	"slices"
	"strconv"
)

// Follower is one reader of a log. It belongs to one goroutine.
type Follower struct {
	b     *Bus
	t     *topic
	ready chan struct{}
	after string // where to begin, as readScript wants it
	known bool   // pos is known
	pos   uint64 // number of the last entry that Next gave
	freed bool   // a claim was given back; t.mu is held
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
	b.join(f, log)
	return f, nil
}

// Close ends the following. The channel is left with the last follower.
func (f *Follower) Close() { f.b.leave(f) }

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
	live, subscription := f.t.live, f.t.subscription
	entries, ok := f.t.news(f)
	f.t.mu.Unlock()
	switch {
	case ok:
		return entries, false, nil
	case !live && f.b.Up():
		return nil, false, nil // the acknowledgement is on its way, and wakes f
	case !live:
		return nil, false, ErrDown // so does the one of the next session
	}
	p, err := f.b.shared(ctx, f.t.name, f.from(), subscription)
	if err != nil {
		f.b.later(f)
		return nil, false, err
	}
	f.pos, f.known = p.pos, true
	f.t.learn(p, subscription)
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if !f.t.exact || f.t.newest != f.pos {
		f.poke() // there is more
	}
	return slices.Clone(p.entries), p.gap, nil
}

// Freed tells whether a claim on the log was given back since it was asked last.
// It comes with a value in Ready, but so may entries, and both are one value then.
func (f *Follower) Freed() bool {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	freed := f.freed
	f.freed = false
	return freed
}

func (f *Follower) from() string {
	if f.known {
		return digits(f.pos)
	}
	return f.after
}

// Seen marks what Next has given as seen, for Unseen. The mark never goes back.
func (f *Follower) Seen(ctx context.Context) error {
	if !f.known {
		return nil
	}
	_, err := f.b.call(ctx, seenScript, []string{key(f.t.name, "meta")}, digits(f.pos))
	return err
}
