// Command sse-bus is a small Redis for one machine: what the instances of the
// app share when nobody has installed a Redis.
//
// It is miniredis, which is made for tests, behind a fence: on the loopback
// interface only, with a random password in a file that only its user can read.
// It keeps everything in memory and loses it when it ends; the app is told then
// that something may be missing. It has no replicas, no limit of memory, and is
// as fast as one core. Whoever wants more than one machine, or history that
// survives a restart, starts a real Redis (7 or later) and sets REDIS_URL for the
// app; nothing else changes.
//
//	fence.go  who gets in, and how long a slow one is waited for
package main

import (
	"cmp"
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if err := run(os.Args[1:], stop); err != nil {
		fmt.Fprintln(os.Stderr, "sse-bus:", err)
		os.Exit(1)
	}
}

func run(args []string, stop <-chan os.Signal) error {
	f := flag.NewFlagSet("sse-bus", flag.ExitOnError)
	addr := f.String("addr", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "6390"), "loopback `host:port` to listen on; the PORT variable changes the default")
	file := f.String("url", cmp.Or(os.Getenv("BUS_FILE"), "run/bus.url"), "`file` for the URL with the password; the BUS_FILE variable changes the default")
	f.Parse(args) // ExitOnError: prints the usage and exits by itself

	ln, err := listen(*addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	password := passwordIn(*file)
	m := miniredis.NewMiniRedis()
	m.RequireAuth(password)
	defer m.Close()
	own, err := m.Dial() // starts it without a listener of its own
	if err != nil {
		return err
	}
	own.Close()
	g := newGate(password, m.Server().ServeConn)
	go g.open(ln) // until ln is closed

	where := url.URL{Scheme: "redis", User: url.UserPassword("", password), Host: ln.Addr().String(), Path: "/0"}
	if err := write(*file, where.String()); err != nil {
		return err
	}
	fmt.Printf("pid %d: listening on %s, the URL is in %s\n", os.Getpid(), ln.Addr(), *file)
	if err := tell("READY=1"); err != nil {
		fmt.Fprintln(os.Stderr, "sse-bus: tell the supervisor:", err)
	}
	age(m, stop)
	return nil
}

// listen takes the port, on this machine only: the protocol is not encrypted.
func listen(addr string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", addr, err)
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("listen on %q: only on 127.0.0.1; for other machines use a real Redis", addr)
	}
	ln, err := net.ListenTCP("tcp", a)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

// passwordIn is the one of the last run, if there was one: clients that are
// still there come back with it.
func passwordIn(file string) string {
	text, _ := os.ReadFile(file)
	u, err := url.Parse(strings.TrimSpace(string(text)))
	if err == nil && u.User != nil {
		if password, _ := u.User.Password(); len(password) >= 20 && len(password) <= 100 {
			return password
		}
	}
	return rand.Text()
}

// age makes keys expire until it is told to stop. miniredis could do it by itself
// (ClockTTL), but would go through all keys at every single access then.
func age(m *miniredis.Miniredis, stop <-chan os.Signal) {
	const often = 50 * time.Millisecond
	last, pause := time.Now(), often
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		now := time.Now()
		m.FastForward(now.Sub(last))
		last, pause = now, max(often, 20*time.Since(now)) // at most a twentieth of the time
	}
}

// write replaces a file that only this user may read.
func write(file, text string) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+filepath.Base(file)+"."+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(temp, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

// tell sends state to the one who started this process and wants to hear it
// (systemd's Type=notify, gpm's wait_ready).
func tell(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
