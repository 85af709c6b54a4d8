package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type chunk struct {
	ID, Object, Model string
	Created           int64
	Choices           []struct {
		Delta struct {
			Role    string
			Content *string
		}
		FinishReason *string `json:"finish_reason"`
	}
	Usage *usage
	Error *struct{ Type, Code string }
}

// chunksOf reads a chat stream; the last string is its end mark, if any.
func chunksOf(t *testing.T, body string) (chunks []chunk, rest []string) {
	t.Helper()
	if err := lint(body); err != nil {
		t.Error(err)
	}
	for _, data := range dataOf(t, body) {
		var c chunk
		if json.Unmarshal([]byte(data), &c) == nil {
			chunks = append(chunks, c)
		} else {
			rest = append(rest, data)
		}
	}
	for _, c := range chunks {
		if c.Error == nil && (c.ID != chunks[0].ID || !strings.HasPrefix(c.ID, "chatcmpl-") || c.Object != "chat.completion.chunk" ||
			c.Created != chunks[0].Created || c.Created == 0 || c.Model == "" || c.Model != chunks[0].Model) {
			t.Errorf("chunk %+v does not belong to the first", c)
		}
	}
	return chunks, rest
}

func TestChatChunksComeInOrder(t *testing.T) {
	r := start(t, nil)
	resp := do(t, "POST", r.url+"/v1/chat/completions", `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"Tell me a story"}],"stream":true,"stream_options":{"include_usage":true}}`)
	body := read(t, resp.Body)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") || resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("headers %v", resp.Header)
	}
	if strings.Contains(body, "\nid:") || strings.Contains(body, "event:") || strings.Contains(body, "retry:") {
		t.Error("the chat stream has fields that OpenAI clients stumble over")
	}
	chunks, rest := chunksOf(t, body)
	if len(rest) != 1 || rest[0] != "[DONE]" || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("end is %q", rest)
	}
	words := answer("Tell me a story")
	if len(chunks) != len(words)+3 {
		t.Fatalf("%d chunks, want role, %d words, finish, usage", len(chunks), len(words))
	}
	first, last, use := chunks[0], chunks[len(chunks)-2], chunks[len(chunks)-1]
	if d := first.Choices[0].Delta; d.Role != "assistant" || d.Content == nil || *d.Content != "" {
		t.Errorf("first delta %+v", d)
	}
	for i, word := range words {
		if c := chunks[i+1].Choices[0]; c.Delta.Role != "" || c.Delta.Content == nil || *c.Delta.Content != word || c.FinishReason != nil {
			t.Errorf("chunk %d: %+v, want %q", i+1, c, word)
		}
	}
	if c := last.Choices[0]; c.Delta.Content != nil || c.FinishReason == nil || *c.FinishReason != "stop" {
		t.Errorf("last choice %+v", c)
	}
	if len(use.Choices) != 0 || use.Usage == nil || use.Usage.Prompt != 4 || use.Usage.Completion != len(words) || use.Usage.Total != 4+len(words) {
		t.Errorf("usage chunk %+v", use)
	}
	if strings.Count(body, `"usage":null`) != len(chunks)-1 {
		t.Error("chunks before the usage must say usage:null")
	}
}

func TestChatWithoutStreamSaysTheSame(t *testing.T) {
	r := start(t, func(a *app) { a.delay = time.Hour }) // not for this one
	resp := do(t, "POST", r.url+"/v1/chat/completions", `{"model":"sse-app-1","messages":[{"role":"user","content":[{"type":"text","text":"Tell me"},{"type":"text","text":"a story"}]}]}`)
	var got struct {
		Object  string
		Choices []struct {
			Message      message
			FinishReason string `json:"finish_reason"`
		}
		Usage usage
	}
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
		t.Fatal(err)
	}
	want := strings.Join(answer("Tell me\na story"), "")
	if got.Object != "chat.completion" || len(got.Choices) != 1 || got.Choices[0].Message.Content != want ||
		got.Choices[0].Message.Role != "assistant" || got.Choices[0].FinishReason != "stop" || got.Usage.Total == 0 {
		t.Errorf("got %+v", got)
	}
}

