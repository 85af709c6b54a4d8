package load

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Streams have the lengths that were asked for, in turn, and one that is
// shorter or longer is not complete, though it ends with its mark.
func TestLengths(t *testing.T) {
	var mu sync.Mutex
	var asked []int
	lie := 0 // how many events too many
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		mu.Lock()
		asked = append(asked, n)
		n += lie
		mu.Unlock()
		parts := []string{streamHead}
		for i := range n {
			parts = append(parts, chunk(event(i+1)))
		}
		say(append(parts, chunk("data: [DONE]\n\n"), lastChunk)...)(c, r)
	})
	for _, l := range []int{0, -1, 1} {
		mu.Lock()
		asked, lie = nil, l
		mu.Unlock()
		o := Options{Addr: addr, StreamRate: 1, Stream: Call{Path: "/stream?n={n}"}, Lengths: []int{3, 20, 7}}
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		r := newRun(context.Background(), context.Background(), o)
		for range 6 {
			r.stream(time.Now())
		}
		if want := []int{3, 20, 7, 3, 20, 7}; !slices.Equal(asked, want) {
			t.Errorf("asked for %v events, want %v", asked, want)
		}
		want := Complete
		if l != 0 {
			want = Wrong
		}
		if got := r.ledger.finish(); got.Count(Stream, want) != 6 {
			t.Errorf("%+d events: want 6 %s, got\n%s", l, want, got)
		}
	}
}

// Every bad unit is told with our address and its times, so that it can be
// held against what the kernel knows of a dead process; a good one is not.
func TestLossesAreExact(t *testing.T) {
	var mu sync.Mutex
	reset := map[string]bool{} // peers that were reset
	n := 0
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
		mu.Lock()
		if n++; n == 30 {
			stop()
		}
		bad := n%3 == 0
		if bad {
			reset[c.RemoteAddr().String()] = true
		}
		mu.Unlock()
		if bad {
			thenReset(okHead)(c, r)
			return
		}
		say(okHead, "Content-Length: 2\r\n\r\nok")(c, r)
	})
	began := time.Now()
	l, err := Run(ctx, Options{Addr: addr, RequestRate: 100, Timeout: time.Minute, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(reset) == 0 || len(l.Losses) != len(reset) || l.Bad() != len(reset) {
		t.Fatalf("%d were reset, %d losses, %d bad", len(reset), len(l.Losses), l.Bad())
	}
	for _, loss := range l.Losses {
		if !reset[loss.From.String()] {
			t.Errorf("nobody reset %s", loss)
		}
		if loss.Kind != Request || loss.Class != Reset || loss.Began.Before(began) || loss.Ended.Before(loss.Began) || loss.Ended.After(time.Now()) {
			t.Errorf("loss %+v", loss)
		}
		if s := loss.String(); !strings.Contains(s, "request reset from "+loss.From.String()) {
			t.Errorf("loss reads %q", s)
		}
	}
}

// One that was refused has no address of ours: no dead process explains it.
func TestRefusedHasNoAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	l := oneUnit(t, Options{Addr: addr, StreamRate: 1}, Request)
	if len(l.Losses) != 1 || l.Losses[0].Class != Refused || l.Losses[0].From.IsValid() || l.Losses[0].Began.IsZero() {
		t.Fatalf("losses %+v", l.Losses)
	}
}

// Connections from 127.77.0.0/16 reach one certain instance: load that came
// from there would not be spread at all.
func TestSourcesAreNotThoseOfProbes(t *testing.T) {
	probes := netip.MustParsePrefix("127.77.0.0/16")
	for _, ip := range sourceIPs("127.0.0.1:80") {
		a, _ := netip.AddrFromSlice(ip.To4())
		if probes.Contains(a) || !a.IsLoopback() {
			t.Errorf("source %s", a)
		}
	}
	for _, addr := range []string{"[::1]:80", "192.0.2.1:80", "localhost:80"} {
		if ips := sourceIPs(addr); ips != nil {
			t.Errorf("%s: sources %v", addr, ips)
		}
	}
}

// The ledger tells the rate that was really sent, and that the generator itself
// was late: a run on a machine that stood still proves less than it was asked to.
func TestRateIsWhatWasSent(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var first sync.Once
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
		first.Do(func() { time.AfterFunc(400*time.Millisecond, stop) }) // not before there is a rate
		say(okHead, "Content-Length: 2\r\n\r\nok")(c, r)
	})
	l, err := Run(ctx, Options{Addr: addr, RequestRate: 100, MaxConns: 1000})
	if err != nil {
		t.Fatal(err)
	}
	want := float64(l.Sent(Request)) / l.Sending.Seconds()
	if l.Sending < 400*time.Millisecond || l.Sending > l.Took || l.Rate() != want {
		t.Errorf("rate %v over %s of %s, want %v", l.Rate(), l.Sending, l.Took, want)
	}
	if n := l.Kinds[Request].Late.Count(); n != l.Sent(Request) {
		t.Errorf("%d of %d units have a lateness", n, l.Sent(Request))
	}
	if !strings.Contains(l.String(), fmt.Sprintf("%.0f connections per second", want)) {
		t.Errorf("table does not tell the rate:\n%s", l)
	}
	// Units that were not sent are in no rate.
	var b Ledger
	b.Kinds, b.Sending = map[Kind]*Tally{}, time.Second
	for range 10 {
		b.add(Request, unitResult{class: Unsent})
	}
	b.add(Request, unitResult{class: Complete})
	if b.Rate() != 1 {
		t.Errorf("rate %v, want 1", b.Rate())
	}
}
