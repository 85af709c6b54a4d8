package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is what a server does with a connection whose request it has read.
type script func(c *net.TCPConn, r *http.Request)

// serveScript runs a server of bad manners on loopback and returns its address.
func serveScript(t *testing.T, do script) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // accept loop, until ln is closed
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.Copy(io.Discard, r.Body)
					do(c.(*net.TCPConn), r)
				}
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

const (
	okHead     = "HTTP/1.1 200 OK\r\nX-Instance: 7\r\n"
	streamHead = okHead + "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)

// chunk is s as one chunk of a chunked body.
func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const lastChunk = "0\r\n\r\n"

func event(id int) string { return fmt.Sprintf("id: %d\ndata: message %d\n\n", id, id) }

// say writes the parts and closes the connection in the normal way.
func say(parts ...string) script {
	return func(c *net.TCPConn, _ *http.Request) { io.WriteString(c, strings.Join(parts, "")) }
}

// thenReset writes the parts and resets the connection once they have arrived.
func thenReset(parts ...string) script {
	return func(c *net.TCPConn, r *http.Request) {
		say(parts...)(c, r)
		c.SetLinger(0)
	}
}

// thenSilence writes the parts and says no more until the client closes.
func thenSilence(parts ...string) script {
	return func(c *net.TCPConn, r *http.Request) {
		say(parts...)(c, r)
		io.Copy(io.Discard, c)
	}
}

func TestEveryClassIsCounted(t *testing.T) {
	tests := []struct {
		name  string
		kind  Kind
		class Class
		why   string
		do    script
	}{
		{"ends with its mark", Stream, Complete, "", say(streamHead, chunk(event(1)+event(2)+event(3)), chunk("id: done\ndata: [DONE]\n\n"), lastChunk)},
		{"mark, then rudely gone", Stream, Complete, "", thenReset(streamHead, chunk(event(1)+event(2)+event(3)+"data: [DONE]\n\n"))},
		{"heartbeats, CR LF and a split event", Stream, Complete, "", say(streamHead, chunk(":\nid: 1\r\ndata: a\r\n\r\n:\n"), chunk(event(2)+"id: 3\nda"), chunk("ta: b\n\n:\ndata: [DONE]\n\n"))},
		{"event reconnect", Stream, Told, "reconnect", say(streamHead, chunk(event(1)+"retry: 50\nevent: reconnect\ndata: {}\n\n"), lastChunk)},
		{"error chunk", Stream, Told, "restarting", say(streamHead, chunk(event(1)+`data: {"error":{"message":"restarting"}}`+"\n\n"), lastChunk)},
		{"error chunk, then reset", Stream, Told, "restarting", thenReset(streamHead, chunk(event(1)+`data: {"error":{"message":"restarting"}}`+"\n\n"))},
		{"an error that is null tells nothing", Stream, Cut, "clean end", say(streamHead, chunk(`data: {"error":null}`+"\n\n"), lastChunk)},
		{"reset at once", Stream, Reset, "first byte", thenReset()},
		{"closed at once", Stream, Empty, "before any byte", say()},
		{"closed inside the head", Stream, Cut, "head", say("HTTP/1.1 200 OK\r\nX-Inst")},
		{"reset inside the head", Stream, Reset, "head", thenReset("HTTP/1.1 200 OK\r\nX-Inst")},
		{"reset between two lines of the head", Stream, Reset, "head", thenReset(okHead)},
		{"reset after an event", Stream, Reset, "after 1 events", thenReset(streamHead, chunk(event(1)))},
		{"clean end without the mark", Stream, Cut, "clean end", say(streamHead, chunk(event(1)), lastChunk)},
		{"closed between events", Stream, Cut, "inside the answer", say(streamHead, chunk(event(1)))},
		{"clean end inside an event", Stream, Cut, "clean end", say(streamHead, chunk(event(1)+"data: [DONE]\n"), lastChunk)},
		{"an id twice", Stream, Duplicated, `"2" came after "2"`, say(streamHead, chunk(event(1)+event(2)+event(2)+"data: [DONE]\n\n"), lastChunk)},
		{"an older id again", Stream, Duplicated, `"1" came after "2"`, say(streamHead, chunk(event(1)+event(2)+event(1)+"data: [DONE]\n\n"), lastChunk)},
		{"an id missing", Stream, Wrong, "missing", say(streamHead, chunk(event(1)+event(3)+"data: [DONE]\n\n"), lastChunk)},
		{"too few events", Stream, Wrong, "after 2 events, 3 were due", say(streamHead, chunk(event(1)+event(2)+"data: [DONE]\n\n"), lastChunk)},
		{"too many events", Stream, Wrong, "after 4 events", say(streamHead, chunk(event(1)+event(2)+event(3)+"data: x\n\ndata: [DONE]\n\n"), lastChunk)},
		{"503", Stream, Wrong, "503", say("HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n")},
		{"no event stream", Stream, Wrong, "text/html", say(okHead, "Content-Type: text/html\r\nContent-Length: 0\r\n\r\n")},
		{"no HTTP", Stream, Wrong, "head", say("220 smtp.example ready\r\n\r\n")},
		{"endless line", Stream, Wrong, "longer", say(streamHead, chunk("data: "+strings.Repeat("x", 2*maxLine)))},
		{"never a byte", Stream, Timeout, "first byte", thenSilence()},
		{"silent in the middle", Stream, Timeout, "after 1 events", thenSilence(streamHead, chunk(event(1)))},

		{"whole answer", Request, Complete, "", say(okHead, "Content-Length: 2\r\n\r\nok")},
		{"whole answer in chunks", Request, Complete, "", say(okHead, "Transfer-Encoding: chunked\r\n\r\n", chunk("ok"), lastChunk)},
		{"reset before the answer", Request, Reset, "", thenReset()},
		{"reset between two lines of the head", Request, Reset, "head", thenReset(okHead)},
		{"no answer", Request, Empty, "before any byte", say()},
		{"half an answer", Request, Cut, "after 1 bytes", say(okHead, "Content-Length: 2\r\n\r\no")},
		{"chunks without an end", Request, Cut, "", say(okHead, "Transfer-Encoding: chunked\r\n\r\n", chunk("ok"))},
		{"500", Request, Wrong, "500", say("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")},
		{"silence", Request, Timeout, "", thenSilence()},
		{"half an answer, then silence", Request, Timeout, "", thenSilence(okHead, "Content-Length: 2\r\n\r\no")},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+"/"+tt.name, func(t *testing.T) {
			t.Parallel()
			o := Options{Addr: serveScript(t, tt.do), StreamRate: 1, Lengths: []int{3}}
			if tt.class == Timeout {
				o.Timeout = 2 * time.Second // what the service does say must come before it
			}
			l := oneUnit(t, o, tt.kind)
			check(t, l, tt.kind, tt.class, tt.why)
		})
	}
}

