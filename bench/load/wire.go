package load

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Dialer opens connections from several source addresses: one address has some
// 28,000 ports towards one service (net.ipv4.ip_local_port_range), which 2,000
// connections per second use up in 14 s if the kernel keeps them for a while.
type Dialer struct {
	addr    string
	sources []net.Dialer
	next    atomic.Uint64
}

// NewDialer is one to host:port that waits so long for each connection.
func NewDialer(addr string, timeout time.Duration) *Dialer {
	d := &Dialer{addr: addr}
	for _, ip := range sourceIPs(addr) {
		d.sources = append(d.sources, net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: ip}, Control: latePort, KeepAlive: -1})
	}
	if len(d.sources) == 0 {
		d.sources = []net.Dialer{{Timeout: timeout, KeepAlive: -1}}
	}
	return d
}

// Dial opens a connection from the next address.
func (d *Dialer) Dial(ctx context.Context) (net.Conn, error) {
	return d.sources[d.next.Add(1)%uint64(len(d.sources))].DialContext(ctx, "tcp", d.addr)
}

// errReleased is the end of a held stream that the run itself ended.
var errReleased = errors.New("run is over")

// patientConn is a connection whose every read may be silent for timeout. One
// goroutine reads it.
type patientConn struct {
	net.Conn
	timeout time.Duration
	hard    context.Context // ended: reads fail as timeouts
	stop    context.Context // not nil and ended: reads fail with errReleased
	failed  error           // of the read that ended it
}

// Read fails for good with its first error. The kernel tells a reset once and
// "end of file" from then on, and bufio's Peek, which net/http uses, forgets an
// error: a reset would be booked as a cut.
func (c *patientConn) Read(b []byte) (n int, err error) {
	if c.failed != nil {
		return 0, c.failed
	}
	defer func() { c.failed = err }()
	c.SetReadDeadline(time.Now().Add(c.timeout))
	// A context that ends after this check moves the deadline set above, and
	// one that ended before is seen here: no read outlives its context.
	if err := c.over(); err != nil {
		return 0, err
	}
	n, err = c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if over := c.over(); over != nil {
			return n, over
		}
	}
	return n, err
}

func (c *patientConn) over() error {
	if c.stop != nil && c.stop.Err() != nil {
		return errReleased
	}
	if c.hard.Err() != nil {
		return fmt.Errorf("end grace time: %w", os.ErrDeadlineExceeded)
	}
	return nil
}

// wake makes a blocked Read look at its contexts.
func (c *patientConn) wake() { c.SetReadDeadline(time.Unix(1, 0)) }

// exchange is one request and its answer on one connection.
type exchange struct {
	conn *patientConn
	resp *http.Response
	undo []func() bool
}

// begin connects, sends call and reads the head of the answer. If that fails,
// res has the class and the exchange is nil. The caller closes the exchange.
func (r *run) begin(call Call, res *unitResult) *exchange {
	start := time.Now()
	res.began = start
	nc, err := r.dialer.Dial(r.hard)
	if err != nil {
		res.fail(err, "connect")
		return nil
	}
	res.connect = time.Since(start)
	if tcp, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		from := tcp.AddrPort()
		res.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	x := &exchange{conn: &patientConn{Conn: nc, timeout: r.Timeout, hard: r.hard}}
	x.undo = append(x.undo, context.AfterFunc(r.hard, x.conn.wake))
	if err := x.ask(r.Addr, call, r.Timeout); err != nil {
		res.fail(err, "send the request")
		x.close()
		return nil
	}
	br := bufio.NewReader(x.conn)
	// Peek first: only here does "closed" mean "closed before any byte".
	if _, err := br.Peek(1); err != nil {
		res.fail(err, "wait for the first byte")
		if errors.Is(err, io.EOF) {
			res.class, res.why = Empty, "closed before any byte"
		}
		x.close()
		return nil
	}
	res.first = time.Since(start)
	x.resp, err = http.ReadResponse(br, &http.Request{Method: call.method()})
	if err != nil {
		// A head that breaks off inside a line reads as malformed; the
		// connection knows better.
		res.fail(cmp.Or(x.conn.failed, err), "read the head of the answer")
		x.close()
		return nil
	}
	res.instance = x.resp.Header.Get("X-Instance")
	return x
}

func (x *exchange) ask(host string, call Call, timeout time.Duration) error {
	var b strings.Builder
	path := call.Path
	if path == "" {
		path = "/"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", call.method(), path, host)
	for k, v := range call.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	if call.Body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(call.Body))
	}
	b.WriteString("\r\n" + call.Body)
	x.conn.SetWriteDeadline(time.Now().Add(timeout))
	_, err := io.WriteString(x.conn, b.String())
	return err
}

func (c Call) method() string {
	if c.Method == "" {
		return http.MethodGet
	}
	return c.Method
}

// release lets the exchange end without fault when ctx does.
func (x *exchange) release(ctx context.Context) {
	x.conn.stop = ctx
	x.undo = append(x.undo, context.AfterFunc(ctx, x.conn.wake))
}

// close ends the connection with a reset: nothing stays in TIME_WAIT, so the
// ports last for any rate. All that counts has been read by then.
func (x *exchange) close() {
	for _, undo := range x.undo {
		undo()
	}
	if tcp, ok := x.conn.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	x.conn.Close()
}

// request sends one short request and reads the whole answer.
func (r *run) request(due time.Time) {
	var res unitResult
	defer func() {
		res.whole = time.Since(due)
		r.ledger.add(Request, res)
	}()
	call := r.Request
	call.Header = withHeader(call.Header, "Connection", "close")
	x := r.begin(call, &res)
	if x == nil {
		return
	}
	defer x.close()
	body, err := io.ReadAll(io.LimitReader(x.resp.Body, 4<<10))
	if err == nil {
		_, err = io.Copy(io.Discard, x.resp.Body)
	}
	if res.instance == "" {
		res.instance = instanceIn(body)
	}
	switch {
	case err != nil:
		res.fail(err, fmt.Sprintf("read the body after %d bytes", len(body)))
	case x.resp.StatusCode != http.StatusOK:
		res.class, res.why = Wrong, "status "+x.resp.Status
	default:
		res.class = Complete
	}
}

// fail puts err into the class it belongs to.
func (res *unitResult) fail(err error, doing string) {
	res.class, res.why = classOf(err), doing+": "+err.Error()
}

func classOf(err error) Class {
	var ne net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	// Ports, descriptors or memory of this machine ran out: the service never
	// saw the unit.
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EMFILE),
		errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return Unsent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Cut
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, context.Canceled), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	}
	return Wrong
}
