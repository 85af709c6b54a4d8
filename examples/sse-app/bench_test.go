package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// BenchmarkPush is the time from a push on one instance to the client of
// another, at 500 pushes a second, whatever became of those before: counted
// from when each was due, so that a delay is not hidden by those that wait.
//
//	go test -run '^$' -bench Push -benchtime 5000x ./examples/sse-app
func BenchmarkPush(b *testing.B) {
	for name, server := range map[string]func(testing.TB) *meeting{
		"miniredis": small, "redis": func(t testing.TB) *meeting { return redisServer(t) },
	} {
		b.Run(name, func(b *testing.B) { benchPush(b, server(b)) })
	}
}

func benchPush(b *testing.B, m *meeting) {
	here, there := benchInstance(b, m), benchInstance(b, m)
	cookie := cookieName + "=" + sign([]byte("bench"), "u", time.Now().Add(time.Hour))
	req, _ := http.NewRequestWithContext(b.Context(), "GET", there+"/stream?only=inbox", nil)
	req.Header.Set("Cookie", cookie)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() && !strings.HasPrefix(in.Text(), "data: {") {
	}
	start := time.Now()
	due := func(i int) time.Duration { return time.Duration(i) * 2 * time.Millisecond }
	go func() { // until all are out
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}}
		for i := range b.N {
			time.Sleep(time.Until(start.Add(due(i))))
			go func() { // until it is taken
				resp, err := client.Post(here+"/push?user=u", "text/plain", strings.NewReader(strconv.Itoa(i)))
				if err != nil || resp.StatusCode != 202 {
					b.Errorf("push %d: %v, %v", i, resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}()
		}
	}()
	var took []time.Duration
	for len(took) < b.N && in.Scan() {
		if n, err := strconv.Atoi(strings.TrimPrefix(in.Text(), "data: ")); err == nil {
			took = append(took, time.Since(start)-due(n))
		}
	}
	if len(took) < b.N {
		b.Fatalf("%d of %d arrived: %v", len(took), b.N, in.Err())
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[(len(took)-1)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}

// benchInstance runs the app on a port of its own and waits for its bus.
func benchInstance(b *testing.B, m *meeting) (url string) {
	b.Helper()
	shared, err := bus.Open(bus.Options{URL: m.where})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { shared.Close() })
	for end := time.Now().Add(patience); !shared.Up(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("no bus")
		}
	}
	a := newApp(config{interval: time.Hour, drain: time.Second, instance: "3", secret: "bench"})
	a.out, a.err, a.bus = log.New(io.Discard, "", 0), log.New(os.Stderr, "", 0), shared
	ln, err := listen("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	stop, done := make(chan os.Signal, 1), make(chan error, 1)
	go func() { done <- a.serve(ln, stop) }() // until the signal
	b.Cleanup(func() {
		a.cutoff.come()
		stop <- syscall.SIGTERM
		<-done
	})
	return "http://" + ln.Addr().String()
}

// BenchmarkIdleStreams opens streams to a process of its own, as a page does,
// and tells what each costs it. It runs once, whatever b.N is:
//
//	go test -run '^$' -bench Idle -benchtime 1x ./examples/sse-app
//	STREAMS=10000 is the default; one in ten is of a logged-in user.
func BenchmarkIdleStreams(b *testing.B) {
	count, _ := strconv.Atoi(cmp.Or(os.Getenv("STREAMS"), "10000"))
	m := redisServer(b)
	cmd := exec.Command(os.Args[0], "-max-age", "0", "-interval", "1h")
	cmd.Env = append(os.Environ(), "SSE_APP_TEST_RUN_MAIN=1", "PORT=0", "REDIS_URL="+m.url, "SESSION_SECRET=bench")
	cmd.Stderr = os.Stderr

	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening on ") {
	}
	addr := lines.Text()[strings.LastIndex(lines.Text(), " ")+1:]
	go io.Copy(io.Discard, out) // the access log, until the process ends
	_, port, _ := net.SplitHostPort(addr)

	before := memory(b, cmd.Process.Pid)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for i := range count {
		idle(ctx, b, "127.0.0.1:"+port, i)
	}
	b.ReportMetric(float64(memory(b, cmd.Process.Pid)-before)/float64(count), "KiB/stream")
}

// idle opens a stream, reads the hello, and then nothing more.
func idle(ctx context.Context, b *testing.B, addr string, i int) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	cookie := ""
	if i%10 == 0 {
		cookie = "Cookie: " + cookieName + "=" + sign([]byte("bench"), fmt.Sprint("u", i), time.Now().Add(time.Hour)) + "\r\n"
	}
	fmt.Fprintf(c, "GET /stream HTTP/1.1\r\nHost: x\r\n%s\r\n", cookie)
	for in := bufio.NewScanner(c); in.Scan(); {
		if strings.HasPrefix(in.Text(), "data: ") {
			return
		}
	}
	b.Fatalf("stream %d: no hello", i)
}

// memory is what a process has in memory, in KiB.
func memory(b *testing.B, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rss, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rss)[0])
	if err != nil {
		b.Fatal(err)
	}
	return n
}
