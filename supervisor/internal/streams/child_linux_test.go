package streams

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asChild makes the test binary a child: a server that does as it is told.
const asChild = "GPM_TEST_STREAMS_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "server":
		new(server).main()
	case "keeper": // of an inherited connection, for as long as its parent lives
		fmt.Println("ok")
		io.Copy(io.Discard, os.Stdin)
	case "counter":
		countOnce()
	default:
		goleak.VerifyTestMain(m)
	}
}

// server listens and accepts only when it is told to.
type server struct {
	listener net.Listener
	conns    []*net.TCPConn // in the order of accept
	keepers  []io.Closer    // stdin of the children
}

func (s *server) main() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.Atoi(arg)
		answer, err := s.do(verb, arg, n)
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Println("ok", answer)
	}
}

func (s *server) do(verb, arg string, n int) (answer string, err error) {
	switch verb {
	case "listen":
		network, addr, _ := strings.Cut(arg, " ")
		if s.listener, err = net.Listen(network, addr); err != nil {
			return "", err
		}
		return strconv.Itoa(s.listener.Addr().(*net.TCPAddr).Port), nil
	case "accept":
		for range n {
			conn, err := s.listener.Accept()
			if err != nil {
				return "", err
			}
			s.conns = append(s.conns, conn.(*net.TCPConn))
		}
	case "close":
		for _, conn := range s.conns[:n] {
			err = conn.Close()
		}
		s.conns = s.conns[n:]
	case "keep": // the oldest
		for _, conn := range s.conns[n:] {
			err = conn.Close()
		}
		s.conns = s.conns[:n]
	case "half":
		err = s.conns[n].CloseWrite()
	case "send":
		_, err = s.conns[n].Write([]byte{'x'})
	case "receive":
		_, err = s.conns[n].Read(make([]byte, 1))
	case "fd":
		return s.number(n)
	case "pass":
		return s.pass(n)
	default:
		err = fmt.Errorf("unknown verb %q", verb)
	}
	return "", err
}

// number is the descriptor of a connection.
func (s *server) number(n int) (answer string, err error) {
	raw, err := s.conns[n].SyscallConn()
	if err != nil {
		return "", err
	}
	err = raw.Control(func(fd uintptr) { answer = strconv.Itoa(int(fd)) })
	return answer, err
}

// pass gives a connection to a child of its own and closes it here.
func (s *server) pass(n int) (string, error) {
	f, err := s.conns[n].File()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=keeper")
	cmd.ExtraFiles = []*os.File{f}
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	s.keepers = append(s.keepers, in)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", err
	}
	f.Close()
	return strconv.Itoa(cmd.Process.Pid), s.conns[n].Close()
}

// countOnce answers a Query from stdin; the test runs it as another user.
func countOnce() {
	var q Query
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := New()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r, err := c.Count(q)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// child is a server in a process of its own.
type child struct {
	t    testing.TB
	pid  int
	port uint16
	in   io.Writer
	out  *bufio.Reader
}

// startChild starts a server that listens on a port of its own.
func startChild(t testing.TB, network, addr string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=server")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its end of the pipe is closed: it ends, and then its children
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	c := &child{t: t, pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
	port, err := strconv.ParseUint(c.tell("listen %s %s", network, addr), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c.port = uint16(port)
	return c
}

// tell has the child do something and waits until it is done.
func (c *child) tell(format string, a ...any) string {
	c.t.Helper()
	fmt.Fprintf(c.in, format+"\n", a...)
	line, err := c.out.ReadString('\n')
	answer, ok := strings.CutPrefix(strings.TrimSpace(line), "ok")
	if err != nil || !ok {
		c.t.Fatalf("%s: %q, %v", fmt.Sprintf(format, a...), line, err)
	}
	return strings.TrimSpace(answer)
}

// process is the child as a caller of Counter names it.
func (c *child) process(key string, more ...int) Process {
	return Process{Key: key, PIDs: append([]int{c.pid}, more...)}
}

// dialTo opens n connections that end with the test.
func dialTo(t testing.TB, ip string, port uint16, n int) []*net.TCPConn {
	t.Helper()
	var conns []*net.TCPConn
	for range n {
		conn, err := net.Dial("tcp", net.JoinHostPort(ip, strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn.(*net.TCPConn))
	}
	return conns
}

func newCounter(t testing.TB) *Counter {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func count(t testing.TB, c *Counter, q Query) Reading {
	t.Helper()
	r, err := c.Count(q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for what the kernel or another process does in its own time.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("it did not come true: %s", what)
		}
	}
}

// needIPv6 skips where the machine has none.
func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	l.Close()
}

func asNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
