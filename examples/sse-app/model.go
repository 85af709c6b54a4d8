package main

import (
	"context"
	"hash/fnv"
	"net/http"
	"strings"
	"time"
)

// modelName is the model that answers if a request names none.
const modelName = "sse-app-1"

// builtin are the models of this app, with what they answer. There are no
// others, unless there is an upstream.
var builtin = []struct {
	name   string
	answer func(prompt string) []string
}{
	{modelName, answer},
	{"lorem", func(string) []string { return strings.SplitAfter(lorem, " ") }},
}

// lorem is what the model of this name says to everything: eight words, for
// tests and for those who want to see nothing but the streaming.
const lorem = "Lorem ipsum dolor sit amet, consectetur adipiscing elit."

var thoughts = []string{
	"A stream is a promise: whoever opened it expects the end of the sentence. So this process, when asked to leave, first finishes what it says.",
	"Restart me while I am talking – I will get to the full stop, and your next question will find my successor already awake. ✓",
	"Four of us answer on one port, and you need not know which one. Look at the number beside this answer, then ask again.",
	"Nothing here is learned: the same question always gets the same answer, word by word, so that a test can tell whether a single word went missing.",
}

// answer is the default model: the words of its reply to prompt, spaces
// included. The same prompt always gives the same words, on every instance.
func answer(prompt string) []string {
	words := strings.Fields(prompt)
	quoted := words[:min(len(words), 12)]
	h := fnv.New32a()
	h.Write([]byte(strings.Join(words, " ")))
	text := "You said “" + strings.Join(quoted, " ") + "”. " + thoughts[h.Sum32()%uint32(len(thoughts))]
	return strings.SplitAfter(text, " ")
}

// answer is all that a built-in model says to q, and why it ends there: "stop",
// or "length" if q wants no more.
func (q chatRequest) answer() (words []string, reason string, err error) {
	for _, m := range builtin {
		if m.name != q.model && (m.name != modelName || q.model != "") {
			continue
		}
		words = m.answer(q.prompt)
		if q.limit > 0 && q.limit < len(words) {
			return words[:q.limit], "length", nil
		}
		return words, "stop", nil
	}
	return nil, "", &chatError{status: http.StatusNotFound, fault: unknownModel(q.model)}
}

// speak writes the answer to q, from word number from on, at the model's pace:
// each word is handed to say, whose error ends it. reason is why the answer
// ends: "stop" or "length", or what an upstream says. The error is errNoResume
// or a *chatError, ctx's own, or say's. It may be called from any goroutine, and
// calls say from the same.
func (a *app) speak(ctx context.Context, q chatRequest, from int, say func(word string) error) (reason string, err error) {
	say = a.metrics.spoken(from, say)
	if a.upstream != "" {
		return a.askUpstream(ctx, q, from, say)
	}
	words, reason, err := q.answer()
	if err != nil {
		return "", err
	}
	for _, word := range words[min(from, len(words)):] {
		select {
		case <-time.After(a.delay):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if err := say(word); err != nil {
			return "", err
		}
	}
	return reason, nil
}

// maxAnswer bounds an answer that is collected before it is sent. An upstream
// decides how long one is.
const maxAnswer = 4 << 20

// sayAll is the answer to q in one piece, without a pace.
func (a *app) sayAll(ctx context.Context, q chatRequest) (words []string, reason string, err error) {
	if a.upstream == "" {
		words, reason, err = q.answer()
		a.metrics.tokens.Add(float64(len(words)))
		return words, reason, err
	}
	size := 0
	reason, err = a.speak(ctx, q, 0, func(word string) error {
		if size += len(word); size > maxAnswer {
			return badGateway("The answer of the upstream is longer than 4 MiB.", "upstream_too_large", nil)
		}
		words = append(words, word)
		return nil
	})
	return words, reason, err
}
