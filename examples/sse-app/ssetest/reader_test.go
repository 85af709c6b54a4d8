package ssetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// judge is a test that others speak to.
type judge struct {
	testing.TB
	said    []string
	cleanup []func()
}

func (j *judge) Errorf(format string, args ...any) {
	j.said = append(j.said, fmt.Sprintf(format, args...))
}
func (j *judge) Cleanup(f func()) { j.cleanup = append(j.cleanup, f) }

func (j *judge) expect(t *testing.T, what string, parts ...string) {
	t.Helper()
	if len(j.said) != len(parts) {
		t.Errorf("%s: said %q, want %q", what, j.said, parts)
		return
	}
	for i, part := range parts {
		if !strings.Contains(j.said[i], part) {
			t.Errorf("%s: said %q, want %q", what, j.said[i], part)
		}
	}
}

func TestReaderLints(t *testing.T) {
	for _, tt := range []struct {
		name string
		body io.Reader
		want []string
	}{
		{"right", strings.NewReader("data: a\n\n"), nil},
		{"unfinished at a clean end", strings.NewReader("data: a\n\ndata: b\n"), []string{"byte 9, line 3: unfinished"}},
		{"unfinished where the test cut it", io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil},
		{"a fault before the cut", io.MultiReader(strings.NewReader("retry: x\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), []string{"retry"}},
	} {
		j := &judge{}
		io.Copy(io.Discard, Reader(j, io.NopCloser(iotest.OneByteReader(tt.body)), Options{}))
		j.expect(t, tt.name, tt.want...)
	}
	j := &judge{}
	io.Copy(io.Discard, Reader(j, io.NopCloser(strings.NewReader(strings.Repeat("dat\n", 1000))), Options{}))
	if len(j.said) != enough {
		t.Errorf("%d faults were told, want %d", len(j.said), enough)
	}
}

func TestReaderIsQuietAfterItsTest(t *testing.T) {
	j := &judge{}
	r := Reader(j, io.NopCloser(strings.NewReader("retry: x\n")), Options{})
	for _, f := range j.cleanup {
		f()
	}
	io.Copy(io.Discard, r)
	j.expect(t, "after the test")
}

// lateReader lets time pass in each Read.
type lateReader struct {
	waits []time.Duration // then there is a byte; zero: there is none, and no time passes
	now   time.Time
}

func (r *lateReader) Read(b []byte) (int, error) {
	if len(r.waits) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	wait := r.waits[0]
	r.waits = r.waits[1:]
	r.now = r.now.Add(wait)
	b[0] = ':'
	return 1, nil
}

func TestSilenceIsAFault(t *testing.T) {
	for _, tt := range []struct {
		waits []time.Duration
		own   time.Duration // that the test itself takes before each Read
		limit time.Duration
		want  []string
	}{
		{waits: []time.Duration{15 * time.Second, 19 * time.Second, 19 * time.Second}},
		{waits: []time.Duration{20 * time.Second}, want: []string{"silence: no byte for 20s"}},
		{waits: []time.Duration{time.Hour, time.Hour}, want: []string{"byte 0", "byte 1"}},
		{waits: []time.Duration{time.Second, 0, time.Second}, own: time.Hour},
		{waits: []time.Duration{time.Second, 3 * time.Second}, limit: 2 * time.Second, want: []string{"no byte for 2s"}},
	} {
		late, j := &lateReader{waits: tt.waits}, &judge{}
		r := Reader(j, io.NopCloser(late), Options{Silence: tt.limit, Now: func() time.Time { return late.now }})
		for b := make([]byte, 1); ; {
			late.now = late.now.Add(tt.own)
			if _, err := r.Read(b); err != nil {
				break
			}
		}
		j.expect(t, fmt.Sprint(tt.waits), tt.want...)
	}
}

func TestTransportLintsEventStreams(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", q.Get("type"))
		w.Header().Set("Cache-Control", q.Get("cache"))
		if q.Has("status") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, "data: {}\n")
	}))
	defer srv.Close()
	events := "type=text/event-stream&cache=no-store"
	for _, tt := range []struct {
		method, path string
		want         []string
	}{
		{"GET", "/?type=text/plain", nil},
		{"GET", "/?" + events, []string{"byte 0, line 1: unfinished"}},
		{"GET", "/?type=text/event-stream%3Bcharset=UTF-8&cache=no-cache", []string{"unfinished"}},
		{"GET", "/v1?" + events, []string{"unfinished", "a clean end without [DONE]"}},
		{"GET", "/?type=text/event-stream%3Bcharset=latin1&cache=no-store", []string{`charset "latin1"`, "unfinished"}},
		{"GET", "/?status&" + events, []string{"status 503", "unfinished"}},
		{"GET", "/?type=text/event-stream&cache=max-age=5", []string{"Cache-Control", "unfinished"}},
		{"HEAD", "/?" + events, nil},
	} {
		j := &judge{}
		client := &http.Client{Transport: &Transport{T: j, Base: srv.Client().Transport, Options: func(req *http.Request) Options {
			return Options{OpenAI: req.URL.Path == "/v1"}
		}}}
		req, err := http.NewRequest(tt.method, srv.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		j.expect(t, tt.method+" "+tt.path, tt.want...)
	}
}