// oneUnit sends exactly one unit.
func oneUnit(t *testing.T, o Options, kind Kind) *Ledger {
	t.Helper()
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	r := newRun(context.Background(), context.Background(), o)
	if kind == Stream {
		r.stream(time.Now())
	} else {
		r.request(time.Now())
	}
	return r.ledger.finish()
}

// check wants one unit in l, in the given class and nowhere else.
func check(t *testing.T, l *Ledger, kind Kind, class Class, why string) {
	t.Helper()
	bad := 0
	if class.Bad() {
		bad = 1
	}
	if l.Sent(kind) != 1 || l.Count(kind, class) != 1 || l.Bad() != bad || len(l.Kinds[kind].Classes) != 1 {
		t.Fatalf("want one %s %s, got\n%s", kind, class, l)
	}
	samples := l.Kinds[kind].Samples[class]
	if class == Complete {
		if len(samples) != 0 {
			t.Fatalf("complete unit has a sample: %v", samples)
		}
		return
	}
	if len(samples) != 1 || !strings.Contains(samples[0].Why, why) {
		t.Fatalf("want a sample with %q, got %+v", why, samples)
	}
}

func TestRefusedIsCounted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	for _, kind := range []Kind{Stream, Request} {
		check(t, oneUnit(t, Options{Addr: addr, StreamRate: 1}, kind), kind, Refused, "connect")
	}
}

func TestInstances(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"header", okHead + "Content-Length: 2\r\n\r\nok", "7"},
		{"JSON body", "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"instance\": 12}", "12"},
		{"word as body", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nw4711\n", "w4711"},
		{"neither", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := oneUnit(t, Options{Addr: serveScript(t, say(tt.answer)), StreamRate: 1}, Request)
			check(t, l, Request, Complete, "")
			if l.Kinds[Request].Instances[tt.want][Complete] != 1 {
				t.Fatalf("want instance %q, got %v", tt.want, l.Kinds[Request].Instances)
			}
		})
	}
}

// A held stream comes back with its Last-Event-ID, and its ids are followed
// over the reconnect.
func TestHeldStream(t *testing.T) {
	for _, tt := range []struct {
		name string
		next int // id of the first event after the reconnect
		want Class
	}{{"goes on", 4, Complete}, {"repeats", 3, Duplicated}, {"loses one", 5, Wrong}} {
		t.Run(tt.name, func(t *testing.T) {
			soft, stop := context.WithCancel(t.Context())
			defer stop()
			var conns atomic.Int32
			asked := make(chan string, 1)
			addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
				switch conns.Add(1) {
				case 1:
					say(streamHead, chunk(event(1)+event(2)+event(3)+"retry: 20\nevent: reconnect\ndata: bye\n\n"), lastChunk)(c, r)
				case 2:
					asked <- r.Header.Get("Last-Event-ID")
					io.WriteString(c, streamHead+chunk(event(tt.next)))
					if tt.want == Complete {
						stop()
					}
					io.Copy(io.Discard, c)
				default:
					stop()
				}
			})
			o := Options{Addr: addr, Held: 1}
			if err := o.complete(); err != nil {
				t.Fatal(err)
			}
			r := newRun(soft, t.Context(), o)
			r.hold()
			l := r.ledger.finish()
			if id := <-asked; id != "3" {
				t.Errorf("came back with Last-Event-ID %q, want 3", id)
			}
			if l.Count(Held, Told) != 1 || l.Count(Held, tt.want) != 1 {
				t.Errorf("want 1 told and 1 %s, got\n%s", tt.want, l)
			}
			if l.Kinds[Held].Resume.Count() < 1 || l.Kinds[Held].Resume.Worst() < 20*time.Millisecond {
				t.Errorf("resume took %s, less than the retry time", l.Kinds[Held].Resume.Worst())
			}
		})
	}
}

// A held stream that never said anything is not complete because the run ends.
func TestHeldSilenceIsNoSuccess(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
		stop() // not before the stream is there
		thenSilence(streamHead)(c, r)
	})
	l, err := Run(ctx, Options{Addr: addr, Held: 1, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if l.Count(Held, Timeout) != 1 || l.Sent(Held) != 1 {
		t.Fatalf("want one timeout, got\n%s", l)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{}, {Addr: "127.0.0.1:1"}, {Addr: "127.0.0.1", Held: 1}, {Addr: "127.0.0.1:1", StreamRate: -1, Held: 1},
		{Addr: "127.0.0.1:1", StreamRate: 1, Lengths: []int{5, 0}},
	} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: got %v, want ErrOptions", o, err)
		}
	}
}
