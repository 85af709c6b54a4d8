package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// app is the service. Everything in it is safe for concurrent use.
type app struct {
	config
	heartbeat    time.Duration // silence after which a stream gets a comment
	writeTimeout time.Duration // how long one write to one client may block
	settle       time.Duration // how long a hello waits for the bus, so that nothing published after it is missed
	readTimeout  time.Duration // how long a request may take to come in
	firstWord    time.Duration // how long a connection may be silent once the port is closed
	ping         time.Duration // between two questions to a WebSocket whether it is there

	out, err *log.Logger // stdout: a line per request; stderr: what went wrong
	exit     func(code int)
	bus      *bus.Bus // what the instances share; nil without one
	keyring  keyring  // what cookies are signed with
	pens     pens     // what this process writes answers with

	wire *http.Transport // to the upstream

	metrics *metrics
	guests  *guests

	streams  atomic.Int64 // open event streams
	sockets  atomic.Int64 // open WebSockets
	warm     moment       // able to answer
	leaving  moment       // not ready any more
	goodbyes moment       // endless streams end
	cutoff   moment       // everything else ends too
}

func newApp(c config) *app {
	a := &app{
		config:       c,
		heartbeat:    15 * time.Second, // proxies cut silent connections, some after 30 s
		writeTimeout: 5 * time.Second,
		settle:       2 * time.Second,
		readTimeout:  10 * time.Second,
		firstWord:    2 * time.Second,           // long for a busy machine, short for a client that sends nothing
		ping:         30 * time.Second,          // proxies cut silent WebSockets, too
		out:          log.New(os.Stdout, "", 0), // the supervisor's log has the time
		err:          log.New(os.Stderr, "", 0),
		exit:         os.Exit,
		pens:         newPens(),
		wire:         newWire(),
		guests:       newGuests(),
		warm:         newMoment(),
		leaving:      newMoment(),
		goodbyes:     newMoment(),
		cutoff:       newMoment(),
	}
	a.metrics = newMetrics(func() bool { return a.bus != nil && a.bus.Up() }, a.leaving.over)
	return a
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", a.whenWarm(a.stream))
	mux.HandleFunc("/v1/chat/completions", a.whenWarm(a.ownKey(a.v1(a.completions))))
	mux.HandleFunc("/v1/models", a.v1(a.models))
	mux.HandleFunc("/v1/models/{id...}", a.v1(a.model))
	mux.HandleFunc("/v1/", a.ownKey(a.v1(a.unknownURL)))
	mux.HandleFunc("/chatgptApi/chatgpt_qa_stream", a.whenWarm(a.ownKey(a.qa)))
	mux.HandleFunc("GET /healthz", a.healthz)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /error", a.crash)
	a.addTickets(mux)
	a.addPush(mux)
	a.addSession(mux)
	a.addSocket(mux)
	a.addMetrics(mux)
	addPage(mux)
	return a.logged(a.shared(wellFormed(mux)))
}

// wellFormed refuses a query that cannot be read: net/http passes over the parts
// that it does not understand, as if they had not been sent.
func wellFormed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("the query of the URL: %w", err))
			return
		}
		next.ServeHTTP(w, r)
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
		seen := &observed{ResponseWriter: w, request: r, status: http.StatusOK, start: time.Now(), begins: a.metrics.began}
		defer func() {
			left := ""
			if r.Context().Err() != nil {
				left = " client left"
			}
			a.out.Printf("接收到请求 %s %.20s %.300q %d %dB %s%s", r.RemoteAddr, r.Method, r.URL.Path,
				seen.status, seen.bytes, time.Since(seen.start).Round(time.Millisecond), left)
			a.metrics.answered(seen)
		}()
		next.ServeHTTP(seen, r)
	})
}

// observed notes what a handler answered.
type observed struct {
	http.ResponseWriter
	request *http.Request
	status  int
	bytes   int64
	start   time.Time
	begins  func(*observed) // is called before the first byte of the body
}

func (o *observed) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	if o.bytes == 0 {
		o.begins(o)
	}
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection; without it there
// is no Flush and no write deadline, and so no streaming.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }
