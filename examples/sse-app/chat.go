package main

import (
	"cmp"
	"context"
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

// v1 is in front of all of /v1: every answer has a number, and an upstream gives
// it if there is one.
func (a *app) v1(own http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", rand.Text())
		if a.upstream != "" {
			a.relay(w, r)
			return
		}
		own(w, r)
	}
}

// completions is POST /v1/chat/completions.
func (a *app) completions(w http.ResponseWriter, r *http.Request) {
	q, ok := a.readQuestion(w, r)
	if !ok {
		return
	}
	g := &generation{
		base:     completion{ID: "chatcmpl-" + rand.Text(), Object: "chat.completion", Created: time.Now().Unix(), Model: cmp.Or(q.model, modelName)},
		question: q,
	}
	if !q.stream {
		words, reason, err := a.sayAll(r.Context(), q)
		if err != nil {
			a.deny(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, g.whole(words, reason))
		return
	}
	s, ok := a.openAnswer(w, r)
	if !ok {
		return
	}
	defer s.close()
	err := s.pump(func(ctx context.Context, yield func(...event) error) error { return a.generate(ctx, g, yield) })
	s.lastWord(err, plainChunk)
}

// openAnswer opens the stream of an answer. There is no comment at its begin as
// in other streams: a first chunk comes at once, and go-openai, which keeps the
// comments, cannot read an error chunk after one.
func (a *app) openAnswer(w http.ResponseWriter, r *http.Request) (s *eventStream, ok bool) {
	s, err := a.newEvents(w, r)
	if err != nil {
		serverError(err.Error(), "").write(w, http.StatusInternalServerError)
		return nil, false
	}
	w.WriteHeader(http.StatusOK)
	if err := s.rc.Flush(); err != nil {
		s.close()
		return nil, false // the client is gone already
	}
	return s, true
}

// generation is one answer on its way.
type generation struct {
	base     completion
	question chatRequest
}

func (g *generation) whole(words []string, reason string) completion {
	c := g.base
	c.Choices = []choice{{Message: &message{Role: "assistant", Content: strings.Join(words, "")}, FinishReason: &reason}}
	c.Usage = g.usage(len(words))
	return c
}

// usage counts words; this model has no other tokens.
func (g *generation) usage(said int) json.RawMessage {
	asked := len(strings.Fields(g.question.prompt))
	return mustJSON(usage{asked, said, asked + said})
}

// chunk is one event of the streamed answer. If the client wants to be told the
// usage at the end, it is null until then.
func (g *generation) chunk(choices ...choice) event {
	c := g.base
	c.Object, c.Choices = "chat.completion.chunk", choices
	if g.question.includeUsage {
		c.Usage = json.RawMessage("null")
	}
	return event{data: string(mustJSON(c))}
}

// generate streams g word by word.
func (a *app) generate(ctx context.Context, g *generation, yield func(...event) error) error {
	empty, said := "", 0
	if err := yield(g.chunk(choice{Delta: &delta{Role: "assistant", Content: &empty}})); err != nil {
		return err
	}
	reason, err := a.speak(ctx, g.question, 0, func(word string) error {
		said++
		return yield(g.chunk(choice{Delta: &delta{Content: &word}}))
	})
	if err != nil {
		return err
	}
	last := []event{g.chunk(choice{Delta: &delta{}, FinishReason: &reason})}
	if g.question.includeUsage {
		c := g.base
		c.Object, c.Choices, c.Usage = "chat.completion.chunk", []choice{}, g.usage(said)
		last = append(last, event{data: string(mustJSON(c))})
	}
	return yield(append(last, event{data: endMark})...)
}

// endMark is the data of the last event of every answer that is whole.
const endMark = "[DONE]"

// mustJSON encodes the types of this file, which cannot fail. The result is
// one line: some clients read no JSON that is split over two data lines.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
