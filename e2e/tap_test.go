package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// tap is an open event stream of a streaming server.
type tap struct {
	t        *testing.T
	conn     net.Conn
	in       *bufio.Reader
	pid      int
	instance string
}

// tap opens a stream and reads who serves it.
func (g *gpm) tap(port int, path string) *tap {
	g.t.Helper()
	s, err := openTap(g.t, port, path)
	if err != nil {
		g.t.Fatalf("open %s: %v", path, err)
	}
	g.t.Cleanup(s.close)
	return s
}

func openTap(t *testing.T, port int, path string) (*tap, error) {
	conn, err := net.DialTimeout("tcp", addr(port), patience)
	if err != nil {
		return nil, err
	}
	s := &tap{t: t, conn: conn}
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		conn.Close()
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && res.StatusCode != 200 {
		err = fmt.Errorf("status %s", res.Status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	s.in, s.instance = bufio.NewReader(res.Body), res.Header.Get("X-Instance")
	for s.pid == 0 {
		line, err := s.line()
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("wait for its hello: %w", err)
		}
		var hello struct{ PID int }
		if data, ok := strings.CutPrefix(line, "data: {"); ok && json.Unmarshal([]byte("{"+data), &hello) == nil {
			s.pid = hello.PID
		}
	}
	return s, nil
}

// line is the next line that is not empty.
func (s *tap) line() (string, error) {
	for {
		s.conn.SetDeadline(time.Now().Add(patience))
		line, err := s.in.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" || err != nil {
			return line, err
		}
	}
}

// lives reads n more lines; it fails the test if the stream ends before that.
func (s *tap) lives(n int, when string) {
	s.t.Helper()
	for range n {
		if _, err := s.line(); err != nil {
			s.t.Fatalf("%s: the stream of pid %d ended: %v", when, s.pid, err)
		}
	}
}

// complete reads to the end, which has to be the end mark, and leaves: a
// connection that is kept would hold up a drain until it counts as idle.
func (s *tap) complete(when string) {
	s.t.Helper()
	defer s.close()
	if last, err := s.rest(); last != "data: [DONE]" || !errors.Is(err, io.EOF) {
		s.t.Errorf("%s: the stream of pid %d ended with %q, %v", when, s.pid, last, err)
	}
}

// cut reads to the end, which has to come without an end mark or farewell.
func (s *tap) cut(when string) {
	s.t.Helper()
	if last, err := s.rest(); last == "data: [DONE]" || strings.Contains(last, "reconnect") || errors.Is(err, io.EOF) {
		s.t.Errorf("%s: the stream of pid %d was not cut: it ended with %q, %v", when, s.pid, last, err)
	}
}

// rest reads to the end.
func (s *tap) rest() (last string, err error) {
	for {
		line, err := s.line()
		if err != nil {
			return last, err
		}
		last = line
	}
}

func (s *tap) close() { s.conn.Close() }
