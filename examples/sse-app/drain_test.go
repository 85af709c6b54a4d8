package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The rules of leaving, each seen from outside: a process, a signal, clients.

// Ready turns to 503 with the first signal; what comes while the port is still
// open is served all the same, and no connection is kept. The second signal
// ends all of it at once.
func TestLeavingIsNotReadyButAlive(t *testing.T) {
	p := launch(t, "-linger", "1h", "-drain", "1h", "-interval", "1h")
	until(t, "it is ready", func() bool { return status(t, p, "/readyz") == 200 })
	kept := dial(t, p.url)
	if resp := kept.get("/readyz"); resp.StatusCode != 200 || resp.Close {
		t.Fatalf("at work: %s, close %t", resp.Status, resp.Close)
	}
	p.signal(syscall.SIGTERM)
	until(t, "it is not ready", func() bool { return status(t, p, "/readyz") == 503 })
	if code := status(t, p, "/healthz"); code != 200 {
		t.Errorf("/healthz: %d; a supervisor that reads this would kill it", code)
	}
	stream := do(t, "GET", p.url+"/stream", "")
	if stream.StatusCode != 200 {
		t.Errorf("/stream: %s; an EventSource would never come back", stream.Status)
	}
	if resp := kept.get("/v1/models"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("kept connection: %s, close %t", resp.Status, resp.Close)
	}
	kept.closed()
	p.signal(syscall.SIGTERM)
	told(t, read(t, stream.Body))
	p.ended(t)
}

func TestIdleConnectionsDoNotHoldItUp(t *testing.T) {
	p := launch(t, "-linger", "1ms", "-drain", "1h")
	idle := dial(t, p.url)
	idle.get("/v1/models")
	p.signal(syscall.SIGTERM)
	idle.closed()
	p.ended(t)
}

// A stream without an end is told, keeps its last whole event, and goes on
// elsewhere after it. The clients come back at different times.
func TestEndlessStreamsAreTold(t *testing.T) {
	p := launch(t, "-linger", "1ms", "-spread", "1ms", "-interval", "1ms")
	waits := map[string]bool{}
	var streams []*bufio.Reader
	for range 20 {
		s := bufio.NewReader(do(t, "GET", p.url+"/stream", "").Body)
		nextLine(t, s, "id: 1")
		streams = append(streams, s)
	}
	p.signal(syscall.SIGTERM)
	for _, s := range streams {
		body := read(t, s)
		waits[told(t, body)] = true
		next := 2
		for _, m := range regexp.MustCompile(`(?m)^id: (.*)$`).FindAllStringSubmatch(body, -1) {
			if m[1] != strconv.Itoa(next) {
				t.Errorf("id %q where %d was due", m[1], next)
			}
			next++
		}
	}
	if len(waits) == 1 {
		t.Errorf("all clients come back after %v ms: a herd", waits)
	}
	p.ended(t)
}

func TestGoodbyesAreSpread(t *testing.T) {
	const interval = 10 * time.Millisecond
	p := launch(t, "-linger", "1ms", "-spread", "24h", "-drain", "24h", "-interval", interval.String())
	start := time.Now()
	s := bufio.NewReader(do(t, "GET", p.url+"/stream", "").Body)
	nextLine(t, s, "id: 1")
	p.signal(syscall.SIGTERM)
	p.refuses(t)
	before := int(time.Since(start) / interval) // messages that can have been sent by now
	nextLine(t, s, fmt.Sprintf("id: %d\n", before+10))
	p.signal(syscall.SIGTERM)
	told(t, read(t, s))
	p.ended(t)
}

