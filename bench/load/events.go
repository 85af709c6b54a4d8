package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxLine      = 64 << 10 // longer lines are Wrong
	defaultRetry = time.Second
	maxRetry     = 5 * time.Second
	minRetry     = 10 * time.Millisecond // a held stream must not spin
)

// events runs one connection of an event stream and gives it its class.
func (r *run) events(due time.Time, call Call, rd *reader) (res unitResult) {
	defer func() { res.whole = time.Since(due) }()
	call.Header = withHeader(call.Header, "Accept", "text/event-stream")
	x := r.begin(call, &res)
	if x == nil {
		return res
	}
	defer x.close()
	kind, _, _ := mime.ParseMediaType(x.resp.Header.Get("Content-Type"))
	if x.resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		res.class, res.why = Wrong, fmt.Sprintf("status %s, content type %q", x.resp.Status, kind)
		return res
	}
	released := !rd.endless
	br := bufio.NewReader(x.resp.Body)
	for res.class == "" {
		e, err := nextEvent(br)
		if err != nil {
			rd.endOf(err, &res)
			break
		}
		rd.take(e, &res)
		if !released { // it works, so it may end when the run does
			x.release(r.soft)
			released = true
		}
	}
	return res
}

// reader judges the events of one stream. A held stream keeps its reader over
// all its connections, so that an id that comes again after a reconnect, or
// never comes, is seen.
type reader struct {
	end     string
	want    int
	endless bool

	lastID string
	last   position
	retry  time.Duration

	// Of the current connection:
	count int       // unnamed events
	told  string    // what the server said about its leaving
	prev  time.Time // of the last event
	ended time.Time // of the connection before; zero: there was none
}

// again prepares for another connection; ended says when the last one ended.
func (rd *reader) again(ended time.Time) {
	rd.count, rd.told, rd.prev, rd.ended = 0, "", time.Time{}, ended
}

func (rd *reader) retryWait() time.Duration {
	if rd.retry == 0 {
		return defaultRetry
	}
	return min(max(rd.retry, minRetry), maxRetry)
}

// take judges one event. It sets res.class if the unit is over with it.
func (rd *reader) take(e sseEvent, res *unitResult) {
	now := time.Now()
	if !rd.prev.IsZero() {
		res.gap = max(res.gap, now.Sub(rd.prev))
	} else if !rd.ended.IsZero() {
		res.resume = now.Sub(rd.ended)
	}
	rd.prev = now
	if e.retry > 0 {
		rd.retry = e.retry
	}
	switch {
	case e.name == "reconnect":
		rd.told = "event reconnect"
	case e.name == "hello" && res.instance == "":
		res.instance = instanceIn([]byte(e.data))
	case e.name != "":
	case rd.end != "" && e.data == rd.end:
		rd.complete(res)
	case isErrorChunk(e.data):
		rd.told = e.data
	default:
		rd.count++
		rd.follow(e.id, res)
	}
}

// follow checks that id is the one after the last.
func (rd *reader) follow(id string, res *unitResult) {
	if id == "" {
		return
	}
	p := parsePosition(id)
	switch {
	case rd.lastID == "" || p.series != rd.last.series:
	case p.number <= rd.last.number:
		res.class, res.why = Duplicated, fmt.Sprintf("id %q came after %q", id, rd.lastID)
		return // the later id stays the cursor
	case p.number > rd.last.number+1:
		res.class, res.why = Wrong, fmt.Sprintf("events are missing: id %q came after %q", id, rd.lastID)
	}
	rd.lastID, rd.last = id, p
}

func (rd *reader) complete(res *unitResult) {
	res.class = Complete
	if rd.want > 0 && rd.count != rd.want {
		res.class, res.why = Wrong, fmt.Sprintf("end mark after %d events, %d were due", rd.count, rd.want)
	}
}

// endOf judges a connection that ended without an end mark.
func (rd *reader) endOf(err error, res *unitResult) {
	after := fmt.Sprintf("after %d events", rd.count)
	switch {
	case errors.Is(err, errReleased):
		res.class = Complete
	case rd.told != "":
		res.class, res.why = Told, rd.told+" "+after
	case errors.Is(err, io.ErrUnexpectedEOF):
		res.class, res.why = Cut, "connection closed inside the answer "+after
	case errors.Is(err, io.EOF):
		res.class, res.why = Cut, "clean end without the end mark "+after
	default:
		res.fail(err, "read events "+after)
	}
}

// position is an id taken apart: "g7.12" is number 12 of series "g7.". Ids
// without a number at the end have number 0, each in a series of its own.
type position struct {
	series string
	number uint64
}

func parsePosition(id string) position {
	series := strings.TrimRight(id, "0123456789")
	n, err := strconv.ParseUint(id[len(series):], 10, 64)
	if err != nil {
		return position{series: id}
	}
	return position{series, n}
}

// isErrorChunk reports whether data is an error object as OpenAI's API sends
// it inside a stream.
func isErrorChunk(data string) bool {
	if !strings.HasPrefix(data, "{") || !strings.Contains(data, `"error"`) {
		return false
	}
	var v struct {
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal([]byte(data), &v) == nil && len(v.Error) > 0 && string(v.Error) != "null"
}

// instanceIn finds the instance in a body: the field "instance" of a JSON
// object, or the body itself if it is one short word. Empty: it is not there.
func instanceIn(body []byte) string {
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "{") {
		var v struct {
			Instance any `json:"instance"`
		}
		if json.Unmarshal([]byte(text), &v) == nil && v.Instance != nil {
			return fmt.Sprint(v.Instance)
		}
		return ""
	}
	if len(text) <= 24 && !strings.ContainsAny(text, " \t\r\n<") {
		return text
	}
	return ""
}

type sseEvent struct {
	id, name, data string
	retry          time.Duration
}

// nextEvent reads up to the blank line that ends an event with data. An event
// that the stream's end interrupts is dropped, as the standard says.
func nextEvent(br *bufio.Reader) (e sseEvent, err error) {
	var data []string
	for {
		line, err := readLine(br)
		if err != nil {
			return sseEvent{}, err
		}
		if line == "" {
			if data == nil {
				continue
			}
			e.data = strings.Join(data, "\n")
			return e, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			data = append(data, value)
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				e.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// readLine reads a line without its end (LF or CR LF).
func readLine(br *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
		if len(line) > maxLine {
			return "", fmt.Errorf("line of an event is longer than %d bytes", maxLine)
		}
	}
}
