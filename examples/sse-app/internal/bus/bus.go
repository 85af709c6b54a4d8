// Package bus is what the instances of the app share: logs that everybody may
// append to and follow, a value that all agree on, and the right to write an
// answer. It speaks to one Redis (7 or later; not to a cluster), or to anything that
// speaks its protocol.
//
// A log is a Redis Stream, the source of truth, and a channel of the same name
// that wakes those who follow it. Publishing adds to both in one script. A
// follower that has missed something (it came late, was slow, or the bus was
// away) reads the stream from where it stands; nobody who is slow makes anybody
// else slow, and what was trimmed meanwhile is told as a gap.
package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
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
	// Report is told when the bus is lost (the error) and when it is back (nil),
	// and at first what it is. It is called from one goroutine, never twice for
	// the same state.
	Report func(error)

	patience time.Duration // for the bus, per call; zero: as long as patience says
}

// Bus is one process's connection. It connects by itself and again by itself.
// Every call ends within 2 s. It is safe for concurrent use.
type Bus struct {
	o       Options
	ctx     context.Context // until Close
	cancel  func()
	ended   chan struct{} // closed when run has returned
	changed chan struct{} // has a value when topics came or went
	reads   singleflight.Group
	readers chan struct{} // holds a value for each read that is under way

	mu      sync.Mutex
	client  *redis.Client // nil while the bus is down
	trying  chan struct{} // open during the first attempt to connect after a loss; else nil
	topics  map[string]*topic
	acks    int                    // subscriptions that were acknowledged
	dirty   map[string]bool        // names of topics that came or went
	waiting map[*Follower]struct{} // those whose read failed while the bus seemed to be up
}

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
	ID     string    // the publisher's; a second entry with the same one within Keep, among the last 10*Max or so, is not published
	Kind   string    // what the publisher says it is
	Data   string    // UTF-8
	At     time.Time // by the bus's clock
}

// Bounds of calls, and of what is published.
const (
	patience    = 2 * time.Second    // for the bus, per call
	connections = 8                  // at a time, and one that listens
	memory      = 7 * 24 * time.Hour // for positions of a log that nobody writes or reads
	longest     = 1 << 20            // bytes of an entry
	longName    = 256                // bytes of a log's name, an ID, a Kind
)

// Open starts to connect. It fails only for options that make no sense.
func Open(o Options) (*Bus, error) {
	if o.URL == nil {
		return nil, errors.New("open the bus: no URL")
	}
	if o.Keep < 0 || o.Max < 0 {
		return nil, errors.New("open the bus: Keep and Max cannot be negative")
	}
	o.Keep, o.Max, o.patience = cmp.Or(o.Keep, time.Hour), cmp.Or(o.Max, 1000), cmp.Or(o.patience, patience)
	if o.Report == nil {
		o.Report = func(error) {}
	}
	quiet.Do(func() { redis.SetLogger(silent{}) })
	ctx, cancel := context.WithCancel(context.Background())
	b := &Bus{
		o:       o,
		ctx:     ctx,
		cancel:  cancel,
		ended:   make(chan struct{}),
		changed: make(chan struct{}, 1),
		readers: make(chan struct{}, connections/2),
		trying:  make(chan struct{}),
		topics:  map[string]*topic{},
		dirty:   map[string]bool{},
		waiting: map[*Follower]struct{}{},
	}
	go b.run() // until Close
	return b, nil
}

// go-redis logs every failed attempt to connect; Report says it once.
var quiet sync.Once

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Close ends everything, followers included.
func (b *Bus) Close() error {
	b.cancel()
	<-b.ended
	b.wake()
	return nil
}

// Up tells whether the bus can be reached.
func (b *Bus) Up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.client != nil
}

// Publish appends e (ID, Kind and Data) to a log. Without an ID it gets one. If
// its ID was published before, nothing happens and fresh is false.
func (b *Bus) Publish(ctx context.Context, log string, e Entry) (published Entry, fresh bool, err error) {
	call := rand.Text()
	e.ID = cmp.Or(e.ID, call)
	if err := check(log, e); err != nil {
		return e, false, err
	}
	said, err := b.call(ctx, publishScript, []string{key(log, "log"), key(log, "meta"), key(log, "ids"), key(log, "ids2")},
		log, e.ID, call, pack(e), ms(b.o.Keep), ms(max(memory, b.o.Keep)), b.o.Max)
	if err != nil {
		return e, false, err
	}
	n, at, by, err := parse(said)
	if err != nil {
		return e, false, err
	}
	e.Cursor, e.Index, e.At = cursor(n), -1, at
	return e, by == call, nil
}

