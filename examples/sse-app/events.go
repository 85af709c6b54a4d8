package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// event is one Server-Sent Event. Empty fields are not sent.
type event struct {
	id    string        // what a client sends back as Last-Event-ID
	name  string        // empty: the client's onmessage gets it
	retry time.Duration // how long the client waits before it reconnects
	data  string
}

var (
	// Line ends inside an id or a name would let a user write events of his
	// own; a NUL makes clients ignore the id.
	oneLine  = strings.NewReplacer("\r", "", "\n", "", "\x00", "")
	lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")
)

// encode appends e to b: LF only, always valid UTF-8, one blank line at the end.
func (e event) encode(b *bytes.Buffer) {
	field := func(name, value string) {
		b.WriteString(name + ": " + strings.ToValidUTF8(value, "\uFFFD") + "\n")
	}
	if e.retry > 0 {
		field("retry", strconv.FormatInt(e.retry.Milliseconds(), 10))
	}
	if name := oneLine.Replace(e.name); name != "" {
		field("event", name)
	}
	if id := oneLine.Replace(e.id); id != "" {
		field("id", id)
	}
	for line := range strings.SplitSeq(lineEnds.Replace(e.data), "\n") {
		field("data", line)
	}
	b.WriteByte('\n')
}

// errStreaming says that this connection cannot stream (a middleware hides
// Flush). Nothing has been written then.
//
//lint:ignore ST1005 it is the whole answer that the client sees
var errStreaming = errors.New("Streaming unsupported!")

// eventStream writes events to one client. It belongs to the handler's
// goroutine; nothing else may use it.
type eventStream struct {
	ctx    context.Context // ends when the client leaves
	w      http.ResponseWriter
	rc     *http.ResponseController
	app    *app
	kind   string // for the metrics
	buf    bytes.Buffer
	queued int // events in buf
	beat   *time.Timer
}

// openEvents sends the headers and one comment, so that the client knows at
// once that it is connected. The caller must close the stream.
func (a *app) openEvents(w http.ResponseWriter, r *http.Request) (*eventStream, error) {
	s, err := a.newEvents(w, r)
	if err != nil {
		return nil, err
	}
	if err := s.comment(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// newEvents is a stream of which nothing is sent yet, but its headers are set.
func (a *app) newEvents(w http.ResponseWriter, r *http.Request) (*eventStream, error) {
	s := &eventStream{ctx: r.Context(), w: w, rc: http.NewResponseController(w), app: a, kind: kindOf(r)}
	if err := s.rc.SetWriteDeadline(time.Now().Add(a.writeTimeout)); err != nil {
		return nil, errStreaming
	}
	eventHeaders(w.Header(), r)
	a.streams.Add(1)
	a.metrics.open.WithLabelValues(s.kind).Inc()
	s.beat = time.NewTimer(a.heartbeat)
	return s, nil
}

func eventHeaders(h http.Header, r *http.Request) {
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect the events otherwise
	h.Set("Incremental", "?1")       // the same for all proxies (RFC 10036)
	if r.ProtoMajor == 1 && h.Get("Connection") == "" {
		h.Set("Connection", "keep-alive") // net/http says "close" instead where that is true; HTTP/2 forbids the header
	}
}

// send writes the events in one piece and flushes.
func (s *eventStream) send(events ...event) error {
	for _, e := range events {
		s.add(e)
	}
	return s.flush()
}

// add puts an event into the next flush.
func (s *eventStream) add(e event) {
	e.encode(&s.buf)
	s.queued++
}

// comment is the heartbeat: exactly one line. With a second line end some
// clients would call their message handler with nothing.
func (s *eventStream) comment() error {
	s.buf.WriteString(":\n")
	return s.flush()
}

// flush writes with a deadline of its own. Without one a client that stops
// reading holds this goroutine for ever: not even the end of the request's
// context frees a blocked write.
func (s *eventStream) flush() error {
	events := s.queued
	s.queued = 0
	defer s.buf.Reset()
	defer s.beat.Reset(s.app.heartbeat)
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.app.writeTimeout)); err != nil {
		return err
	}
	_, err := s.w.Write(s.buf.Bytes())
	if err == nil {
		err = s.rc.Flush()
	}
	if err == nil && events > 0 {
		s.app.metrics.sent.WithLabelValues(s.kind).Add(float64(events))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.app.metrics.slow.WithLabelValues(s.kind).Inc()
		s.app.err.Printf("dropped a client that did not read for %s", s.app.writeTimeout)
	}
	return err
}

// wait lets d pass, with heartbeats. It is false if stop was closed meanwhile;
// the error is for a client that left.
func (s *eventStream) wait(d time.Duration, stop <-chan struct{}) (bool, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return false, s.ctx.Err()
		case <-stop:
			return false, nil
		case <-t.C:
			return true, nil
		case <-s.beat.C:
			if err := s.comment(); err != nil {
				return false, err
			}
		}
	}
}

func (s *eventStream) close() {
	s.beat.Stop()
	s.app.streams.Add(-1)
	s.app.metrics.open.WithLabelValues(s.kind).Dec()
	if s.ctx.Err() != nil {
		s.app.metrics.left.WithLabelValues(s.kind).Inc()
	}
}
