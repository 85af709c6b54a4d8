package daemon

import (
	"net/http"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/api"
)

const (
	heartbeat = 15 * time.Second

	// How long a reader may take nothing; then its stream is cut. One of events
	// gets a new snapshot. One of logs may be a terminal that somebody has stopped
	// to read; its queue is bounded and counts what it misses.
	eventsPatience = 10 * time.Second
	logsPatience   = time.Hour
	lastPatience   = time.Second // of a daemon that ends
)

// stream writes server-sent events with a deadline on each write, so that a
// stopped reader costs one goroutine for a bounded time.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
	ending   <-chan struct{} // of the daemon
}

func (d *daemon) newStream(w http.ResponseWriter, patience time.Duration) (*stream, error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	s := &stream{w, http.NewResponseController(w), patience, d.ending}
	return s, s.beat()
}

// beat writes a comment: a sign of life, and proof of the reader's.
func (s *stream) beat() error {
	s.arm()
	if _, err := s.w.Write([]byte(":\n")); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s *stream) arm() {
	patience := s.patience
	select {
	case <-s.ending:
		patience = lastPatience
	default:
	}
	_ = s.rc.SetWriteDeadline(time.Now().Add(patience))
}

// queue writes an event; flush sends what was queued. A line of output costs no
// system call of its own.
func (s *stream) queue(name string, v any) error {
	s.arm()
	return api.WriteEvent(s.w, name, v)
}

func (s *stream) flush() error { return s.rc.Flush() }

func (s *stream) send(name string, v any) error {
	if err := s.queue(name, v); err != nil {
		return err
	}
	return s.flush()
}

// events: one snapshot, then all events after it, without a gap between.
func (d *daemon) events(w http.ResponseWriter, r *http.Request) {
	feed, list := d.brain.Subscribe()
	defer d.brain.Unsubscribe(feed)
	s, err := d.newStream(w, eventsPatience)
	if err != nil || s.send(api.StreamSnapshot, d.snapshot(list)) != nil {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for err == nil {
		select {
		case e, ok := <-feed.C:
			if !ok {
				_ = s.send(api.StreamError, lagged(feed))
				return
			}
			err = s.send(api.StreamEvent, eventOf(e))
		case <-beat.C:
			err = s.beat()
		case <-r.Context().Done():
			return
		case <-d.ending:
			return
		}
	}
}

func lagged(f *supervisor.Feed) *api.Error {
	if f.Lagged() {
		return &api.Error{Kind: api.KindTimeout, Message: "this reader was too slow and missed events", Hint: "connect again for a snapshot"}
	}
	return &api.Error{Kind: api.KindFailed, Message: "the daemon is ending"}
}
