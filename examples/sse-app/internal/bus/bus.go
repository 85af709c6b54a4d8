// Package bus is what the instances of the app share: logs that everybody may
// append to and follow, a value that all agree on, and the right to write an
// answer. It speaks to Redis, or to anything that speaks its protocol.
//
// A log is a Redis Stream, the source of truth, and a channel of the same name
// that wakes those who follow it. Publishing adds to both in one script. A
// follower that has missed something (it came late, was slow, or the bus was
// away) reads the stream from where it stands; nobody who is slow makes anybody
// else slow, and what was trimmed meanwhile is told as a gap.
package bus

import (
	"context"
	"errors"
	"time"
)

// Options of a Bus.
type Options struct {
	// URL is where the bus is (redis://:password@host:port/0). It is asked again
	// after connections failed, as a bus that was started anew may have moved.
	URL func() (string, error)
	// Keep is how long entries are kept after the last one; default 1 h.
	Keep time.Duration
	// Max is how many entries of a log are kept; default 1000.
	Max int
	// Report is told when the bus is lost (the error) and when it is back (nil).
	// It is called from one goroutine, never twice for the same state.
	Report func(error)
}

// Bus is one process's connection. It connects by itself and again by itself.
// Every call ends within 2 s. It is safe for concurrent use.
type Bus struct{}

var (
	// ErrDown says that the bus cannot be reached now.
	ErrDown = errors.New("the bus is down")
	// ErrCursor says that a cursor is none that this package gave out.
	ErrCursor = errors.New("not a cursor of this log")
	// ErrClaimed says that somebody else writes this log now.
	ErrClaimed = errors.New("claimed by another")
	// ErrLost says that a claim has passed to somebody else: stop writing.
	ErrLost = errors.New("the claim is lost")
	// ErrStop says that somebody asked for the end of this log (Stop).
	ErrStop = errors.New("asked to stop")
)

// Where to begin besides a cursor.
const (
	Now    = ""       // after the newest entry
	Start  = "start"  // before the oldest that is kept
	Unseen = "unseen" // after what was last marked as Seen; Start if nothing was
)

// Entry is one of a log.
type Entry struct {
	Cursor string    // the position after this entry: opaque, without blanks and '~', fit for an SSE id
	Index  int       // the number of an entry in a log that is written with a Claim, from 0; else -1
	ID     string    // the publisher's; a second entry with the same one within Keep is not published
	Kind   string    // what the publisher says it is
	Data   string    // UTF-8
	At     time.Time // by the bus's clock
}

// Open starts to connect. It fails only for options that make no sense.
func Open(Options) (*Bus, error) { return nil, errors.New("not yet") }

// Close ends everything, followers included.
func (b *Bus) Close() error { return nil }

// Up tells whether the bus can be reached.
func (b *Bus) Up() bool { return false }

// Publish appends e (ID, Kind and Data) to a log. Without an ID it gets one. If
// its ID was published before, nothing happens and fresh is false.
func (b *Bus) Publish(ctx context.Context, log string, e Entry) (published Entry, fresh bool, err error) {
	return e, false, ErrDown
}

// History reads the entries after a cursor (or Start, Unseen), at most Max. gap:
// between the cursor and the first of them some are lost.
func (b *Bus) History(ctx context.Context, log, after string) (entries []Entry, gap bool, err error) {
	return nil, false, ErrDown
}

// Follow follows a log from a cursor (or Now, Start, Unseen). It does not wait
// for the bus. The error is ErrCursor. The caller closes the follower.
func (b *Bus) Follow(log, after string) (*Follower, error) { return nil, ErrDown }

// Follower is one reader of a log. It belongs to one goroutine.
type Follower struct{}

// Ready has a value when Next has something to say.
func (f *Follower) Ready() <-chan struct{} { return nil }

// Next gives the entries since the last call, in order, each once; there may be
// none. gap: before them some were lost, because they are not kept any more or
// the bus has lost its memory. ErrDown: not now; Ready will have a value when it
// is worth another try.
func (f *Follower) Next(ctx context.Context) (entries []Entry, gap bool, err error) {
	return nil, false, ErrDown
}

// Cursor is where the follower stands: after what Next has given. It is empty as
// long as a follower that began Now has not reached the bus yet.
func (f *Follower) Cursor() string { return "" }

// Seen marks what Next has given as seen, for Unseen. The mark never goes back.
func (f *Follower) Seen(ctx context.Context) error { return ErrDown }

// Close ends the following. The channel is left with the last follower.
func (f *Follower) Close() {}

// Agree gives the value of a name that all agree on: proposal if there was none
// before. It lives as long as the bus remembers, at least Keep after the last call.
func (b *Bus) Agree(ctx context.Context, name, proposal string) (string, error) { return "", ErrDown }

// Create makes a log that is written with claims, and says what it is about; it
// is kept for Keep after the last entry. Its name must be new.
func (b *Bus) Create(ctx context.Context, log, about string) error { return ErrDown }

// About is what Create said. ok is false if there is no such log (any more).
func (b *Bus) About(ctx context.Context, log string) (about string, ok bool, err error) {
	return "", false, ErrDown
}

// Stop asks whoever writes the log to end it; ok is false if there is no such log.
func (b *Bus) Stop(ctx context.Context, log string) (ok bool, err error) { return false, ErrDown }

// Claim takes the right to write a log, for ttl at a time. ErrClaimed: somebody
// has it. A holder that dies loses it after ttl.
func (b *Bus) Claim(ctx context.Context, log string, ttl time.Duration) (*Claim, error) {
	return nil, ErrDown
}

// Claim is the right to write a log. It belongs to one goroutine. Every write is
// fenced: after the claim has passed to another holder it fails with ErrLost,
// however late it arrives.
type Claim struct{}

// Next is the number of the first entry that is not written yet: read it once,
// after Claim.
func (c *Claim) Next() int { return 0 }

// Append writes entry n and keeps the claim for another ttl. Writing an entry
// that is there already succeeds and changes nothing. ErrStop: it was not
// written, as Stop was called; only AppendLast is accepted then.
func (c *Claim) Append(ctx context.Context, n int, kind, data string) error { return ErrDown }

// AppendLast writes entry n as the last one, even after Stop; nothing can be
// written and nobody can claim after it (Claim: ErrLost).
func (c *Claim) AppendLast(ctx context.Context, n int, kind, data string) error { return ErrDown }

// Keep keeps the claim for another ttl, for writers that are silent. ErrStop as Append.
func (c *Claim) Keep(ctx context.Context) error { return ErrDown }

// Release gives the claim back, so that another can go on at once.
func (c *Claim) Release(ctx context.Context) error { return ErrDown }
