package ssetest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// enough findings say what is wrong; a broken stream would have thousands.
const enough = 10

// Reader lints what the test reads from body, and fails the test at each fault.
func Reader(t testing.TB, body io.ReadCloser, o Options) io.ReadCloser {
	return newReader(t, "stream", body, o)
}

func newReader(t testing.TB, what string, body io.ReadCloser, o Options) *reader {
	o.Silence = cmp.Or(o.Silence, maxSilence)
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &reader{ReadCloser: body, t: t, what: what, o: o}
	r.linter = NewLinter(o, r.report)
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.over = true
	})
	return r
}

// reader is a body with a linter on it.
type reader struct {
	io.ReadCloser
	t      testing.TB
	what   string
	o      Options
	linter *Linter
	silent time.Duration // waited since the last byte

	mu    sync.Mutex // held while the test is spoken to
	over  bool       // a test that has ended must not be spoken to
	found int
}

// Read counts only the time in which it waits itself: bytes that lie ready
// while the test does something else are not late.
func (r *reader) Read(b []byte) (int, error) {
	start := r.o.Now()
	n, err := r.ReadCloser.Read(b)
	before := r.silent
	r.silent += r.o.Now().Sub(start)
	if before < r.o.Silence && r.silent >= r.o.Silence {
		r.linter.fault(r.linter.at, "silence", "no byte for %s; proxies cut such a connection", r.o.Silence)
	}
	if n > 0 {
		r.silent = 0
	}
	r.linter.Write(b[:n])
	if errors.Is(err, io.EOF) {
		r.linter.End()
	}
	return n, err
}

func (r *reader) report(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found++; r.over || r.found > enough {
		return
	}
	r.t.Errorf("%s: %s", r.what, f)
}

// Transport lints every event stream that comes through it, headers included.
type Transport struct {
	T       testing.TB
	Base    http.RoundTripper               // nil: http.DefaultTransport
	Options func(req *http.Request) Options // nil: the same for all
}

// RoundTrip does what Base does.
func (tr *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := tr.Base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	kind, params, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/event-stream" {
		return resp, nil
	}
	what := fmt.Sprintf("%s %s", req.Method, req.URL)
	for _, fault := range headerFaults(resp, params["charset"]) {
		tr.T.Errorf("%s: %s", what, fault)
	}
	if req.Method != http.MethodHead {
		var o Options
		if tr.Options != nil {
			o = tr.Options(req)
		}
		resp.Body = newReader(tr.T, what, resp.Body, o)
	}
	return resp, nil
}

// headerFaults is what is wrong before the first byte.
func headerFaults(resp *http.Response, charset string) (faults []string) {
	h := resp.Header
	if resp.StatusCode != http.StatusOK {
		faults = append(faults, "an event stream with status "+resp.Status)
	}
	if charset != "" && !strings.EqualFold(charset, "utf-8") {
		faults = append(faults, fmt.Sprintf("charset %q; an event stream is UTF-8", charset))
	}
	if cache := h.Get("Cache-Control"); !strings.Contains(cache, "no-cache") && !strings.Contains(cache, "no-store") {
		faults = append(faults, fmt.Sprintf("Cache-Control %q lets it be cached", cache))
	}
	if resp.ProtoMajor > 1 && h.Get("Connection") != "" {
		faults = append(faults, "HTTP/2 forbids the header Connection")
	}
	return faults
}
