package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gpm/examples/sse-app/internal/bus"
	"gpm/examples/sse-app/ssetest"
)

// leisure is a pace at which something can be done before the answer has ended,
// on a busy machine, too.
const leisure = 100 * time.Millisecond

// writers are instances on a bus. What dies is missed after 300 ms.
func (m *meeting) writer(t *testing.T, name string, change func(*app)) *running {
	t.Helper()
	r := m.instance(t, name, func(a *app) {
		a.pens.ttl = 300 * time.Millisecond
		if change != nil {
			change(a)
		}
	})
	until(t, "the bus is there", r.bus.Up)
	return r
}

// bare is a connection to the bus without an instance.
func (m *meeting) bare(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Open(bus.Options{URL: m.where})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	until(t, "the bus is there", b.Up)
	return b
}

// order hands in a ticket.
func order(t *testing.T, url, question string) (ticket string) {
	t.Helper()
	resp := do(t, "POST", url+"/tickets", question)
	var got struct{ Ticket, URL string }
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil || resp.StatusCode != 201 {
		t.Fatalf("POST /tickets: %s, %v", resp.Status, err)
	}
	if got.URL != "/stream?ticket="+got.Ticket {
		t.Errorf("ticket %q has the URL %q", got.Ticket, got.URL)
	}
	return got.Ticket
}

func ask(prompt string) string { return string(mustJSON(map[string]string{"prompt": prompt})) }

// listener is an EventSource: it comes back by itself, with the id of the last
// whole event, until it has the end or is sent away.
type listener struct {
	t      *testing.T
	where  func() string // the instance that it reaches now
	ticket string

	id          string // of the last event
	words       []string
	events      []ssetest.Event
	connections int
	faults      []string  // words that were lost or came twice
	taken       time.Time // when the last takeover was told
}

func listenTo(t *testing.T, ticket string, where func() string) *listener {
	return &listener{t: t, ticket: ticket, where: where}
}

func at(url string) func() string { return func() string { return url } }

// end listens to the end, and says what it was: "done", "error: code", or the
// status that sent it away.
func (l *listener) end() string {
	tr := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: &ssetest.Transport{T: l.t, Base: tr, Options: func(*http.Request) ssetest.Options {
		return ssetest.Options{JSON: true}
	}}}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if end := l.connect(ctx, client); end != "" {
			return end
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Sprintf("no end within %s", 2*patience)
		}
	}
}

// connect is one connection; empty: come again.
func (l *listener) connect(ctx context.Context, client *http.Client) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", l.where()+"/stream?ticket="+l.ticket, nil)
	if err != nil {
		return err.Error()
	}
	if l.id != "" {
		req.Header.Set("Last-Event-ID", l.id)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "" // refused, as between two lives of an instance
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return strconv.Itoa(resp.StatusCode)
	}
	l.connections++
	var p ssetest.Parser
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		for _, e := range p.Feed(buf[:n]) {
			if end := l.take(e); end != "" {
				return end
			}
		}
		if id := p.LastEventID(); id != "" {
			l.id = id
		}
		if err != nil {
			return ""
		}
	}
}

func (l *listener) take(e ssetest.Event) (end string) {
	l.events = append(l.events, e)
	var c chunk
	switch {
	case e.Event == "takeover":
		l.taken = time.Now()
		return ""
	case e.Event != "message":
		return ""
	case e.Data == "[DONE]":
		return "done"
	case json.Unmarshal([]byte(e.Data), &c) != nil:
		return "not JSON: " + e.Data
	case c.Error != nil:
		return "error: " + c.Error.Code
	}
	for _, ch := range c.Choices {
		if ch.Delta.Content != nil && ch.Delta.Role == "" {
			if want := fmt.Sprintf("%s.%d", l.ticket, len(l.words)); e.ID != want {
				l.faults = append(l.faults, fmt.Sprintf("word %q has id %s, want %s", *ch.Delta.Content, e.ID, want))
			}
			l.words = append(l.words, *ch.Delta.Content)
		}
	}
	return ""
}

