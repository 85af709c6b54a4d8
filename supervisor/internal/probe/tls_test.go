package probe

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"gpm/config"
)

// secure is a probe by TLS.
func secure(kind config.ProbeKind, path string, headers map[string]string) config.Probe {
	return config.Probe{Kind: kind, Path: path, TLS: true, Headers: headers, Timeout: enough}
}

// A server with a certificate that nobody has signed is probed as it is; it is
// told the name that the Host header says.
func TestTLS(t *testing.T) {
	names := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: x\n\n")
		case "/readyz":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	s.EnableHTTP2 = true // a probe does not ask for it
	s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- hello.ServerName
		return nil, nil
	}}
	s.StartTLS()
	defer s.Close()
	target := Target{Addr: netip.MustParseAddrPort(s.Listener.Addr().String())}
	for _, c := range []struct {
		probe      config.Probe
		name, want string
	}{
		{secure(config.ProbeHTTP, "/readyz", nil), "localhost", "<nil>"},
		{secure(config.ProbeHTTP, "/readyz", map[string]string{"host": "example.org:8443"}), "example.org", "<nil>"},
		{secure(config.ProbeHTTP, "/readyz", map[string]string{"Host": "[::1]:8443"}), "localhost", "<nil>"},
		{secure(config.ProbeHTTP, "/other", nil), "localhost", "GET /other answered 503, expected 200 to 399"},
		{secure(config.ProbeSSE, "/events", nil), "localhost", "<nil>"},
	} {
		expect(t, Check(t.Context(), c.probe, target), c.want)
		if name := <-names; name != c.name {
			t.Errorf("%v: the server was asked for %q", c.probe, name)
		}
	}
}

// What goes wrong is said so that one knows which end to mend.
func TestTLSProblems(t *testing.T) {
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	plain := answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	refuses := func(c net.Conn) { // as OpenSSL does if it is spoken to in plain text
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write([]byte{tlsAlert, 3, 3, 0, 2, 2, 70})
	}
	rude := func(c net.Conn) { // reads the greeting and says something else
		_, _ = bufio.NewReader(c).Peek(64)
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	}
	closes := func(c net.Conn) { // having read all, or it would be a reset
		_, _ = c.Read(make([]byte, 64<<10))
	}
	resets := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1)) // it is connected
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	short := secure(config.ProbeHTTP, "/", nil)
	short.Timeout = config.Duration(50 * time.Millisecond)
	for _, c := range []struct {
		name   string
		probe  config.Probe
		handle func(net.Conn)
		want   string
	}{
		{"TLS to a plain server", secure(config.ProbeHTTP, "/", nil), rude, "the server does not speak TLS"},
		{"TLS, and it is refused", secure(config.ProbeHTTP, "/", nil), refuses, "TLS handshake: remote error: tls: protocol version not supported"},
		{"TLS to nobody", short, silent, "no TLS handshake within 50ms (connected, so it hangs, its accept queue is full, or it does not speak TLS)"},
		{"TLS, and it is reset", secure(config.ProbeHTTP, "/", nil), resets, "TLS handshake: the connection was reset"},
		{"TLS, and it is closed", secure(config.ProbeHTTP, "/", nil), closes, "TLS handshake: the connection was closed"},
		{"plain to a TLS server", get("/"), refuses, `GET /: the server speaks TLS; for that there is "tls": true`},
		{"plain to a plain server", get("/"), plain, "<nil>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, Check(t.Context(), c.probe, listen(t, "127.0.0.1:0", c.handle)), c.want)
		})
	}
}
