package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const chatPath = "/v1/chat/completions"

// before starts the app in front of an upstream that the test plays.
func before(t *testing.T, upstream http.HandlerFunc, change ...func(*app)) *running {
	t.Helper()
	up := httptest.NewServer(upstream)
	t.Cleanup(func() {
		up.CloseClientConnections() // whoever still hangs there is to let go
		up.Close()
	})
	return beforeURL(t, up.URL, change...)
}

func beforeURL(t *testing.T, upstream string, change ...func(*app)) *running {
	t.Helper()
	return start(t, func(a *app) {
		a.upstream = upstream
		t.Cleanup(a.wire.CloseIdleConnections)
		for _, c := range change {
			c(a)
		}
	})
}

// events answers with a stream, each piece of which is sent on its own.
func events(w http.ResponseWriter, pieces ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, piece := range pieces {
		flushed(w, piece)
	}
}

func deltaOf(text string) string {
	return `data: {"choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

const (
	finish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	mark   = "data: [DONE]\n\n"
)

// The app in front of itself: nobody can tell the difference.
func TestRelayIsTransparent(t *testing.T) {
	up := start(t, nil)
	front := beforeURL(t, up.url+"/v1/")
	for _, q := range []struct{ method, path, body string }{
		{"POST", chatPath, `{"prompt":"Tell me a story","stream":true}`},
		{"POST", chatPath, `{"prompt":"Tell me a story","stream":true,"stream_options":{"include_usage":true}}`},
		{"POST", chatPath, `{"model":"lorem","messages":[{"role":"user","content":"x"}],"max_tokens":3,"stream":true}`},
		{"POST", chatPath, `{"prompt":"Tell me a story"}`},
		{"POST", chatPath, `{"prompt":7}`},
		{"POST", chatPath, `{"prompt":"x","model":"gpt-4o","stream":true}`},
		{"GET", "/v1/models", ""},
		{"GET", "/v1/models/lorem", ""},
		{"HEAD", "/v1/models", ""},
		{"GET", "/v1/models/nope", ""},
		{"DELETE", "/v1/models", ""},
		{"GET", "/v1/no%2fpe?a=b&c", ""},
	} {
		direct, relayed := do(t, q.method, up.url+q.path, q.body), do(t, q.method, front.url+q.path, q.body)
		want, got := sameButIDs(read(t, direct.Body)), sameButIDs(read(t, relayed.Body))
		if direct.StatusCode != relayed.StatusCode || got != want {
			t.Errorf("%s %s: %s %q, and relayed %s %q", q.method, q.path, direct.Status, want, relayed.Status, got)
		}
		for _, h := range []string{"Content-Type", "Content-Length", "Allow", "Cache-Control", "X-Accel-Buffering", "Access-Control-Allow-Origin"} {
			if strings.Join(relayed.Header.Values(h), "|") != strings.Join(direct.Header.Values(h), "|") {
				t.Errorf("%s %s: header %s is %q, and relayed %q", q.method, q.path, h, direct.Header.Values(h), relayed.Header.Values(h))
			}
		}
	}
}

func TestRelayedRequest(t *testing.T) {
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTeapot)
		json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "uri": r.RequestURI, "body": string(body), "headers": r.Header})
	}, func(a *app) { a.upstream += "/base/v1"; a.askKey = "ours" })
	ask := func(headers ...string) (got struct {
		Method, URI, Body string
		Headers           http.Header
	}) {
		resp := do(t, "PATCH", front.url+"/v1/files/a%2Fb?x=1&x=%20", "any\x00thing", headers...)
		if resp.StatusCode != http.StatusTeapot {
			t.Fatalf("%s %s", resp.Status, read(t, resp.Body))
		}
		if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := ask("Authorization", "Bearer theirs", "X-Stainless-Lang", "js", "OpenAI-Beta", "x", "Cookie", "sse_user=alice.mac", "Origin", "https://chat.example",
		"Connection", "x-hop", "X-Hop", "1", "Te", "trailers", "X-Forwarded-For", "10.0.0.1", "Accept-Encoding", "br", "User-Agent", "me", "Via", "1.0 proxy")
	if got.Method != "PATCH" || got.URI != "/base/v1/files/a%2Fb?x=1&x=%20" || got.Body != "any\x00thing" {
		t.Errorf("arrived as %+v", got)
	}
	for name, want := range map[string]string{"Authorization": "Bearer theirs", "X-Stainless-Lang": "js", "Openai-Beta": "x", "User-Agent": "me", "Content-Length": "9",
		"Via": "1.0 proxy, 1.1 sse-app", "Cookie": "", "Origin": "", "Connection": "", "X-Hop": "", "Te": "", "X-Forwarded-For": "", "Accept-Encoding": ""} {
		if v := strings.Join(got.Headers.Values(name), ", "); v != want {
			t.Errorf("%s arrived as %q, want %q", name, v, want)
		}
	}
	if got := ask("User-Agent", ""); got.Headers.Get("Authorization") != "Bearer ours" || got.Headers.Values("User-Agent") != nil {
		t.Errorf("without a key: %v", got.Headers)
	}
}

func TestRelayedAnswer(t *testing.T) {
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{"Retry-After": "7", "X-Request-Id": "theirs", "X-Ratelimit-Remaining": "0", "Set-Cookie": "sse_user=x",
			"Access-Control-Allow-Origin": "https://other.example", "Strict-Transport-Security": "max-age=1", "Alt-Svc": "h3", "X-Instance": "upstream", "Vary": "Accept"} {
			w.Header().Set(name, value)
		}
		if r.URL.Path == "/v1/stream" {
			events(w, mark)
			return
		}
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, `{"error":{"message":"slow down"}}`)
	}, func(a *app) { a.origins = []string{"https://chat.example"} })
	for path, status := range map[string]int{"/v1/stream": 200, chatPath: 429} {
		resp := do(t, "POST", front.url+path, `{"stream":true}`)
		body := read(t, resp.Body)
		if resp.StatusCode != status || (status == 429 && body != `{"error":{"message":"slow down"}}`) {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
		for name, want := range map[string]string{"Retry-After": "7", "X-Request-Id": "theirs", "X-Ratelimit-Remaining": "0", "Set-Cookie": "",
			"Access-Control-Allow-Origin": "*", "Strict-Transport-Security": "", "Alt-Svc": "", "X-Instance": "3", "Vary": "Origin, Accept"} {
			if v := strings.Join(resp.Header.Values(name), ", "); v != want {
				t.Errorf("%s: %s arrived as %q, want %q", path, name, v, want)
			}
		}
	}
}

// What an upstream may do to a stream, and what the client gets of it.
func TestRelayedStreams(t *testing.T) {
	big := strings.Repeat("x", maxEvent)
	for name, tt := range map[string]struct {
		sent []string
		cut  bool   // the upstream dies
		want string // the data of all events, and of an error its code
	}{
		"whole":                            {[]string{deltaOf("a"), finish, mark}, false, "a stop [DONE]"},
		"events in many pieces":            {strings.SplitAfter(deltaOf("a")+finish+mark, ""), false, "a stop [DONE]"},
		"events in one piece":              {[]string{deltaOf("a") + deltaOf("b") + finish + mark}, false, "a b stop [DONE]"},
		"no end mark":                      {[]string{deltaOf("a"), finish}, false, "a stop [DONE]"},
		"a line end is missing":            {[]string{deltaOf("a"), finish, "data: [DONE]\n"}, false, "a stop [DONE]"},
		"cut after the end mark":           {[]string{deltaOf("a"), mark}, true, "a [DONE]"},
		"more after the end mark":          {[]string{deltaOf("a"), mark, deltaOf("b")}, false, "a [DONE]"},
		"CR LF, a BOM, comments":           {[]string{"\uFEFF: hello\r\n\r\n", strings.ReplaceAll(deltaOf("a")+finish, "\n", "\r\n"), ": still\r\n\r\n:\r\ndata: [DONE]\r\n\r\n"}, false, "a stop [DONE]"},
		"CR":                               {[]string{strings.ReplaceAll(deltaOf("a")+finish+mark+":\n", "\n", "\r")}, false, "a stop [DONE]"},
		"pings that clients choke on":      {[]string{"event: ping\n\n", "data: \n\n", "data\n\n", "retry: 5\n\n", "id: 7\n\n", deltaOf("a"), mark}, false, "a [DONE]"},
		"its own error":                    {[]string{deltaOf("a"), `data: {"error":{"message":"no","code":"overloaded"}}` + "\n\n"}, false, "a overloaded"},
		"its own error, then cut":          {[]string{deltaOf("a"), `data: {"error":{"message":"no","code":"overloaded"}}` + "\n\n"}, true, "a overloaded"},
		"its own error, then the end mark": {[]string{`data: {"error":{"message":"no","code":"overloaded"}}` + "\n\n", mark}, false, "overloaded [DONE]"},
		"no events":                        {nil, false, "upstream_interrupted"},
		"ends without an end":              {[]string{deltaOf("a"), deltaOf("b")}, false, "a b upstream_interrupted"},
		"ends in an event":                 {[]string{deltaOf("a"), `data: {"cho`}, false, "a upstream_interrupted"},
		"ends in a finish":                 {[]string{deltaOf("a"), finish[:len(finish)-1]}, false, "a upstream_interrupted"},
		"ends in a line after the finish":  {[]string{finish, `data: {"usa`}, false, "stop upstream_interrupted"},
		"one of two choices ends":          {[]string{deltaOf("a"), strings.Replace(deltaOf("b"), `"index":0`, `"index":1`, 1), finish}, false, "a b stop upstream_interrupted"},
		"cut":                              {[]string{deltaOf("a")}, true, "a upstream_interrupted"},
		"cut in an event":                  {[]string{deltaOf("a"), deltaOf("b")[:30]}, true, "a upstream_interrupted"},
		"cut after the finish":             {[]string{deltaOf("a"), finish}, true, "a stop upstream_interrupted"},
		"a large event":                    {[]string{deltaOf("a"), "data: " + big[:maxEvent-100] + "\n\n", mark}, false, "a large [DONE]"},
		"a huge event":                     {[]string{deltaOf("a"), "data: " + big + "\n\n", mark}, false, "a upstream_event_too_large"},
		"a huge event of many lines":       {[]string{deltaOf("a"), strings.Repeat("data: "+big[:1000]+"\n", 1100), "\n", mark}, false, "a upstream_event_too_large"},
		"many comments":                    {[]string{deltaOf("a"), strings.Repeat(": "+big[:1000]+"\n", 1100), mark}, false, "a [DONE]"},
	} {
		t.Run(name, func(t *testing.T) {
			front := before(t, func(w http.ResponseWriter, r *http.Request) {
				events(w, tt.sent...)
				if tt.cut {
					panic(http.ErrAbortHandler)
				}
			})
			body := read(t, do(t, "POST", front.url+chatPath, `{"stream":true}`).Body)
			if err := lint(body); err != nil && !strings.Contains(body, big[:maxEvent-100]) {
				t.Error(err)
			}
			if got := short(t, body); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// short is a stream in a few words.
func short(t *testing.T, body string) string {
	t.Helper()
	var all []string
	for line := range strings.SplitSeq(body, "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var c chunk
		switch err := json.Unmarshal([]byte(data), &c); {
		case len(data) > 1000:
			all = append(all, "large")
		case err != nil:
			all = append(all, data)
		case c.Error != nil:
			all = append(all, c.Error.Code)
		case c.Choices[0].FinishReason != nil:
			all = append(all, *c.Choices[0].FinishReason)
		default:
			all = append(all, *c.Choices[0].Delta.Content)
		}
	}
	return strings.Join(all, " ")
}

// Whoever reads an upstream lets go of it when nobody listens any more.
func TestHearingEndsWithItsContext(t *testing.T) {
	body, upstream := io.Pipe()
	defer upstream.Close()
	ctx, cancel := context.WithCancel(t.Context())
	in := newHearing(ctx, body, true)
	defer in.close()
	go io.WriteString(upstream, deltaOf("a")) // until it is read
	if err := in.each(func(event) error { cancel(); return nil }); err == nil {
		t.Error("half an answer has no error")
	}
}

// Of streams that are no chat we do not know where they end; names and ids stay.
func TestRelayedStreamOfAnotherKind(t *testing.T) {
	const stream = "event: response.created\nid: 1\ndata: {}\n\nevent: response.completed\ndata: a\ndata: b\n\n"
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		events(w, stream)
		if r.Method == "PUT" {
			panic(http.ErrAbortHandler)
		}
	})
	if body := read(t, do(t, "POST", front.url+"/v1/responses", `{}`).Body); body != stream {
		t.Errorf("got %q", body)
	}
	if body := read(t, do(t, "PUT", front.url+"/v1/responses", `{}`).Body); !strings.HasPrefix(body, stream) || !strings.Contains(body, "upstream_interrupted") {
		t.Errorf("cut: %q", body)
	}
}

// An upstream that thinks for long: the client is told that it is still there,
// between events only, and gets each event when it comes.
func TestSilentUpstream(t *testing.T) {
	speak := make(chan string)
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		for piece := range speak {
			events(w, piece)
		}
	}, func(a *app) { a.heartbeat = 10 * time.Millisecond })
	go func() { speak <- deltaOf("a")[:20] }() // the headers come with it; until the upstream listens
	body := bufio.NewReader(do(t, "POST", front.url+chatPath, `{"stream":true}`).Body)
	beats := func(when string) {
		for range 3 {
			if line, err := body.ReadString('\n'); line != ":\n" || err != nil {
				t.Fatalf("%s: %q %v", when, line, err)
			}
		}
	}
	beats("in the middle of an event")
	speak <- deltaOf("a")[20:]
	if line := nextLine(t, body, "data: "); !strings.Contains(line, `"a"`) {
		t.Errorf("got %q", line)
	}
	body.ReadString('\n')
	beats("between two events")
	speak <- mark
	nextLine(t, body, "data: [DONE]")
	close(speak)
	read(t, body)
}

