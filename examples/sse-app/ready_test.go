package main

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// While it warms up the process is alive and not ready; what comes too early
// waits, and is told if the process leaves first.
func TestNotReadyBeforeItIsWarm(t *testing.T) {
	p := launch(t, "-warmup", "1h", "-linger", "1ms", "-drain", "50ms")
	if ready, alive := status(t, p, "/readyz"), status(t, p, "/healthz"); ready != 503 || alive != 200 {
		t.Errorf("/readyz %d, /healthz %d", ready, alive)
	}
	early := dial(t, p.url)
	early.ask("/stream")
	read(t, do(t, "GET", p.url+"/readyz", "").Body) // accepted after early
	p.signal(syscall.SIGTERM)
	if resp := early.answer(); resp.StatusCode != 200 {
		t.Errorf("too early: %s; an EventSource would never come back", resp.Status)
	}
	told(t, early.body)
	p.ended(t)
}

func TestReadyWhenWarm(t *testing.T) {
	p := launch(t, "-warmup", "100ms", "-interval", "1ms")
	early := bufio.NewReader(do(t, "GET", p.url+"/stream?n=1", "").Body)
	if code := status(t, p, "/readyz"); code != 200 {
		t.Errorf("it serves streams and /readyz says %d", code)
	}
	if rest := read(t, early); !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("a stream that came too early ended with %q", rest)
	}
}

// A process that is asked to leave before it is warm still answers who is in.
func TestWarmWhileItLeaves(t *testing.T) {
	p := launch(t, "-warmup", "500ms", "-linger", "1ms", "-interval", "1ms")
	early := dial(t, p.url)
	early.ask("/stream?n=1")
	read(t, do(t, "GET", p.url+"/readyz", "").Body) // accepted after early
	p.signal(syscall.SIGTERM)
	early.answer()
	if rest := early.body; !strings.HasSuffix(rest, "data: [DONE]\n\n") {
		t.Errorf("it ended with %q", rest)
	}
	p.ended(t)
}

func TestTheSupervisorIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	heard := func() string {
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	p := startProcess(t, self(t, os.Args[0]), "NOTIFY_SOCKET="+path)
	if got := heard(); got != "READY=1" {
		t.Errorf("heard %q", got)
	}
	if code := status(t, p, "/readyz"); code != 200 {
		t.Errorf("it said READY=1 and /readyz says %d", code)
	}
	p.signal(syscall.SIGTERM)
	if got := heard(); got != "STOPPING=1" {
		t.Errorf("heard %q", got)
	}
	p.ended(t)
}
