package main

import (
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metric is the value of one series of GET /metrics; empty: there is none.
func metric(t *testing.T, url, series string) string {
	t.Helper()
	for line := range strings.Lines(read(t, do(t, "GET", url+"/metrics", "", "Connection", "close").Body)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == series {
			return value
		}
	}
	return ""
}

func TestMetricsSayWhatIsGoingOn(t *testing.T) {
	r := start(t, nil)
	read(t, do(t, "GET", r.url+"/stream?n=3", "").Body)
	read(t, do(t, "POST", r.url+"/v1/chat/completions", `{"prompt":"x","max_tokens":3,"stream":true}`).Body)
	read(t, do(t, "GET", r.url+"/v1/models", "").Body)
	open := enter(t, r.url)
	until(t, "the metrics say so", func() bool { return metric(t, r.url, `sse_app_open_streams{kind="socket"}`) == "1" })
	for series, want := range map[string]string{
		`sse_app_open_streams{kind="stream"}`:                                          "0",
		`sse_app_events_sent_total{kind="stream"}`:                                     "5", // hello, three messages, [DONE]
		`sse_app_events_sent_total{kind="chat"}`:                                       "6", // role, three words, reason, [DONE]
		`sse_app_tokens_total`:                                                         "3",
		`sse_app_first_token_seconds_count`:                                            "1",
		`sse_app_bus_up`:                                                               "0",
		`sse_app_draining`:                                                             "0",
		`sse_app_first_byte_seconds_count{kind="stream"}`:                              "1",
		`sse_app_first_byte_seconds_count{kind="chat"}`:                                "1",
		`sse_app_request_duration_seconds_count{code="200",route="/v1/models"}`:        "1",
		`sse_app_request_duration_seconds_count{code="200",route="GET /stream"}`:       "", // it was a stream
		`sse_app_request_duration_seconds_count{code="101",route="GET /ws"}`:           "",
		`sse_app_request_duration_seconds_count{code="200",route="/chat/completions"}`: "",
	} {
		if got := metric(t, r.url, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	if n, _ := strconv.Atoi(metric(t, r.url, "go_goroutines")); n < 2 {
		t.Errorf("%d goroutines", n)
	}
	open.conn.CloseNow()
	r.leaving.come()
	if metric(t, r.url, "sse_app_draining") != "1" {
		t.Error("it is not draining")
	}
}

// A push is counted where it is taken, its arrival where the client is.
func TestMetricsCountPushes(t *testing.T) {
	a, b := small(t).two(t, nil)
	inbox := tune(t, b.url+"/stream?only=inbox", "Cookie", login(t, b.url, "u"))
	for _, id := range []string{"1", "2", "1"} {
		push(t, a.url, "user=u&id="+id, "hello")
	}
	inbox.hears("push")
	inbox.hears("push")
	for series, want := range map[string]string{
		"sse_app_pushes_published_total": "2", "sse_app_pushes_deduplicated_total": "1", "sse_app_pushes_delivered_total": "0", "sse_app_bus_up": "1",
	} {
		if got := metric(t, a.url, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	until(t, "arrivals are counted", func() bool { return metric(t, b.url, "sse_app_pushes_delivered_total") == "2" })
}

func TestMetricsAreWellFormed(t *testing.T) {
	r := start(t, nil)
	read(t, do(t, "GET", r.url+"/stream?n=3", "").Body)
	read(t, do(t, "GET", r.url+"/healthz", "").Body)
	resp := do(t, "GET", r.url+"/metrics", "", "Accept-Encoding", "gzip")
	if resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("headers %v", resp.Header)
	}
	faults, err := promlint.New(strings.NewReader(read(t, resp.Body))).Lint()
	if err != nil || len(faults) > 0 {
		t.Errorf("%v %v", faults, err)
	}
}

// Whoever asks for many things does not make many series.
func TestMetricsDoNotGrow(t *testing.T) {
	r := start(t, nil)
	series := func() int {
		return strings.Count(read(t, do(t, "GET", r.url+"/metrics", "", "Connection", "close").Body), "\n")
	}
	ask := func(n string) {
		for _, path := range []string{"/nope" + n, "/v1/" + n, "/stream?n=0&x=" + n, "/stream?ticket=" + n, "/ws?" + n, "/v1/models/" + n} {
			read(t, do(t, "GET", r.url+path, "").Body)
			read(t, do(t, "PUT", r.url+path, "").Body)
		}
	}
	ask("0")
	series() // itself
	before := series()
	for i := range 20 {
		ask(strconv.Itoa(i + 1))
	}
	if after := series(); after != before {
		t.Errorf("%d lines became %d", before, after)
	}
}

// Whatever kind of stream they had, and however they left.
func TestTwoHundredClientsLeaveNothingBehind(t *testing.T) {
	p := launch(t, "-interval", "1h", "-delay", "1h")
	value := func(series string) int {
		n, err := strconv.Atoi(metric(t, p.url, series))
		if err != nil {
			t.Fatalf("%s: %v", series, err)
		}
		return n
	}
	value("go_goroutines") // what is started once is started
	goroutines, files := value("go_goroutines"), value("process_open_fds")
	var all []net.Conn
	for range 50 {
		stream, chat := dial(t, p.url), dial(t, p.url)
		stream.ask("/stream")
		nextLine(t, stream.br, "event: hello")
		const body = `{"prompt":"x","stream":true}`
		io.WriteString(chat.conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		nextLine(t, chat.br, "data: ")
		all = append(all, stream.conn, chat.conn, handshake(t, p.url).conn, handshake(t, p.url).conn)
	}
	if n := value("go_goroutines"); n < len(all) {
		t.Errorf("%d goroutines for %d clients: is this the right process?", n, len(all))
	}
	if n := value("process_open_fds"); n < len(all) {
		t.Errorf("%d descriptors for %d clients", n, len(all))
	}
	for i, c := range all {
		if i%3 == 0 {
			c.(*net.TCPConn).SetLinger(0) // a reset
		}
		c.Close()
	}
	began := time.Now()
	until(t, "goroutines are gone", func() bool { return value("go_goroutines") <= goroutines+2 })
	until(t, "descriptors are gone", func() bool { return value("process_open_fds") <= files+2 })
	t.Logf("all is gone after %s", time.Since(began))
	for _, kind := range []string{kindStream, kindChat, kindSocket} {
		until(t, "nothing is counted", func() bool { return value(`sse_app_open_streams{kind="`+kind+`"}`) == 0 })
	}
}

func TestKinds(t *testing.T) {
	for path, want := range map[string]string{
		"/stream": kindStream, "/stream?n=3": kindStream, "/stream?ticket=x": kindTicket, "/v1/chat/completions": kindChat,
		"/chatgptApi/chatgpt_qa_stream": kindChat, "/time": kindOther, "/ws": kindSocket, "/streams": kindOther,
	} {
		if got := kindOf(httptest.NewRequest("GET", path, nil)); got != want {
			t.Errorf("%s is a %s, want %s", path, got, want)
		}
	}
}
