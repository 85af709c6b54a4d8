package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// past is one message as /history tells it.
type past struct {
	Cursor string    `json:"cursor"`
	ID     string    `json:"id"`
	Data   string    `json:"data"`
	At     time.Time `json:"at"`
}

// history is GET /history?user=u&after=CURSOR: what is kept of an inbox, or of
// the news (?log=news), in order. after is a cursor, or the id of an event of
// /stream, which has the cursor in it. more: ask again after the last cursor.
func (a *app) history(w http.ResponseWriter, r *http.Request) {
	log, status, err := a.readableLog(r)
	if err != nil {
		refuse(w, status, err)
		return
	}
	after, err := cursorIn(r.URL.Query().Get("after"), log)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if a.bus == nil {
		a.unavailable(w, errNoBus)
		return
	}
	entries, gap, err := a.bus.History(r.Context(), log, after)
	switch {
	case errors.Is(err, bus.ErrCursor):
		refuse(w, http.StatusBadRequest, err)
		return
	case err != nil:
		a.unavailable(w, err)
		return
	}
	events, more := pages(entries)
	w.Header().Set("Cache-Control", "no-store")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.writeTimeout)) // who does not read holds nothing
	writeJSON(w, http.StatusOK, map[string]any{"events": events, "gap": gap, "more": more})
}

// pages is what fits into one answer.
func pages(entries []bus.Entry) (events []past, more bool) {
	events = []past{} // in JSON a list, even if it is empty
	size := 0
	for _, e := range entries {
		if size += len(e.Data); size > maxHistory && len(events) > 0 {
			return events, true
		}
		events = append(events, past{e.Cursor, e.ID, e.Data, e.At})
	}
	return events, false
}

// readableLog is the log that is asked for, if the visitor may read it.
func (a *app) readableLog(r *http.Request) (log string, status int, err error) {
	q := r.URL.Query()
	switch {
	case q.Get("log") == newsLog && !q.Has("user"):
		return newsLog, 0, nil
	case q.Has("log"):
		return "", http.StatusBadRequest, errors.New("log=news is the only one that is nobody's")
	case !q.Has("user"):
		return "", http.StatusBadRequest, errors.New("whose? ?user=alice, or ?log=news")
	}
	name, err := a.visitor(r)
	if err != nil {
		return "", http.StatusServiceUnavailable, err
	}
	status, err = mayRead(name, q.Get("user"))
	return inboxLog(q.Get("user")), status, err
}

// mayRead says whether a visitor may read what is the owner's.
func mayRead(visitor, owner string) (status int, err error) {
	switch {
	case visitor == "":
		return http.StatusUnauthorized, errors.New("log in first: POST /login")
	case !validUser(owner):
		return http.StatusBadRequest, errUser(owner)
	case visitor != owner:
		return http.StatusForbidden, errors.New("you are logged in as somebody else")
	}
	return 0, nil
}

// cursorIn is the cursor of log in what a client has: the cursor itself, or an
// event's id.
func cursorIn(after, log string) (string, error) {
	if after == "" {
		return bus.Start, nil
	}
	if !strings.Contains(after, "~") {
		return after, nil
	}
	p, err := parsePosition(after)
	switch {
	case err != nil:
		return "", err
	case log == newsLog && p.news != "":
		return p.news, nil
	case p.inbox != "" && inboxLog(p.owner) == log:
		return p.inbox, nil
	}
	return "", errors.New("after has no cursor of this log")
}