// The older form of request, as a browser sends it that sets no type.
func TestChatLimit(t *testing.T) {
	r := start(t, nil)
	for _, field := range []string{"max_tokens", "max_completion_tokens"} {
		body := read(t, do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","`+field+`":3,"stream":true}`, "Content-Type", "text/plain").Body)
		chunks, _ := chunksOf(t, body)
		if len(chunks) != 5 || *chunks[4].Choices[0].FinishReason != "length" || strings.Contains(body, "usage") {
			t.Errorf("%s: %s", field, body)
		}
	}
}

func TestChatErrorsHaveOpenAIShape(t *testing.T) {
	r := start(t, nil)
	for _, tt := range []struct {
		method, path, body string
		status             int
		code, param        string
	}{
		{"POST", "/v1/chat/completions", `{`, 400, "", ""},
		{"POST", "/v1/chat/completions", ``, 400, "", ""},
		{"POST", "/v1/chat/completions", `null`, 400, "", "messages"},
		{"POST", "/v1/chat/completions", `[]`, 400, "invalid_type", ""},
		{"POST", "/v1/chat/completions", `{"prompt":"x"}{}`, 400, "", ""},
		{"POST", "/v1/chat/completions", "{\"prompt\":\"\xff\xfe\"}", 400, "", ""},
		{"POST", "/v1/chat/completions", `{"stream":true}`, 400, "", "messages"},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":" "}]}`, 400, "", "messages"},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":7}]}`, 400, "invalid_type", "messages.content"},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":[7]}]}`, 400, "invalid_type", "messages.content"},
		{"POST", "/v1/chat/completions", `{"messages":"x"}`, 400, "invalid_type", "messages"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","model":5}`, 400, "invalid_type", "model"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","stream":"yes"}`, 400, "invalid_type", "stream"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","stream_options":{"include_usage":1}}`, 400, "invalid_type", "stream_options.include_usage"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","n":2}`, 400, "", "n"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","n":"1"}`, 400, "invalid_type", "n"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","seed":1.5}`, 400, "invalid_type", "seed"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","temperature":"hot"}`, 400, "invalid_type", "temperature"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","user":[]}`, 400, "invalid_type", "user"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","stop":{}}`, 400, "invalid_type", "stop"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","stop":[1]}`, 400, "invalid_type", "stop"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","response_format":"json"}`, 400, "invalid_type", "response_format"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","max_tokens":0}`, 400, "", "max_tokens"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","max_completion_tokens":-1}`, 400, "", "max_completion_tokens"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","max_tokens":2.5}`, 400, "invalid_type", "max_tokens"},
		{"POST", "/v1/chat/completions", `{"prompt":"x","model":"gpt-4o","stream":true}`, 404, "model_not_found", "model"},
		{"POST", "/v1/chat/completions", `{"prompt":"` + strings.Repeat("x", maxBody) + `"}`, 413, "request_too_large", ""},
		{"GET", "/v1/chat/completions", "", 405, "method_not_allowed", ""},
		{"POST", "/v1/models", "", 405, "method_not_allowed", ""},
		{"DELETE", "/v1/models/lorem", "", 405, "method_not_allowed", ""},
		{"GET", "/v1/models/gpt-4o", "", 404, "model_not_found", "model"},
		{"GET", "/v1/models/meta/llama", "", 404, "model_not_found", "model"},
		{"GET", "/v1/nope", "", 404, "unknown_url", ""},
		{"POST", "/chatgptApi/chatgpt_qa_stream", `{"messages":7}`, 400, "invalid_type", "messages"},
		{"GET", "/chatgptApi/chatgpt_qa_stream", "", 405, "method_not_allowed", ""},
	} {
		resp := do(t, tt.method, r.url+tt.path, tt.body)
		var got struct{ Error map[string]any }
		if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
		}
		code, hasCode := got.Error["code"]
		param, hasParam := got.Error["param"]
		if resp.StatusCode != tt.status || !hasCode || !hasParam || got.Error["message"] == "" ||
			got.Error["type"] != "invalid_request_error" || (tt.code != "" && code != tt.code) || (tt.param != "" && param != tt.param) {
			t.Errorf("%s %s %.80s: %s %v", tt.method, tt.path, tt.body, resp.Status, got.Error)
		}
	}
}

func TestModels(t *testing.T) {
	r := start(t, nil)
	list := read(t, do(t, "GET", r.url+"/v1/models", "").Body)
	one := read(t, do(t, "GET", r.url+"/v1/models/"+modelName, "").Body)
	if !strings.Contains(list, `"object":"list"`) || !strings.Contains(list, strings.TrimSpace(one)) || !strings.Contains(one, `"id":"sse-app-1"`) {
		t.Errorf("list %s, one %s", list, one)
	}
}
