package ssetest

import (
	"strings"
	"testing"
)

// chunkOf is a right chunk with these choices and whatever else is given.
func chunkOf(choices string, more ...string) string {
	return `{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[` + choices + `]` + strings.Join(append([]string{""}, more...), ",") + `}`
}

func choiceOf(delta, finish string) string {
	return `{"index":0,"delta":` + delta + `,"finish_reason":` + finish + `}`
}

var (
	roleDelta = choiceOf(`{"role":"assistant","content":""}`, "null")
	wordDelta = choiceOf(`{"content":"a"}`, "null")
	lastDelta = choiceOf(`{}`, `"stop"`)
	whole     = []string{chunkOf(roleDelta), chunkOf(wordDelta), chunkOf(lastDelta), "[DONE]"}
	errChunk  = `{"error":{"message":"m","type":"server_error","param":null,"code":"c"}}`
)

func TestLintOfChatStreams(t *testing.T) {
	null, sum := `"usage":null`, `"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}`
	for _, tt := range []struct {
		name   string
		events []string
		want   string // part of the first finding; empty: none
	}{
		{"whole", whole, ""},
		{"role, content and finish in one", []string{chunkOf(choiceOf(`{"role":"assistant","content":"a"}`, `"length"`)), "[DONE]"}, ""},
		{"with usage", []string{chunkOf(roleDelta, null), chunkOf(wordDelta, null), chunkOf(lastDelta, null), chunkOf("", sum), "[DONE]"}, ""},
		{"with what else OpenAI sends", []string{chunkOf(roleDelta, `"system_fingerprint":null`, `"obfuscation":"xyz"`), chunkOf(lastDelta), "[DONE]"}, ""},
		{"error at the beginning", []string{errChunk}, ""},
		{"error in the middle", []string{whole[0], whole[1], errChunk}, ""},

		{"nothing", nil, "clean end"},
		{"cut", whole[:2], "clean end"},
		{"cut before the mark", whole[:3], "clean end"},
		{"mark in another spelling", []string{whole[0], whole[2], "[done]"}, `"[done]" is no chunk`},
		{"mark too early", []string{whole[0], whole[1], "[DONE]"}, "[DONE] after content"},
		{"mark alone", []string{"[DONE]"}, "[DONE] after the beginning"},
		{"something after the mark", append(whole[:4:4], whole[1]), "after [DONE]"},
		{"something after an error", []string{errChunk, "[DONE]"}, "after an error"},
		{"error without code", []string{`{"error":{"message":"m","type":"t","param":null}}`}, `error without "code"`},
		{"error that is text", []string{`{"error":"m"}`}, "no object"},
		{"bare words", []string{whole[0], "word", whole[2], "[DONE]"}, "is no chunk"},
		{"no role", []string{whole[1], whole[2], "[DONE]"}, "role"},
		{"role twice", []string{whole[0], whole[0], whole[2], "[DONE]"}, "role"},
		{"content after finish", []string{whole[0], whole[2], whole[1], "[DONE]"}, "after finish"},
		{"unknown reason", []string{whole[0], chunkOf(choiceOf(`{}`, `"tired"`)), "[DONE]"}, "tired"},
		{"other id", []string{whole[0], strings.Replace(whole[1], "c1", "c2", 1), whole[2], "[DONE]"}, "differs"},
		{"other time", []string{whole[0], strings.Replace(whole[1], ":7", ":8", 1), whole[2], "[DONE]"}, "differs"},
		{"other object", []string{whole[0], strings.Replace(whole[1], ".chunk", "", 1), whole[2], "[DONE]"}, "object"},
		{"no choices", []string{whole[0], `{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m"}`, whole[2], "[DONE]"}, "missing"},
		{"no finish_reason", []string{whole[0], chunkOf(`{"index":0,"delta":{}}`), whole[2], "[DONE]"}, "missing"},
		{"no index", []string{whole[0], chunkOf(`{"delta":{},"finish_reason":null}`), whole[2], "[DONE]"}, "missing"},
		{"heartbeat as data", []string{whole[0], "{}", whole[2], "[DONE]"}, "object"},
		{"usage too early", []string{chunkOf(roleDelta, sum), chunkOf(lastDelta, null), "[DONE]"}, "not null"},
		{"usage not announced", []string{whole[0], whole[2], chunkOf("", sum), "[DONE]"}, "in all chunks or in none"},
		{"usage announced, not sent", []string{chunkOf(roleDelta, null), chunkOf(lastDelta, null), "[DONE]"}, "never came"},
		{"usage does not add up", []string{chunkOf(roleDelta, null), chunkOf(lastDelta, null), chunkOf("", strings.Replace(sum, "3", "4", 1)), "[DONE]"}, "add up"},
		{"no choices before the end", []string{chunkOf(roleDelta, null), chunkOf("", sum), chunkOf(lastDelta, null), "[DONE]"}, "no choices after content"},
	} {
		var stream strings.Builder
		for _, data := range tt.events {
			stream.WriteString("data: " + data + "\n\n")
		}
		found := Lint(stream.String(), Options{OpenAI: true})
		if tt.want == "" && len(found) > 0 {
			t.Errorf("%s: %v", tt.name, found)
		}
		if tt.want != "" && (len(found) == 0 || !strings.Contains(found[0].Text, tt.want)) {
			t.Errorf("%s: found %v, want %q", tt.name, found, tt.want)
		}
	}
}

// What the other streams may have and chat streams may not.
func TestLintOfChatStreamFields(t *testing.T) {
	join := func(second string) string {
		return ":\ndata: " + whole[0] + "\n\n" + second + "data: " + whole[2] + "\n\n:\ndata: [DONE]\n\n"
	}
	for second, want := range map[string]string{
		"":                "",
		":\n":             "",
		"id: 7\n":         "",
		"retry: 7\n\n":    "no-data",
		"id: 7\n\n":       "no-data",
		"event: ping\n\n": "no-data",
		"event: delta\n":  "openai",
		": hb\n\n":        "comment",
		"data: \n\n":      "heartbeat openai",
		"data: {\"id\":\"c1\",\ndata: \"x\":1}\n\n": "JSON openai",
	} {
		if got := strings.Join(rules(Lint(join(second), Options{OpenAI: true})), " "); got != want {
			t.Errorf("%q: found %q, want %q", second, got, want)
		}
	}
}
