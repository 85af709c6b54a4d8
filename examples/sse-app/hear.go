package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
)

const (
	maxEvent = 1 << 20     // bytes of one event of an upstream
	lingers  = time.Second // how long an upstream may keep an answer open after its end mark
)

// hearing is an upstream's stream as it is read. It belongs to one goroutine.
type hearing struct {
	events  *eventReader
	body    io.ReadCloser
	forget  func() bool // that body is closed when the context ends
	mustEnd bool        // without an end the answer is not whole

	marked *time.Timer  // the end mark has come; then body is closed soon
	told   bool         // an error has come
	open   map[int]bool // choices that have not ended
	reason string       // why the last one did
}

// newHearing reads body until ctx ends. mustEnd: it is an answer in chunks, which
// has an end mark or ends with a finish_reason; of other streams we do not know.
func newHearing(ctx context.Context, body io.ReadCloser, mustEnd bool) *hearing {
	h := &hearing{events: &eventReader{r: bufio.NewReader(body)}, body: body, mustEnd: mustEnd, open: map[int]bool{}}
	h.forget = context.AfterFunc(ctx, func() { body.Close() }) // a blocked read ends with an error
	return h
}

func (h *hearing) close() {
	h.forget()
	if h.marked != nil {
		h.marked.Stop()
	}
	h.body.Close()
}

// each hands every event to next until the stream has ended. An answer that
// stops without an end is a *chatError.
func (h *hearing) each(next func(event) error) error {
	for {
		e, err := h.events.next()
		switch {
		case h.marked != nil && err == nil: // nothing belongs there
		case err != nil && (h.marked != nil || h.told):
			return nil
		case errors.Is(err, errTooLong):
			return badGateway("The upstream sent an event of more than 1 MiB.", "upstream_event_too_large", err)
		case err == io.EOF && h.whole():
			if !h.mustEnd {
				return nil
			}
			return next(event{data: endMark}) // some servers leave it out, some clients wait for it
		case err != nil:
			return badGateway("The upstream broke off its answer.", "upstream_interrupted", err)
		default:
			h.note(e.data)
			if err := next(e); err != nil {
				return err
			}
		}
	}
}

// whole tells whether a stream that has come to a clean end may end there.
func (h *hearing) whole() bool {
	return !h.mustEnd || (h.reason != "" && len(h.open) == 0)
}

// spoken is what we read in a chunk.
type spoken struct {
	Choices []struct {
		Index int `json:"index"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Error json.RawMessage `json:"error"`
}

// note looks for an end in the data of an event.
func (h *hearing) note(data string) {
	if data == endMark {
		// Normally the end of the answer comes together with it. Read to there the
		// connection can be used again.
		h.marked = time.AfterFunc(lingers, func() { h.body.Close() })
		return
	}
	c := readChunk(data)
	h.told = h.told || c.failed()
	for _, choice := range c.Choices {
		switch {
		case choice.FinishReason != nil && *choice.FinishReason != "":
			h.reason = *choice.FinishReason
			delete(h.open, choice.Index)
		case len(h.open) < 128: // as many choices as anybody offers
			h.open[choice.Index] = true
		}
	}
}

func readChunk(data string) (c spoken) {
	json.Unmarshal([]byte(data), &c) // what we cannot read passes as it is
	return c
}

func (c spoken) failed() bool { return len(c.Error) > 0 && string(c.Error) != "null" }

var errTooLong = errors.New("the event is too long")

// eventReader reads Server-Sent Events, with all the line ends that they may
// have.
type eventReader struct {
	r     *bufio.Reader
	line  []byte
	cr    bool // the last line ended with CR: an LF now belongs to it
	begun bool
}

// next is the next event that has data; comments and the rest are left out. At a
// clean end it is io.EOF, inside an event io.ErrUnexpectedEOF.
func (in *eventReader) next() (e event, err error) {
	var data []byte
	size := 0 // of the fields of this event
	for {
		err := in.readLine(maxEvent - size)
		switch {
		case err == io.EOF && string(data) == endMark+"\n":
			return event{data: endMark}, nil // some servers forget the blank line after it
		case err == io.EOF && (size > 0 || len(in.line) > 0):
			return e, io.ErrUnexpectedEOF
		case err != nil:
			return e, err
		}
		name, value, _ := strings.Cut(string(in.line), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case len(in.line) == 0 && len(bytes.TrimSpace(data)) > 0:
			e.data = string(data[:len(data)-1])
			return e, nil
		case len(in.line) == 0: // blank data is somebody's heartbeat; many clients cannot read it
			e, data, size = event{}, nil, 0
		case name == "data":
			data = append(append(data, value...), '\n')
		case name == "event":
			e.name = value
		case name == "id":
			e.id = value
		default:
			continue // comments may come for hours
		}
		size += len(in.line)
	}
}

// readLine reads a line of at most most bytes into in.line.
func (in *eventReader) readLine(most int) error {
	in.line = in.line[:0]
	for {
		c, err := in.r.ReadByte()
		if err != nil {
			return err
		}
		second := c == '\n' && in.cr
		in.cr = c == '\r'
		switch {
		case second:
		case c == '\n' || c == '\r':
			if !in.begun {
				in.line, in.begun = bytes.TrimPrefix(in.line, []byte("\uFEFF")), true
			}
			return nil
		case len(in.line) >= most:
			return errTooLong
		default:
			in.line = append(in.line, c)
		}
	}
}
