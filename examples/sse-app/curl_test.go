package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// curl starts one; its output comes line by line, while it comes in. It ends
// with the test.
func curl(t *testing.T, args ...string) *bufio.Reader {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl; packaging/test-tools.sh installs it")
	}
	cmd := self(t, path, append([]string{"-sSNi", "--noproxy", "*"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return bufio.NewReader(out)
}

// headers reads the status line and the headers, as they are on the wire.
func headers(t *testing.T, br *bufio.Reader) (status string, h map[string]string) {
	t.Helper()
	h = map[string]string{}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", h, err)
		}
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		switch {
		case ok:
			h[strings.ToLower(name)] = value
		case name == "":
			return status, h
		default:
			status = strings.TrimSpace(name)
		}
	}
}

func TestCurlSeesMessagesAsTheyCome(t *testing.T) {
	r := start(t, nil)
	br := curl(t, r.url+"/stream") // endless: what is seen has not waited for an end
	status, h := headers(t, br)
	if status != "HTTP/1.1 200 OK" || !strings.HasPrefix(h["content-type"], "text/event-stream") ||
		!strings.Contains(h["cache-control"], "no-cache") || h["connection"] != "keep-alive" {
		t.Errorf("%s, headers %v", status, h)
	}
	nextLine(t, br, "event: hello")
	for _, want := range []string{"1", "2", "3"} {
		if line := nextLine(t, br, "data: ChatGPT"); line != "data: ChatGPT says: Hello, this is message "+want {
			t.Errorf("line %q, want message %s", line, want)
		}
		if line, err := br.ReadString('\n'); line != "\n" || err != nil {
			t.Errorf("after the data comes %q, %v", line, err)
		}
	}
}

// The headers and a first byte come at once, not with the first message: here
// that is an hour away.
func TestCurlIsAnsweredAtOnce(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.heartbeat = time.Hour, time.Hour })
	began := time.Now()
	br := curl(t, r.url+"/stream")
	headers(t, br)
	if line, err := br.ReadString('\n'); line != ":\n" || err != nil {
		t.Errorf("first line %q, %v", line, err)
	}
	t.Logf("first byte of a stream after %s, the start of curl included", time.Since(began).Round(time.Millisecond))
}

// HTTP/2 forbids the header Connection, and clients refuse an answer with it.
func TestCurlOverHTTP2(t *testing.T) {
	a := newApp(config{interval: time.Millisecond})
	a.out.SetOutput(io.Discard)
	a.warm.come()
	srv := httptest.NewUnstartedServer(a.handler())
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	br := curl(t, "--insecure", "--http2", srv.URL+"/stream?n=2")
	status, h := headers(t, br)
	if _, has := h["connection"]; status != "HTTP/2 200" || has || !strings.HasPrefix(h["content-type"], "text/event-stream") {
		t.Errorf("%s, headers %v", status, h)
	}
	nextLine(t, br, "data: [DONE]")
}

func TestCurlOnCompletions(t *testing.T) {
	r := start(t, nil)
	br := curl(t, r.url+"/v1/chat/completions", "-d", `{"prompt":"Hello","stream":true}`) // with curl's own Content-Type
	if status, h := headers(t, br); status != "HTTP/1.1 200 OK" || !strings.HasPrefix(h["content-type"], "text/event-stream") {
		t.Errorf("%s, headers %v", status, h)
	}
	var lines []string
	for line := range strings.Lines(read(t, br)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line != ":" {
			lines = append(lines, line)
		}
	}
	if len(lines) < 3 || lines[len(lines)-1] != "data: [DONE]" {
		t.Fatalf("lines %q", lines)
	}
	for _, line := range lines[:len(lines)-1] {
		if data, ok := strings.CutPrefix(line, "data: "); !ok || !json.Valid([]byte(data)) || !strings.HasPrefix(data, "{") {
			t.Errorf("line %q", line)
		}
	}
}
