package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// app is the service. Everything in it is safe for concurrent use.
type app struct {
	config
	heartbeat    time.Duration // silence after which a stream gets a comment
	writeTimeout time.Duration // how long one write to one client may block
	linger       time.Duration // from the closed listener to the shutdown

	out, err *log.Logger // stdout: a line per request; stderr: what went wrong
	exit     func(code int)

	streams  atomic.Int64  // open event streams
	draining chan struct{} // closed: endless streams say goodbye
	cutoff   chan struct{} // closed: everything else ends too
	leaving  atomic.Bool   // not ready any more
}

func newApp(c config) *app {
	return &app{
		config:       c,
		heartbeat:    15 * time.Second, // proxies cut silent connections, some after 30 s
		writeTimeout: 5 * time.Second,
		linger:       200 * time.Millisecond,
		out:          log.New(os.Stdout, "", 0), // the supervisor's log has the time
		err:          log.New(os.Stderr, "", 0),
		exit:         os.Exit,
		draining:     make(chan struct{}),
		cutoff:       make(chan struct{}),
	}
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", a.stream)
	mux.HandleFunc("/v1/chat/completions", a.completions)
	mux.HandleFunc("/v1/models", a.models)
	mux.HandleFunc("/v1/", a.unknownURL)
	mux.HandleFunc("GET /healthz", a.healthz)
	mux.HandleFunc("GET /error", a.crash)
	addPage(mux)
	return a.logged(a.shared(mux))
}

// shared sets the headers that every answer has, and answers CORS preflights.
func (a *app) shared(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Instance", a.instance)
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "X-Instance, X-Request-Id")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "Authorization, Cache-Control, Content-Type, Last-Event-ID")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// healthz is the readiness check. A 503 is right here and only here: on
// /stream it would close an EventSource for good.
func (a *app) healthz(w http.ResponseWriter, _ *http.Request) {
	status, state := http.StatusOK, "ok"
	if a.leaving.Load() {
		status, state = http.StatusServiceUnavailable, "draining"
	}
	writeJSON(w, status, map[string]any{
		"status": state, "instance": a.instance, "pid": os.Getpid(), "streams": a.streams.Load(),
	})
}

// crash dies at once, as a bug would, so that one can watch the supervisor.
func (a *app) crash(http.ResponseWriter, *http.Request) {
	a.err.Printf("fatal: GET /error was asked for, pid %d dies", os.Getpid())
	a.exit(1)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // fails only if the client left
}

// logged writes one line per request when it is over.
func (a *app) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, seen := time.Now(), &observed{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			left := ""
			if r.Context().Err() != nil {
				left = " client left"
			}
			a.out.Printf("%s %s %q %d %dB %s%s", r.RemoteAddr, r.Method, r.URL.Path,
				seen.status, seen.bytes, time.Since(start).Round(time.Millisecond), left)
		}()
		next.ServeHTTP(seen, r)
	})
}

// observed notes what a handler answered.
type observed struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (o *observed) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection; without it there
// is no Flush and no write deadline, and so no streaming.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }
