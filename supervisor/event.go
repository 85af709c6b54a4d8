package supervisor

import (
	"slices"
	"time"
)

// Event is something that happened to an app or one of its instances.
type Event struct {
	Seq     uint64
	At      time.Time
	Kind    string // "start", "online", "exit", ...: see docs
	App     string
	ID      int // -1: of the app or the daemon
	Index   int // -1: as ID
	State   State
	Message string

	Progress *Progress // of kind "rollout"; nobody changes it
}

const (
	eventsKept  = 1000 // of all apps
	eventsQueue = 256  // per subscriber
)

// Feed is a subscription to events. C is closed when the subscriber was too
// slow, unsubscribed, or the supervisor ended; Lagged tells the first.
type Feed struct {
	C      <-chan Event
	c      chan Event
	lagged bool // written before c is closed
}

// Lagged tells, once C is closed, whether events were missed.
func (f *Feed) Lagged() bool { return f.lagged }

// feeds are the subscribers and the history; the board's goroutine owns them.
type feeds struct {
	seq  uint64
	past []Event
	subs map[*Feed]struct{}
}

func (f *feeds) emit(e Event) {
	f.seq++
	e.Seq = f.seq
	if e.Progress == nil || e.Progress.Done && e.Progress.Total > 0 { // steps are for who watches now
		f.past = append(f.past, e)
	}
	if len(f.past) > 2*eventsKept {
		f.past = append([]Event(nil), f.past[len(f.past)-eventsKept:]...)
	}
	for s := range f.subs {
		select {
		case s.c <- e:
		default: // a slow reader is cut, with a last word; it may come again for a snapshot
			s.lagged = true
			f.drop(s)
		}
	}
}

func (f *feeds) subscribe() *Feed {
	c := make(chan Event, eventsQueue)
	s := &Feed{C: c, c: c}
	f.subs[s] = struct{}{}
	return s
}

func (f *feeds) drop(s *Feed) {
	if _, ok := f.subs[s]; ok {
		delete(f.subs, s)
		close(s.c)
	}
}

// of is the history of one app, the newest n.
func (f *feeds) of(app string, id, n int) []Event {
	var r []Event
	for i := len(f.past) - 1; i >= 0 && len(r) < n; i-- {
		if e := f.past[i]; e.App == app && (e.ID == id || e.ID < 0) {
			r = append(r, e)
		}
	}
	slices.Reverse(r)
	return r
}