func TestEndlessStreamsHaveAMaxAge(t *testing.T) {
	p := launch(t, "-max-age", "50ms", "-interval", "1ms")
	body := read(t, do(t, "GET", p.url+"/stream", "").Body)
	told(t, body)
	ids := regexp.MustCompile(`(?m)^id: (.*)$`).FindAllStringSubmatch(body, -1)
	last := "0"
	if len(ids) > 0 {
		last = ids[len(ids)-1][1]
	}
	n, _ := strconv.Atoi(last)
	s := bufio.NewReader(do(t, "GET", p.url+"/stream?n="+strconv.Itoa(n+50), "", "Last-Event-ID", last).Body)
	if line := nextLine(t, s, "id: "); line != "id: "+strconv.Itoa(n+1) {
		t.Errorf("after id %s it went on with %q", last, line)
	}
	if rest := read(t, s); !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("a stream with an end did not reach it: %q", rest)
	}
}

func TestWhatHasAnEndReachesIt(t *testing.T) {
	p := launch(t, "-linger", "1ms", "-drain", "1h", "-interval", "20ms", "-delay", "20ms")
	finite := bufio.NewReader(do(t, "GET", p.url+"/stream?n=20", "").Body)
	chat := bufio.NewReader(do(t, "POST", p.url+"/v1/chat/completions", `{"prompt":"x","stream":true}`).Body)
	nextLine(t, finite, "id: 1")
	nextLine(t, chat, `data: {"id"`)
	p.signal(syscall.SIGTERM)
	for name, s := range map[string]io.Reader{"finite stream": finite, "chat": chat} {
		if rest := read(t, s); !strings.HasSuffix(rest, "data: [DONE]\n\n") || strings.Contains(rest, "reconnect") || strings.Contains(rest, `"error"`) {
			t.Errorf("%s ended with %q", name, rest)
		}
	}
	p.ended(t)
}

// Time is up at -drain, or with a second signal: never a silent end.
func TestTheDrainIsBoundedAndNeverSilent(t *testing.T) {
	for name, tt := range map[string]struct {
		drain   string
		signals int
	}{"deadline": {"50ms", 1}, "second signal": {"1h", 2}} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, "-linger", "1ms", "-delay", "1h", "-interval", "1h", "-drain", tt.drain)
			chat := do(t, "POST", p.url+"/v1/chat/completions", `{"prompt":"x","stream":true}`).Body
			finite := do(t, "GET", p.url+"/stream?n=8", "").Body
			for range tt.signals {
				p.signal(syscall.SIGTERM)
				p.refuses(t) // it has heard this one; two at once are one
			}
			chunks, rest := chunksOf(t, read(t, chat))
			if last := chunks[len(chunks)-1]; last.Error == nil || last.Error.Code != "server_restarting" || last.Error.Type != "server_error" || len(rest) != 0 {
				t.Errorf("chat ended with %+v %v", last, rest)
			}
			told(t, read(t, finite))
			p.ended(t)
		})
	}
}

// Connections that the kernel has put into the queue before the port closes are
// served: the process is frozen while they and the signal come, and has no
// linger to accept them in.
func TestTheQueueIsServed(t *testing.T) {
	p := launch(t, "-linger", "0")
	p.signal(syscall.SIGSTOP)
	until(t, "it stands still", func() bool { return p.state(t) == "T" })
	var waiting []*client
	for range 50 {
		c := dial(t, p.url)
		c.ask("/v1/models")
		waiting = append(waiting, c)
	}
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	for i, c := range waiting {
		if resp := c.answer(); resp.StatusCode != 200 {
			t.Fatalf("connection %d in the queue: %s", i, resp.Status)
		}
	}
	p.ended(t)
}

// Where a supervisor holds the port, it stays open when the process has closed
// it. What stood in the queue is served by the one who leaves, what comes later
// by the successor; nobody is refused or reset.
func TestTheSuccessorServesWhatComesLater(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	old := inherit(t, ln, "-linger", "0", "-drain", "1h", "-interval", "20ms")
	finite := bufio.NewReader(do(t, "GET", old.url+"/stream?n=20", "").Body)
	nextLine(t, finite, "id: 1")
	kept := dial(t, old.url)
	if pid := kept.pid(); pid != old.cmd.Process.Pid {
		t.Fatalf("served by %d", pid)
	}
	old.signal(syscall.SIGSTOP)
	until(t, "it stands still", func() bool { return old.state(t) == "T" })
	early := dial(t, old.url)
	early.ask("/healthz")
	old.signal(syscall.SIGTERM)
	old.signal(syscall.SIGCONT)
	if pid := early.answered(); pid != old.cmd.Process.Pid {
		t.Errorf("what stood in the queue was served by %d", pid)
	}
	kept.closed() // so the port is closed, too
	late := dial(t, old.url)
	late.ask("/healthz")
	young := inherit(t, ln)
	if pid := late.answered(); pid != young.cmd.Process.Pid {
		t.Errorf("what came later was served by %d", pid)
	}
	if rest := read(t, finite); !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("the old one's stream ended with %q", rest)
	}
	old.ended(t)
}

