package load

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The service answers nobody before 20 units have come. A generator that waits
// for answers would wait for ever.
func TestLoadIsOpenLoop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	n, enough, sources := 0, make(chan struct{}), map[string]bool{}
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) {
		mu.Lock()
		sources[c.RemoteAddr().(*net.TCPAddr).IP.String()] = true
		if n++; n == 20 {
			stop()
			close(enough)
		}
		mu.Unlock()
		<-enough
		say(okHead, "Content-Length: 2\r\n\r\nok")(c, r)
	})
	l, err := Run(ctx, Options{Addr: addr, RequestRate: 200, Timeout: time.Minute, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if l.Bad() != 0 || l.Count(Request, Complete) < 20 {
		t.Fatalf("want 20 or more complete, got\n%s", l)
	}
	if sourceIPs(addr) != nil && len(sources) < 2 {
		t.Errorf("all connections came from %v, want several source addresses", sources)
	}
	if l.Kinds[Request].Whole.Count() != l.Sent(Request) {
		t.Errorf("%d of %d units have a latency", l.Kinds[Request].Whole.Count(), l.Sent(Request))
	}
}

func TestUnitsAboveMaxConnsAreUnsent(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	there := make(chan struct{})
	addr := serveScript(t, func(c *net.TCPConn, r *http.Request) { close(there); thenSilence()(c, r) })
	o := Options{Addr: addr, RequestRate: 200, MaxConns: 1, Timeout: time.Minute}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	hard, cut := context.WithCancel(t.Context())
	defer cut()
	r := newRun(ctx, hard, o)
	// As Run does, but it goes on until there is what to count.
	paced := make(chan struct{})
	go func() { defer close(paced); r.pace(o.RequestRate, Request, r.request) }()
	<-there
	for unsent := 0; unsent < 5; {
		<-time.After(5 * time.Millisecond)
		r.ledger.mu.Lock()
		if k := r.ledger.Kinds[Request]; k != nil {
			unsent = k.Classes[Unsent]
		}
		r.ledger.mu.Unlock()
	}
	stop()
	<-paced
	cut()
	r.units.Wait()
	l := r.ledger.finish()
	sent := l.Sent(Request)
	if l.Count(Request, Timeout) != 1 || l.Count(Request, Unsent) != sent-1 || sent < 2 || l.Bad() != sent {
		t.Fatalf("want one timeout and the rest unsent, got\n%s", l)
	}
	if len(l.Kinds[Request].Samples[Unsent]) > maxSamples {
		t.Errorf("%d samples, want at most %d", len(l.Kinds[Request].Samples[Unsent]), maxSamples)
	}
}

// The end of the grace time ends everything, in every state of a unit.
func TestGraceEndsTheRun(t *testing.T) {
	trickle := func(c *net.TCPConn, r *http.Request) {
		say(streamHead)(c, r)
		for i := 1; ; i++ {
			if _, err := io.WriteString(c, chunk(event(i))); err != nil {
				return
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	for name, do := range map[string]script{"silent": thenSilence(), "trickling": trickle} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			addr := serveScript(t, func(c *net.TCPConn, r *http.Request) { stop(); do(c, r) })
			l, err := Run(ctx, Options{Addr: addr, StreamRate: 20, Timeout: time.Hour, Grace: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if l.Sent(Stream) < 1 || l.Count(Stream, Timeout) != l.Sent(Stream) {
				t.Fatalf("want only timeouts, got\n%s", l)
			}
		})
	}
}

// All kinds at once against a real server: nothing is lost, every unit is in
// the books once, per class and per instance.
func TestAllKindsTogether(t *testing.T) {
	// A second, and until there is something of each kind.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var held, streams, requests atomic.Int32
	go func() {
		for <-time.After(time.Second); ctx.Err() == nil && (held.Load() < 10 || streams.Load() == 0 || requests.Load() == 0); {
			<-time.After(10 * time.Millisecond)
		}
		stop()
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Instance", "a")
		endless := r.URL.RawQuery == ""
		if endless {
			held.Add(1)
		} else {
			streams.Add(1)
		}
		for i := 1; (endless || i <= 5) && r.Context().Err() == nil; i++ {
			io.WriteString(w, event(i))
			http.NewResponseController(w).Flush()
			<-time.After(10 * time.Millisecond)
		}
		io.WriteString(w, "data: [DONE]\n\n")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("X-Instance", "b")
		io.WriteString(w, "hello")
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln) // until Close
	defer srv.Close()

	l, err := Run(ctx, Options{
		Addr: ln.Addr().String(), Timeout: time.Minute,
		Stream: Call{Path: "/stream?n=5"}, StreamRate: 50, Lengths: []int{5},
		Hold: Call{Path: "/stream"}, Held: 10,
		RequestRate: 200,
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Bad() != 0 || l.Sent(Held) != 10 || l.Sent(Stream) == 0 || l.Sent(Request) == 0 {
		t.Fatalf("want nothing bad, got\n%s", l)
	}
	for k, tally := range l.Kinds {
		byClass, byInstance := 0, 0
		for _, n := range tally.Classes {
			byClass += n
		}
		for _, classes := range tally.Instances {
			for _, n := range classes {
				byInstance += n
			}
		}
		if byClass != tally.Sent || byInstance != tally.Sent {
			t.Errorf("%s: sent %d, by class %d, by instance %d", k, tally.Sent, byClass, byInstance)
		}
	}
	text := l.String()
	for _, want := range []string{"bad: 0", "stream", "held", "request", "complete", "first byte", "p99"} {
		if !strings.Contains(text, want) {
			t.Errorf("table has no %q:\n%s", want, text)
		}
	}
}

func TestLatencyQuantiles(t *testing.T) {
	var l Latency
	if l.Quantile(0.5) != 0 || l.Worst() != 0 {
		t.Error("an empty distribution is not zero")
	}
	var all []time.Duration
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		d := time.Duration(1 + rnd.Int64N(1<<rnd.IntN(40)))
		all = append(all, d)
		l.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[max(1, int(q*float64(len(all))+0.5))-1]
		if got := l.Quantile(q); got < exact || float64(got) > float64(exact)*1.0626 {
			t.Errorf("quantile %v is %d, exact %d", q, got, exact)
		}
	}
	if l.Worst() != all[len(all)-1] || l.Quantile(1) != l.Worst() {
		t.Errorf("worst is %d, exact %d", l.Worst(), all[len(all)-1])
	}
	l.add(1<<63 - 1) // the longest possible fits
}