// A client that leaves, or does not read, takes the upstream's request with it.
func TestUpstreamIsLetGo(t *testing.T) {
	for name, endless := range map[string]func(w http.ResponseWriter, gone <-chan struct{}){
		"waiting for an answer": func(http.ResponseWriter, <-chan struct{}) {},
		"silent":                func(w http.ResponseWriter, _ <-chan struct{}) { events(w, deltaOf("a")) },
		"no stream":             func(w http.ResponseWriter, _ <-chan struct{}) { io.WriteString(w, "a"); w.(http.Flusher).Flush() },
		"talking": func(w http.ResponseWriter, gone <-chan struct{}) {
			for len(gone) == 0 {
				select {
				case <-gone:
					return
				default:
					events(w, deltaOf(strings.Repeat("a", 1000)))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked, let := make(chan bool, 1), make(chan bool, 1)
			front := before(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				asked <- true
				endless(w, r.Context().Done())
				<-r.Context().Done()
				let <- true
			}, func(a *app) { a.writeTimeout = 100 * time.Millisecond })
			c := dial(t, front.url)
			fmt.Fprintf(c.conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", chatPath)
			<-asked
			if name != "talking" { // that one is dropped as it does not read
				c.conn.Close()
			}
			select {
			case <-let:
			case <-time.After(patience):
				t.Error("the upstream still works")
			}
			until(t, "no stream is open", func() bool { return front.streams.Load() == 0 })
		})
	}
}

// Most upstreams of the real world speak HTTP/2.
func TestUpstreamOverHTTP2(t *testing.T) {
	let := make(chan bool, 1)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		events(w, deltaOf(r.Proto))
		switch r.URL.RawQuery {
		case "cut":
			panic(http.ErrAbortHandler)
		case "silent":
			<-r.Context().Done()
			let <- true
		default:
			events(w, mark)
		}
	}))
	up.EnableHTTP2 = true
	up.Config.ErrorLog = log.New(io.Discard, "", 0)
	up.StartTLS()
	t.Cleanup(up.Close)
	front := beforeURL(t, up.URL, func(a *app) { a.wire.TLSClientConfig = up.Client().Transport.(*http.Transport).TLSClientConfig.Clone() })
	for query, want := range map[string]string{"": "HTTP/2.0 [DONE]", "cut": "HTTP/2.0 upstream_interrupted"} {
		if got := short(t, read(t, do(t, "POST", front.url+chatPath+"?"+query, `{"stream":true}`).Body)); got != want {
			t.Errorf("%q: got %q, want %q", query, got, want)
		}
	}
	resp := do(t, "POST", front.url+chatPath+"?silent", `{"stream":true}`)
	nextLine(t, bufio.NewReader(resp.Body), "data: ")
	resp.Body.Close()
	select {
	case <-let:
	case <-time.After(patience):
		t.Error("the client left and the upstream still works")
	}
}

// One connection to the upstream serves one answer after the other.
func TestUpstreamConnectionsAreUsedAgain(t *testing.T) {
	var opened atomic.Int32
	a := newApp(config{})
	a.out = log.New(io.Discard, "", 0)
	a.warm.come()
	up := httptest.NewUnstartedServer(a.handler())
	up.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	up.Start()
	t.Cleanup(up.Close)
	front := beforeURL(t, up.URL)
	for range 5 {
		if body := read(t, do(t, "POST", front.url+chatPath, `{"prompt":"x","stream":true}`).Body); !strings.HasSuffix(body, mark) {
			t.Fatalf("got %q", body)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 5 answers, one after the other", n)
	}
}

// Without an answer there is an error that clients understand.
func TestUpstreamThatDoesNotAnswer(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close() // nobody listens there
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	wait := func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // the end of the connection is seen after it
		<-r.Context().Done()
	}
	cutJSON := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		flushed(w, `{"choi`)
		panic(http.ErrAbortHandler)
	}
	zipped := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		events(w, "x")
	}
	for name, tt := range map[string]struct {
		front  *running
		status int
		code   string
	}{
		"nobody there":      {beforeURL(t, "http://"+free.Addr().String()), 502, "upstream_unreachable"},
		"hangs up":          {before(t, hangUp), 502, "upstream_unreachable"},
		"does not answer":   {before(t, wait, func(a *app) { a.wire.ResponseHeaderTimeout = 20 * time.Millisecond }), 504, "upstream_timeout"},
		"cut JSON":          {before(t, cutJSON), 502, "upstream_interrupted"},
		"compressed stream": {before(t, zipped), 502, "upstream_failed"},
		"bad address":       {beforeURL(t, "nowhere"), 502, "upstream_unreachable"},
	} {
		resp := do(t, "POST", tt.front.url+chatPath, `{"prompt":"x"}`)
		var got apiError
		if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if resp.StatusCode != tt.status || got.Error.Code == nil || *got.Error.Code != tt.code || got.Error.Type != "server_error" || strings.Contains(got.Error.Message, "127.0.0.1") {
			t.Errorf("%s: %s %+v", name, resp.Status, got)
		}
	}
}

func flushed(w http.ResponseWriter, piece string) {
	io.WriteString(w, piece)
	http.NewResponseController(w).Flush()
}

// What is no stream and is cut does not end as if it were whole.
func TestCutBodyIsCut(t *testing.T) {
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "audio/mpeg")
		flushed(w, "sound")
		panic(http.ErrAbortHandler)
	})
	body, err := io.ReadAll(do(t, "POST", front.url+"/v1/audio/speech", `{}`).Body)
	if err == nil {
		t.Errorf("a clean end after %q", body)
	}
}

// A circle of servers ends with an error, before it has used up all ports.
func TestUpstreamCircle(t *testing.T) {
	var front atomic.Pointer[url.URL]
	r := before(t, func(w http.ResponseWriter, r *http.Request) {
		httputil.NewSingleHostReverseProxy(front.Load()).ServeHTTP(w, r)
	})
	u, _ := url.Parse(r.url)
	front.Store(u)
	resp := do(t, "GET", r.url+"/v1/models", "")
	if body := read(t, resp.Body); resp.StatusCode != http.StatusLoopDetected || !strings.Contains(body, "upstream_loop") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp := do(t, "TRACE", r.url+"/v1/models", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("TRACE: %s", resp.Status)
	}
}

// A relayed answer runs to its end while the app drains; at the cutoff there is
// a word, in every state that an answer can be in.
func TestRelayDrains(t *testing.T) {
	speak := make(chan string)
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		events(w, deltaOf("a"))
		for piece := range speak {
			events(w, piece)
		}
	}, func(a *app) { a.drain = time.Hour })
	body := bufio.NewReader(do(t, "POST", front.url+chatPath, `{"stream":true}`).Body)
	nextLine(t, body, "data: ")
	front.leave()
	<-front.goodbyes.Done()
	speak <- deltaOf("b") + finish + mark
	close(speak)
	if got := short(t, read(t, body)); got != "b stop [DONE]" {
		t.Errorf("while it drains: %q", got)
	}
	front.ended(t)
}

