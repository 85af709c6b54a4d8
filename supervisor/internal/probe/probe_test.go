package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gpm/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enough is more time than any check in these tests takes on any machine.
const enough = config.Duration(5 * time.Minute)

// listen serves each connection by handle, and ends with the test.
func listen(t *testing.T, address string, handle func(net.Conn)) Target {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "0.0.0.0:") {
		network = "tcp4" // "tcp" would be [::]
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return Target{Addr: netip.MustParseAddrPort(l.Addr().String())}
}

// answer reads one request, writes text and lets the client end.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, text)
	}
}

func get(path string) config.Probe {
	return config.Probe{Kind: config.ProbeHTTP, Path: path, Timeout: enough}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHTTP(t *testing.T) {
	const ok = "<nil>"
	endless := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("2710\r\n"+strings.Repeat("x", 10_000)+"\r\n", 100)
	for _, c := range []struct {
		name, answer string
		status       []int
		want         string
	}{
		{"200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", nil, ok},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", nil, ok},
		{"HTTP/1.0, body to the end", "HTTP/1.0 200 OK\r\n\r\nok", nil, ok},
		{"a redirect is not followed", "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n", nil, ok},
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", nil, ok},
		{"a body larger than is looked at", endless, nil, ok},
		{"503", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", nil, "GET /readyz answered 503, expected 200 to 399"},
		{"503 is wanted", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", []int{200, 503}, ok},
		{"204 is not", "HTTP/1.1 204 No Content\r\n\r\n", []int{200, 201, 202, 404, 500, 501}, "GET /readyz answered 204, expected 200 to 202, 404, 500 to 501"},
		{"switching protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", nil, "GET /readyz answered 101, expected 200 to 399"},
		{"a short body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", nil, "GET /readyz answered 200, but its body broke off"},
		{"bad chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", nil, "GET /readyz answered 200, but its body broke off"},
		{"nothing", "", nil, "GET /readyz: the connection was closed without an answer"},
		{"half of the headers", "HTTP/1.1 200 OK\r\nA: b", nil, "GET /readyz: the connection was closed in the middle of the answer"},
		{"something else", "220 mail\x1b[31m\r\n\r\n", nil, `GET /readyz: the answer is not HTTP: malformed HTTP status code "mail\x1b[31m"`},
		{"only interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), nil, "GET /readyz: only interim answers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := get("/readyz?token=secret")
			p.Status = c.status
			expect(t, Check(t.Context(), p, listen(t, "127.0.0.1:0", answer(c.answer))), c.want)
		})
	}
}

// A server that never stops to send is left after a bounded number of bytes.
func TestEndlessAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		kind               config.ProbeKind
		begin, piece, want string
	}{
		"headers":        {config.ProbeHTTP, "HTTP/1.1 200 OK\r\n", "X-Header: value\r\n", "GET /: the headers of the answer are larger than 64 KiB"},
		"one header":     {config.ProbeHTTP, "HTTP/1.1 200 OK\r\nA: ", "aaaaaaaa", "GET /: the headers of the answer are larger than 64 KiB"},
		"status line":    {config.ProbeSSE, "HTTP/1.1 200 ", "OK", "GET /: the headers of the answer are larger than 64 KiB"},
		"body":           {config.ProbeHTTP, "HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxx", "<nil>"},
		"line of stream": {config.ProbeSSE, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ", "xxxxxxxx", "no event in the first 64 KiB"},
		"comments":       {config.ProbeSSE, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", ": x\n\n", "no event in the first 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			piece := strings.Repeat(c.piece, 1000)
			target := listen(t, "127.0.0.1:0", func(conn net.Conn) {
				answer(c.begin)(conn)
				for { // until the client closes
					if _, err := io.WriteString(conn, piece); err != nil {
						return
					}
				}
			})
			expect(t, Check(t.Context(), config.Probe{Kind: c.kind, Path: "/", Timeout: enough}, target), c.want)
		})
	}
}

