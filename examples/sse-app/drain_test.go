package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the app, for the tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("SSE_APP_TEST_RUN_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestShutdownKeepsItsPromises(t *testing.T) {
	r := start(t, func(a *app) { a.interval, a.delay = 100*time.Millisecond, 20*time.Millisecond })
	endless := bufio.NewReader(do(t, "GET", r.url+"/stream", "").Body)
	finite := bufio.NewReader(do(t, "GET", r.url+"/stream?n=8", "").Body)
	chat := bufio.NewReader(do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","stream":true}`).Body)
	nextLine(t, endless, "id: 1")
	nextLine(t, finite, "id: 1")
	nextLine(t, chat, `data: {"id"`)
	r.leave()

	// The port closes while the streams live.
	until(t, "connections are refused", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if !r.leaving.Load() {
		t.Error("still ready after the port is closed")
	}
	rest := read(t, endless)
	if want := regexp.MustCompile(`\nretry: \d{3,4}\nevent: reconnect\ndata: {"instance":"3"}\n\n$`); !want.MatchString(rest) || strings.Contains(rest, "[DONE]") {
		t.Errorf("endless stream ended with %q", rest)
	}
	for name, s := range map[string]io.Reader{"finite stream": finite, "chat": chat} {
		if rest := read(t, s); !strings.HasSuffix(rest, "data: [DONE]\n\n") || strings.Contains(rest, "reconnect") || strings.Contains(rest, `"error"`) {
			t.Errorf("%s ended with %q", name, rest)
		}
	}
	r.ended(t)
}

func TestDrainIsBoundedAndNeverSilent(t *testing.T) {
	r := start(t, func(a *app) { a.delay, a.interval, a.drain = time.Hour, time.Hour, 50*time.Millisecond })
	chat := do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","stream":true}`).Body
	finite := do(t, "GET", r.url+"/stream?n=8", "").Body
	r.leave()
	chunks, rest := chunksOf(t, read(t, chat))
	if last := chunks[len(chunks)-1]; last.Error == nil || last.Error.Code != "server_restarting" || last.Error.Type != "server_error" || len(rest) != 0 {
		t.Errorf("chat ended with %+v %v", last, rest)
	}
	if rest := read(t, finite); !strings.Contains(rest, "event: reconnect") || strings.Contains(rest, "[DONE]") {
		t.Errorf("finite stream ended with %q", rest)
	}
	r.ended(t)
}

// A request that arrives while the app leaves, on a connection that it had
// accepted before, is answered: with a stream that says where to go.
func TestRequestDuringTheDrain(t *testing.T) {
	r := start(t, func(a *app) { a.linger, a.interval = 300*time.Millisecond, time.Hour })
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") // it is accepted for sure
	br := bufio.NewReader(c)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	} else {
		read(t, resp.Body)
	}
	r.leave()
	until(t, "it leaves", r.leaving.Load)
	io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	if body := read(t, resp.Body); !strings.Contains(body, "event: reconnect") {
		t.Errorf("got %q", body)
	}
	r.ended(t)
}

// A connection that was accepted before the app leaves and that sends its
// request long after, because the machine is busy, is answered, too.
func TestSlowRequestDuringTheDrain(t *testing.T) {
	r := start(t, func(a *app) { a.linger = time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read(t, do(t, "GET", r.url+"/healthz", "").Body) // accepted after c, so c is accepted, too
	r.leave()
	until(t, "the port is closed and the linger is over", func() bool {
		other, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			other.Close()
		}
		return err != nil
	})
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	read(t, resp.Body)
	r.ended(t)
}

// process is the app as a process of its own.
type process struct {
	cmd    *exec.Cmd
	url    string
	stderr bytes.Buffer
}

func startProcess(t *testing.T, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := &process{cmd: cmd}
	cmd.Env = append(append(os.Environ(), "SSE_APP_TEST_RUN_MAIN=1", "NODE_APP_INSTANCE=2", "PORT=0"), env...)
	cmd.Stderr = &p.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	br := bufio.NewReader(out)
	line := nextLine(t, br, "instance 2")
	go io.Copy(io.Discard, br) // the access log, until the process ends
	_, port, err := net.SplitHostPort(line[strings.LastIndex(line, " ")+1:])
	if err != nil {
		t.Fatalf("no address in %q", line)
	}
	p.url = "http://127.0.0.1:" + port
	return p
}

func self(t *testing.T, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

func TestSignalsEndTheProcessWithZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := startProcess(t, self(t, os.Args[0]))
		if resp := do(t, "GET", p.url+"/healthz", ""); resp.Header.Get("X-Instance") != "2" {
			t.Errorf("X-Instance is %q", resp.Header.Get("X-Instance"))
		} else {
			read(t, resp.Body)
		}
		p.cmd.Process.Signal(sig)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v, stderr %q", sig, err, &p.stderr)
		}
	}
}

func TestErrorRouteKillsTheProcess(t *testing.T) {
	p := startProcess(t, self(t, os.Args[0]))
	if resp, err := http.Get(p.url + "/error"); err == nil {
		t.Errorf("got an answer: %s", resp.Status)
	}
	p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.stderr.String(), "fatal: GET /error") {
		t.Errorf("exit code %d, stderr %q", code, &p.stderr)
	}
}

func TestInheritedListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Only the shell knows the pid before exec.
	cmd := self(t, "/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0"`, os.Args[0])
	cmd.ExtraFiles = []*os.File{f}
	p := startProcess(t, cmd)
	if p.url != "http://"+ln.Addr().String() {
		t.Fatalf("listens on %s, not on the descriptor's %s", p.url, ln.Addr())
	}
	if resp := do(t, "GET", p.url+"/healthz", ""); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

func TestSiblingsShareAPort(t *testing.T) {
	first, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := listen(first.Addr().String())
	if err != nil {
		t.Fatalf("second instance: %v", err)
	}
	second.Close()
}
