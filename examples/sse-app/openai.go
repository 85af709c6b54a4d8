package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

const maxBody = 1 << 20

// apiError is an error in OpenAI's shape; all four keys are always there.
type apiError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func newAPIError(kind, text, code, param string) *apiError {
	e := &apiError{}
	e.Error.Message, e.Error.Type = text, kind
	if code != "" {
		e.Error.Code = &code
	}
	if param != "" {
		e.Error.Param = &param
	}
	return e
}

func badRequest(text, code, param string) *apiError {
	return newAPIError("invalid_request_error", text, code, param)
}

func serverError(text, code string) *apiError {
	return newAPIError("server_error", text, code, "")
}

func (e *apiError) write(w http.ResponseWriter, status int) { writeJSON(w, status, e) }

// chatRequest is what the app understood of a request.
type chatRequest struct {
	body         []byte // as it came, for an upstream
	model        string // empty: the default one
	prompt       string
	limit        int // words; 0: no limit
	stream       bool
	includeUsage bool
}

// readChatRequest reads and checks the body, whatever its Content-Type says:
// browsers send text/plain if nobody tells them.
func readChatRequest(w http.ResponseWriter, r *http.Request) (q chatRequest, status int, fault *apiError) {
	var body struct {
		Model    string `json:"model"`
		Prompt   string `json:"prompt"` // the older form, accepted in place of messages
		Messages []struct {
			Role    string  `json:"role"`
			Content content `json:"content"`
		} `json:"messages"`
		Stream        bool `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		MaxTokens           *int `json:"max_tokens"`
		MaxCompletionTokens *int `json:"max_completion_tokens"`
		N                   *int `json:"n"`
	}
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(10 * time.Second)) // a body must not trickle in for ever
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body)
	rc.SetReadDeadline(time.Time{}) // left in place it would end the stream as if the client had left
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return q, http.StatusRequestEntityTooLarge, badRequest("The body is larger than 1 MiB.", "request_too_large", "")
	case err != nil:
		return q, http.StatusBadRequest, badRequest("The body is not the JSON this URL expects: "+err.Error(), "", "")
	case body.Model != "" && body.Model != modelName:
		return q, http.StatusNotFound, unknownModel(body.Model)
	case body.N != nil && *body.N != 1:
		return q, http.StatusBadRequest, badRequest("This model gives one choice; n must be 1.", "", "n")
	}
	q = chatRequest{prompt: body.Prompt, stream: body.Stream, includeUsage: body.StreamOptions.IncludeUsage}
	for _, m := range body.Messages {
		if m.Role == "user" {
			q.prompt = string(m.Content) // the last one counts
		}
	}
	if strings.TrimSpace(q.prompt) == "" {
		return q, http.StatusBadRequest, badRequest("There is no message from a user.", "", "messages")
	}
	for _, n := range []*int{body.MaxTokens, body.MaxCompletionTokens} {
		if n == nil {
			continue
		}
		if *n < 1 {
			return q, http.StatusBadRequest, badRequest("max_tokens must be at least 1.", "", "max_tokens")
		}
		q.limit = *n
	}
	return q, 0, nil
}

// content is a message's text: a string, or a list of parts of which the text
// ones are taken.
type content string

func (c *content) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '[' {
		return json.Unmarshal(b, (*string)(c))
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	var text []string
	for _, p := range parts {
		if p.Type == "text" {
			text = append(text, p.Text)
		}
	}
	*c = content(strings.Join(text, "\n"))
	return nil
}

func unknownModel(name string) *apiError {
	return badRequest("The model '"+name+"' does not exist; there is '"+modelName+"'.", "model_not_found", "model")
}

// models is GET /v1/models.
func (a *app) models(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, OPTIONS")
		badRequest("Use GET for this URL.", "method_not_allowed", "").write(w, http.StatusMethodNotAllowed)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{modelCard()}})
}

func modelCard() map[string]any {
	return map[string]any{"id": modelName, "object": "model", "created": 1767225600, "owned_by": "sse-app"}
}

// unknownURL answers GET /v1/models/{id}, and 404 to the rest of /v1.
func (a *app) unknownURL(w http.ResponseWriter, r *http.Request) {
	id, isModel := strings.CutPrefix(r.URL.Path, "/v1/models/")
	switch {
	case isModel && id == modelName:
		writeJSON(w, http.StatusOK, modelCard())
	case isModel:
		unknownModel(id).write(w, http.StatusNotFound)
	default:
		badRequest("Unknown URL: "+r.Method+" "+r.URL.Path, "unknown_url", "").write(w, http.StatusNotFound)
	}
}