// named are the data of the events of a name.
func (l *listener) named(name string) (data []string) {
	for _, e := range l.events {
		if e.Event == name {
			data = append(data, e.Data)
		}
	}
	return data
}

// complete checks that the whole answer to prompt has come, each word once.
func (l *listener) complete(end, prompt string) {
	l.t.Helper()
	if want := answer(prompt); end != "done" || !slices.Equal(l.words, want) || len(l.faults) > 0 {
		l.t.Errorf("ended with %q after %d of %d words: %q, faults %q", end, len(l.words), len(want), l.words, l.faults)
	}
}

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

// stateAt is what GET /v1/generations/{id} says.
func stateAt(t *testing.T, url, ticket string) (s state) {
	t.Helper()
	resp := do(t, "GET", url+"/v1/generations/"+ticket, "")
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &s); err != nil || resp.StatusCode != 200 || s.ID != ticket {
		t.Fatalf("%s %+v %v", resp.Status, s, err)
	}
	return s
}

// An answer is written to its end, whether anybody reads it or not.
func TestTicketNeedsNoReader(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", nil), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	until(t, "the answer is finished", func() bool { return stateAt(t, two.url, g).Status == "finished" })
	if s := stateAt(t, two.url, g); s.Tokens != len(answer("x")) || s.Instance != "1" {
		t.Errorf("%+v", s)
	}
	for _, path := range []string{"/v1/generations/" + newTicketID(time.Now()), "/v1/generations/x"} {
		if resp := do(t, "GET", one.url+path, ""); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if resp := do(t, "POST", one.url+path+"/stop", ""); resp.StatusCode != 404 {
			t.Errorf("stop of %s: %s", path, resp.Status)
		}
	}
}

// A reader who leaves does not stop anything; Stop does, from any instance, and
// all readers hear of it at once: no word comes after it.
func TestStopIsNotDisconnect(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	gone := do(t, "GET", two.url+"/stream?ticket="+g, "")
	gone.Body.Close()
	wordsOf(t, two.url, g, 3)
	if s := stateAt(t, two.url, g); s.Status != "running" {
		t.Errorf("after a reader left: %+v", s)
	}
	l := listenTo(t, g, at(one.url))
	before := stateAt(t, two.url, g).Tokens
	if resp := do(t, "POST", two.url+"/v1/generations/"+g+"/stop", ""); resp.StatusCode != 202 {
		t.Fatalf("stop: %s", resp.Status)
	}
	if end := l.end(); end != "done" || len(l.words) >= len(answer("x")) || len(l.faults) > 0 {
		t.Errorf("ended with %q after %d words, %d before the stop; %q", end, len(l.words), before, l.faults)
	}
	if s := stateAt(t, two.url, g); s.Status != "stopped" || s.Tokens != len(l.words) {
		t.Errorf("after the stop: %+v, the reader has %d words", s, len(l.words))
	}
	if resp := do(t, "POST", two.url+"/v1/generations/"+g+"/stop", ""); resp.StatusCode != 202 {
		t.Errorf("a second stop: %s", resp.Status)
	}
}

// The writer's model is silent: the stop does not wait for the next word.
func TestStopOfASilentModel(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = time.Hour }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	do(t, "POST", two.url+"/v1/generations/"+g+"/stop", "")
	if end := l.end(); end != "done" || len(l.words) != 0 {
		t.Errorf("ended with %q after %q", end, l.words)
	}
	if r := one.pens; len(r.taken) != 0 {
		until(t, "the writer is gone", func() bool { return len(r.taken) == 0 })
	}
}

