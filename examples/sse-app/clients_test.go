package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The clients that people use, as they are, against the app. What we think of
// the format ourselves is in the other tests.

// heard is what the npm package openai made of a stream.
type heard struct {
	Text   string
	Chunks int
	Finish string
	Usage  *usage
	Error  *struct {
		Name, Code, Type, Message string
		Status                    int
	}
}

func TestNpmOpenAI(t *testing.T) {
	const prompt = "Tell me – a story ✓"
	words := answer(prompt)
	r := start(t, func(a *app) { a.heartbeat = time.Millisecond / 2 })
	leaving := start(t, func(a *app) { a.delay, a.drain = 20*time.Millisecond, time.Millisecond })
	client := node(t, "openai.mjs", map[string]string{"url": r.url, "leaving": leaving.url, "prompt": prompt})

	var whole, short, missing, cut heard
	client.next(&whole)
	if whole.Text != strings.Join(words, "") || whole.Chunks != len(words)+2 || whole.Finish != "stop" || whole.Usage != nil || whole.Error != nil {
		t.Errorf("a stream: %+v", whole)
	}
	client.next(&short)
	if short.Text != strings.Join(words[:3], "") || short.Finish != "length" || short.Error != nil ||
		short.Usage == nil || short.Usage.Completion != 3 || short.Usage.Total != short.Usage.Prompt+3 {
		t.Errorf("max_tokens 3 and include_usage: %+v", short)
	}
	for _, how := range []string{"put together by the package", "without a stream"} {
		var got struct {
			Message   message
			Finish    string `json:"finish_reason"`
			RequestID *string
		}
		client.next(&got)
		if got.Message.Role != "assistant" || got.Message.Content != strings.Join(words, "") || got.Finish != "stop" || (got.RequestID != nil && *got.RequestID == "") {
			t.Errorf("%s: %+v", how, got)
		}
	}
	var models []string
	if client.next(&models); !slices.Contains(models, modelName) {
		t.Errorf("models: %q", models)
	}
	client.next(&missing)
	if e := missing.Error; e == nil || e.Name != "NotFoundError" || e.Status != 404 || e.Code != "model_not_found" {
		t.Errorf("an unknown model: %+v", missing.Error)
	}

	// The server leaves in the middle of an answer, and cannot wait for its end.
	var news string
	client.next(&news)
	leaving.leave()
	client.next(&cut)
	if e := cut.Error; e == nil || e.Name != "APIError" || e.Code != "server_restarting" || e.Type != "server_error" ||
		cut.Text == "" || !strings.HasPrefix(whole.Text, cut.Text) || cut.Finish != "" {
		t.Errorf("a server that leaves: %+v, error %+v", cut, cut.Error)
	}
	if client.next(&news) {
		t.Errorf("and then: %s", news)
	}
}

// call is one that fetch-event-source made.
type call struct {
	Call, ID, Event, Data, Type string
	Status                      int
}

// fetchEvents lets fetch-event-source read a stream to its end.
func fetchEvents(t *testing.T, method, url, body string, headers map[string]string) (calls []call, order string) {
	t.Helper()
	in := map[string]any{"url": url, "method": method, "headers": headers}
	if body != "" {
		in["body"] = body
	}
	client := node(t, "fetch-event-source.mjs", in)
	for c := (call{}); client.next(&c); c = (call{}) {
		if n := len(calls); n == 0 || calls[n-1].Call != c.Call {
			order += " " + c.Call
		}
		calls = append(calls, c)
	}
	return calls, strings.TrimSpace(order)
}

