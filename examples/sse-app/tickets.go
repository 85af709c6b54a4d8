package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// A ticket is an answer that outlives the process that writes it. POST /tickets
// takes the question and writes the answer to a log of the bus, whether anybody
// reads it or not (writer.go); GET /stream?ticket= reads that log, on any
// instance, from where the client stands (reader.go).

const (
	maxQuestion = 256 << 10 // of bytes on the bus, where it stays for ticketLife
	ticketLife  = time.Hour // the bus forgets an answer that long after its last word, not sooner
)

// addTickets serves answers that outlive the process that writes them.
func (a *app) addTickets(mux *http.ServeMux) {
	mux.HandleFunc("POST /tickets", a.whenWarm(a.ownKey(a.newTicket)))
	mux.HandleFunc("PUT /tickets", a.whenWarm(a.ownKey(a.newTicket)))
	mux.HandleFunc("GET /v1/generations/{id}", a.generationState)
	mux.HandleFunc("POST /v1/generations/{id}/stop", a.stopGeneration)
}

// question is what the bus keeps of an answer beside its words: all that is
// needed to go on with it, and to send it in chunks that are the same everywhere.
type question struct {
	User     string `json:"user,omitempty"` // the only one who may read it; empty: whoever has the ticket
	Instance string `json:"instance"`       // who took the question
	ID       string `json:"id"`             // of the completion
	Created  int64  `json:"created"`
	Model    string `json:"model"`
	Prompt   string `json:"prompt"`
	Limit    int    `json:"limit,omitempty"`
	Usage    bool   `json:"usage,omitempty"`
	Body     string `json:"body,omitempty"`
	Keyed    bool   `json:"keyed,omitempty"` // the upstream was to be asked with a key that only the client has

	key string // which is not kept on the bus
}

func (q *question) request() chatRequest {
	return chatRequest{body: []byte(q.Body), key: q.key, model: q.Model, prompt: q.Prompt, limit: q.Limit, stream: true, includeUsage: q.Usage}
}

// newTicket takes a question and begins with the answer at once.
func (a *app) newTicket(w http.ResponseWriter, r *http.Request) {
	q, status, fault := a.takeQuestion(w, r)
	if fault != nil {
		fault.write(w, status)
		return
	}
	var err error
	about := string(mustJSON(q))
	switch q.User, err = a.visitor(r); {
	case len(about) > maxQuestion:
		longQuestion.asJSON(w)
		return
	case a.bus == nil:
		noBus.asJSON(w)
		return
	case err != nil: // whose it is cannot be known now
		busDown.asJSON(w)
		return
	case a.cutoff.over() || !a.pens.take():
		busy.asJSON(w)
		return
	}
	id := newTicketID(time.Now())
	if err := a.startWriting(r.Context(), id, q); err != nil {
		a.err.Printf("begin an answer: %v", err)
		busDown.asJSON(w)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]string{"ticket": id, "url": "/stream?ticket=" + id})
}

func (a *app) takeQuestion(w http.ResponseWriter, r *http.Request) (q *question, status int, fault *apiError) {
	ask, status, fault := readChatRequest(w, r)
	if fault != nil {
		return nil, status, fault
	}
	q = &question{
		Instance: a.instance, ID: "chatcmpl-" + rand.Text(), Created: time.Now().Unix(),
		Model: cmp.Or(ask.model, modelName), Prompt: ask.prompt, Limit: ask.limit, Usage: ask.includeUsage,
	}
	if a.upstream != "" {
		q.Body, q.key, q.Keyed = string(ask.body), ask.key, ask.key != ""
		return q, 0, nil
	}
	if _, _, err := ask.answer(); err != nil {
		return nil, http.StatusNotFound, unknownModel(ask.model)
	}
	return q, 0, nil
}

// startWriting makes the log of an answer and starts to write it, with a pen that
// was taken.
func (a *app) startWriting(ctx context.Context, id string, q *question) error {
	if err := a.bus.Create(ctx, logOf(id), string(mustJSON(q))); err != nil {
		a.pens.put()
		return err
	}
	claim, err := a.bus.Claim(ctx, logOf(id), a.claimLife())
	if err != nil { // the bus went away in between; the first reader begins it
		a.pens.put()
		return nil
	}
	go a.write(claim, id, q) // until the answer, the claim or this process ends
	return nil
}

