package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// The names of server-sent events.
const (
	StreamLog      = "log"      // data: LogLine
	StreamSnapshot = "snapshot" // data: List
	StreamEvent    = "event"    // data: Event
	StreamError    = "error"    // data: Error; the last one of its stream
)

// maxStreamLine bounds one line of a stream. The largest is a snapshot.
const maxStreamLine = 16 << 20

// LogsQuery asks for lines of apps' output.
type LogsQuery struct {
	Targets []string // none: all
	Lines   int      // so many of the last lines of each file first; negative: none
	Out     bool     // with both false, both streams
	Err     bool
	Follow  bool // then go on with each new line until the context ends
}

func (q LogsQuery) values() url.Values {
	v := url.Values{"target": q.Targets, "lines": {strconv.Itoa(max(q.Lines, 0))}}
	flag := func(key string, on bool) {
		if on {
			v.Set(key, "1")
		}
	}
	flag("out", q.Out || !q.Err)
	flag("err", q.Err || !q.Out)
	flag("follow", q.Follow)
	return v
}

// Logs yields lines as the daemon reads them. It ends with the context, or
// when a query that does not follow is answered; an error is yielded last. A
// stream that followed and was cut ends with ErrBroken: ask again.
func (c *Client) Logs(ctx context.Context, q LogsQuery) iter.Seq2[LogLine, error] {
	return func(yield func(LogLine, error) bool) {
		res, err := c.open(ctx, RouteLogs, q.values())
		if err != nil {
			yield(LogLine{}, err)
			return
		}
		defer res.Body.Close()
		err = readStream(res.Body, func(name string, data []byte) (bool, error) {
			if name != StreamLog {
				return true, nil
			}
			var line LogLine
			if err := json.Unmarshal(data, &line); err != nil {
				return false, fmt.Errorf("read log line: %w", err)
			}
			return yield(line, nil), nil
		})
		if err := ended(ctx, err, q.Follow); err != nil {
			yield(LogLine{}, err)
		}
	}
}

// Events is a snapshot of the list, and each event after it. The iterator owns
// the connection and closes it when it ends; whoever does not iterate cancels
// the context. A stream that was cut (the daemon was restarted, or this reader
// was too slow) yields an error last: ask again, for a new snapshot.
func (c *Client) Events(ctx context.Context) (List, iter.Seq2[Event, error], error) {
	res, err := c.open(ctx, RouteEvents, nil)
	if err != nil {
		return List{}, nil, err
	}
	in := newStreamReader(res.Body)
	name, data, err := in.next()
	var first List
	switch {
	case err != nil:
		err = ended(ctx, err, true)
	case name == StreamError:
		err = lastWord(data)
	case name != StreamSnapshot:
		err = fmt.Errorf("read events: got %q before the snapshot", name)
	default:
		err = json.Unmarshal(data, &first)
	}
	if err != nil {
		res.Body.Close()
		return List{}, nil, err
	}
	return first, func(yield func(Event, error) bool) {
		defer res.Body.Close()
		err := in.each(func(name string, data []byte) (bool, error) {
			if name != StreamEvent {
				return true, nil
			}
			var e Event
			if err := json.Unmarshal(data, &e); err != nil {
				return false, fmt.Errorf("read event: %w", err)
			}
			return yield(e, nil), nil
		})
		if err := ended(ctx, err, true); err != nil {
			yield(Event{}, err)
		}
	}, nil
}

// open starts a stream; like every GET it is sent again when the connection
// breaks before the answer began. The answer's head has a deadline, its body
// lasts as long as ctx.
func (c *Client) open(ctx context.Context, route string, query url.Values) (*http.Response, error) {
	type answer struct {
		res *http.Response
		err error
	}
	head, cancel := withDeadline(ctx, readTimeout)
	defer cancel()
	body, drop := context.WithCancel(ctx)
	stop := context.AfterFunc(head, drop)
	var a answer
	pause := initialPause
	for range readTries {
		a.res, a.err = c.send(body, Find(route), query, nil)
		if !errors.Is(a.err, ErrBroken) || !wait(head, pause) {
			break
		}
		pause *= 2
	}
	stop()
	if a.err != nil {
		drop()
		return nil, late(head, route, a.err)
	}
	a.res.Body = &streamBody{a.res.Body, drop}
	return a.res, nil
}

type streamBody struct {
	io.ReadCloser
	drop context.CancelFunc
}

func (b *streamBody) Close() error {
	b.drop()
	return b.ReadCloser.Close()
}

// ended says what the end of a stream means: nothing, if it was asked for.
func ended(ctx context.Context, err error, endless bool) error {
	var e *Error
	switch {
	case ctx.Err() != nil, errors.Is(err, errLeft):
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, io.EOF) && !endless:
		return nil
	case errors.Is(err, errMalformed):
		return err
	case err != nil:
		return fmt.Errorf("%w in the middle of a stream", ErrBroken)
	}
	return nil
}

var (
	errLeft      = errors.New("the reader left")
	errMalformed = errors.New("malformed stream")
)

func lastWord(data []byte) error {
	var e Error
	if err := json.Unmarshal(data, &e); err != nil || e.Message == "" {
		return fmt.Errorf("%w: an error without a message", errMalformed)
	}
	return &e
}

func readStream(r io.Reader, each func(name string, data []byte) (bool, error)) error {
	return newStreamReader(r).each(each)
}

// streamReader reads server-sent events.
type streamReader struct {
	in *bufio.Reader
}

func newStreamReader(r io.Reader) *streamReader {
	return &streamReader{bufio.NewReaderSize(r, 64<<10)}
}

// each calls f until it says stop or the stream ends; the end is an error too.
func (s *streamReader) each(f func(name string, data []byte) (bool, error)) error {
	for {
		name, data, err := s.next()
		if err != nil {
			return err
		}
		if name == StreamError {
			return lastWord(data)
		}
		more, err := f(name, data)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		if !more {
			return errLeft
		}
	}
}

// next is the next event. An event that is cut by the end of the stream is not
// one. The data is the caller's.
func (s *streamReader) next() (name string, data []byte, err error) {
	for {
		line, err := s.line()
		if err != nil {
			return "", nil, err
		}
		if len(line) == 0 {
			if data != nil {
				return name, data, nil
			}
			name = ""
			continue
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(key) { // an empty key is a comment: the daemon's sign of life
		case "event":
			name = string(value)
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
			if len(data) > maxStreamLine {
				return "", nil, fmt.Errorf("%w: an event of more than %d bytes", errMalformed, maxStreamLine)
			}
			if data == nil {
				data = []byte{}
			}
		}
	}
}

// line is the next line without its end, valid until the next call.
func (s *streamReader) line() ([]byte, error) {
	line, err := s.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimRight(line, "\r\n"), err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = s.in.ReadSlice('\n')
		long = append(long, line...)
		if len(long) > maxStreamLine {
			return nil, fmt.Errorf("%w: a line of more than %d bytes", errMalformed, maxStreamLine)
		}
	}
	return bytes.TrimRight(long, "\r\n"), err
}

// WriteEvent writes one server-sent event with v as its JSON data, in one
// Write. The caller flushes.
func WriteEvent(w io.Writer, name string, v any) error {
	data, err := json.Marshal(v) // has no line breaks
	if err != nil {
		return fmt.Errorf("write %s event: %w", name, err)
	}
	buf := make([]byte, 0, len(name)+len(data)+16)
	buf = append(buf, "event: "...)
	buf = append(buf, name...)
	buf = append(buf, "\ndata: "...)
	buf = append(buf, data...)
	buf = append(buf, '\n', '\n')
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("write %s event: %w", name, err)
	}
	return nil
}