// An answer whose writer is dead is "waiting", and ends with a stop at once.
func TestStopOfADeadWriter(t *testing.T) {
	m := small(t)
	r := m.writer(t, "1", nil)
	g := newTicketID(time.Now())
	if err := r.bus.Create(t.Context(), logOf(g), string(mustJSON(question{Prompt: "x"}))); err != nil {
		t.Fatal(err)
	}
	if s := stateAt(t, r.url, g); s.Status != "waiting" || s.Tokens != 0 {
		t.Errorf("before: %+v", s)
	}
	do(t, "POST", r.url+"/v1/generations/"+g+"/stop", "")
	if s := stateAt(t, r.url, g); s.Status != "stopped" || s.Tokens != 0 {
		t.Errorf("after: %+v", s)
	}
	l := listenTo(t, g, at(r.url))
	if end := l.end(); end != "done" || len(l.words) != 0 {
		t.Errorf("ended with %q after %q", end, l.words)
	}
}

// The claim of a process that is told to leave is given back, so that the
// others need not wait until it is missed: here that would be for ever.
func TestLeavingHandsTheAnswerOver(t *testing.T) {
	m := small(t)
	one := m.writer(t, "1", func(a *app) { a.pens.ttl, a.delay, a.drain = time.Hour, leisure, 50*time.Millisecond })
	two := m.writer(t, "2", func(a *app) { a.pens.ttl = time.Hour })
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	wordsOf(t, two.url, g, 1)
	one.leave()
	end := l.end()
	l.complete(end, "x")
	if moved := l.named("takeover"); len(moved) != 1 || !strings.HasPrefix(moved[0], `{"instance":"2","token":`) {
		t.Errorf("takeovers %q", moved)
	}
	one.ended(t)
}

// A process that has no more clients but writes an answer stays until it is
// written, as long as the drain lasts.
func TestLeavingWaitsForTheAnswer(t *testing.T) {
	m := small(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = 10 * time.Millisecond }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	one.leave()
	one.ended(t)
	if s := stateAt(t, two.url, g); s.Status != "finished" || s.Instance != "1" {
		t.Errorf("%+v", s)
	}
}

