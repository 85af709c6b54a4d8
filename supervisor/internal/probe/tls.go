package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"gpm/config"
)

// tlsAlert begins what a TLS server says to somebody who does not speak TLS
// (RFC 8446, 5.1).
const tlsAlert = 21

// shakeHands makes conn a TLS connection. The certificate is not checked: it is
// for the name that the world knows the server by, and the probe asks a process
// on this machine at an address that it has chosen itself. Who closes conn closes
// the result, too.
func shakeHands(ctx context.Context, p config.Probe, conn net.Conn) (net.Conn, error) {
	secure := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         serverName(p.Headers), // a server may have several certificates, and none without a name
		NextProtos:         []string{"http/1.1"},
	})
	err := secure.HandshakeContext(ctx)
	var plain tls.RecordHeaderError
	switch {
	case err == nil:
		return secure, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no TLS handshake within %v (connected, so it hangs, its accept queue is full, or it does not speak TLS)", p.Timeout)
	case errors.Is(err, syscall.ECONNRESET):
		return nil, errors.New("TLS handshake: the connection was reset")
	case errors.Is(err, io.EOF):
		return nil, errors.New("TLS handshake: the connection was closed")
	case errors.As(err, &plain):
		return nil, errors.New("the server does not speak TLS")
	}
	return nil, fmt.Errorf("TLS handshake: %s", brief(err.Error()))
}

// serverName is the name in a Host header, without the port; an address is none.
func serverName(headers map[string]string) string {
	for name, value := range headers {
		if !strings.EqualFold(name, "host") {
			continue
		}
		if host, _, err := net.SplitHostPort(value); err == nil {
			value = host
		}
		if _, err := netip.ParseAddr(strings.Trim(value, "[]")); err != nil {
			return value
		}
	}
	return "localhost"
}