// Heartbeats come all the time here, and none of them may reach onmessage: a
// message without content would put "undefined" on the page.
func TestFetchEventSource(t *testing.T) {
	r := start(t, func(a *app) {
		a.heartbeat, a.delay, a.interval = time.Millisecond, 4*time.Millisecond, 4*time.Millisecond
	})
	calls, order := fetchEvents(t, "GET", r.url+"/stream?n=3", "", nil)
	if order != "open message close resolved" || len(calls) != 8 {
		t.Fatalf("/stream: %+v", calls)
	}
	if open := calls[0]; open.Status != 200 || !strings.HasPrefix(open.Type, "text/event-stream") {
		t.Errorf("open: %+v", open)
	}
	for i, id := range []string{"", "1", "2", "3", "done"} {
		if calls[1+i].ID != id {
			t.Errorf("message %d: %+v, want id %q", i, calls[1+i], id)
		}
	}

	calls, order = fetchEvents(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","stream":true}`, map[string]string{"Content-Type": "application/json"})
	if order != "open message close resolved" || calls[len(calls)-3].Data != "[DONE]" || len(calls) != len(answer("x"))+6 {
		t.Errorf("/v1: %s, %+v", order, calls)
	}

	calls, order = fetchEvents(t, "POST", r.url+"/v1/chat/completions", `{"stream":true}`, nil)
	if order != "open error rejected" || calls[0].Status != 400 || !strings.Contains(calls[1].Data, "invalid_request_error") {
		t.Errorf("a bad request: %+v", calls)
	}
}

// The page of the first tutorial puts the content of all messages together, up
// to [DONE].
func TestFetchEventSourceAsInTheTutorial(t *testing.T) {
	r := start(t, func(a *app) { a.heartbeat, a.delay = time.Millisecond, 4*time.Millisecond })
	calls, order := fetchEvents(t, "POST", r.url+"/chatgptApi/chatgpt_qa_stream",
		`{"messages":[{"role":"user","content":"Tell me a story"}]}`, map[string]string{"Content-Type": "application/json"})
	if order != "open message close resolved" {
		t.Fatalf("%s: %+v", order, calls)
	}
	var said strings.Builder
	messages := calls[1 : len(calls)-2]
	for _, c := range messages[:len(messages)-1] {
		var chunk struct{ Content *string }
		if err := json.Unmarshal([]byte(c.Data), &chunk); err != nil || chunk.Content == nil || c.Event != "" {
			t.Fatalf("message %+v has no content", c)
		}
		said.WriteString(*chunk.Content)
	}
	if want := strings.Join(answer("Tell me a story"), ""); said.String() != want {
		t.Errorf("it said %q, want %q", said.String(), want)
	}
	if last := messages[len(messages)-1]; last.Data != "[DONE]" {
		t.Errorf("last message %+v", last)
	}
}

// eventSource is the npm package eventsource on a stream that may break.
type eventSource struct {
	*script
	on     string // whom it is connected to, as hello says
	last   int    // number of the last message
	errors int    // connections that ended or never were
	closed bool   // it has given up
	code   int    // the status for which it did
}

func eventSourceOn(t *testing.T, url string) *eventSource {
	names := []string{"hello", "reconnect"}
	return &eventSource{script: node(t, "eventsource.mjs", map[string]any{"url": url, "names": names})}
}

// step takes what happens next. No message may be missing, and none may come
// twice, over as many connections as it takes.
func (s *eventSource) step() {
	s.t.Helper()
	var e struct {
		Event, ID, Data string
		Code            int
		Closed          bool
	}
	if !s.next(&e) {
		s.t.Fatalf("it ended after message %d", s.last)
	}
	switch {
	case e.Event == "hello":
		s.on = e.Data
	case e.Event == "error":
		s.errors++
		s.closed, s.code = e.Closed, e.Code
	case e.Event == "message" && e.Data != "[DONE]":
		if s.last++; e.ID != strconv.Itoa(s.last) || !strings.HasSuffix(e.Data, " "+e.ID) {
			s.t.Fatalf("%+v, want message %d", e, s.last)
		}
	}
}

// upTo waits for message n.
func (s *eventSource) upTo(n int) {
	s.t.Helper()
	for s.last < n {
		if s.step(); s.closed {
			s.t.Fatalf("it gave up after message %d: status %d", s.last, s.code)
		}
	}
}

// A process that leaves and one that is killed: the client goes on with the
// next one on the same address, after the message that it had last.
func TestEventSourceGoesOnAfterRestarts(t *testing.T) {
	t.Parallel()
	first := launch(t, "-interval", "5ms", "-linger", "1ms", "-spread", "1ms")
	addr := strings.TrimPrefix(first.url, "http://")
	source := eventSourceOn(t, first.url+"/stream")
	source.upTo(5)
	old, now := source.on, first
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		next := launch(t, "-interval", "5ms", "-linger", "1ms", "-spread", "1ms", "-addr", addr)
		now.signal(end)
		for source.on == old {
			source.upTo(source.last + 1)
		}
		source.upTo(source.last + 5)
		old, now = source.on, next
	}
}

// A stream that has ended is not asked for again and again.
func TestEventSourceStopsAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	source := eventSourceOn(t, r.url+"/stream?n=3")
	for !source.closed {
		source.step()
	}
	if source.last != 3 || source.code != 204 || source.errors != 2 {
		t.Errorf("after message %d it gave up for status %d, error %d", source.last, source.code, source.errors)
	}
}