// A ticket is the time, so that one that is too old can be told from one that
// never was, and enough chance that nobody guesses it.
const (
	timeDigits  = 9 // base 36, milliseconds: enough for 3000 years
	ticketChars = "0123456789abcdefghijklmnopqrstuvwxyz"
)

var ticketLength = timeDigits + len(rand.Text())

func newTicketID(now time.Time) string {
	ms := strconv.FormatInt(now.UnixMilli(), 36)
	return strings.Repeat("0", timeDigits-len(ms)) + ms + strings.ToLower(rand.Text())
}

// issued is when a ticket was made; ok is false if none looks like this.
func issued(id string) (at time.Time, ok bool) {
	if len(id) != ticketLength || strings.Trim(id, ticketChars) != "" {
		return at, false
	}
	ms, err := strconv.ParseInt(id[:timeDigits], 36, 64)
	return time.UnixMilli(ms), err == nil
}

func logOf(ticket string) string { return "gen:" + ticket }

// refusal is why somebody does not get what he asked for.
type refusal struct {
	status     int
	code, text string
}

var (
	noBus        = &refusal{http.StatusServiceUnavailable, "no_bus", errNoBus.Error()}
	busDown      = &refusal{http.StatusServiceUnavailable, "bus_down", "The bus cannot be reached now. Try again."}
	longQuestion = &refusal{http.StatusRequestEntityTooLarge, "request_too_large", "The question is longer than 256 KiB."}
	busy         = &refusal{http.StatusServiceUnavailable, "busy", "Too many answers are being written. Try again."}
	noSuchTicket = &refusal{http.StatusNotFound, "unknown_ticket", "There is no such ticket."}
	oldTicket    = &refusal{http.StatusGone, "expired_ticket", "This answer is not kept any more. Ask again."}
	notLoggedIn  = &refusal{http.StatusUnauthorized, "not_logged_in", "This ticket belongs to a user: log in."}
	notYours     = &refusal{http.StatusForbidden, "not_yours", "This ticket belongs to another user."}
)

func (no *refusal) Error() string { return no.text }

func (no *refusal) asText(w http.ResponseWriter) {
	no.headers(w.Header())
	http.Error(w, no.text, no.status)
}

func (no *refusal) asJSON(w http.ResponseWriter) {
	no.headers(w.Header())
	fault := badRequest(no.text, no.code, "")
	if no.status >= 500 {
		fault = serverError(no.text, no.code)
	}
	fault.write(w, no.status)
}

func (no *refusal) headers(h http.Header) {
	if no == busy || no == busDown {
		h.Set("Retry-After", "1")
	}
}

// ticket finds the question of a ticket for whoever asks. The error is a
// *refusal; it is busDown if this cannot be known now.
func (a *app) ticket(r *http.Request, id string) (*question, error) {
	at, ok := issued(id)
	switch {
	case !ok:
		return nil, noSuchTicket
	case a.bus == nil:
		return nil, noBus
	}
	about, ok, err := a.bus.About(r.Context(), logOf(id))
	switch age := time.Since(at); {
	case err != nil:
		return nil, busDown
	case !ok && age > ticketLife:
		return nil, oldTicket
	case !ok:
		return nil, noSuchTicket
	}
	q := new(question)
	if err := json.Unmarshal([]byte(about), q); err != nil {
		return nil, fmt.Errorf("read what ticket %q is about: %w", id, err)
	}
	switch user, err := a.visitor(r); {
	case q.User == "" || q.User == user:
		return q, nil
	case err != nil: // the cookie cannot be read now
		return nil, busDown
	case user == "":
		return nil, notLoggedIn
	}
	return nil, notYours
}

