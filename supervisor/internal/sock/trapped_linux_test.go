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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/aim"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/streams"
	"gpm/supervisor/internal/trap"
)

// TestMain lets the test binary be the app: an ordinary Go server that knows
// nothing of gpm.
func TestMain(m *testing.M) {
	if addr := os.Getenv("SOCK_TEST_SERVE"); addr != "" {
		if probed, ok := strings.CutPrefix(addr, "probe "); ok {
			addr = probed
			probePort(addr)
		}
		err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, os.Getpid())
		}))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// probePort looks whether a port is free before it is used, as many programs
// do, and then whether it is not.
func probePort(addr string) {
	for range 2 {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "the port should be free:", err)
			os.Exit(1)
		}
		if _, err := net.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
			fmt.Fprintln(os.Stderr, "the port should be in use:", err)
			os.Exit(1)
		}
		l.Close()
	}
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
		s.caller.Store(int64(tr.PID))
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
			if err := errors.Join(s.Retire("a", 0, 1), s.Down("a", 0, 1)); err != nil {
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

// steered gives a stage the real Steerer, in every mode of this machine.
func steered(t *testing.T, test func(t *testing.T, s *stage, mode steer.Mode)) {
	for _, mode := range []steer.Mode{steer.EBPF, steer.CBPF} {
		t.Run(string(mode), func(t *testing.T) {
			t.Setenv("GPM_STEER", string(mode))
			if got, why := steer.Detect(false); got != mode {
				t.Skipf("this machine has no %s: %s", mode, why)
			}
			s := newStage(t)
			s.o.Steer = steer.New(steer.Options{Mode: mode, Problem: func(group string, err error) {
				t.Errorf("steer %s: %v", group, err)
			}})
			test(t, s, mode)
		})
	}
}

// The server is a Go one, with MPTCP, which is its default.
func TestAReloadOfAnUnmodifiedServer(t *testing.T) {
	steered(t, func(t *testing.T, s *stage, mode steer.Mode) {
		var tag atomic.Value
		tag.Store("a 0 1")
		port := freePort(t)
		start, events := trapped(t, s, &tag)
		await := func() {
			t.Helper()
			select {
			case e := <-events:
				if e.Kind != Listening {
					t.Fatalf("event %+v", e)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the server does not listen")
			}
		}
		ask := func(d net.Dialer, addr string) string {
			t.Helper()
			d.Timeout = 20 * time.Second
			c, err := d.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			b, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := strings.Cut(string(b), "\r\n\r\n")
			return body
		}
		only := func(cmd *exec.Cmd) {
			t.Helper()
			for range 50 {
				if got, want := ask(net.Dialer{}, "127.0.0.1:"+port), fmt.Sprint(cmd.Process.Pid); got != want {
					t.Fatalf("answered by %s, want %s", got, want)
				}
			}
		}
		first := start(":" + port)
		await()
		must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
		only(first)
		tag.Store("a 0 2")
		second := start(":" + port)
		await()
		only(first) // the candidate gets nothing
		for gen, cmd := range map[int]*exec.Cmd{1: first, 2: second} {
			addr, mark, ok := s.Target("a", 0, gen, 0)
			if !ok || mark == (aim.Aim{}) {
				t.Fatalf("generation %d cannot be reached: %v", gen, addr)
			}
			if got, want := ask(mark.Dialer(), addr.String()), fmt.Sprint(cmd.Process.Pid); got != want {
				t.Errorf("generation %d: answered by %s, want %s", gen, got, want)
			}
		}
		list, _, err := streams.Listeners(s.Ports()...)
		must(t, err, s.Verify(list))
		must(t, s.Route("a", 0, 2, steer.Serve), s.Route("a", 0, 1, steer.Away), s.Settle("a", 0, 2))
		only(second)
		first.Process.Kill()
		first.Wait()
		must(t, s.Down("a", 0, 1), s.Retire("a", 0, 1))
		only(second)
		second.Process.Kill()
		second.Wait()
		must(t, s.Down("a", 0, 2), s.Retire("a", 0, 2))
		waiting := dial(t, "127.0.0.1:"+port)
		tag.Store("a 0 3")
		third := start(":" + port)
		await()
		waiting.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(waiting, "GET / HTTP/1.0\r\n\r\n")
		if b, err := io.ReadAll(waiting); err != nil || !strings.HasSuffix(string(b), fmt.Sprint(third.Process.Pid)) {
			t.Errorf("whoever came while nobody was there got %q, %v", b, err)
		}
		if l := s.Listeners("a", 0); len(l) != 1 || strings.HasPrefix(l[0].How, "hash") {
			t.Errorf("listeners %+v", l)
		}
	})
}

// Who waits in the queue of a process that crashed while its successor was
// starting goes to that one.
func TestTheQueueOfACrashDuringAReloadMigrates(t *testing.T) {
	steered(t, func(t *testing.T, s *stage, mode steer.Mode) {
		if mode != steer.EBPF {
			return // only eBPF chooses for connections of a closed listener
		}
		if !steer.Migrates() {
			t.Skip("the queue of a closed listener is lost on this kernel: needs Linux 5.14")
		}
		addr := "127.0.0.1:" + freePort(t)
		old := s.proc("a", 0, 1).serve(unix.AF_INET, addr)
		must(t, s.Route("a", 0, 1, steer.Serve), s.Settle("a", 0, 1))
		for range 20 {
			dial(t, addr)
		}
		next := s.proc("a", 0, 2).serve(unix.AF_INET, addr)
		gone(t, old)
		must(t, s.Down("a", 0, 1))
		for range 20 {
			dial(t, addr) // nobody serves: they wait
		}
		must(t, s.Retire("a", 0, 1), s.Route("a", 0, 2, steer.Serve), s.Settle("a", 0, 2))
		must(t, unix.SetNonblock(next, true))
		for n := range 40 {
			p := []unix.PollFd{{Fd: int32(next), Events: unix.POLLIN}}
			if ready, err := unix.Poll(p, 10_000); ready != 1 {
				t.Fatalf("%d of 40 connections reached the new process (%v)", n, err)
			}
			conn, _, err := unix.Accept(next)
			must(t, err)
			unix.Close(conn)
		}
	})
}

func TestAServerThatProbesItsPort(t *testing.T) {
	steered(t, func(t *testing.T, s *stage, _ steer.Mode) {
		var tag atomic.Value
		port := freePort(t)
		s.o.InUse = func(_ string, inode uint64) bool {
			return hasSocket(int(s.caller.Load()), fmt.Sprintf("socket:[%d]", inode))
		}
		start, events := trapped(t, s, &tag)
		for gen := range 2 {
			tag.Store(fmt.Sprintf("a 0 %d", gen+1))
			cmd := start("probe 127.0.0.1:" + port)
			conflicts := 0
			for heard := 0; heard < 3; {
				select {
				case e := <-events:
					switch e.Kind {
					case Listening:
						heard++
					case Conflict:
						conflicts++
					default:
						t.Fatalf("event %+v", e)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("the server does not listen")
				}
			}
			if conflicts == 0 { // Go tries each time with MPTCP and without
				t.Error("no event says that the app was in its own way")
			}
			if l := s.Listeners("a", 0); len(l) != 1 {
				t.Errorf("listeners %+v", l)
			}
			dial(t, "127.0.0.1:"+port)
			cmd.Process.Kill()
			cmd.Wait()
			must(t, s.Down("a", 0, gen+1), s.Retire("a", 0, gen+1))
		}
	})
}
