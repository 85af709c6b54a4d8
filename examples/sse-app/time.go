package main

import (
	"net/http"
	"time"
)

// time is GET /time: the server's time, again and again, for pages of any
// origin. It sets its CORS headers by itself, and answers the preflight.
func (a *app) time(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Del("Access-Control-Expose-Headers")
	h.Del("Access-Control-Allow-Credentials")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "Content-Type,Content-Length,Authorization,Accept,X-Requested-With")
	h.Set("Access-Control-Allow-Methods", "PUT,POST,GET,DELETE,OPTIONS")
	switch r.Method {
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodGet, http.MethodHead:
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "use GET for this URL", http.StatusMethodNotAllowed)
		return
	}
	s, ok := a.begin(w, r)
	if !ok {
		return
	}
	defer s.close()
	a.tellTime(s) // an error means: the client left
}

func (a *app) tellTime(s *eventStream) error {
	turn, undo := a.turn()
	defer undo()
	for {
		now := time.Now().Format("2006-01-02 15:04:05.000 MST")
		if err := s.send(event{data: "The server time is: " + now}); err != nil {
			return err
		}
		on, err := s.wait(a.interval, turn.Done())
		if err != nil {
			return err
		}
		if !on {
			return s.send(a.goodbye())
		}
	}
}