// lastIndex reads where a client stands: the index of the last entry of the
// ticket's log that it has, -1 if none. What this app never sent is refused:
// taken for "from the start", it would send everything twice.
func lastIndex(r *http.Request, ticket string) (int, error) {
	seen := r.Header.Get("Last-Event-ID") // an EventSource keeps this one up to date
	if seen == "" {
		seen = r.URL.Query().Get("last_event_id")
	}
	if seen == "" {
		return -1, nil
	}
	of, number, _ := strings.Cut(seen, ".")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || of != ticket || n == math.MaxInt32 {
		return 0, fmt.Errorf("Last-Event-ID %q is none of this answer", seen)
	}
	return int(n), nil
}

// generationState is GET /v1/generations/{id}.
func (a *app) generationState(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	q, err := a.ticket(r, id)
	if err != nil {
		asRefusal(err).asJSON(w)
		return
	}
	state, err := a.stateOf(r.Context(), id, q)
	if errors.Is(err, bus.ErrDown) {
		err = busDown
	}
	if err != nil {
		asRefusal(err).asJSON(w)
		return
	}
	writeJSON(w, http.StatusOK, state)
}

func asRefusal(err error) *refusal {
	if no, ok := errors.AsType[*refusal](err); ok {
		return no
	}
	return &refusal{http.StatusInternalServerError, "", err.Error()}
}

// state is how far an answer is.
type state struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Tokens   int    `json:"tokens"`
	Instance string `json:"instance"` // who wrote last
}

func (a *app) stateOf(ctx context.Context, id string, q *question) (state, error) {
	s := state{ID: id, Instance: q.Instance}
	for range 2 { // again if it ended between the two looks
		last, err := a.newest(ctx, id)
		if err != nil {
			return s, err
		}
		if s.Tokens = last.Index + 1; s.Tokens > 0 {
			s.Instance = readToken(last).instance()
		}
		if last.Kind != kindWord {
			s.Tokens, s.Status = last.Index, last.Kind
			return s, nil
		}
		if s.Status, err = a.probe(ctx, id); err != nil || s.Status != "" {
			return s, err
		}
	}
	return s, noSuchTicket // forgotten meanwhile
}

// newest is the last entry of an answer; as long as there is none, a word before
// the first.
func (a *app) newest(ctx context.Context, id string) (last bus.Entry, err error) {
	last = bus.Entry{Index: -1, Kind: kindWord, Cursor: bus.Start}
	for {
		entries, _, err := a.bus.History(ctx, logOf(id), last.Cursor)
		if err != nil || len(entries) == 0 {
			return last, err
		}
		last = entries[len(entries)-1]
	}
}

// probe asks who writes an answer, by trying to: "running" if somebody does,
// "waiting" if nobody does (the next reader's instance will go on), nothing if
// it has ended. One that somebody stopped, and that nobody writes, is ended
// here.
func (a *app) probe(ctx context.Context, id string) (status string, err error) {
	claim, err := a.bus.Claim(ctx, logOf(id), a.claimLife())
	switch {
	case errors.Is(err, bus.ErrClaimed):
		return "running", nil
	case errors.Is(err, bus.ErrLost):
		return "", nil
	case err != nil:
		return "", err
	}
	if errors.Is(claim.Keep(ctx), bus.ErrStop) {
		return "", claim.AppendLast(ctx, claim.Next(), kindStopped, a.token(stopped))
	}
	return "waiting", claim.Release(ctx)
}

// stopGeneration is POST /v1/generations/{id}/stop. It is a request of its own:
// a client that leaves does not stop anything, it may come back.
func (a *app) stopGeneration(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if _, err := a.ticket(r, id); err != nil {
		asRefusal(err).asJSON(w)
		return
	}
	switch ok, err := a.bus.Stop(r.Context(), logOf(id)); {
	case err != nil:
		busDown.asJSON(w)
		return
	case !ok:
		noSuchTicket.asJSON(w)
		return
	}
	if _, err := a.probe(r.Context(), id); err != nil { // the writer may be dead
		a.err.Printf("look who writes %s: %v", id, err)
	}
	writeJSON(w, http.StatusAccepted, map[string]string{"id": id, "status": "stopping"})
}