func TestRequest(t *testing.T) {
	requests := make(chan *http.Request, 1)
	target := listen(t, "127.0.0.1:0", func(c net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			requests <- r
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	p := get("//a%20b/\u00e9?x=1&y")
	if err := Check(t.Context(), p, target); err != nil {
		t.Fatal(err)
	}
	got := <-requests
	if got.Method != "GET" || got.RequestURI != "//a%20b/%C3%A9?x=1&y" || got.Host != "localhost" || got.UserAgent() != "gpm-probe" || !got.Close || got.Header.Get("Accept-Encoding") != "" {
		t.Errorf("%+v", got)
	}
	p.Headers = map[string]string{"host": "example.org:80", "user-agent": "me", "Authorization": "Bearer x"}
	if err := Check(t.Context(), p, target); err != nil {
		t.Fatal(err)
	}
	if got = <-requests; got.Host != "example.org:80" || got.UserAgent() != "me" || got.Header.Get("Authorization") != "Bearer x" {
		t.Errorf("%+v", got)
	}
}

// Each check has a connection of its own, which is closed by its end.
func TestFreshConnection(t *testing.T) {
	ended := make(chan error, 3)
	target := listen(t, "127.0.0.1:0", func(c net.Conn) {
		in := bufio.NewReader(c)
		_, _ = http.ReadRequest(in)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, err := http.ReadRequest(in)
		ended <- err
	})
	for range cap(ended) {
		if err := Check(t.Context(), get("/"), target); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != io.EOF {
			t.Errorf("the connection ended with %v", err)
		}
	}
}

func TestTCP(t *testing.T) {
	p := config.Probe{Kind: config.ProbeTCP, Timeout: enough}
	ended := make(chan error, 1)
	target := listen(t, "127.0.0.1:0", func(c net.Conn) {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	if err := Check(t.Context(), p, target); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != io.EOF {
		t.Errorf("the connection ended with %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target.Addr = netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	expect(t, Check(t.Context(), p, target), "connection refused")
	expect(t, Check(t.Context(), config.Probe{Kind: "ping", Timeout: enough}, target), `there is no probe of kind "ping"`)
}

// All addresses are reached by loopback, and as the aim says if there is one.
func TestSource(t *testing.T) {
	for _, c := range []struct{ listen, source, want string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0:0", "", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0:0", "::ffff:127.0.0.1", "127.0.0.1"},
	} {
		checkSource(t, c.listen, c.source, c.want)
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // else this machine has no IPv6
		l.Close()
		checkSource(t, "[::1]:0", "", "::1")
		checkSource(t, "[::]:0", "", "::1")
		checkSource(t, "[::]:0", "127.0.0.1", "127.0.0.1")
	}
}

func checkSource(t *testing.T, address, source, want string) {
	t.Helper()
	from := make(chan netip.Addr, 1)
	target := listen(t, address, func(c net.Conn) {
		from <- netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap()
		answer("HTTP/1.1 204 No Content\r\n\r\n")(c)
	})
	if source != "" {
		target.Aim.Source = netip.MustParseAddr(source)
	}
	if err := Check(t.Context(), get("/"), target); err != nil {
		t.Errorf("%s from %q: %v", address, source, err)
		return
	}
	if got := <-from; got.String() != want {
		t.Errorf("%s from %q: came from %v", address, source, got)
	}
}

// slow runs a check of a server that is the other end of a pipe, in a bubble:
// there a timeout takes no time, and nothing else ever times out.
func slow(t *testing.T, p config.Probe, server func(net.Conn), want string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, end := net.Pipe()
		var done sync.WaitGroup
		done.Go(func() {
			defer end.Close()
			server(end)
		})
		begin := time.Now()
		err := overNetwork(t.Context(), p, func(context.Context) (net.Conn, error) { return client, nil })
		if took := time.Since(begin); took > p.Timeout.D() {
			t.Errorf("took %v of %v", took, p.Timeout)
		}
		expect(t, err, want)
		done.Wait()
	})
}

// hang does nothing until the client is gone.
func hang(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }

// trickle writes text a byte a second.
func trickle(text string) func(net.Conn) {
	return func(c net.Conn) {
		for i := range len(text) {
			time.Sleep(time.Second)
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
		}
		hang(c)
	}
}

func then(handlers ...func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		for _, handle := range handlers {
			handle(c)
		}
	}
}

func TestSlowServers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
	const stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
	h := config.Probe{Kind: config.ProbeHTTP, Path: "/readyz", Timeout: config.Duration(2 * time.Second)}
	s := config.Probe{Kind: config.ProbeSSE, Path: "/events", Timeout: config.Duration(5 * time.Second)}
	tick := s
	tick.Event = "tick"
	for _, c := range []struct {
		name   string
		p      config.Probe
		server func(net.Conn)
		want   string
	}{
		{"does not read", h, func(c net.Conn) { time.Sleep(time.Hour) }, "no answer within 2s (connected, so it hangs or its accept queue is full)"},
		{"does not answer", h, then(answer(""), hang), "no answer within 2s (connected, so it hangs or its accept queue is full)"},
		{"trickles headers", h, then(answer(""), trickle(head)), "GET /readyz: the answer was not complete within 2s"},
		{"hangs in headers", s, then(answer(stream[:20]), hang), "GET /events: the answer was not complete within 5s"},
		{"hangs in the body", h, then(answer(head+"ok"), hang), "GET /readyz answered 200, but its body did not end within 2s"},
		{"is just in time", h, then(answer(head+"abc"), trickle("d")), "<nil>"},
		{"is a stream", h, then(answer(stream), hang), `GET /readyz answered 200, but its body did not end within 2s; for an event stream there is "sse"`},
		{"404 needs no body", h, then(answer("HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n"), hang), "GET /readyz answered 404, expected 200 to 399"},
		{"no event", s, then(answer(stream+": hello\n\n"), hang), "no event within 5s"},
		{"half an event", s, then(answer(stream+"data: x\n"), hang), "no event within 5s"},
		{"another event", tick, then(answer(stream+"event: tock\ndata: x\n\n"), hang), `no event "tick" within 5s`},
		{"heartbeats, then an event", s, then(answer(stream+":\n"), func(c net.Conn) { time.Sleep(4 * time.Second) }, answerNow("data\n\n"), hang), "<nil>"},
	} {
		t.Run(c.name, func(t *testing.T) { slow(t, c.p, c.server, c.want) })
	}
}

func answerNow(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

func TestNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := config.Probe{Kind: config.ProbeTCP, Timeout: config.Duration(time.Second)}
		err := overNetwork(t.Context(), p, func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		expect(t, err, "no connection within 1s (its accept queue is full, or packets are dropped)")
	})
}

