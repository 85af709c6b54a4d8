// Package load puts a service under load and keeps the books: every unit (a
// stream, a held stream's connection, a short request) ends in exactly one
// class, so that "no connection was lost" is a sum and not an impression.
//
// The load is open-loop: units start when the clock says so, not when the
// service has answered the ones before. It speaks HTTP/1.1 over connections of
// its own, one per unit, because only then does the kernel's verdict (refused,
// reset, closed) belong to one unit and reach the ledger unchanged; net/http's
// client would try again by itself.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Call is one HTTP request.
type Call struct {
	Method string            // default "GET"
	Path   string            // with query, for example "/stream?n=5"; default "/"
	Header map[string]string // further headers
	Body   string
}

// Options says what to send. Each of the three kinds is off at zero. Run keeps
// no reference to it.
type Options struct {
	Addr string // host:port of the service, TCP

	// Streams are finite event streams, StreamRate of them per second.
	// A complete one ends with an event whose data is End.
	Stream     Call
	StreamRate float64
	// Lengths are how many unnamed events streams have before End: the first
	// stream the first length, and so on, round and round. "{n}" in the path and
	// the body of Stream stands for it. Empty: the number is not checked.
	Lengths []int
	End     string // default "[DONE]"

	// Held streams are endless event streams, kept open for the whole run.
	// As a browser's EventSource would, a held stream connects again after its
	// connection ended, with its Last-Event-ID; each connection is one unit.
	Hold Call
	Held int

	// Requests are short requests, each on a new connection. A complete one is
	// a whole answer with status 200.
	Request     Call
	RequestRate float64

	// Duration is how long units are started; zero: until the context ends.
	Duration time.Duration
	// Grace is how long the units under way may go on after that; default 30 s.
	// Those that have not ended then count as timeouts.
	Grace time.Duration
	// Timeout is the longest silence of the service before a unit is a
	// timeout: while connecting, before the first byte, between two reads.
	// Default 10 s; more than the heartbeat of held streams.
	Timeout time.Duration
	// MaxConns bounds the connections open at once; default 10,000. A unit
	// above it is not sent and counted as Unsent.
	MaxConns int
}

// ErrOptions is wrapped by Run's errors: the options cannot be used, nothing
// was sent.
var ErrOptions = errors.New("load options cannot be used")

func (o *Options) complete() error {
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return fmt.Errorf("read address %q: %w: %w", o.Addr, ErrOptions, err)
	}
	if o.StreamRate < 0 || o.RequestRate < 0 || o.Held < 0 || o.StreamRate+o.RequestRate+float64(o.Held) == 0 {
		return fmt.Errorf("plan load for %q: %w: no kind has a rate above zero", o.Addr, ErrOptions)
	}
	for _, n := range o.Lengths {
		if n < 1 {
			return fmt.Errorf("plan streams for %q: %w: %d events", o.Addr, ErrOptions, n)
		}
	}
	if o.End == "" {
		o.End = "[DONE]"
	}
	if o.Grace <= 0 {
		o.Grace = 30 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 10000
	}
	return nil
}

// Run sends the load and returns the ledger when every unit is in it. It
// starts units until o.Duration is over or ctx ends, whichever is first; an
// ended ctx is a normal way to stop and no error. The ledger is the caller's
// alone: all of Run's goroutines have ended.
func Run(ctx context.Context, o Options) (*Ledger, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	hard, cut := context.WithCancel(context.WithoutCancel(ctx)) // ends Grace after ctx
	defer cut()
	r := newRun(ctx, hard, o)
	var starters sync.WaitGroup
	starters.Go(func() { r.pace(o.StreamRate, Stream, r.stream) })
	starters.Go(func() { r.pace(o.RequestRate, Request, r.request) })
	for range o.Held {
		r.units.Go(r.hold) // one goroutine per held stream, until ctx ends
	}
	starters.Wait()
	<-ctx.Done()
	r.ledger.Sending = time.Since(r.ledger.start)
	grace := time.AfterFunc(o.Grace, cut)
	defer grace.Stop()
	r.units.Wait()
	return r.ledger.finish(), nil
}

// run is the state of one Run.
type run struct {
	Options
	dialer *Dialer
	soft   context.Context // ended: start nothing more, let held streams go
	hard   context.Context // ended: everything under way is a timeout
	units  sync.WaitGroup
	open   atomic.Int64
	nth    atomic.Uint64 // streams so far
	ledger *Ledger
}

func newRun(soft, hard context.Context, o Options) *run {
	return &run{Options: o, dialer: NewDialer(o.Addr, o.Timeout), soft: soft, hard: hard, ledger: newLedger()}
}

// pace starts rate units per second, each in a goroutine of its own, until the
// run is over. Unit i is due i/rate seconds after the start, however late its
// predecessors are, so a slow service meets the same load as a fast one.
func (r *run) pace(rate float64, kind Kind, unit func(due time.Time)) {
	if rate <= 0 {
		return
	}
	start := time.Now()
	timer := time.NewTimer(0) // Reset leaves no old tick behind since Go 1.23
	defer timer.Stop()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-r.soft.Done():
				return
			case <-timer.C:
			}
		}
		if r.soft.Err() != nil {
			return
		}
		if !r.enter() {
			r.ledger.add(kind, unitResult{class: Unsent, why: fmt.Sprintf("%d connections were open already", r.MaxConns)})
			continue
		}
		r.units.Go(func() {
			defer r.open.Add(-1)
			r.ledger.began(kind, time.Since(due))
			unit(due)
		})
	}
}

// enter takes one of the MaxConns places.
func (r *run) enter() bool {
	if r.open.Add(1) > int64(r.MaxConns) {
		r.open.Add(-1)
		return false
	}
	return true
}

func (r *run) stream(due time.Time) {
	call, length := r.Stream, 0
	if len(r.Lengths) > 0 {
		length = r.Lengths[(r.nth.Add(1)-1)%uint64(len(r.Lengths))]
		n := strconv.Itoa(length)
		call.Path, call.Body = strings.ReplaceAll(call.Path, "{n}", n), strings.ReplaceAll(call.Body, "{n}", n)
	}
	r.ledger.add(Stream, r.events(due, call, &reader{end: r.End, want: length}))
}

// hold keeps one held stream: connection after connection until the run ends.
func (r *run) hold() {
	rd := &reader{endless: true}
	var ended time.Time
	for r.soft.Err() == nil {
		call := r.Hold
		if rd.lastID != "" {
			call.Header = withHeader(call.Header, "Last-Event-ID", rd.lastID)
		}
		if !r.enter() {
			r.ledger.add(Held, unitResult{class: Unsent, why: fmt.Sprintf("%d connections were open already", r.MaxConns)})
		} else {
			rd.again(ended)
			res := r.events(time.Now(), call, rd)
			r.open.Add(-1)
			r.ledger.add(Held, res)
			ended = time.Now()
		}
		select {
		case <-r.soft.Done():
		case <-time.After(rd.retryWait()):
		}
	}
}

func withHeader(h map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range h {
		if k != key {
			out[k] = v
		}
	}
	return out
}