// Readers of a process that leaves are told to come again; another instance
// goes on after the last whole event.
func TestReadersMoveOn(t *testing.T) {
	m := small(t)
	one := m.writer(t, "1", func(a *app) { a.delay = 10 * time.Millisecond })
	two, three := m.writer(t, "2", func(a *app) { a.drain = 50 * time.Millisecond }), m.writer(t, "3", nil)
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

// Two write the same answer: the one whose claim has passed on cannot write.
func TestTwoWritersAreFenced(t *testing.T) {
	m := small(t)
	r := m.writer(t, "2", nil)
	ghosts := m.bare(t)
	g := newTicketID(time.Now())
	if err := ghosts.Create(t.Context(), logOf(g), string(mustJSON(question{ID: "chatcmpl-1", Created: 1, Model: modelName, Prompt: "x"}))); err != nil {
		t.Fatal(err)
	}
	ghost, err := ghosts.Claim(t.Context(), logOf(g), 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	word := string(mustJSON(token{By: "ghost:1", Text: answer("x")[0]}))
	if err := ghost.Append(t.Context(), 0, kindWord, word); err != nil {
		t.Fatal(err)
	}
	l := listenTo(t, g, at(r.url))
	l.complete(l.end(), "x") // r went on
	if err := ghost.Append(t.Context(), 1, kindWord, word); err == nil {
		t.Error("a writer that had lost its claim could write")
	}
	if moved := l.named("takeover"); len(moved) != 1 || moved[0] != `{"instance":"2","token":1}` {
		t.Errorf("takeovers %q", moved)
	}
	again := listenTo(t, g, at(r.url))
	again.complete(again.end(), "x")
}

// The bus is away in the middle of an answer: readers stay connected, and have
// all of it when it is back.
func TestBusAwayInTheMiddle(t *testing.T) {
	m := redisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	for _, long := range []bool{false, true} {
		g := order(t, one.url, ask("x"))
		l := listenTo(t, g, at(two.url))
		end := make(chan string, 1)
		go func() { end <- l.end() }() // until the answer ends
		wordsOf(t, two.url, g, 3)
		m.stop()
		if long {
			until(t, "the writer has given up", func() bool { return len(one.pens.taken) == 0 })
		}
		resp := do(t, "POST", one.url+"/tickets", ask("x"))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("a question without the bus: %s %v", resp.Status, resp.Header)
		}
		m.back()
		l.complete(<-end, "x")
		if l.connections != 1 {
			t.Errorf("%d connections, want one that stays open", l.connections)
		}
		until(t, "the bus is back for all", func() bool { return one.bus.Up() && two.bus.Up() })
	}
}

// A client that comes while the bus is away is not sent away for good: it is
// held, and asked to come again when the bus is back.
func TestReaderComesWhileTheBusIsAway(t *testing.T) {
	m := redisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	r := m.writer(t, "1", nil)
	g := order(t, r.url, ask("x"))
	until(t, "the answer is finished", func() bool { return stateAt(t, r.url, g).Status == "finished" })
	m.stop()
	until(t, "the bus is missed", func() bool { return !r.bus.Up() })
	l := listenTo(t, g, at(r.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	until(t, "the client is held", func() bool { return r.streams.Load() == 1 })
	m.back()
	l.complete(<-end, "x")
	if len(l.named("reconnect")) == 0 {
		t.Error("it was not asked to come again")
	}
}

// A bus that has lost its memory is told, with an error at the end: neither
// silence nor an end that looks like one.
func TestBusLosesItsMemory(t *testing.T) {
	m := redisServer(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer is lost
	wordsOf(t, two.url, g, 3)
	m.stop()
	m.back()
	if got := <-end; got != "error: generation_lost" || len(l.faults) > 0 || len(l.named("gap")) != 1 {
		t.Errorf("ended with %q after gap %q; %q", got, l.named("gap"), l.faults)
	}
	until(t, "the bus is back for all", func() bool { return one.bus.Up() && two.bus.Up() })
	if got := l.end(); got != "404" {
		t.Errorf("a reconnect got %q", got)
	}
	until(t, "the writer is gone", func() bool { return len(one.pens.taken) == 0 })
}

// A hole in the log is never passed over.
func TestHoleInAnAnswer(t *testing.T) {
	word := func(i int) bus.Entry {
		return bus.Entry{Index: i, Kind: kindWord, Data: string(mustJSON(token{By: "a:1", Text: "x"}))}
	}
	to := &reader{q: &question{}, chunks: (&question{}).answer(), last: -1, next: 2}
	events, more, hole := to.news([]bus.Entry{word(1), word(2), word(4)})
	if len(events) != 1 || !more || !hole || to.next != 3 {
		t.Errorf("%d events, more %t, hole %t, then %d", len(events), more, hole, to.next)
	}
}

// A bus that has lost only the last moments, as a Redis that was killed between
// two saves: they are written again, and nobody gets them twice.
func TestBusLosesTheLastMoments(t *testing.T) {
	m := redisServer(t)
	one, two := m.writer(t, "1", func(a *app) { a.delay = leisure }), m.writer(t, "2", nil)
	g := order(t, one.url, ask("x"))
	l := listenTo(t, g, at(two.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, two.url, g, 3)
	o, err := redis.ParseURL(m.url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	if err := c.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	saved := stateAt(t, two.url, g).Tokens
	wordsOf(t, two.url, g, saved+5)
	m.stop()
	m.back()
	l.complete(<-end, "x")
	again := listenTo(t, g, at(two.url))
	again.complete(again.end(), "x")
}

// An upstream's answer, by ticket. It cannot be continued by another process:
// readers are told so, with an error that ends it for good.
func TestTicketOfAnUpstream(t *testing.T) {
	m := small(t)
	model := start(t, func(a *app) { a.delay = leisure })
	with := func(a *app) { a.upstream, a.drain, a.pens.ttl = model.url, 50*time.Millisecond, time.Hour }
	one, two := m.writer(t, "1", with), m.writer(t, "2", with)
	l := listenTo(t, order(t, one.url, ask("x")), at(two.url))
	l.complete(l.end(), "x")

	g := order(t, one.url, ask("x"))
	wordsOf(t, two.url, g, 3)
	l = listenTo(t, g, at(two.url))
	one.leave()
	end := l.end()
	if words := len(l.words); end != "error: generation_interrupted" || words < 3 || words >= len(answer("x")) || len(l.faults) > 0 {
		t.Errorf("ended with %q after %d words", end, words)
	}
	if s := stateAt(t, two.url, g); s.Status != "failed" || s.Tokens != len(l.words) {
		t.Errorf("%+v after %d words", s, len(l.words))
	}
	l.id = fmt.Sprintf("%s.%d", g, len(l.words))
	if again := l.end(); again != "204" {
		t.Errorf("after the error a reconnect got %q", again)
	}
}

// An upstream that breaks off: the client is told with the error that the API
// gives.
func TestTicketOfABrokenUpstream(t *testing.T) {
	m := small(t)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"message":"Who are you?","type":"invalid_request_error","code":"no_key"}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, `data: {"choices":[{"delta":{"content":"half "}}]}`+"\n\n")
	}))
	t.Cleanup(model.Close)
	r := m.writer(t, "1", func(a *app) { a.upstream, a.pens.ttl = model.URL, time.Hour })
	if end := listenTo(t, order(t, r.url, ask("x")), at(r.url)).end(); end != "error: no_key" {
		t.Errorf("a refusal ended with %q", end)
	}
	resp := do(t, "POST", r.url+"/tickets", ask("x"), "Authorization", "Bearer secret")
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
		t.Fatal(err)
	}
	l := listenTo(t, got.Ticket, at(r.url))
	if end := l.end(); !strings.HasPrefix(end, "error: upstream_") || len(l.words) != 1 {
		t.Errorf("a broken answer ended with %q after %q", end, l.words)
	}
	about, _, err := r.bus.About(t.Context(), logOf(got.Ticket))
	if err != nil || strings.Contains(about, "secret") {
		t.Errorf("on the bus is %s, %v", about, err)
	}
	// Nobody else may ask in the client's name, not even from the start.
	q := question{ID: "chatcmpl-1", Created: 1, Model: modelName, Prompt: "x", Keyed: true}
	g := newTicketID(time.Now())
	if err := r.bus.Create(t.Context(), logOf(g), string(mustJSON(q))); err != nil {
		t.Fatal(err)
	}
	if end := listenTo(t, g, at(r.url)).end(); end != "error: generation_interrupted" {
		t.Errorf("without its key it ended with %q", end)
	}
}

// What the bus does not take, here a word of a megabyte, ends the
// answer with an error. It is not begun again and again.
func TestTicketOfABoundlessModel(t *testing.T) {
	m := small(t)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, word := range []string{"so ", strings.Repeat("<", 200<<10)} { // six bytes each in our JSON
			fmt.Fprintf(w, `data: {"choices":[{"delta":{"content":%q}}]}`+"\n\n", word)
		}
	}))
	t.Cleanup(model.Close)
	r := m.writer(t, "1", func(a *app) { a.upstream, a.pens.ttl = model.URL, time.Hour })
	g := order(t, r.url, ask("x"))
	l := listenTo(t, g, at(r.url))
	if end := l.end(); end != "error: generation_failed" || len(l.words) != 1 || len(l.faults) > 0 {
		t.Errorf("ended with %q after %d words, %q", end, len(l.words), l.faults)
	}
	if s := stateAt(t, r.url, g); s.Status != "failed" || s.Tokens != 1 {
		t.Errorf("%+v", s)
	}
}
