package ssetest

import (
	"encoding/json"
	"fmt"
	"slices"
)

// chat follows the order of a chat stream: role, content, finish, usage if it
// was asked for, [DONE]. An error chunk may end it anywhere.
type chat struct {
	step  step
	first chatChunk
	count int
}

type step string

const (
	begin    step = "the beginning"
	content  step = "content"  // after the role
	finished step = "finish"   // after a finish_reason
	used     step = "usage"    // after the usage chunk
	done     step = "[DONE]"   // nothing may follow
	failed   step = "an error" // nothing may follow
)

// chatChunk is what is checked of a chunk. What is not there is nil.
type chatChunk struct {
	ID      *string
	Object  *string
	Created *int64
	Model   *string
	Choices *[]struct {
		Index  *int
		Delta  *struct{ Role, Content *string }
		Finish json.RawMessage `json:"finish_reason"`
	}
	Usage json.RawMessage
	Error json.RawMessage
}

// take checks the data of the next event.
func (c *chat) take(data string, fault func(string)) {
	if c.step == "" {
		c.step = begin
	}
	if c.step == done || c.step == failed {
		fault(fmt.Sprintf("%.60q after %s", data, c.step))
		return
	}
	if data == "[DONE]" {
		if c.step != finished && c.step != used {
			fault("[DONE] after " + string(c.step))
		}
		if c.step == finished && string(c.first.Usage) == "null" {
			fault("usage was announced by usage:null and never came")
		}
		c.step = done
		return
	}
	var k chatChunk
	if err := json.Unmarshal([]byte(data), &k); err != nil {
		fault(fmt.Sprintf("%.60q is no chunk: %v", data, err))
		return
	}
	if len(k.Error) > 0 && string(k.Error) != "null" {
		c.fail(k.Error, fault)
		return
	}
	if c.count++; c.count == 1 {
		c.first = k
	}
	if text := k.shape(c.first); text != "" {
		fault(fmt.Sprintf("chunk %d: %s: %.200s", c.count, text, data))
		return
	}
	if text := c.order(k); text != "" {
		fault(fmt.Sprintf("chunk %d: %s: %.200s", c.count, text, data))
	}
}

// fail checks an error chunk: clients read all four keys.
func (c *chat) fail(raw json.RawMessage, fault func(string)) {
	c.step = failed
	var e map[string]any
	if json.Unmarshal(raw, &e) != nil {
		fault(fmt.Sprintf("error is no object: %.60s", raw))
		return
	}
	for _, key := range []string{"message", "type", "param", "code"} {
		if _, ok := e[key]; !ok {
			fault(fmt.Sprintf("error without %q: %.200s", key, raw))
		}
	}
}

// shape checks the chunk for itself and against the first one.
func (k chatChunk) shape(first chatChunk) string {
	switch {
	case k.Object == nil || *k.Object != "chat.completion.chunk":
		return "object is not chat.completion.chunk"
	case k.ID == nil || *k.ID == "" || k.Created == nil || *k.Created <= 0 || k.Model == nil || *k.Model == "" || k.Choices == nil:
		return "id, created, model or choices is missing"
	case first.ID == nil || first.Created == nil || *k.ID != *first.ID || *k.Created != *first.Created:
		return "id or created differs from the first chunk"
	case (len(k.Usage) > 0) != (len(first.Usage) > 0):
		return "usage must be in all chunks or in none"
	}
	for _, c := range *k.Choices {
		if c.Index == nil || c.Delta == nil || len(c.Finish) == 0 {
			return "index, delta or finish_reason of a choice is missing"
		}
	}
	return ""
}

// order moves on by one chunk.
func (c *chat) order(k chatChunk) string {
	if len(*k.Choices) == 0 {
		if c.step != finished {
			return "no choices after " + string(c.step)
		}
		c.step = used
		return k.usage()
	}
	if c.step == finished || c.step == used {
		return "a choice after " + string(c.step)
	}
	choice, finish, before := (*k.Choices)[0], string((*k.Choices)[0].Finish), c.step
	if c.step = content; finish != "null" {
		c.step = finished
	}
	switch {
	case len(k.Usage) > 0 && string(k.Usage) != "null":
		return "usage before the last chunk is not null"
	case (before == begin) != (choice.Delta.Role != nil):
		return "the role belongs into the first chunk and nowhere else"
	case finish != "null" && !slices.Contains(finishReasons, finish):
		return "finish_reason " + finish
	}
	return ""
}

var finishReasons = []string{`"stop"`, `"length"`, `"tool_calls"`, `"content_filter"`, `"function_call"`}

func (k chatChunk) usage() string {
	var u struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
	if json.Unmarshal(k.Usage, &u) != nil || u.Total != u.Prompt+u.Completion {
		return "usage does not add up"
	}
	return ""
}

// end is the clean end of the stream.
func (c *chat) end(fault func(string)) {
	if c.step != done && c.step != failed {
		fault("a clean end without [DONE] or an error: every client takes half an answer for the whole")
	}
}
