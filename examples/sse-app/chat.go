package main

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// The wire format of POST /v1/chat/completions, as far as this app speaks it.
type (
	completion struct {
		ID      string          `json:"id"`
		Object  string          `json:"object"`
		Created int64           `json:"created"`
		Model   string          `json:"model"`
		Choices []choice        `json:"choices"`
		Usage   json.RawMessage `json:"usage,omitempty"` // "null" is sent, nothing is not
	}
	choice struct {
		Index        int      `json:"index"`
		Message      *message `json:"message,omitempty"`
		Delta        *delta   `json:"delta,omitempty"`
		Logprobs     *string  `json:"logprobs"`
		FinishReason *string  `json:"finish_reason"`
	}
	message struct {
		Role    string  `json:"role"`
		Content string  `json:"content"`
		Refusal *string `json:"refusal"`
	}
	delta struct {
		Role    string  `json:"role,omitempty"`
		Content *string `json:"content,omitempty"`
	}
	usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
)

func (a *app) completions(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("X-Request-Id", id)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST, OPTIONS")
		badRequest("Use POST for this URL.", "method_not_allowed", "").write(w, http.StatusMethodNotAllowed)
		return
	}
	q, status, fault := readChatRequest(w, r)
	if fault != nil {
		fault.write(w, status)
		return
	}
	words, reason := answer(q.prompt), "stop"
	if q.limit > 0 && q.limit < len(words) {
		words, reason = words[:q.limit], "length"
	}
	g := &generation{
		base:   completion{ID: "chatcmpl-" + id, Object: "chat.completion", Created: time.Now().Unix(), Model: modelName},
		words:  words,
		reason: reason,
		usage:  usage{len(strings.Fields(q.prompt)), len(words), len(strings.Fields(q.prompt)) + len(words)},
	}
	if !q.stream {
		writeJSON(w, http.StatusOK, g.whole())
		return
	}
	s, err := a.openEvents(w, r)
	if err == errStreaming {
		serverError(err.Error(), "").write(w, http.StatusInternalServerError)
		return
	}
	if err != nil {
		return // the client is gone already
	}
	defer s.close()
	a.generate(s, g, q.includeUsage) // an error means: the client left
}

// generation is one answer on its way.
type generation struct {
	base   completion
	words  []string
	reason string
	usage  usage
}

func (g *generation) whole() completion {
	c := g.base
	c.Choices = []choice{{Message: &message{Role: "assistant", Content: strings.Join(g.words, "")}, FinishReason: &g.reason}}
	c.Usage = mustJSON(g.usage)
	return c
}

// generate streams g word by word. An answer that cannot be finished ends with
// an error chunk: after a clean end without one, every client library takes
// half an answer for the whole.
func (a *app) generate(s *eventStream, g *generation, withUsage bool) error {
	chunk := func(choices ...choice) event {
		c := g.base
		c.Object, c.Choices = "chat.completion.chunk", choices
		if withUsage {
			c.Usage = json.RawMessage("null")
		}
		return event{data: string(mustJSON(c))}
	}
	empty := ""
	if err := s.send(chunk(choice{Delta: &delta{Role: "assistant", Content: &empty}})); err != nil {
		return err
	}
	for i, word := range g.words {
		on, err := s.wait(a.delay, a.cutoff.Done())
		if err != nil {
			return err
		}
		if !on {
			cut := serverError("The server restarts and could not finish this answer. Ask again.", "server_restarting")
			return s.send(event{data: string(mustJSON(cut))})
		}
		if i == 0 {
			a.metrics.firstToken.Observe(time.Since(s.opened).Seconds())
		}
		a.metrics.tokens.Inc()
		if err := s.send(chunk(choice{Delta: &delta{Content: &word}})); err != nil {
			return err
		}
	}
	last := []event{chunk(choice{Delta: &delta{}, FinishReason: &g.reason})}
	if withUsage {
		c := g.base
		c.Object, c.Choices, c.Usage = "chat.completion.chunk", []choice{}, mustJSON(g.usage)
		last = append(last, event{data: string(mustJSON(c))})
	}
	return s.send(append(last, event{data: "[DONE]"})...)
}

// mustJSON encodes the types of this file, which cannot fail. The result is
// one line: some clients read no JSON that is split over two data lines.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