// A caller that gives up gets its own reason, not one about the process.
func TestGivenUp(t *testing.T) {
	reason := errors.New("the instance was stopped")
	for _, p := range []config.Probe{
		get("/"), {Kind: config.ProbeSSE, Path: "/", Timeout: enough},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		target := listen(t, "127.0.0.1:0", func(c net.Conn) {
			answer("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")(c)
			cancel(reason)
			hang(c)
		})
		if err := Check(ctx, p, target); err != reason {
			t.Errorf("%s: %v", p.Kind, err)
		}
	}
}

func TestSSE(t *testing.T) {
	head := func(fields string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" }
	const kind = "Content-Type: text/event-stream; charset=utf-8\r\n"
	const event = "data: x\n\n"
	for _, c := range []struct{ name, answer, event, want string }{
		{"any", head(kind) + event, "", "<nil>"},
		{"chunks", head(kind+"Transfer-Encoding: chunked\r\n") + "3\r\ndat\r\n6\r\na: x\n\n\r\n", "", "<nil>"},
		{"by name", head(kind) + "event: a\ndata: 1\n\nevent: tick\ndata: 1\n\n", "tick", "<nil>"},
		{"the default name", head(kind) + event, "message", "<nil>"},
		{"not the name", head(kind) + event, "tick", `the stream ended without an event "tick"`},
		{"only comments", head(kind) + ": hi\n\n: ho\n\n", "", "the stream ended without an event"},
		{"only a name", head(kind) + "event: tick\n\n", "tick", `the stream ended without an event "tick"`},
		{"cut", head(kind) + "data: x\n", "", "the stream ended without an event"},
		{"no stream", head("Content-Type: text/html\r\n") + event, "", `GET /events answered with Content-Type "text/html", expected text/event-stream`},
		{"no type", head("") + event, "", `GET /events answered with Content-Type "", expected text/event-stream`},
		{"compressed", head(kind+"Content-Encoding: gzip\r\n") + event, "", `GET /events answered with Content-Encoding "gzip", which nobody asked for`},
		{"404", "HTTP/1.1 404 No\r\n\r\n", "", "GET /events answered 404, expected 200"},
		{"302", "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "", "GET /events answered 302, expected 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := config.Probe{Kind: config.ProbeSSE, Path: "/events", Event: c.event, Timeout: enough}
			expect(t, Check(t.Context(), p, listen(t, "127.0.0.1:0", answer(c.answer))), c.want)
		})
	}
}
