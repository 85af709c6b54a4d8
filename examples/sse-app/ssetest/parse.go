package ssetest

import (
	"bytes"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is what an EventSource hands to a listener.
type Event struct {
	ID    string        // last event id of the stream at this event; it stays until another comes
	Event string        // its type, "message" unless the stream names another
	Data  string        // lines joined with LF
	Retry time.Duration // wait before a reconnect that holds at this event; zero: the client's own
}

// Parser reads text/event-stream as section 9.2 of the HTML standard says,
// and nothing else: it is the judge in tests, so it forgives only what every
// browser forgives. The zero value is at the start of a stream.
type Parser struct {
	head    []byte // the first bytes, as long as they may be a BOM
	started bool
	afterCR bool // a LF now belongs to the line end before it
	line    []byte

	data   strings.Builder
	some   bool // there was a data line
	kind   string
	id     string // of the event that is coming in
	lastID string // of the last event that was complete
	retry  time.Duration
}

// LastEventID is what a client would send if it reconnected now. An event that
// did not end does not change it.
func (p *Parser) LastEventID() string { return p.lastID }

// Retry is the wait before a reconnect; zero: the stream has not said.
func (p *Parser) Retry() time.Duration { return p.retry }

// Feed takes the next bytes and returns the events that they complete. How the
// stream is cut into pieces makes no difference. What is left at the end of a
// stream is an event that did not end; it is dropped with the Parser.
func (p *Parser) Feed(b []byte) (events []Event) {
	if !p.started {
		p.head = append(p.head, b...)
		if len(p.head) < len(bom) && strings.HasPrefix(bom, string(p.head)) {
			return nil
		}
		b, p.head, p.started = bytes.TrimPrefix(p.head, []byte(bom)), nil, true
	}
	for len(b) > 0 {
		if p.afterCR && b[0] == '\n' {
			b, p.afterCR = b[1:], false
			continue
		}
		p.afterCR = false
		end := bytes.IndexAny(b, "\r\n")
		if end < 0 {
			p.line = append(p.line, b...)
			break
		}
		p.line = append(p.line, b[:end]...)
		p.afterCR = b[end] == '\r'
		b = b[end+1:]
		if e, ok := p.endLine(); ok {
			events = append(events, e)
		}
	}
	return events
}

const bom = "\uFEFF"

// endLine takes the line that is complete; true: it ended an event.
func (p *Parser) endLine() (Event, bool) {
	line := decode(p.line)
	p.line = p.line[:0]
	if line == "" {
		return p.dispatch()
	}
	switch name, value := field(line); name {
	case "data":
		p.some = true
		p.data.WriteString(value + "\n")
	case "event":
		p.kind = value
	case "id":
		if !strings.Contains(value, "\x00") {
			p.id = value
		}
	case "retry":
		if d, ok := milliseconds(value); ok {
			p.retry = d
		}
	}
	return Event{}, false
}

func (p *Parser) dispatch() (Event, bool) {
	defer func() { p.some, p.kind = false, ""; p.data.Reset() }()
	p.lastID = p.id
	if !p.some {
		return Event{}, false
	}
	e := Event{ID: p.lastID, Event: p.kind, Data: strings.TrimSuffix(p.data.String(), "\n"), Retry: p.retry}
	if e.Event == "" {
		e.Event = "message"
	}
	return e, true
}

// field takes a line apart. A comment has the empty name.
func field(line string) (name, value string) {
	name, value, _ = strings.Cut(line, ":")
	return name, strings.TrimPrefix(value, " ")
}

// milliseconds reads the value of a retry field: digits and nothing else.
func milliseconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	var ms int64
	for _, digit := range s {
		if ms = ms*10 + int64(digit-'0'); ms > math.MaxInt64/int64(time.Millisecond)/10 {
			return math.MaxInt64, true // nobody waits for that long
		}
	}
	return time.Duration(ms) * time.Millisecond, true
}

// decode is the standard's UTF-8 decoder: each longest piece that could have
// begun a character becomes one U+FFFD. Go's own functions count otherwise.
func decode(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		for k := 2; r == utf8.RuneError && n < k && k <= min(len(b), utf8.UTFMax) && !utf8.FullRune(b[:k]); k++ {
			n = k
		}
		s.WriteRune(r)
		b = b[n:]
	}
	return s.String()
}

// Parse gives the events of a whole stream.
func Parse(stream string) []Event { return new(Parser).Feed([]byte(stream)) }

// Stream gives the events of a stream one by one as they come in. It belongs
// to one goroutine.
type Stream struct {
	Parser
	from  io.Reader
	ready []Event
	buf   [4096]byte
	err   error
}

// Open reads events from r. The caller closes r.
func Open(r io.Reader) *Stream { return &Stream{from: r} }

// Next waits for an event. Its error is that of the reader; io.EOF is a clean end.
func (s *Stream) Next() (Event, error) {
	for len(s.ready) == 0 {
		if s.err != nil {
			return Event{}, s.err
		}
		var n int
		n, s.err = s.from.Read(s.buf[:])
		s.ready = s.Feed(s.buf[:n])
	}
	e := s.ready[0]
	s.ready = s.ready[1:]
	return e, nil
}
