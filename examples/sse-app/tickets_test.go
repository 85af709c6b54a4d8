package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpm/examples/sse-app/ssetest"
)

// Whatever instance took the question, every instance gives the same answer, in
// the same chunks.
func TestTicketIsReadOnEveryInstance(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", nil), m.writer(t, "2", nil)
	for _, method := range []string{"POST", "PUT"} {
		resp := do(t, method, one.url+"/tickets", `{"messages":[{"role":"user","content":"Tell me a story"}],"stream_options":{"include_usage":true}}`)
		var got struct{ Ticket string }
		if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil || resp.StatusCode != 201 {
			t.Fatalf("%s: %s %v", method, resp.Status, err)
		}
		there, here := listenTo(t, got.Ticket, at(two.url)), listenTo(t, got.Ticket, at(one.url))
		there.complete(there.end(), "Tell me a story")
		here.complete(here.end(), "Tell me a story")
		if hello := there.named("hello"); len(hello) != 1 || !strings.Contains(hello[0], `"instance":"2"`) || strings.Contains(hello[0], "resumed") {
			t.Errorf("greeted with %q", hello)
		}
		for i, e := range here.events[1:] {
			if other := there.events[i+1]; e.Data != other.Data || e.ID != other.ID {
				t.Errorf("event %d is %+v on one instance and %+v on the other", i+1, e, other)
			}
		}
		chunks, words := here.events[1:], answer("Tell me a story")
		if len(chunks) != len(words)+4 || !strings.Contains(chunks[0].Data, `"role":"assistant"`) ||
			!strings.Contains(chunks[len(words)+1].Data, `"finish_reason":"stop"`) ||
			!strings.Contains(chunks[len(words)+2].Data, fmt.Sprintf(`"completion_tokens":%d`, len(words))) {
			t.Errorf("%d events for %d words: %+v", len(chunks), len(words), chunks)
		}
	}
}

func TestTicketResumes(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", nil), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	n := len(answer("x"))
	l := listenTo(t, g, at(one.url))
	l.complete(l.end(), "x")
	old := newTicketID(time.Now().Add(-2 * ticketLife))
	for _, tt := range []struct {
		ticket, lastID string
		status         int
		words          int // that come
	}{
		{g, "", 200, n},
		{g, g + ".0", 200, n - 1},
		{g, g + ".5", 200, n - 6},
		{g, fmt.Sprintf("%s.%d", g, n-1), 200, 0}, // the end itself was still due
		{g, fmt.Sprintf("%s.%d", g, n), 204, 0},
		{g, fmt.Sprintf("%s.%d", g, n+1), 400, 0},
		{g, "-1", 400, 0}, {g, "5", 400, 0}, {g, g, 400, 0}, {g, g + ".", 400, 0}, {g, g + ".-1", 400, 0}, {g, g + ".+1", 400, 0},
		{g, g + ".1.2", 400, 0}, {g, g + ".99999999999", 400, 0}, {g, old + ".5", 400, 0}, {g, "done", 400, 0},
		{newTicketID(time.Now()), "", 404, 0}, {"x", "", 404, 0}, {strings.ToUpper(g), "", 404, 0}, {g + "*", "", 404, 0},
		{strings.Repeat("z", ticketLength), "", 404, 0},
		{old, "", 410, 0},
		{old, old + ".5", 410, 0}, // nor does a reconnect begin a second answer
	} {
		for _, asQuery := range []bool{false, true} {
			path, headers := two.url+"/stream?ticket="+tt.ticket, []string{"Last-Event-ID", tt.lastID}
			if asQuery {
				path, headers = path+"&last_event_id="+strings.ReplaceAll(tt.lastID, "+", "%2B"), nil
			}
			resp := do(t, "GET", path, "", headers...)
			body := read(t, resp.Body)
			if words := strings.Count(body, `"content":"`) - strings.Count(body, `"role"`); resp.StatusCode != tt.status || words != tt.words {
				t.Errorf("%s after %q: %s and %d words, want %d and %d", tt.ticket, tt.lastID, resp.Status, words, tt.status, tt.words)
			}
			if resumed := fmt.Sprintf(`"resumed":%d}`, n-tt.words); tt.status == 200 && tt.lastID != "" && !strings.Contains(body, resumed) {
				t.Errorf("after %q: no %s in %q", tt.lastID, resumed, body)
			}
			if tt.status == 200 && !strings.HasSuffix(body, fmt.Sprintf("id: %s.%d\ndata: [DONE]\n\n", g, n)) {
				t.Errorf("after %q it ended with %q", tt.lastID, body[max(0, len(body)-200):])
			}
		}
	}
	if _, ok, err := one.bus.About(t.Context(), logOf(old)); ok || err != nil {
		t.Errorf("a reconnect after the end of its time made an answer: %t, %v", ok, err)
	}
}

func TestTicketsAreStrictAndSortable(t *testing.T) {
	now := time.Now()
	a, b := newTicketID(now), newTicketID(now.Add(time.Millisecond))
	if a >= b || len(a) > 64 || a == newTicketID(now) {
		t.Errorf("%q, then %q", a, b)
	}
	if at, ok := issued(a); !ok || at.UnixMilli() != now.UnixMilli() {
		t.Errorf("%q was issued at %v, %t", a, at, ok)
	}
	for _, bad := range []string{"", "x", a + "0", a[1:], strings.ToUpper(a), "-" + a[1:], a[:ticketLength-1] + "*", a[:ticketLength-1] + "\n"} {
		if _, ok := issued(bad); ok {
			t.Errorf("%q passes for a ticket", bad)
		}
	}
}

