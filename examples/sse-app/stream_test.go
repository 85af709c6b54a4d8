package main

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gpm/examples/sse-app/ssetest"
)

// lint is the strict check of a whole stream that a test has at hand.
func lint(stream string) error {
	var faults []error
	for _, f := range ssetest.Lint(stream, ssetest.Options{JSON: true}) {
		faults = append(faults, errors.New(f.String()))
	}
	return errors.Join(faults...)
}

func TestStreamFormat(t *testing.T) {
	r := start(t, nil)
	resp := do(t, "GET", r.url+"/stream?n=3", "")
	h := resp.Header
	if resp.StatusCode != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") ||
		!strings.Contains(h.Get("Cache-Control"), "no-store") || h.Get("X-Accel-Buffering") != "no" || h.Get("Connection") != "keep-alive" {
		t.Errorf("%s, headers %v", resp.Status, h)
	}
	body := read(t, resp.Body)
	if err := lint(body); err != nil {
		t.Error(err)
	}
	want := regexp.MustCompile(`^:\nretry: [12]\d{3}\nevent: hello\ndata: {"instance":"3","pid":\d+,"user":null}\n\n` +
		"id: 1\ndata: ChatGPT says: Hello, this is message 1\n\n" +
		"id: 2\ndata: ChatGPT says: Hello, this is message 2\n\n" +
		"id: 3\ndata: ChatGPT says: Hello, this is message 3\n\n" +
		`id: done\ndata: \[DONE\]\n\n$`)
	if !want.MatchString(body) {
		t.Errorf("got %q", body)
	}
}

func TestStreamResumes(t *testing.T) {
	r := start(t, nil)
	ids := regexp.MustCompile(`(?m)^id: (.*)$`)
	for _, tt := range []struct {
		path, lastID string
		status       int
		ids          string
	}{
		{"/stream?n=4", "", 200, "1 2 3 4 done"},
		{"/stream?n=4", "2", 200, "3 4 done"},
		{"/stream?n=4", "4", 200, "done"}, // the end itself was still due
		{"/stream?n=4", "done", 204, ""},
		{"/stream?n=4", "5", 204, ""},
		{"/stream", "done", 204, ""},
		{"/stream?n=4&last_event_id=3", "", 200, "4 done"},
		{"/stream?n=4&last_event_id=1", "3", 200, "4 done"}, // the header is newer
		{"/stream?n=4", "-1", 400, ""},
		{"/stream?n=4", "x", 400, ""},
		{"/stream?n=4", "18446744073709551615", 400, ""},
		{"/stream?n=0", "", 400, ""},
		{"/stream?n=all", "", 400, ""},
	} {
		var headers []string
		if tt.lastID != "" {
			headers = []string{"Last-Event-ID", tt.lastID}
		}
		resp := do(t, "GET", r.url+tt.path, "", headers...)
		var got []string
		for _, m := range ids.FindAllStringSubmatch(read(t, resp.Body), -1) {
			got = append(got, m[1])
		}
		if resp.StatusCode != tt.status || strings.Join(got, " ") != tt.ids {
			t.Errorf("%s after %q: status %d, ids %v; want %d, %s", tt.path, tt.lastID, resp.StatusCode, got, tt.status, tt.ids)
		}
	}
}

func TestStreamBeginsAtOnceAndBeats(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.heartbeat = time.Hour, 10*time.Millisecond })
	br := bufio.NewReader(do(t, "GET", r.url+"/stream", "").Body)
	for _, want := range []string{`^:$`, `^retry: \d+$`, `^event: hello$`, `^data: `, `^$`, `^:$`, `^:$`, `^:$`} {
		line, err := br.ReadString('\n')
		if err != nil || !regexp.MustCompile(want).MatchString(strings.TrimSuffix(line, "\n")) {
			t.Fatalf("line %q (%v), want %s", line, err, want)
		}
	}
}

func TestHeadOfStreamDoesNotStream(t *testing.T) {
	r := start(t, func(a *app) { a.interval = time.Hour })
	resp := do(t, "HEAD", r.url+"/stream", "")
	if resp.StatusCode != 200 || r.streams.Load() != 0 {
		t.Errorf("%s, %d streams", resp.Status, r.streams.Load())
	}
}

func TestWithoutFlushThereIsNoStream(t *testing.T) {
	a := newApp(config{})
	for _, serve := range []http.HandlerFunc{a.stream, a.completions} {
		rec := httptest.NewRecorder()
		// Only the three methods of a ResponseWriter are left.
		serve(struct{ http.ResponseWriter }{rec}, httptest.NewRequest("POST", "/stream", strings.NewReader(`{"prompt":"x","stream":true}`)))
		if rec.Code != 500 || !strings.Contains(rec.Body.String(), "Streaming unsupported!") {
			t.Errorf("%d %q", rec.Code, rec.Body)
		}
	}
}

func TestEventsCannotBeForged(t *testing.T) {
	for _, e := range []event{
		{id: "1\ndata: forged", name: "a\r\nid: 9", data: "x\r\n\r\ndata: forged"},
		{id: "a\x00b", name: "n", data: "one\rtwo\n\nthree"},
		{data: "bad \xff\xfe bytes", name: "\xff"},
		{data: "event: reconnect\nid: 5"},
	} {
		var b bytes.Buffer
		e.encode(&b)
		b.WriteString("data: next\n\n")
		events := dataOf(t, b.String())
		if len(events) != 2 || events[1] != "next" {
			t.Errorf("%+v became %q", e, b.String())
		}
		if got, want := events[0], strings.ToValidUTF8(lineEnds.Replace(e.data), "\uFFFD"); got != want {
			t.Errorf("data %q arrived as %q", want, got)
		}
	}
}

// dataOf reads the data of all events, as a browser does.
func dataOf(t *testing.T, stream string) (events []string) {
	t.Helper()
	if !utf8.ValidString(stream) || strings.ContainsAny(stream, "\r\x00") {
		t.Errorf("CR, NUL or bad bytes in %q", stream)
	}
	var data []string
	sc := bufio.NewScanner(strings.NewReader(stream))
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), ":")
		if name == "data" {
			data = append(data, strings.TrimPrefix(value, " "))
		}
		if sc.Text() == "" && data != nil {
			events, data = append(events, strings.Join(data, "\n")), nil
		}
	}
	return events
}

// nextLine reads lines until one begins with prefix.
func nextLine(t *testing.T, br *bufio.Reader, prefix string) string {
	t.Helper()
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatalf("stream ended before %q: %v", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSuffix(line, "\n")
		}
	}
}
