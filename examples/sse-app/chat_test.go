package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
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
	if !strings.Contains(list, `"object":"list"`) || !strings.Contains(list, `"id":"lorem"`) || !strings.Contains(list, strings.TrimSpace(one)) || !strings.Contains(one, `"id":"sse-app-1"`) {
		t.Errorf("list %s, one %s", list, one)
	}
}

// The request of an old page: no type, no messages.
func TestChatOfAnOldPage(t *testing.T) {
	r := start(t, nil)
	resp := do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"Tell me of the sea","max_tokens":20,"stream":true}`)
	chunks, rest := chunksOf(t, read(t, resp.Body))
	if words := contents(chunks); len(words) != 20 || *chunks[len(chunks)-1].Choices[0].FinishReason != "length" || len(rest) != 1 {
		t.Errorf("%d words: %q, then %q", len(words), words, rest)
	}
}

// contents are the words of an answer.
func contents(chunks []chunk) (words []string) {
	for _, c := range chunks {
		if len(c.Choices) > 0 && c.Choices[0].Delta.Content != nil && *c.Choices[0].Delta.Content != "" {
			words = append(words, *c.Choices[0].Delta.Content)
		}
	}
	return words
}

func TestLoremIsEightWords(t *testing.T) {
	r := start(t, nil)
	chunks, rest := chunksOf(t, read(t, do(t, "POST", r.url+"/v1/chat/completions", `{"model":"lorem","prompt":"x","stream":true}`).Body))
	words := contents(chunks)
	if len(words) != 8 || strings.Join(words, "") != lorem || len(rest) != 1 || chunks[0].Model != "lorem" {
		t.Errorf("model %q said %q, then %q", chunks[0].Model, words, rest)
	}
}

// A word is sent when it is said, not when all are: whoever has read the first
// one can still prevent the last one.
func TestWordsComeOneByOne(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/chatgptApi/chatgpt_qa_stream"} {
		r := start(t, func(a *app) { a.delay = 300 * time.Millisecond })
		body := bufio.NewReader(do(t, "POST", r.url+path, `{"prompt":"x","stream":true}`).Body)
		nextLine(t, body, `data: `)
		nextLine(t, body, `data: `)
		r.cutoff.come()
		if rest := read(t, body); strings.Contains(rest, "[DONE]") || !strings.Contains(rest, `"code":"server_restarting"`) {
			t.Errorf("%s: after the first words: %q", path, rest)
		}
	}
}

// By default there are 200 ms between two words, in a clock of the test's own.
func TestThePaceOfAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(parse(nil))
		last, words := time.Now(), 0
		_, err := a.speak(t.Context(), chatRequest{prompt: "x"}, 0, func(string) error {
			if gap := time.Since(last); gap < 150*time.Millisecond || gap > 300*time.Millisecond {
				t.Errorf("%s before word %d", gap, words)
			}
			last = time.Now()
			words++
			return nil
		})
		if err != nil || words != len(answer("x")) {
			t.Errorf("%d words, %v", words, err)
		}
	})
}

func TestSpeakGoesOnAnywhere(t *testing.T) {
	a := newApp(config{})
	all, _, err := chatRequest{prompt: "x"}.answer()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []chatRequest{{prompt: "x"}, {prompt: "x", limit: 5}, {prompt: "x", model: modelName, limit: 1000}} {
		want, wantReason, _ := q.answer()
		for from := range len(all) + 2 {
			var got []string
			reason, err := a.speak(t.Context(), q, from, func(word string) error { got = append(got, word); return nil })
			if err != nil || reason != wantReason || strings.Join(got, "") != strings.Join(want[min(from, len(want)):], "") {
				t.Errorf("limit %d from %d: %q %s %v", q.limit, from, got, reason, err)
			}
		}
	}
	var e *chatError
	if _, err := a.speak(t.Context(), chatRequest{model: "gpt-4o"}, 0, nil); !errors.As(err, &e) || e.status != 404 {
		t.Errorf("unknown model: %v", err)
	}
	enough := errors.New("enough")
	if _, err := a.speak(t.Context(), chatRequest{}, 0, func(string) error { return enough }); err != enough {
		t.Errorf("say's error became %v", err)
	}
}

// What the models have no use for does not disturb them.
func TestChatIgnoresWhatItDoesNotKnow(t *testing.T) {
	r := start(t, nil)
	plain := read(t, do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x"}`).Body)
	full := read(t, do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","n":1,"seed":7,"temperature":0.5,"top_p":1,"user":"u",`+
		`"stop":"a","presence_penalty":0,"frequency_penalty":null,"response_format":{"type":"json_object"},"max_tokens":null,`+
		`"stream":null,"stream_options":null,"tools":[{"x":1}],"metadata":{"a":"b"},"of_tomorrow":[[]]}`).Body)
	if sameButIDs(plain) != sameButIDs(full) {
		t.Errorf("%s\n%s", plain, full)
	}
	if resp := do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","stop":["a","b"]}`); resp.StatusCode != 200 {
		t.Errorf("stop as a list: %s", resp.Status)
	}
}

// sameButIDs makes answers alike that differ in nothing but who gave them when.
func sameButIDs(body string) string {
	return regexp.MustCompile(`"id":"chatcmpl-\w+"|"created":\d+`).ReplaceAllString(body, "")
}

// Every answer under /v1 has a number of its own.
func TestRequestsHaveNumbers(t *testing.T) {
	r := start(t, nil)
	seen := map[string]bool{}
	for _, path := range []string{"/v1/models", "/v1/models/lorem", "/v1/models/x", "/v1/nope", "/v1/chat/completions"} {
		id := do(t, "GET", r.url+path, "").Header.Get("X-Request-Id")
		if id == "" || seen[id] {
			t.Errorf("%s: number %q", path, id)
		}
		seen[id] = true
	}
}

// A body that trickles in is not waited for.
func TestTrickledBody(t *testing.T) {
	late := httptest.NewRecorder()
	req := httptest.NewRequest("POST", "/", readerFunc(func([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }))
	if _, status, fault := readChatRequest(late, req); status != 408 || *fault.Error.Code != "request_timeout" {
		t.Errorf("%d %+v", status, fault)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
