package main

import (
	"net/http"
	"unicode/utf8"
)

// echo is GET /echo?data=...: one event as the client wants it, for those who
// test a parser or what lies between it and this app. Whatever is in the query,
// it is one event that comes out.
func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case lastEventID(r) == finished:
		w.WriteHeader(http.StatusNoContent)
		return
	case !q.Has("data"):
		http.Error(w, "data is missing: /echo?data=...", http.StatusBadRequest)
		return
	case !utf8.ValidString(q.Get("data") + q.Get("event") + q.Get("id")):
		http.Error(w, "events are text, in UTF-8: send bytes as base64", http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff") // somebody else chose the text
	s, ok := a.begin(w, r)
	if !ok {
		return
	}
	defer s.close()
	s.send(event{id: q.Get("id"), name: q.Get("event"), data: q.Get("data")}, event{id: finished, data: "[DONE]"})
}