// History reads the entries after a cursor (or Start, Unseen), at most Max. gap:
// between the cursor and the first of them some are lost.
func (b *Bus) History(ctx context.Context, log, after string) (entries []Entry, gap bool, err error) {
	from, err := place(after)
	if err == nil {
		err = check(log, Entry{})
	}
	if err != nil {
		return nil, false, err
	}
	for len(entries) < b.o.Max {
		p, err := b.read(ctx, log, from, min(chunk, b.o.Max-len(entries)))
		if err != nil {
			return nil, false, err
		}
		if p.gap && len(entries) > 0 {
			break // trimmed while this was read: who goes on from here is told
		}
		entries, gap = append(entries, p.entries...), gap || p.gap
		if p.pos >= p.last {
			break
		}
		from = digits(p.pos)
	}
	return entries, gap, nil
}

// Agree gives the value of a name that all agree on: proposal if there was none
// before. It lives as long as the bus remembers, at least Keep after the last call.
func (b *Bus) Agree(ctx context.Context, name, proposal string) (string, error) {
	if err := check(name, Entry{Data: proposal}); err != nil {
		return "", err
	}
	return text(b.call(ctx, agreeScript, []string{"sse:agree:" + name}, proposal, ms(max(memory, b.o.Keep))))
}

func key(log, what string) string { return "sse:{" + log + "}:" + what }

func ms(d time.Duration) int64 { return max(d.Milliseconds(), 1) }

// place is where to read from, as readScript wants it.
func place(after string) (string, error) {
	switch after {
	case Now:
		return "now", nil
	case Start, Unseen:
		return after, nil
	}
	n, err := number(after)
	return digits(n), err
}

// check refuses what would not come out as it went in.
func check(log string, e Entry) error {
	switch {
	case log == "" || len(log) > longName || strings.ContainsAny(log, "{}"):
		return fmt.Errorf("%q is no name of a log: want 1 to %d bytes without braces", log, longName)
	case len(e.ID) > longName:
		return fmt.Errorf("the id is longer than %d bytes", longName)
	case len(e.Kind) > longName:
		return fmt.Errorf("the kind is longer than %d bytes", longName)
	case len(e.Data) > longest:
		return fmt.Errorf("the data is longer than %d bytes", longest)
	case !utf8.ValidString(e.Kind + e.Data):
		return errors.New("the data is not UTF-8")
	}
	return nil
}

// body is what of an entry is kept as it is. Entries that are written with a
// claim have no ID, they are known by their number.
type body struct {
	ID   string `json:"id,omitempty"`
	Kind string `json:"kind,omitempty"`
	Data string `json:"data"`
}

func pack(e Entry) string {
	b, _ := json.Marshal(body{e.ID, e.Kind, e.Data}) // strings only: cannot fail
	return string(b)
}

// unpack reads "number time body", the form in which entries travel.
func unpack(said any) (n uint64, e Entry, err error) {
	n, at, rest, err := parse(said)
	if err != nil {
		return 0, e, err
	}
	var kept body
	if err := json.Unmarshal([]byte(rest), &kept); err != nil {
		return 0, e, fmt.Errorf("%w: not an entry: %v", ErrDown, err)
	}
	e = Entry{Cursor: cursor(n), Index: -1, ID: kept.ID, Kind: kept.Kind, Data: kept.Data, At: at}
	if e.ID == "" {
		e.Index = int(n) - 1
	}
	return n, e, nil
}

// parse takes "number time rest" apart; the time is in microseconds.
func parse(said any) (n uint64, at time.Time, rest string, err error) {
	text, _ := said.(string)
	first, rest, _ := strings.Cut(text, " ")
	second, rest, found := strings.Cut(rest, " ")
	n, err = strconv.ParseUint(first, 10, 53)
	us, err2 := strconv.ParseInt(second, 10, 64)
	if err != nil || err2 != nil || !found {
		return 0, at, "", fmt.Errorf("%w: it said %.40q", ErrDown, text)
	}
	return n, time.UnixMicro(us), rest, nil
}

// text is the answer of a script that answers a string.
func text(said any, err error) (string, error) {
	if err != nil {
		return "", err
	}
	s, ok := said.(string)
	if !ok {
		return "", fmt.Errorf("%w: it said %v", ErrDown, said)
	}
	return s, nil
}
