package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

type heard struct {
	PID   int
	State map[string]string
}

// serve runs Serve until the end of the test.
func serve(t *testing.T, s *Socket) <-chan heard {
	t.Helper()
	out := make(chan heard, 16)
	done := make(chan error, 1)
	go func() { // the reader of the socket, until Close
		done <- s.Serve(func(pid int, state map[string]string) { out <- heard{pid, state} })
	}()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came within %s", patience)
		panic("unreachable")
	}
}

func sender(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c *net.UnixConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestNotificationsNameTheirSender(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify.sock"), fmt.Sprintf("@gpm-test-%d", os.Getpid())} {
		s, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		got := serve(t, s)
		send(t, sender(t, path), "READY=1\nSTATUS=serving a=b\nnonsense\n=x\nMAINPID=7")
		want := heard{os.Getpid(), map[string]string{"READY": "1", "STATUS": "serving a=b", "MAINPID": "7"}}
		if diff := cmp.Diff(want, wait(t, got)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestAnotherProcessIsKnownByItsPid(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to send a datagram from another process")
	}
	path := filepath.Join(t.TempDir(), "notify.sock")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	got := serve(t, s)
	cmd := exec.Command(python, "-c", `import socket,os
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.sendto(b"READY=1",os.environ["NOTIFY_SOCKET"])`)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if h := wait(t, got); h.PID != cmd.Process.Pid || h.State["READY"] != "1" {
		t.Errorf("heard %+v, want pid %d", h, cmd.Process.Pid)
	}
}

func TestTooLongMessagesAreDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify.sock")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	got, c := serve(t, s), sender(t, path)
	send(t, c, "READY=1\nX="+strings.Repeat("x", maxDatagram))
	send(t, c, "STATUS=after")
	if h := wait(t, got); h.State["STATUS"] != "after" {
		t.Errorf("heard %.100v", h)
	}
}

// sd_notify_barrier: the sender waits until we close the descriptor it sent.
func TestBarriersAreLifted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify.sock")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	got := serve(t, s)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	to := &unix.SockaddrUnix{Name: path}
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the barrier stays up: %v", err)
	}
	wait(t, got)
}

func TestTheNextDaemonGoesOnWithTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	first.Close()
	send(t, sender(t, path), "READY=1") // while no daemon listens
	second, err := FromFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if h := wait(t, serve(t, second)); h.PID != os.Getpid() || h.State["READY"] != "1" {
		t.Errorf("heard %+v", h)
	}
}

// listen reads a channel until the end of the test.
func listen(t *testing.T, ours *os.File) <-chan string {
	t.Helper()
	out := make(chan string, 16)
	done := make(chan error, 1)
	go func() { // the reader of the channel, until either end closes
		defer close(out)
		done <- Read(ours, func(msg json.RawMessage) { out <- string(msg) })
	}()
	t.Cleanup(func() {
		ours.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

func TestNodeIsReadyAndHearsShutdown(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node on this machine")
	}
	ours, child, err := NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	got := listen(t, ours)
	cmd := exec.Command(node, "-e", `
process.on('message', m => { process.send({heard: m}); if (m === 'shutdown') process.exit(7) });
process.send('ready');`)
	cmd.Env = append(os.Environ(), Env(3)...)
	cmd.ExtraFiles = []*os.File{child}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child.Close()
	if msg := wait(t, got); !IsReady(json.RawMessage(msg)) {
		t.Errorf("heard %s, want ready", msg)
	}
	if err := Send(ours, map[string]any{"a": []int{1}}); err != nil {
		t.Fatal(err)
	}
	if msg := wait(t, got); msg != `{"heard":{"a":[1]}}` {
		t.Errorf("heard %s", msg)
	}
	if err := Send(ours, "shutdown"); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("node ended with %v, want 7: it heard shutdown", err)
	}
	for range got { // closed when the channel ends
	}
}

func TestReadLeavesOutWhatIsNoMessage(t *testing.T) {
	ours, child, err := NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	got := listen(t, ours)
	text := strings.Join([]string{
		`{"cmd":"NODE_CLUSTER","act":"online"}`, `nonsense`, ``, `"` + strings.Repeat("x", maxLine) + `"`,
		`{"cmd":"mine"}`, `"` + strings.Repeat("y", 100_000) + `"`, `"part`,
	}, "\n")
	go func() { // writes as the socket takes it
		io.WriteString(child, text)
		child.Close()
	}()
	if msg := wait(t, got); msg != `{"cmd":"mine"}` {
		t.Errorf("heard %.100s", msg)
	}
	if msg := wait(t, got); len(msg) != 100_002 {
		t.Errorf("heard %d bytes, want 100002", len(msg))
	}
	if msg, ok := <-got; ok {
		t.Errorf("heard %.100s: half a line is no message", msg)
	}
}

func TestSendToAProcessThatDoesNotRead(t *testing.T) {
	ours, child, err := NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer child.Close()
	for range 100 {
		if err = Send(ours, strings.Repeat("x", 64<<10)); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("send: %v, want the deadline", err)
	}
	child.Close()
	if err := Send(ours, "shutdown"); err == nil {
		t.Error("send to a closed channel gave no error")
	}
}
