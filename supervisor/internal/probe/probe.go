// Package probe does one check of one process: a GET, a connection, a command,
// or an event of a stream. It keeps nothing between two checks, neither a
// connection nor a goroutine. When and how often to check, and what follows
// from it, is decided elsewhere.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"gpm/config"
	"gpm/supervisor/internal/aim"
)

// ErrUnsupported is returned by exec probes where gpm does not run yet.
var ErrUnsupported = errors.New("exec probes are not supported on this system")

// Target is the process that is checked.
type Target struct {
	// Addr is where http, tcp and sse connect to; a probe's Port is not looked
	// at. All addresses (0.0.0.0, [::]) stand for the loopback address of the
	// same family, or of the aim's.
	Addr netip.AddrPort
	// Aim chooses the process among those that listen on Addr, where gpm steers.
	// The zero value: any.
	Aim aim.Aim

	// For exec: the whole environment, the working directory, the user.
	Env  []string
	Dir  string
	Cred *Credential // nil: gpm's own user
}

// Credential is a user for exec. Only root may set one.
type Credential struct {
	UID, GID uint32
	Groups   []uint32
}

// Check is nil if the process passes the probe p. The error is a sentence for a
// person: "GET /readyz answered 503, expected 200 to 399", "connection refused",
// "no event within 5s". All of the check has to be done within p.Timeout, which
// must be positive. If ctx ends before that, the error is the cause of its end,
// and says nothing of the process.
func Check(ctx context.Context, p config.Probe, t Target) error {
	switch p.Kind {
	case config.ProbeHTTP, config.ProbeTCP, config.ProbeSSE:
		return overNetwork(ctx, p, t.dial)
	case config.ProbeExec:
		limited, cancel := context.WithTimeout(ctx, p.Timeout.D())
		defer cancel()
		return unlessEnded(ctx, run(limited, p, t))
	}
	return fmt.Errorf("there is no probe of kind %q", p.Kind)
}

// dialer makes the connection of a check.
type dialer func(context.Context) (net.Conn, error)

// overNetwork does a check on a connection of its own, which is closed at the
// end in any case, read to its end or not: that ends everything that belongs to
// the check, also a body that never ends.
func overNetwork(ctx context.Context, p config.Probe, dial dialer) error {
	limited, cancel := context.WithTimeout(ctx, p.Timeout.D())
	defer cancel()
	conn, err := dial(limited)
	if err != nil {
		return unlessEnded(ctx, connectError(err, p))
	}
	defer conn.Close()
	// What blocks in conn returns when the time is over, or ctx ends.
	defer context.AfterFunc(limited, func() { conn.Close() })()
	if p.TLS {
		secure, err := shakeHands(limited, p, conn)
		if err != nil {
			return unlessEnded(ctx, err)
		}
		conn = secure
	}
	x := exchange{p: p, conn: conn, ctx: limited}
	switch p.Kind {
	case config.ProbeHTTP:
		err = x.http()
	case config.ProbeSSE:
		err = x.sse()
	}
	return unlessEnded(ctx, err)
}

// unlessEnded is err, unless the caller gave up meanwhile.
func unlessEnded(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	d := t.Aim.Dialer()
	return d.DialContext(ctx, "tcp", t.reachable().String())
}

// reachable is Addr as an address that one can connect to.
func (t Target) reachable() netip.AddrPort {
	addr := t.Addr.Addr().Unmap()
	if addr.IsUnspecified() {
		v4 := addr.Is4()
		if t.Aim.Source.IsValid() {
			v4 = t.Aim.Source.Unmap().Is4() // [::] takes IPv4, too
		}
		addr = netip.IPv6Loopback()
		if v4 {
			addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	return netip.AddrPortFrom(addr, t.Addr.Port())
}

// connectError says why there is no connection.
func connectError(err error, p config.Probe) error {
	if isTimeout(err) {
		return fmt.Errorf("no connection within %v (its accept queue is full, or packets are dropped)", p.Timeout)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return syscall.ECONNREFUSED // its text is the sentence
	}
	return fmt.Errorf("connect: %w", err)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// brief is text of a process as part of a sentence: one line, printable, short.
func brief(s string) string {
	const limit = 256
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
