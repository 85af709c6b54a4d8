package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the app, for the tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("SSE_APP_TEST_RUN_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
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
	line := nextLine(t, br, "instance ")
	go io.Copy(io.Discard, br) // the access log, until the process ends
	_, port, err := net.SplitHostPort(line[strings.LastIndex(line, " ")+1:])
	if err != nil {
		t.Fatalf("no address in %q", line)
	}
	p.url = "http://127.0.0.1:" + port
	return p
}

func self(t *testing.T, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience) // for the whole of a test
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// launch starts the app with flags.
func launch(t *testing.T, flags ...string) *process {
	t.Helper()
	return startProcess(t, self(t, os.Args[0], flags...))
}

// inherit starts the app with ln as its descriptor 3.
func inherit(t *testing.T, ln net.Listener, flags ...string) *process {
	t.Helper()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Only the shell knows the pid before exec.
	cmd := self(t, "/bin/sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, os.Args[0]}, flags...)...)
	cmd.ExtraFiles = []*os.File{f}
	return startProcess(t, cmd)
}

func (p *process) signal(sig syscall.Signal) { p.cmd.Process.Signal(sig) }

// ended waits for the end of the process, which is to be a good one.
func (p *process) ended(t *testing.T) {
	t.Helper()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v, stderr %q", err, &p.stderr)
	}
}

// refuses waits until the port is closed.
func (p *process) refuses(t *testing.T) {
	t.Helper()
	until(t, "connections are refused", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
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
	p := inherit(t, ln)
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
