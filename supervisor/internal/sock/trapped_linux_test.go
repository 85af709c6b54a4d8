package sock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gpm/supervisor/internal/trap"
)

// TestMain lets the test binary be the app: an ordinary Go server that knows
// nothing of gpm.
func TestMain(m *testing.M) {
	if addr := os.Getenv("SOCK_TEST_SERVE"); addr != "" {
		err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, os.Getpid())
		}))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// trapped starts commands from a thread with the filter, and answers their
// calls by the stage's Holder. tag is that of every command.
func trapped(t *testing.T, s *stage, tag *atomic.Value) (start func(addr string) *exec.Cmd, events <-chan Event) {
	t.Helper()
	type request struct {
		cmd  *exec.Cmd
		done chan error
	}
	requests, notify := make(chan request), make(chan any, 1)
	go func() { // the spawner: its thread keeps the filter and ends with it
		runtime.LockOSThread()
		fd, _, err := trap.Install()
		if err != nil {
			notify <- err
			return
		}
		notify <- fd
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	t.Cleanup(func() { close(requests) })
	fd, ok := (<-notify).(int)
	if !ok {
		t.Skip("this kernel or container has no seccomp notification to test with")
	}
	heard := make(chan Event, 64)
	s.o.Event = func(e Event) { heard <- e }
	go answer(s, fd, tag) // ends with the last process that has the filter
	return func(addr string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SOCK_TEST_SERVE="+addr)
		cmd.Stderr = os.Stderr
		r := request{cmd, make(chan error)}
		requests <- r
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}, heard
}

func answer(s *stage, notify int, tag *atomic.Value) {
	defer closeFD(notify)
	for {
		n, err := trap.Receive(notify)
		if err != nil {
			return
		}
		tr, socket, err := trap.Look(n)
		if err != nil || !trap.Valid(notify, n.ID) {
			trap.Pass(notify, n.ID)
			continue
		}
		tr.Tag, tr.Socket = tag.Load().(string), quiet(s.t, socket)
		closeFD(socket)
		switch v := s.Handle(&tr); v.Action {
		case trap.ActContinue:
			trap.Pass(notify, n.ID)
		case trap.ActErrno:
			trap.Fail(notify, n.ID, v.Errno)
		case trap.ActInject:
			with(v.File, func(fd int) error { return trap.Replace(notify, n.ID, fd, tr.FD, v.CloseOnExec) })
		}
	}
}

func closeFD(fd int) { os.NewFile(uintptr(fd), "descriptor").Close() }

func TestAnUnmodifiedServerKeepsItsQueue(t *testing.T) {
	for _, host := range []string{"127.0.0.1", ""} {
		t.Run("on "+host, func(t *testing.T) {
			s := newStage(t)
			var tag atomic.Value
			tag.Store("a 0 1")
			port := freePort(t)
			start, events := trapped(t, s, &tag)
			await := func(gen int) {
				t.Helper()
				select {
				case e := <-events:
					if e.Kind != Listening || e.Owner.Gen != gen {
						t.Fatalf("event %+v, want generation %d to listen", e, gen)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("the server does not listen")
				}
			}
			get := func(c net.Conn) string {
				t.Helper()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
				b, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				_, body, _ := strings.Cut(string(b), "\r\n\r\n")
				return body
			}
			first := start(host + ":" + port)
			await(1)
			if got := get(dial(t, "127.0.0.1:"+port)); got != fmt.Sprint(first.Process.Pid) {
				t.Errorf("answered by %s, want %d", got, first.Process.Pid)
			}
			first.Process.Kill()
			first.Wait()
			if err := errors.Join(s.Retire("a", 0, 1), s.Down("a", 0)); err != nil {
				t.Fatal(err)
			}
			var waiting []net.Conn
			for range 10 {
				waiting = append(waiting, dial(t, "127.0.0.1:"+port))
			}
			tag.Store("a 0 2")
			second := start(host + ":" + port)
			await(2)
			for _, c := range waiting {
				if got := get(c); got != fmt.Sprint(second.Process.Pid) {
					t.Errorf("answered by %s, want %d", got, second.Process.Pid)
				}
			}
		})
	}
}
