package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const qaPath = "/chatgptApi/chatgpt_qa_stream"

// joined adds up the content of all chunks without looking, as the clients of
// this URL do; a chunk without content is what they print as "undefined".
func joined(t *testing.T, body string) (text, last string) {
	t.Helper()
	if err := lint(body); err != nil {
		t.Error(err)
	}
	for _, data := range dataOf(t, body) {
		var c struct{ Content *string }
		last = data
		switch {
		case data == "[DONE]":
		case json.Unmarshal([]byte(data), &c) != nil || c.Content == nil:
			t.Errorf("chunk %q has no content", data)
		default:
			text += *c.Content
		}
	}
	return text, last
}

func TestQAStreams(t *testing.T) {
	r := start(t, nil)
	const ask = `{"messages":[{"role":"user","content":"Tell me a story"}]`
	want := strings.Join(answer("Tell me a story"), "")
	for _, question := range []string{ask + `}`, ask + `,"stream":true}`} {
		resp := do(t, "POST", r.url+qaPath, question, "Content-Type", "application/json")
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			t.Errorf("headers %v", resp.Header)
		}
		if text, last := joined(t, read(t, resp.Body)); text != want || last != "[DONE]" {
			t.Errorf("got %q, then %q", text, last)
		}
	}
	if whole := read(t, do(t, "POST", r.url+qaPath, ask+`,"stream":false}`).Body); whole != string(mustJSON(qaChunk{Content: want}))+"\n" {
		t.Errorf("in one piece: %q", whole)
	}
}

// Even the error at the cutoff has content.
func TestQAIsCutWithAWord(t *testing.T) {
	r := start(t, nil)
	r.cutoff.come()
	_, last := joined(t, read(t, do(t, "POST", r.url+qaPath, `{"prompt":"x"}`).Body))
	if !strings.Contains(last, `"code":"server_restarting"`) {
		t.Errorf("ended with %q", last)
	}
}
