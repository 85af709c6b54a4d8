package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
	corsHeaders = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Requested-With"
	corsExposed = "X-Instance, X-Request-Id, Retry-After, Retry-After-Ms"
	maxCORS     = 2 << 10 // bytes of a list of headers that a browser asks for
)

// shared sets the headers that every answer has, and answers CORS preflights.
func (a *app) shared(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Instance", a.instance)
		if a.leaving.over() {
			h.Set("Connection", "close") // the client's next request goes to a sibling
		}
		a.cors(h, r)
		if r.Method == http.MethodOptions && r.URL.Path != "/time" { // which has lists of its own
			preflight(h, r)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// cors lets pages of all other origins read the answer, but not with the
// visitor's cookie; only those of -origin may do that. Each of these is named,
// because browsers refuse "*" together with a cookie.
func (a *app) cors(h http.Header, r *http.Request) {
	allowed := "*"
	if len(a.origins) > 0 {
		h.Add("Vary", "Origin") // or a cache would give one origin's answer to another
	}
	if origin := r.Header.Get("Origin"); slices.Contains(a.origins, origin) {
		allowed = origin
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Access-Control-Allow-Origin", allowed)
	h.Set("Access-Control-Expose-Headers", corsExposed)
}

// preflight allows the headers that the page wants to send: the SDKs have a
// dozen of their own (x-stainless-...) and new ones in every release. What they
// may do is decided by what they say, not by what they say it with.
func preflight(h http.Header, r *http.Request) {
	headers := corsHeaders
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxCORS {
		headers = asked
	}
	h.Set("Access-Control-Allow-Headers", headers)
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Max-Age", "600")
}

// parseOrigin checks an origin: it is compared with what browsers send, letter
// by letter, so one with a path would never match.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Scheme+"://"+u.Host != strings.ToLower(s) {
		return "", fmt.Errorf("%q is not an origin as https://chat.example or http://localhost:3000, without a path", s)
	}
	return u.Scheme + "://" + u.Host, nil
}
