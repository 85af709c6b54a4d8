package main

import (
	"context"
	"net/http"
	"strings"
)

// qaChunk is one event of /chatgptApi/chatgpt_qa_stream. Its clients append the
// content of every chunk without looking: one that has none, even an error,
// would add "undefined" to the text.
type qaChunk struct {
	Content string       `json:"content"`
	Error   *errorDetail `json:"error,omitempty"`
}

// qa is POST /chatgptApi/chatgpt_qa_stream: a question as to /v1, answered with
// nothing but the text. It is streamed unless the request says "stream": false.
func (a *app) qa(w http.ResponseWriter, r *http.Request) {
	q, ok := a.readQuestion(w, r)
	if !ok {
		return
	}
	if q.whole {
		a.qaWhole(w, r, q)
		return
	}
	s, ok := a.openAnswer(w, r)
	if !ok {
		return
	}
	defer s.close()
	err := s.pump(func(ctx context.Context, yield func(...event) error) error {
		_, err := a.speak(ctx, q, 0, func(word string) error {
			return yield(event{data: string(mustJSON(qaChunk{Content: word}))})
		})
		if err != nil {
			return err
		}
		return yield(event{data: endMark})
	})
	s.lastWord(err, func(e *apiError) any { return qaChunk{Error: &e.Error} })
}

func (a *app) qaWhole(w http.ResponseWriter, r *http.Request, q chatRequest) {
	ctx, undo := a.untilCutoff(r.Context())
	defer undo()
	words, _, err := a.sayAll(ctx, q)
	if err != nil {
		a.deny(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, qaChunk{Content: strings.Join(words, "")})
}
