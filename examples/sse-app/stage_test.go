package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// stage is a server for the page that a test plays by hand: what it sends, when,
// and where it cuts, byte by byte.
type stage struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	seen   []string                // "GET /stream?n=5 3": method, path, and the Last-Event-ID
	count  map[string]int          // of requests, by "GET /stream"
	played map[string]func(*scene) // by "GET /stream"
}

// scene is one request.
type scene struct {
	http.ResponseWriter
	req  *http.Request
	body string
	nth  int // 1 for the first request of its kind
}

// play starts a server with the page and with routes of the test; the others
// have something quiet to say.
func play(t *testing.T, routes map[string]func(*scene)) *stage {
	t.Helper()
	s := &stage{t: t, count: map[string]int{}, played: map[string]func(*scene){
		"GET /stream": func(c *scene) { c.begin(`event: hello`, `data: {"instance":"0","pid":100,"user":null}`, ``); c.stay() },
		"GET /ws":     func(c *scene) { c.room(nil) },
	}}
	for route, f := range routes {
		s.played[route] = f
	}
	mux := http.NewServeMux()
	addPage(mux)
	mux.HandleFunc("/", s.serve)
	s.Server = httptest.NewUnstartedServer(mux)
	// What the page does not read does not keep the server from ending.
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	s.Start()
	return s
}

func (s *stage) serve(w http.ResponseWriter, r *http.Request) {
	kind := r.Method + " " + r.URL.Path
	if r.URL.Query().Has("ticket") {
		kind += "?ticket"
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.count[kind]++
	f, nth := s.played[kind], s.count[kind]
	s.seen = append(s.seen, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Last-Event-ID")))
	s.mu.Unlock()
	if f == nil {
		http.Error(w, "there is no such route here", http.StatusNotFound)
		return
	}
	f(&scene{ResponseWriter: w, req: r, body: string(body), nth: nth})
}

// requests are those of a kind: "GET /stream".
func (s *stage) requests(kind string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.seen {
		if rest, ok := strings.CutPrefix(line, kind); ok && (rest == "" || strings.ContainsAny(rest[:1], " ?&")) {
			found = append(found, line)
		}
	}
	return found
}

// ---- What a scene can do ----

// begin answers with an event stream, and says the first lines.
func (c *scene) begin(lines ...string) {
	c.Header().Set("Content-Type", "text/event-stream")
	c.Header().Set("X-Instance", "1")
	c.say(append([]string{":"}, lines...)...)
}

// say writes lines, all in one write.
func (c *scene) say(lines ...string) { c.raw(strings.Join(lines, "\n") + "\n") }

// raw is one write of its own on the network.
func (c *scene) raw(bytes string) {
	io.WriteString(c, bytes)
	http.NewResponseController(c.ResponseWriter).Flush()
}

// stay keeps the connection until the client leaves.
func (c *scene) stay() { <-c.req.Context().Done() }

// wait is false if the client left first.
func (c *scene) wait(gate <-chan struct{}) bool {
	select {
	case <-gate:
		return true
	case <-c.req.Context().Done():
		return false
	}
}

// cut breaks the connection, as a death does.
func (c *scene) cut() { panic(http.ErrAbortHandler) }

func (c *scene) fail(status int, text string) { http.Error(c, text, status) }

// room is one WebSocket: it repeats what it hears, until gate.
func (c *scene) room(gate <-chan struct{}) {
	conn, err := websocket.Accept(c.ResponseWriter, c.req, nil)
	if err != nil {
		return
	}
	go func() { // until the gate, or the end of the test's server
		select {
		case <-gate:
			conn.Close(websocket.StatusServiceRestart, "service restart")
		case <-c.req.Context().Done():
		}
	}()
	for {
		kind, text, err := conn.Read(c.req.Context())
		if err != nil {
			return
		}
		conn.Write(c.req.Context(), kind, append(text, echoSuffix...))
	}
}

const echoSuffix = "--返回数据"

// wordChunk is a chunk of an answer as OpenAI's wire format has it; the index is for
// tickets, whose events have ids.
func wordChunk(text string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":` + quote(text) + `},"finish_reason":null}]}`
}

func numbered(index int, text string) string {
	return fmt.Sprintf("id: g.%d\n%s\n", index, wordChunk(text))
}

const doneChunk = "data: [DONE]\n"

// giveTicket is the answer to POST /tickets.
func giveTicket(c *scene) {
	c.WriteHeader(http.StatusCreated)
	io.WriteString(c, `{"ticket":"g","url":"/stream?ticket=g"}`)
}

// sameAddress listens where a server did that is gone.
func sameAddress(t *testing.T, address string) net.Listener {
	t.Helper()
	var ln net.Listener
	until(t, "the port is free again", func() bool {
		var err error
		ln, err = net.Listen("tcp", address)
		return err == nil
	})
	return ln
}

// happens waits until a scene has closed a channel.
func happens(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited %s in vain: %s", patience, what)
	}
}

// quiet fails if a request of a kind comes within d. Nothing but time can show
// that nothing happens.
func (s *stage) quiet(kind string, d time.Duration) {
	s.t.Helper()
	before := len(s.requests(kind))
	<-time.After(d)
	if after := s.requests(kind); len(after) != before {
		s.t.Errorf("further requests: %q", after[before:])
	}
}
