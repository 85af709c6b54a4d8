package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

// subscription is an open event stream of any server.
type subscription struct {
	t    *testing.T
	head http.Header
	in   *bufio.Scanner
}

// subscribe opens a stream; the test's end closes it.
func subscribe(t *testing.T, url string) *subscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if kind := res.Header.Get("Content-Type"); res.StatusCode != 200 || !strings.HasPrefix(kind, "text/event-stream") {
		t.Fatalf("%s answers %s, %q", url, res.Status, kind)
	}
	return &subscription{t, res.Header, bufio.NewScanner(res.Body)}
}

// next is the next event, line for line, without comments.
func (s *subscription) next() (lines []string) {
	s.t.Helper()
	for s.in.Scan() {
		switch line := s.in.Text(); {
		case line == "" && len(lines) > 0:
			return lines
		case line != "" && line[0] != ':':
			lines = append(lines, line)
		}
	}
	s.t.Fatalf("the stream ended: %v, after %q", s.in.Err(), lines)
	return nil
}

// What tutorials run under another supervisor, in three languages: four times
// on one port, with numbered events, and a route that kills one of them.
func TestTheNodeStreamOfTheTutorials(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	g.ok("start", g.conf(keys{
		"name": "sse", "script": testdata(t, "node/sse.js"), "instances": 4, "log_date_format": "YYYY-MM-DD", "merge_logs": true,
		"env": keys{"PORT": port, "INTERVAL": 20}, "out_file": "logs/custom.log", "error_file": "logs/error.log",
	}))
	g.online("sse", 4)
	g.listeners("sse", port, 4, 1)
	url := "http://" + addr(port)
	s := subscribe(t, url+"/stream")
	for n := 1; n <= 5; n++ {
		if got, want := strings.Join(s.next(), "\n"), fmt.Sprintf("data: ChatGPT says: Hello, this is message %d", n); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if got := s.head.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control: %q", got)
	}
	if _, err := get(url + "/nope"); err == nil || !strings.HasPrefix(err.Error(), "status 404") {
		t.Errorf("GET /nope: %v", err)
	}

	if _, err := get(url + "/error"); err == nil {
		t.Error("GET /error was answered; the process was to die")
	}
	var died api.Instance
	g.until("one instance has died and is back", func() bool {
		for _, in := range g.list() {
			if in.Status == api.Online && in.Restarts == 1 {
				died = in
			}
		}
		return died.PID != 0
	})
	subscribe(t, url+"/stream").next()
	g.until("the log and the error log have their own lines", func() bool {
		out, errs := g.read(g.path("logs/custom.log")), g.read(g.path("logs/error.log"))
		return strings.Contains(errs, "this is the error route") && !strings.Contains(out, "error route") &&
			strings.Count(out, "接收到请求 GET /error") == 1 && !strings.Contains(errs, "接收到请求")
	})
}

func TestTheJavaStreamOfTheTutorials(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	g.ok("start", g.conf(keys{
		"name": "sse", "script": testdata(t, "java/Sse.java"), "interpreter": tool(t, "java"), "interpreter_args": []string{"-Xmx128m"},
		"instances": 2, "env": keys{"PORT": port, "INTERVAL": 20}, "drain_timeout": "200ms",
		"ready": keys{"tcp": port}, // it takes its time until it listens
	}))
	g.online("sse", 2)
	time := regexp.MustCompile(`^data:SSE - \d\d:\d\d:\d\d`)
	s := subscribe(t, "http://"+addr(port)+"/stream")
	for n := range 5 {
		if got := s.next(); len(got) != 3 || got[0] != "id:"+strconv.Itoa(n) || got[1] != "event:periodic-event" || !time.MatchString(got[2]) {
			t.Fatalf("event %d is %q", n, got)
		}
	}
	g.ok("reload", "sse")
	subscribe(t, "http://"+addr(port)+"/stream").next()
}

func TestThePythonStreamOfTheTutorials(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	g.ok("start", g.conf(keys{
		"name": "sse", "script": testdata(t, "python/sse.py"), "interpreter": tool(t, "python3"), "env": keys{"PORT": port},
	}))
	g.online("sse", 1)
	g.listeners("sse", port, 1, 1)
	url := "http://" + addr(port)
	page, err := get(url + "/")
	if err != nil || !strings.Contains(page, "EventSource") {
		t.Fatalf("GET /: %q, %v", page, err)
	}
	both := []*subscription{subscribe(t, url+"/stream"), subscribe(t, url+"/stream")}
	for _, s := range both {
		s.in.Scan() // the comment: from here on it is among the clients
	}
	if got, err := get(url + "/send_message"); err != nil || got != "Message sent!" {
		t.Fatalf("GET /send_message: %q, %v", got, err)
	}
	for _, s := range both {
		if got := strings.Join(s.next(), "\n"); got != "event:message\ndata:{\"message\": \"Hello, SSE!\"}" {
			t.Errorf("the event is %q", got)
		}
	}
	in := g.instance("sse", 0)
	kill9(t, in.PID)
	g.until("it is back", func() bool { in := g.instance("sse", 0); return in.Status == api.Online && in.Restarts == 1 })
	if _, err := get(url + "/"); err != nil {
		t.Error(err)
	}
}