// A connection that was accepted before the app leaves and that sends its
// request long after, because the machine is busy, is answered, too: with a
// stream that says where to go.
func TestSlowFirstRequest(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.firstWord = time.Hour, patience })
	c := dial(t, r.url)
	read(t, do(t, "GET", r.url+"/healthz", "").Body) // accepted after c, so c is accepted, too
	r.leave()
	<-r.goodbyes.Done()
	c.ask("/stream")
	resp := c.answer()
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%s, close %t", resp.Status, resp.Close)
	}
	told(t, c.body)
	r.ended(t)
}

// A client that never asks anything does not hold the process.
func TestSilentConnectionIsClosed(t *testing.T) {
	r := start(t, func(a *app) { a.firstWord, a.readTimeout, a.drain = time.Millisecond, time.Hour, time.Hour })
	c := dial(t, r.url)
	read(t, do(t, "GET", r.url+"/healthz", "").Body)
	r.leave()
	c.closed()
	r.ended(t)
}

func TestSignalsEndTheProcessWithZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := launch(t)
		if resp := do(t, "GET", p.url+"/healthz", ""); resp.Header.Get("X-Instance") != "2" {
			t.Errorf("X-Instance is %q", resp.Header.Get("X-Instance"))
		}
		p.signal(sig)
		p.ended(t)
	}
}

// told checks that a stream ended at the end of an event, with the event that
// tells why; it returns the wait, in ms, until the client may come back.
func told(t *testing.T, body string) (retry string) {
	t.Helper()
	m := regexp.MustCompile(`(?:^|\n)retry: (\d+)\nevent: reconnect\ndata: {"instance":"\d"}\n\n$`).FindStringSubmatch(body)
	if m == nil || strings.Contains(body, "[DONE]") {
		t.Fatalf("the stream ended with %q", body[max(0, len(body)-300):])
	}
	if ms, _ := strconv.Atoi(m[1]); ms < 100 || ms >= 2000 {
		t.Errorf("retry after %d ms", ms)
	}
	return m[1]
}

func status(t *testing.T, p *process, path string) int {
	t.Helper()
	resp := do(t, "GET", p.url+path, "")
	resp.Body.Close()
	return resp.StatusCode
}

// client is one connection, kept as long as the server keeps it.
type client struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	body string // of the last answer
}

func dial(t *testing.T, url string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	return &client{t: t, conn: conn, br: bufio.NewReader(conn)}
}

func (c *client) ask(path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) answer() *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.body = read(c.t, resp.Body)
	return resp
}

func (c *client) get(path string) *http.Response {
	c.t.Helper()
	c.ask(path)
	return c.answer()
}

// answered reads an answer of /healthz: the pid of who serves.
func (c *client) answered() (pid int) {
	c.t.Helper()
	c.answer()
	m := regexp.MustCompile(`"pid":(\d+)`).FindStringSubmatch(c.body)
	if m == nil {
		c.t.Fatalf("no pid in %q", c.body)
	}
	pid, _ = strconv.Atoi(m[1])
	return pid
}

func (c *client) pid() int {
	c.t.Helper()
	c.ask("/healthz")
	return c.answered()
}

// closed waits for the clean end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.br); err != nil || len(b) > 0 {
		c.t.Fatalf("the connection did not end: %q, %v", b, err)
	}
}

// state is the letter of the process's state in /proc.
func (p *process) state(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:1]
}