func TestTicketQuestionsAreChecked(t *testing.T) {
	m := small(t)
	r := m.writer(t, "1", nil)
	lone := start(t, nil)
	for _, tt := range []struct {
		url, body string
		status    int
		code      string
	}{
		{r.url, "{", 400, ""},
		{r.url, `{"prompt":" "}`, 400, ""},
		{r.url, `{"prompt":"x","model":"gpt-4o"}`, 404, "model_not_found"},
		{r.url, ask(strings.Repeat("x", maxQuestion)), 413, "request_too_large"},
		{lone.url, ask("x"), 503, "no_bus"},
	} {
		resp := do(t, "POST", tt.url+"/tickets", tt.body)
		var got struct {
			Error struct{ Message, Code string }
		}
		if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil || resp.StatusCode != tt.status || got.Error.Code != tt.code || got.Error.Message == "" {
			t.Errorf("%.40s: %s %+v %v", tt.body, resp.Status, got, err)
		}
	}
	g := newTicketID(time.Now())
	if body := read(t, do(t, "GET", lone.url+"/stream?ticket="+g, "").Body); !strings.Contains(body, "REDIS_URL") {
		t.Errorf("without a bus: %q", body)
	}
}

// The number of answers that one process writes is bounded.
func TestTicketsAreBounded(t *testing.T) {
	m := small(t)
	r := m.writer(t, "1", func(a *app) { a.delay = time.Hour })
	for range maxPens - 1 {
		r.pens.take()
	}
	order(t, r.url, ask("x"))
	resp := do(t, "POST", r.url+"/tickets", ask("x"))
	if body := read(t, resp.Body); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"busy"`) {
		t.Errorf("one more than allowed: %s %v %s", resp.Status, resp.Header, body)
	}
	for range maxPens - 1 {
		r.pens.put()
	}
	order(t, r.url, ask("x"))
}

// An answer of a user is for this user alone, to read as well as to stop.
func TestTicketOfAnotherUser(t *testing.T) {
	m := small(t)
	r, other := m.writer(t, "1", nil), m.writer(t, "2", nil)
	alice, bob := login(t, r.url, "alice"), login(t, r.url, "bob")
	resp := do(t, "POST", r.url+"/tickets", ask("x"), "Cookie", alice)
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
		t.Fatal(err)
	}
	g := got.Ticket
	for _, tt := range []struct {
		cookie string
		status []int
	}{{"", []int{401, 401, 401}}, {bob, []int{403, 403, 403}}, {alice + "0", []int{401, 401, 401}}, {alice, []int{200, 200, 202}}} {
		for i, path := range []string{"GET /stream?ticket=" + g, "GET /v1/generations/" + g, "POST /v1/generations/" + g + "/stop"} {
			method, path, _ := strings.Cut(path, " ")
			if resp := do(t, method, other.url+path, "", "Cookie", tt.cookie); resp.StatusCode != tt.status[i] {
				t.Errorf("%s %s as %q: %s", method, path, tt.cookie, resp.Status)
			}
		}
	}
}

// Readers of a process that leaves are told to come again; another instance
// goes on after the last whole event.
func TestReadersMoveOn(t *testing.T) {
	m := small(t)
	// Nobody dies, and nobody is to be taken for dead.
	one := m.writer(t, "1", func(a *app) { a.delay, a.pens.ttl = leisure/2, patience })
	two := m.writer(t, "2", func(a *app) { a.drain, a.pens.ttl = 50*time.Millisecond, patience })
	three := m.writer(t, "3", func(a *app) { a.pens.ttl = patience })
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, nil)
	l.where = func() string {
		if l.connections == 0 {
			return two.url
		}
		return three.url
	}
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	until(t, "the reader is there", func() bool { return two.streams.Load() == 1 })
	two.leave()
	l.complete(<-end, "x")
	before := slices.IndexFunc(l.events, func(e ssetest.Event) bool { return e.Event == "reconnect" }) - 2 // words; greeting and role come first
	if before < 0 || len(l.named("reconnect")) != 1 {
		t.Fatalf("sent away with %q", l.named("reconnect"))
	}
	resumed := ""
	if before > 0 {
		resumed = fmt.Sprintf(`"resumed":%d`, before)
	}
	if hello := l.named("hello"); len(hello) != 2 || !strings.Contains(hello[1], `"instance":"3"`) || !strings.Contains(hello[1], resumed) {
		t.Errorf("greeted with %q after %d words", hello, before)
	}
}

func TestReadersHaveAMaxAge(t *testing.T) {
	m := small(t)
	r := m.writer(t, "1", func(a *app) { a.delay, a.maxAge = 10*time.Millisecond, 50*time.Millisecond })
	g := order(t, r.url, ask("x"))
	l := listenTo(t, g, at(r.url))
	l.complete(l.end(), "x")
	if len(l.named("reconnect")) == 0 || l.connections < 2 {
		t.Errorf("%d connections, reconnects %q", l.connections, l.named("reconnect"))
	}
}
