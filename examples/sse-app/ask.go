package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// errNoResume says that an answer cannot be continued: nobody but the built-in
// models says the same again.
var errNoResume = errors.New("this model cannot go on in the middle of an answer")

// askUpstream is speak with an upstream.
func (a *app) askUpstream(ctx context.Context, q chatRequest, from int, say func(word string) error) (reason string, err error) {
	if from > 0 {
		return "", errNoResume
	}
	headers := http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}
	if q.key != "" {
		headers.Set("Authorization", q.key)
	}
	where := &url.URL{Path: "/v1/chat/completions"}
	resp, err := a.fromUpstream(a.toUpstream(ctx, http.MethodPost, where, headers, q.streamed(a.askModel)))
	if err == nil {
		reason, err = hear(ctx, resp, say)
	}
	if ctx.Err() != nil {
		return "", ctx.Err() // that is why, whatever it looks like
	}
	return reason, err
}

// hear hands the words of an answer in chunks to say.
func hear(ctx context.Context, resp *http.Response, say func(word string) error) (reason string, err error) {
	in := newHearing(ctx, resp.Body, true)
	defer in.close()
	if resp.StatusCode != http.StatusOK || !isEventStream(resp) {
		return "", refused(resp)
	}
	err = in.each(func(e event) error {
		c := readChunk(e.data)
		if c.failed() {
			return &chatError{status: http.StatusBadGateway, fault: readFault([]byte(e.data))}
		}
		for _, choice := range c.Choices {
			if choice.Index > 0 || choice.Delta.Content == "" {
				continue
			}
			if err := say(choice.Delta.Content); err != nil {
				return err
			}
		}
		return nil
	})
	return cmp.Or(in.reason, "stop"), err
}

// streamed is the request that an upstream gets: the client's own, but always
// streamed, and in the newer form.
func (q chatRequest) streamed(model string) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(q.body, &fields) != nil || fields == nil { // whoever asks has kept only what he understood
		fields = map[string]json.RawMessage{}
		if q.limit > 0 {
			fields["max_tokens"] = mustJSON(q.limit)
		}
		if q.model != "" {
			fields["model"] = mustJSON(q.model)
		}
	}
	switch string(fields["messages"]) {
	case "", "null", "[]":
		fields["messages"] = mustJSON([]map[string]string{{"role": "user", "content": q.prompt}})
	}
	if name := string(fields["model"]); model != "" && (name == "" || name == "null" || name == `""`) {
		fields["model"] = mustJSON(model)
	}
	delete(fields, "prompt")
	delete(fields, "stream_options")
	fields["stream"] = json.RawMessage("true")
	return mustJSON(fields)
}

// refused is an upstream's answer that is no stream, as an error.
func refused(resp *http.Response) *chatError {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFault))
	if resp.StatusCode < 400 {
		return badGateway("The upstream did not answer with a stream.", "upstream_failed", errors.New(resp.Status+" "+resp.Header.Get("Content-Type")))
	}
	return &chatError{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"), fault: readFault(body), cause: err}
}

const maxFault = 64 << 10

// readFault is an error of an upstream as ours: its text, type and code. Not all
// servers keep to OpenAI's types.
func readFault(body []byte) *apiError {
	var e struct {
		Error struct {
			Message, Type string
			Code          any
		}
	}
	if json.Unmarshal(body, &e) != nil || e.Error.Message == "" {
		return serverError("The upstream failed.", "upstream_failed")
	}
	code := "upstream_failed"
	if e.Error.Code != nil {
		code = fmt.Sprint(e.Error.Code)
	}
	return newAPIError(cmp.Or(e.Error.Type, "server_error"), e.Error.Message, code, "")
}