// An upstream that does not hang up after the end mark is not waited for, and a
// cutoff in the meantime adds nothing to what is whole.
func TestNothingComesAfterTheEndMark(t *testing.T) {
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		events(w, deltaOf("a"), mark)
		<-r.Context().Done()
	})
	if got := short(t, read(t, do(t, "POST", front.url+chatPath, `{"stream":true}`).Body)); got != "a [DONE]" {
		t.Errorf("got %q", got)
	}
	body := bufio.NewReader(do(t, "POST", front.url+chatPath, `{"stream":true}`).Body)
	nextLine(t, body, mark[:len(mark)-2])
	front.cutoff.come()
	if rest := read(t, body); rest != "\n" {
		t.Errorf("after the end mark: %q", rest)
	}
}

func TestRelayAtTheCutoff(t *testing.T) {
	asked := make(chan bool, 1)
	front := before(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == chatPath {
			events(w, deltaOf("a"), deltaOf("b")[:10])
		}
		asked <- true
		<-r.Context().Done()
	})
	stream := do(t, "POST", front.url+chatPath, `{"stream":true}`)
	<-asked
	waiting := dial(t, front.url)
	waiting.ask("/v1/files")
	<-asked
	front.cutoff.come()
	if got := short(t, read(t, stream.Body)); got != "a server_restarting" && got != "server_restarting" {
		t.Errorf("the stream: %q", got)
	}
	resp := waiting.answer()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(waiting.body, "server_restarting") {
		t.Errorf("who waits: %s %v %s", resp.Status, resp.Header, waiting.body)
	}
}

// A page of somebody else must not spend the key that the app has for its own.
func TestUpstreamKeyIsNotForOtherSites(t *testing.T) {
	keys := make(chan string, 4)
	r := before(t, func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Authorization")
		io.WriteString(w, "{}")
	}, func(a *app) { a.askKey, a.origins = "ours", []string{"https://chat.example"} })
	for _, c := range []struct {
		origin, key string
		want        int
	}{
		{"", "", 200},
		{"https://evil.example", "", 403},
		{"https://evil.example", "Bearer theirs", 200},
		{"https://chat.example", "", 200},
	} {
		header := []string{"Authorization", c.key}
		if c.origin != "" {
			header = append(header, "Origin", c.origin, "Sec-Fetch-Site", "cross-site")
		}
		if got := do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x"}`, header...).StatusCode; got != c.want {
			t.Errorf("from %q with %q: status %d, want %d", c.origin, c.key, got, c.want)
		}
	}
	for _, want := range []string{"Bearer ours", "Bearer theirs", "Bearer ours"} {
		if got := <-keys; got != want {
			t.Errorf("the upstream saw %q, want %q", got, want)
		}
	}
}
