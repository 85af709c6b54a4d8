package main

import (
	"context"
	"hash/fnv"
	"strings"
	"time"
)

// modelName is the only model there is.
const modelName = "sse-app-1"

var thoughts = []string{
	"A stream is a promise: whoever opened it expects the end of the sentence. So this process, when asked to leave, first finishes what it says.",
	"Restart me while I am talking – I will get to the full stop, and your next question will find my successor already awake. ✓",
	"Four of us answer on one port, and you need not know which one. Look at the number beside this answer, then ask again.",
	"Nothing here is learned: the same question always gets the same answer, word by word, so that a test can tell whether a single word went missing.",
}

// answer is the built-in model: the words of its reply to prompt, spaces
// included. The same prompt always gives the same words, on every instance.
func answer(prompt string) []string {
	words := strings.Fields(prompt)
	quoted := words[:min(len(words), 12)]
	h := fnv.New32a()
	h.Write([]byte(strings.Join(words, " ")))
	text := "You said “" + strings.Join(quoted, " ") + "”. " + thoughts[h.Sum32()%uint32(len(thoughts))]
	return strings.SplitAfter(text, " ")
}

// speak writes the answer to q, from word number from on, at the model's pace:
// each word is handed to say, whose error ends it. reason is why the answer
// ends: "stop" or "length".
func (a *app) speak(ctx context.Context, q chatRequest, from int, say func(word string) error) (reason string, err error) {
	words, reason := answer(q.prompt), "stop"
	if q.limit > 0 && q.limit < len(words) {
		words, reason = words[:q.limit], "length"
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
