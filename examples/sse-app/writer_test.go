package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

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
	calm := func(a *app) { a.delay, a.pens.ttl = leisure, patience } // nobody dies, and nobody is to be taken for dead
	one, two := m.writer(t, "1", calm), m.writer(t, "2", calm)
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

// A model that thinks for longer than a claim lives does not lose the answer to
// the instance where somebody waits for it; the one who waits hears heartbeats.
func TestASlowModelKeepsItsAnswer(t *testing.T) {
	m := small(t)
	slow := func(a *app) {
		a.pens.ttl, a.delay, a.heartbeat = 3*time.Second, 5*time.Second, 50*time.Millisecond
	}
	one, two := m.writer(t, "1", slow), m.writer(t, "2", slow)
	g := order(t, one.url, `{"prompt":"x","max_tokens":1}`)
	body := read(t, do(t, "GET", two.url+"/stream?ticket="+g, "").Body)
	if err := lint(body); err != nil || !strings.Contains(body, "\n:\n:\n:\n") || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%v in %q", err, body)
	}
	if s := stateAt(t, two.url, g); s.Status != "finished" || s.Instance != "1" || s.Tokens != 1 {
		t.Errorf("%+v", s)
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
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, two.url, g, 1)
	until(t, "the reader hears the log", func() bool { return m.listeners(t, logOf(g)) == 1 })
	one.leave()
	l.complete(<-end, "x")
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
	ended := make(chan string, 1)
	go func() { ended <- l.end() }() // until the answer ends
	until(t, "the reader hears the log", func() bool { return m.listeners(t, logOf(g)) == 1 })
	one.leave()
	end := <-ended
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
