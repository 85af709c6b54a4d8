package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds every wait in these tests; it is never reached when all is well.
const patience = 20 * time.Second

// TestMain makes this binary the command, when the tests start it as such.
func TestMain(m *testing.M) {
	if os.Getenv("SSE_BUS_TEST") == "run" {
		main()
		return
	}
	os.Exit(m.Run())
}

// sseBus is the command with its URL in a folder of its own.
func sseBus(t *testing.T, file string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], append([]string{"-url", file, "-addr", "127.0.0.1:0"}, args...)...)
	c.Env = append(os.Environ(), "SSE_BUS_TEST=run", "NOTIFY_SOCKET=")
	return c
}

// start runs it until the end of the test, and waits until it listens.
func start(t *testing.T, c *exec.Cmd) {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, "listening on 127.0.0.1:") {
		t.Fatalf("it said %q, %v", line, err)
	}
}

// where is the URL in the file.
func where(t *testing.T, file string) *url.URL {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func client(t *testing.T, file string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(where(t, file).String())
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestRunsUntilItIsTold(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		file := filepath.Join(t.TempDir(), "run", "bus.url")
		c := sseBus(t, file)
		start(t, c)
		if err := client(t, file).Set(t.Context(), "a", "b", 0).Err(); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir} {
			if i, err := os.Stat(path); err != nil || i.Mode() != want {
				t.Errorf("%s is %v, %v", path, i.Mode(), err)
			}
		}
		c.Process.Signal(signal)
		if err := c.Wait(); err != nil {
			t.Errorf("after %v: %v", signal, err)
		}
	}
}

// Who was connected finds it again: same password, and the same port if PORT says so.
func TestKeepsItsPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	first := sseBus(t, file)
	start(t, first)
	before := where(t, file)
	first.Process.Kill()
	first.Wait()
	second := sseBus(t, file, "-addr", before.Host)
	start(t, second)
	if after := where(t, file); after.String() != before.String() {
		t.Error("the URL has changed")
	}
	for _, bad := range []string{"", "rubbish", "redis://:short@127.0.0.1:1/0", "redis://127.0.0.1:1/0", "\x00"} {
		os.WriteFile(file, []byte(bad), 0o644)
		if p := passwordIn(file); len(p) < 20 {
			t.Errorf("from %q the password %q", bad, p)
		}
	}
}

func TestSaysThatItIsReady(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := filepath.Join(dir, "bus.url")
	c := sseBus(t, file)
	c.Env = append(c.Env, "NOTIFY_SOCKET="+socket)
	start(t, c)
	b := make([]byte, 100)
	ln.SetReadDeadline(time.Now().Add(patience))
	n, err := ln.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("it said %q, %v", b[:n], err)
	}
	if err := client(t, file).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestOnlyOnThisMachine(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "nonsense", "127.0.0.1"} {
		file := filepath.Join(t.TempDir(), "bus.url")
		out, err := sseBus(t, file, "-addr", addr).CombinedOutput()
		if err == nil || !strings.HasPrefix(string(out), "sse-bus: listen on ") {
			t.Errorf("%s: %v, %s", addr, err, out)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s: there is a URL all the same", addr)
		}
	}
}

// A taken port is an error, and the URL of the one who has it stays.
func TestTakenPort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	start(t, sseBus(t, file))
	before := where(t, file)
	if out, err := sseBus(t, file, "-addr", before.Host).CombinedOutput(); err == nil {
		t.Errorf("a second one runs: %s", out)
	}
	if where(t, file).String() != before.String() {
		t.Error("the URL has changed")
	}
}

// Whatever comes without the password ends the connection and nothing else.
func TestStrangers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	start(t, sseBus(t, file))
	host := where(t, file).Host
	for _, said := range []string{
		"*0\r\n", // would end miniredis
		"*1\r\n$4\r\nPING\r\n",
		"*1\r\n$9999999999\r\n",
		"*99999999\r\n",
		"*-1\r\n",
		"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n",
		"*2\r\n$4\r\nAUTH\r\n$0\r\n\r\n",
		"*5\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$5\r\nwrong\r\n",
		"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		strings.Repeat("x", 10_000),
		"\n", "*\r\n", "*1\n$4\nPING\n",
	} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatalf("after something bad: %v", err)
		}
		c.Write([]byte(said))
		c.SetReadDeadline(time.Now().Add(patience))
		answer, _ := io.ReadAll(c)
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "-NOAUTH") {
			t.Errorf("%.20q: %q", said, answer)
		}
		c.Close()
	}
	if err := client(t, file).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

// One who stopped in a debugger, say, must not stop the others.
func TestSubscriberWhoDoesNotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	start(t, sseBus(t, file))
	u := where(t, file)
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	password, _ := u.User.Password()
	io.WriteString(c, "*2\r\n$4\r\nAUTH\r\n$26\r\n"+password+"\r\n*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n")
	r := client(t, file)
	subscribers := func() int64 { return r.PubSubNumSub(context.Background(), "news").Val()["news"] }
	until(t, "it has subscribed", func() bool { return subscribers() == 1 })
	word := strings.Repeat("x", 64<<10)
	until(t, "it is cut off", func() bool {
		if err := r.Publish(t.Context(), "news", word).Err(); err != nil {
			t.Error(err)
		}
		return subscribers() == 0
	})
}

func TestKeysExpire(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	start(t, sseBus(t, file))
	r := client(t, file)
	began := time.Now()
	r.Set(t.Context(), "short", "1", 300*time.Millisecond)
	r.Set(t.Context(), "long", "1", time.Hour)
	until(t, "it has expired", func() bool { return r.Exists(t.Context(), "short").Val() == 0 })
	if lived := time.Since(began); lived < 250*time.Millisecond {
		t.Errorf("it lived for %v", lived)
	}
	if left := r.PTTL(t.Context(), "long").Val(); left <= 0 || left > time.Hour {
		t.Errorf("the other one has %v left", left)
	}
}

// The clock of the bus runs by itself: leases and times of entries are made by it.
func TestTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bus.url")
	start(t, sseBus(t, file))
	now, err := client(t, file).Time(t.Context()).Result()
	if off := time.Since(now).Abs(); err != nil || off > patience {
		t.Errorf("off by %v, %v", off, err)
	}
}
