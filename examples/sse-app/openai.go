package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const maxBody = 1 << 20

// apiError is an error in OpenAI's shape; all four keys are always there.
type apiError struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
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

// write answers with e. A 503 is over soon, and clients are told so: the
// libraries try again by themselves.
func (e *apiError) write(w http.ResponseWriter, status int) {
	if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, e)
}

// chatRequest is what the app understood of a request.
type chatRequest struct {
	body         []byte // as it came, for an upstream
	key          string // the client's own Authorization, for an upstream
	model        string // empty: the default one
	prompt       string
	limit        int // words; 0: no limit
	stream       bool
	whole        bool // the request says that it wants no stream
	includeUsage bool
}

// chatBody is the JSON of a request. What the built-in models have no use for is
// here for its type: a client with a mistake in it should not learn it from the
// next server.
type chatBody struct {
	Model    string `json:"model"`
	Prompt   string `json:"prompt"` // the older form, accepted in place of messages
	Messages []struct {
		Role    string  `json:"role"`
		Content content `json:"content"`
	} `json:"messages"`
	Stream        *bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`
	N                   *int `json:"n"`

	Seed             *int64   `json:"seed"`
	Temperature      *float64 `json:"temperature"`
	TopP             *float64 `json:"top_p"`
	PresencePenalty  *float64 `json:"presence_penalty"`
	FrequencyPenalty *float64 `json:"frequency_penalty"`
	User             string   `json:"user"`
	Stop             stops    `json:"stop"`
	ResponseFormat   struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

// readQuestion reads a request that one of the models here can answer. If there
// is none, it says so to the client.
func (a *app) readQuestion(w http.ResponseWriter, r *http.Request) (q chatRequest, ok bool) {
	if !allow(w, r, http.MethodPost) {
		return q, false
	}
	q, status, fault := readChatRequest(w, r)
	if fault == nil && a.upstream == "" {
		if _, _, err := q.answer(); err != nil {
			status, fault = http.StatusNotFound, unknownModel(q.model)
		}
	}
	if fault != nil {
		fault.write(w, status)
	}
	return q, fault == nil
}

// readChatRequest reads and checks the body, whatever its Content-Type says:
// browsers send text/plain if nobody tells them. Whether there is such a model
// is not known here.
func readChatRequest(w http.ResponseWriter, r *http.Request) (q chatRequest, status int, fault *apiError) {
	raw, status, fault := readAll(w, r, maxBody, 10*time.Second)
	if fault != nil {
		return q, status, fault
	}
	if !utf8.Valid(raw) {
		return q, http.StatusBadRequest, badRequest("The body is not UTF-8. Send binary data as base64.", "", "")
	}
	var body chatBody
	if err := json.Unmarshal(raw, &body); err != nil {
		return q, http.StatusBadRequest, badJSON(err)
	}
	if fault := body.check(); fault != nil {
		return q, http.StatusBadRequest, fault
	}
	q = chatRequest{
		body: raw, key: r.Header.Get("Authorization"), model: body.Model, prompt: body.prompt(), limit: body.limit(),
		stream: body.Stream != nil && *body.Stream, whole: body.Stream != nil && !*body.Stream, includeUsage: body.StreamOptions.IncludeUsage,
	}
	return q, 0, nil
}

// readAll reads a body of limited size within a limited time.
func readAll(w http.ResponseWriter, r *http.Request, size int64, within time.Duration) (body []byte, status int, fault *apiError) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(within)) // a body must not trickle in for ever
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, size))
	rc.SetReadDeadline(time.Time{}) // left in place it would end the stream as if the client had left
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		text := fmt.Sprintf("The body is larger than %d MiB.", size>>20)
		return nil, http.StatusRequestEntityTooLarge, badRequest(text, "request_too_large", "")
	case errors.Is(err, os.ErrDeadlineExceeded):
		text := fmt.Sprintf("The body did not come in within %s.", within)
		return nil, http.StatusRequestTimeout, badRequest(text, "request_timeout", "")
	case err != nil:
		return nil, http.StatusBadRequest, badRequest("The body did not come in whole.", "", "")
	}
	return body, 0, nil
}

// badJSON says what is wrong with a body, and where.
func badJSON(err error) *apiError {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return badRequest("The body is not the JSON this URL expects: "+err.Error(), "", "")
	}
	if wrong.Field == "" {
		return badRequest("The body must be a JSON object, not "+wrong.Value+".", "invalid_type", "")
	}
	return badRequest("'"+wrong.Field+"' has the wrong type: "+wrong.Value+".", "invalid_type", wrong.Field)
}

func (b *chatBody) check() *apiError {
	if strings.TrimSpace(b.prompt()) == "" {
		return badRequest("There is no message from a user.", "", "messages")
	}
	if b.N != nil && *b.N != 1 {
		return badRequest("A model here gives one choice; 'n' must be 1.", "", "n")
	}
	if b.MaxTokens != nil && *b.MaxTokens < 1 {
		return badRequest("'max_tokens' must be at least 1.", "", "max_tokens")
	}
	if b.MaxCompletionTokens != nil && *b.MaxCompletionTokens < 1 {
		return badRequest("'max_completion_tokens' must be at least 1.", "", "max_completion_tokens")
	}
	return nil
}

// prompt is what the user said last.
func (b *chatBody) prompt() string {
	prompt := b.Prompt
	for _, m := range b.Messages {
		if m.Role == "user" {
			prompt = string(m.Content)
		}
	}
	return prompt
}

func (b *chatBody) limit() int {
	for _, n := range []*int{b.MaxCompletionTokens, b.MaxTokens} { // the newer name first
		if n != nil {
			return *n
		}
	}
	return 0
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

// stops are stop sequences: one or a list.
type stops []string

func (s *stops) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(s))
	}
	*s = []string{""}
	return json.Unmarshal(b, &(*s)[0])
}

func unknownModel(name string) *apiError {
	var there []string
	for _, m := range builtin {
		there = append(there, "'"+m.name+"'")
	}
	text := fmt.Sprintf("The model '%.100s' does not exist; there are %s.", name, strings.Join(there, " and "))
	return badRequest(text, "model_not_found", "model")
}

// allow refuses all methods but one (and HEAD, where GET is allowed).
func allow(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method || (method == http.MethodGet && r.Method == http.MethodHead) {
		return true
	}
	w.Header().Set("Allow", method+", OPTIONS")
	badRequest("Use "+method+" for this URL.", "method_not_allowed", "").write(w, http.StatusMethodNotAllowed)
	return false
}

// models is GET /v1/models.
func (a *app) models(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	var cards []any
	for _, m := range builtin {
		cards = append(cards, modelCard(m.name))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": cards})
}

// model is GET /v1/models/{id}.
func (a *app) model(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	id := r.PathValue("id")
	for _, m := range builtin {
		if m.name == id {
			writeJSON(w, http.StatusOK, modelCard(id))
			return
		}
	}
	unknownModel(id).write(w, http.StatusNotFound)
}

func modelCard(name string) map[string]any {
	return map[string]any{"id": name, "object": "model", "created": 1767225600, "owned_by": "sse-app"}
}

// unknownURL answers to the rest of /v1.
func (a *app) unknownURL(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("Unknown URL: %s %.200s", r.Method, r.URL.Path)
	badRequest(text, "unknown_url", "").write(w, http.StatusNotFound)
}
