package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// The other ways to an answer use the upstream, too.
func TestQAWithUpstream(t *testing.T) {
	up := start(t, nil)
	front := beforeURL(t, up.url)
	want := strings.Join(answer("x"), "")
	if text, last := joined(t, read(t, do(t, "POST", front.url+qaPath, `{"prompt":"x"}`).Body)); text != want || last != "[DONE]" {
		t.Errorf("got %q, then %q", text, last)
	}
	if whole := read(t, do(t, "POST", front.url+qaPath, `{"prompt":"x","stream":false}`).Body); whole != string(mustJSON(qaChunk{Content: want}))+"\n" {
		t.Errorf("in one piece: %q", whole)
	}
	if _, last := joined(t, read(t, do(t, "POST", front.url+qaPath, `{"prompt":"x","model":"gpt-4o"}`).Body)); !strings.Contains(last, "model_not_found") {
		t.Errorf("unknown there: %q", last)
	}
	if resp := do(t, "POST", front.url+qaPath, `{"prompt":"x","model":"gpt-4o","stream":false}`); resp.StatusCode != 404 {
		t.Errorf("unknown there, in one piece: %s", resp.Status)
	}
}

func TestSpeakWithUpstream(t *testing.T) {
	up := start(t, nil)
	front := beforeURL(t, up.url)
	for _, q := range []chatRequest{{prompt: "x"}, {prompt: "x", limit: 4}, {prompt: "x", model: "lorem"}} {
		want, wantReason, _ := q.answer()
		var got []string
		reason, err := front.speak(t.Context(), q, 0, func(word string) error { got = append(got, word); return nil })
		if err != nil || reason != wantReason || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%+v: %q %s %v", q, got, reason, err)
		}
	}
	if _, err := front.speak(t.Context(), chatRequest{prompt: "x"}, 1, nil); err != errNoResume {
		t.Errorf("from the middle: %v", err)
	}
	enough := errors.New("enough")
	if _, err := front.speak(t.Context(), chatRequest{prompt: "x"}, 0, func(string) error { return enough }); err != enough {
		t.Errorf("say's error became %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := front.speak(ctx, chatRequest{prompt: "x"}, 0, func(string) error { cancel(); return nil })
	if err != context.Canceled {
		t.Errorf("cancelled in the middle: %v", err)
	}
}

func TestSpeakSaysWhyNot(t *testing.T) {
	const busy = `{"error":{"message":"Slow down.","type":"rate_limit","param":null,"code":429}}`
	for name, tt := range map[string]struct {
		upstream   http.HandlerFunc
		status     int
		code, text string
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(429)
			io.WriteString(w, busy)
		}, 429, "429", "Slow down."},
		"refused without words": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, 500, "upstream_failed", "The upstream failed."},
		"no stream":             {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }, 502, "upstream_failed", "did not answer with a stream"},
		"error in the middle":   {func(w http.ResponseWriter, _ *http.Request) { events(w, deltaOf("a"), "data: "+busy+"\n\n") }, 502, "429", "Slow down."},
		"no end":                {func(w http.ResponseWriter, _ *http.Request) { events(w, deltaOf("a")) }, 502, "upstream_interrupted", "broke off"},
		"endless":               {func(w http.ResponseWriter, r *http.Request) { endless(w, r) }, 502, "upstream_too_large", "longer than 4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			front := before(t, tt.upstream)
			_, _, err := front.sayAll(t.Context(), chatRequest{prompt: "x"})
			var e *chatError
			if !errors.As(err, &e) || e.status != tt.status || *e.fault.Error.Code != tt.code || !strings.Contains(e.Error(), tt.text) {
				t.Fatalf("%v", err)
			}
			resp := do(t, "POST", front.url+qaPath, `{"prompt":"x","stream":false}`)
			if resp.StatusCode != tt.status || (name == "refused") != (resp.Header.Get("Retry-After") == "9") {
				t.Errorf("%s %v", resp.Status, resp.Header)
			}
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		events(w, deltaOf(strings.Repeat("a", 100<<10)))
	}
}

// What the upstream is asked: always for a stream, in the newer form, with a
// model if we know one, and with the client's key if it has one.
func TestQuestionForTheUpstream(t *testing.T) {
	got := make(chan map[string]any, 1)
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		q := map[string]any{}
		json.NewDecoder(r.Body).Decode(&q)
		q["auth"] = r.Header.Get("Authorization")
		got <- q
		events(w, deltaOf("a"), mark)
	}, func(a *app) { a.askModel, a.askKey = "ours", "ours" })
	said := []any{map[string]any{"role": "user", "content": "x"}}
	for _, tt := range []struct {
		body, auth string
		want       map[string]any
	}{
		{`{"prompt":"x","max_tokens":5,"stream_options":{"include_usage":true}}`, "Bearer mine",
			map[string]any{"messages": said, "model": "ours", "max_tokens": 5., "stream": true, "auth": "Bearer mine"}},
		{`{"messages":[{"role":"user","content":"x"}],"model":"mine","seed":7,"stream":false}`, "",
			map[string]any{"messages": said, "model": "mine", "seed": 7., "stream": true, "auth": "Bearer ours"}},
		{`{"messages":null,"model":"","prompt":"x"}`, "", map[string]any{"messages": said, "model": "ours", "stream": true, "auth": "Bearer ours"}},
	} {
		var headers []string
		if tt.auth != "" {
			headers = []string{"Authorization", tt.auth}
		}
		read(t, do(t, "POST", front.url+qaPath, tt.body, headers...).Body)
		if q := <-got; string(mustJSON(q)) != string(mustJSON(tt.want)) {
			t.Errorf("%s became %s, want %s", tt.body, mustJSON(q), mustJSON(tt.want))
		}
	}
	if b := (chatRequest{prompt: "x", model: "m", limit: 3}).streamed(""); string(b) != `{"max_tokens":3,"messages":[{"content":"x","role":"user"}],"model":"m","stream":true}` {
		t.Errorf("without a body: %s", b)
	}
}

func TestUpstreamFromTheEnvironment(t *testing.T) {
	t.Setenv("UPSTREAM_URL", "http://llm.example/v1")
	t.Setenv("UPSTREAM_API_KEY", "key")
	t.Setenv("UPSTREAM_MODEL", "model")
	if c := parse(nil); c.upstream != "http://llm.example/v1" || c.askKey != "key" || c.askModel != "model" {
		t.Errorf("%+v", c)
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(up.Close)
	p := startProcess(t, self(t, os.Args[0]), "UPSTREAM_URL="+up.URL)
	if body := read(t, do(t, "GET", p.url+"/v1/models", "").Body); body != "/v1/models Bearer key" {
		t.Errorf("a process relays to %q", body)
	}
	for _, bad := range []string{"llm.example", "ftp://llm.example", "http://", "http://u:p@llm.example", "http://llm.example?x", "http://llm.example#x"} {
		if _, err := parseUpstream(bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
