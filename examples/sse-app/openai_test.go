package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// A library that people use, against the app and against the app in front of
// another one.

func withLibrary(t *testing.T, test func(t *testing.T, r *running, client *openai.Client), change func(*app)) {
	for _, relayed := range []bool{false, true} {
		t.Run(fmt.Sprintf("relayed=%t", relayed), func(t *testing.T) {
			r := start(t, change)
			if relayed {
				r = beforeURL(t, r.url)
			}
			tr := &http.Transport{}
			t.Cleanup(tr.CloseIdleConnections)
			c := openai.DefaultConfig("key")
			c.BaseURL, c.HTTPClient = r.url+"/v1", &http.Client{Transport: tr}
			test(t, r, openai.NewClientWithConfig(c))
		})
	}
}

func libraryAsks(prompt, model string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: model, Messages: []openai.ChatCompletionMessage{{Role: "user", Content: prompt}}}
}

func TestGoLibrary(t *testing.T) {
	withLibrary(t, func(t *testing.T, r *running, client *openai.Client) {
		q := libraryAsks("Tell me a story", modelName)
		whole, err := client.CreateChatCompletion(t.Context(), q)
		want := strings.Join(answer("Tell me a story"), "")
		if err != nil || whole.Choices[0].Message.Content != want || whole.Choices[0].FinishReason != "stop" || whole.Usage.TotalTokens == 0 {
			t.Errorf("in one piece: %+v %v", whole, err)
		}
		q.Stream, q.StreamOptions = true, &openai.StreamOptions{IncludeUsage: true}
		stream, err := client.CreateChatCompletionStream(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		text, reason, used := "", "", 0
		for {
			c, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, choice := range c.Choices {
				text += choice.Delta.Content
				reason += string(choice.FinishReason)
			}
			if c.Usage != nil {
				used = c.Usage.TotalTokens
			}
		}
		if text != want || reason != "stop" || used != whole.Usage.TotalTokens {
			t.Errorf("streamed: %q %s %d", text, reason, used)
		}
		models, err := client.ListModels(t.Context())
		if err != nil || len(models.Models) != 2 || models.Models[1].ID != "lorem" {
			t.Errorf("models: %+v %v", models, err)
		}
		one, err := client.GetModel(t.Context(), "lorem")
		if err != nil || one.ID != "lorem" {
			t.Errorf("model: %+v %v", one, err)
		}
	}, nil)
}

func TestGoLibraryErrors(t *testing.T) {
	withLibrary(t, func(t *testing.T, r *running, client *openai.Client) {
		var e *openai.APIError
		_, err := client.CreateChatCompletion(t.Context(), libraryAsks("x", "gpt-4o"))
		if !errors.As(err, &e) || e.HTTPStatusCode != 404 || e.Code != "model_not_found" || *e.Param != "model" {
			t.Errorf("in one piece: %v", err)
		}
		e = nil
		if _, err = client.CreateChatCompletionStream(t.Context(), libraryAsks("x", "gpt-4o")); !errors.As(err, &e) || e.HTTPStatusCode != 404 {
			t.Errorf("streamed: %v", err)
		}
		e = nil
		if _, err = client.GetModel(t.Context(), "gpt-4o"); !errors.As(err, &e) || e.HTTPStatusCode != 404 {
			t.Errorf("model: %v", err)
		}
	}, nil)
}

// In the middle of an answer the server has to leave: the library says it.
func TestGoLibraryIsToldAtTheCutoff(t *testing.T) {
	withLibrary(t, func(t *testing.T, r *running, client *openai.Client) {
		stream, err := client.CreateChatCompletionStream(t.Context(), libraryAsks("x", modelName))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		for range 2 { // the role, a word
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		r.leave()
		r.cutoff.come()
		for err == nil {
			_, err = stream.Recv()
		}
		var e *openai.APIError
		if !errors.As(err, &e) || e.Code != "server_restarting" || e.Type != "server_error" {
			t.Errorf("ended with %v", err)
		}
		r.ended(t)
	}, func(a *app) { a.delay = 300 * time.Millisecond })
}

func TestGoLibraryLeaves(t *testing.T) {
	withLibrary(t, func(t *testing.T, r *running, client *openai.Client) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		stream, err := client.CreateChatCompletionStream(ctx, libraryAsks("x", modelName))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		leave()
		if _, err := stream.Recv(); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		until(t, "the server has noticed", func() bool { return r.streams.Load() == 0 })
	}, func(a *app) { a.delay = time.Hour })
}
