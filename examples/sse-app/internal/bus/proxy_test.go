package bus

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a Bus and its server, and does what networks do.
type proxy struct {
	t     testing.TB
	ln    net.Listener
	s     *server
	calls atomic.Int64 // scripts that were called
	eat   atomic.Int64 // that many answers to scripts are swallowed, with the connection

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func between(t testing.TB, s *server) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, ln: ln, s: s, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() { p.run(&all) }) // until ln is closed
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		all.Wait()
	})
	return p
}

// url is what a Bus gets in place of the server's.
func (p *proxy) url() (string, error) {
	u, err := url.Parse(p.s.url)
	if err != nil {
		return "", err
	}
	u.Host = p.ln.Addr().String()
	return u.String(), nil
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

func (p *proxy) run(all *sync.WaitGroup) {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		back, err := net.Dial("tcp", "127.0.0.1:"+p.s.port)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[back] = true, true
		p.mu.Unlock()
		var asked atomic.Bool
		all.Go(func() { // until one of the two is closed
			p.copy(back, c, func(b []byte) bool {
				if bytes.Contains(b, []byte("evalsha")) {
					p.calls.Add(1)
					asked.Store(true)
				}
				return true
			})
		})
		all.Go(func() { // as well
			p.copy(c, back, func([]byte) bool { return !asked.Load() || p.eat.Add(-1) < 0 })
		})
	}
}

func (p *proxy) copy(to, from net.Conn, pass func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && !pass(b[:n]) {
			return
		}
		if _, err2 := to.Write(b[:n]); err2 != nil || err == io.EOF || err != nil {
			return
		}
	}
}
