package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"gpm/config"
)

const (
	maxHead = 64 << 10 // bytes of a status line and headers
	maxBody = 64 << 10 // bytes of a body that are looked at
	// maxInterim bounds answers that announce another one (100, 103).
	maxInterim = 8
)

// exchange is one GET on a connection of its own. It speaks HTTP by itself, on
// the caller's goroutine: net/http's Transport would leave goroutines and a
// connection behind for a while, and has to be told not to use proxies and
// caches of connections.
type exchange struct {
	p    config.Probe
	conn net.Conn
	ctx  context.Context // with the deadline of the check; at its end conn is closed
	wire io.LimitedReader
	got  bool // a byte has come
}

// http passes if the status is a wanted one, and the body, as far as it is
// looked at, arrives. A server that says 200 and then hangs is not well.
func (x *exchange) http() error {
	resp, err := x.get("*/*")
	if err != nil {
		return err
	}
	if !accepted(x.p.Status, resp.StatusCode) {
		return fmt.Errorf("%s answered %d, expected %s", x.call(), resp.StatusCode, ranges(x.p.Status))
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	switch {
	case err == nil:
		return nil
	case x.over():
		hint := ""
		if isEventStream(resp) {
			hint = `; for an event stream there is "sse"`
		}
		return fmt.Errorf("%s answered %d, but its body did not end within %v%s", x.call(), resp.StatusCode, x.p.Timeout, hint)
	}
	return fmt.Errorf("%s answered %d, but its body broke off", x.call(), resp.StatusCode)
}

// sse passes when an event, or the wanted one, is complete.
func (x *exchange) sse() error {
	resp, err := x.get("text/event-stream")
	if err != nil {
		return err
	}
	call := x.call()
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered %d, expected 200", call, resp.StatusCode)
	case !isEventStream(resp):
		return fmt.Errorf("%s answered with Content-Type %q, expected text/event-stream", call, brief(resp.Header.Get("Content-Type")))
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return fmt.Errorf("%s answered with Content-Encoding %q, which nobody asked for", call, brief(encoding))
	}
	return x.event(resp.Body)
}

func isEventStream(resp *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return kind == "text/event-stream"
}

// event reads until an event is complete that passes.
func (x *exchange) event(body io.Reader) error {
	what := "event"
	if x.p.Event != "" {
		what = fmt.Sprintf("event %q", x.p.Event)
	}
	var s eventScanner
	buf := make([]byte, 4<<10)
	for read := 0; read < maxBody; {
		n, err := body.Read(buf[:min(len(buf), maxBody-read)])
		read += n
		for _, name := range s.scan(buf[:n]) {
			if x.p.Event == "" || name == x.p.Event {
				return nil
			}
		}
		switch {
		case err == nil:
		case x.over():
			return fmt.Errorf("no %s within %v", what, x.p.Timeout)
		default:
			return fmt.Errorf("the stream ended without an %s", what)
		}
	}
	return fmt.Errorf("no %s in the first %d KiB", what, maxBody>>10)
}

// get sends the request and returns the final answer. The body is not closed:
// that might read it to an end that never comes; it is over with conn.
func (x *exchange) get(accept string) (*http.Response, error) {
	req, err := x.request(accept)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := req.Write(&text); err != nil { // headers that config would not have taken
		return nil, fmt.Errorf("%s: %w", x.call(), err)
	}
	// An error is not the last word: a server that answers 503 at once and
	// closes may have answered before it has read.
	_, sendErr := x.conn.Write(text.Bytes())
	x.wire = io.LimitedReader{R: x.conn, N: maxHead}
	in := bufio.NewReader(&x.wire)
	switch first, err := in.Peek(1); {
	case err != nil:
		return nil, x.failed(errors.Join(sendErr, err))
	case first[0] == tlsAlert:
		return nil, fmt.Errorf("%s: the server speaks TLS; for that there is \"tls\": true", x.call())
	}
	x.got = true
	for range maxInterim {
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			return nil, x.failed(err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			// Frames around the chunks of a body need room, too.
			x.wire.N = 4 * maxBody
			return resp, nil
		}
	}
	return nil, fmt.Errorf("%s: only interim answers", x.call())
}

func (x *exchange) request(accept string) (*http.Request, error) {
	u, err := url.ParseRequestURI(x.p.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: not a path", x.call())
	}
	req := &http.Request{
		Method: http.MethodGet, URL: u, Host: "localhost", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"gpm-probe"}, "Accept": {accept}, "Cache-Control": {"no-cache"}},
		Close:  true,
	}
	for name, value := range x.p.Headers {
		if strings.EqualFold(name, "host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// call is what was asked for, without the query: a token in it is a secret.
func (x *exchange) call() string {
	path, _, _ := strings.Cut(x.p.Path, "?")
	return "GET " + brief(path)
}

// over tells whether the time is over, which closed the connection.
func (x *exchange) over() bool { return x.ctx.Err() != nil }

// failed says why there is no answer.
func (x *exchange) failed(err error) error {
	call := x.call()
	switch {
	case x.over() && !x.got:
		return fmt.Errorf("no answer within %v (connected, so it hangs or its accept queue is full)", x.p.Timeout)
	case x.over():
		return fmt.Errorf("%s: the answer was not complete within %v", call, x.p.Timeout)
	case x.wire.N <= 0:
		return fmt.Errorf("%s: the headers of the answer are larger than %d KiB", call, maxHead>>10)
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%s: the connection was reset", call)
	case !x.got:
		return fmt.Errorf("%s: the connection was closed without an answer", call)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the connection was closed in the middle of the answer", call)
	}
	return fmt.Errorf("%s: the answer is not HTTP: %s", call, brief(err.Error()))
}

// accepted tells whether status is among the wanted ones; none means 200 to 399.
func accepted(wanted []int, status int) bool {
	if len(wanted) == 0 {
		return status >= 200 && status < 400
	}
	for _, w := range wanted {
		if w == status {
			return true
		}
	}
	return false
}

// ranges is the wanted statuses, which ascend, in words: "200 to 299, 404".
func ranges(wanted []int) string {
	if len(wanted) == 0 {
		return "200 to 399"
	}
	var parts []string
	for i := 0; i < len(wanted); {
		j := i
		for j+1 < len(wanted) && wanted[j+1] == wanted[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(wanted[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d", wanted[i], wanted[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
