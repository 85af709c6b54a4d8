package bus

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"
)

// limit is how many entries a log may have that is written with claims. It is
// not trimmed, as whoever comes late wants the whole.
const limit = 8192

// Create makes a log that is written with claims, and says what it is about; it
// is kept for Keep after the last entry. Its name must be new.
func (b *Bus) Create(ctx context.Context, log, about string) error {
	if err := check(log, Entry{Data: about}); err != nil {
		return err
	}
	said, err := b.call(ctx, createScript, []string{key(log, "log"), key(log, "meta")}, about, rand.Text(), ms(b.o.Keep))
	if err == nil && said != int64(1) {
		err = fmt.Errorf("create %q: there is one already", log)
	}
	return err
}

// About is what Create said. ok is false if there is no such log (any more).
func (b *Bus) About(ctx context.Context, log string) (about string, ok bool, err error) {
	if err := check(log, Entry{}); err != nil {
		return "", false, nil // nobody can have made it
	}
	said, err := b.call(ctx, aboutScript, []string{key(log, "meta")})
	if err != nil {
		return "", false, err
	}
	about, ok = said.(string)
	return about, ok, nil
}

// Stop asks whoever writes the log to end it; ok is false if there is no such log.
func (b *Bus) Stop(ctx context.Context, log string) (ok bool, err error) {
	if err := check(log, Entry{}); err != nil {
		return false, nil // nobody can have made it
	}
	said, err := b.call(ctx, stopScript, []string{key(log, "meta")})
	return said == int64(1), err
}

// Claim takes the right to write a log, for ttl at a time. ErrClaimed: somebody
// has it. A holder that dies loses it after ttl.
func (b *Bus) Claim(ctx context.Context, log string, ttl time.Duration) (*Claim, error) {
	if err := check(log, Entry{}); err != nil {
		return nil, err
	}
	if ttl < time.Millisecond {
		return nil, fmt.Errorf("claim %q for %v: a claim needs a millisecond or more", log, ttl)
	}
	c := &Claim{b: b, log: log, by: rand.Text(), ttl: ttl}
	said, err := text(b.call(ctx, claimScript, []string{key(log, "meta")}, c.by, ms(ttl), ms(b.o.Keep)))
	if err != nil {
		return nil, err
	}
	switch said {
	case "lost":
		return nil, fmt.Errorf("claim %q: it is closed or not there: %w", log, ErrLost)
	case "claimed":
		return nil, fmt.Errorf("claim %q: %w", log, ErrClaimed)
	}
	c.next, err = strconv.Atoi(said)
	return c, err
}

// Claim is the right to write a log. It belongs to one goroutine. Every write is
// fenced: after the claim has passed to another holder it fails with ErrLost,
// however late it arrives.
type Claim struct {
	b    *Bus
	log  string
	by   string // who holds it: another text for every claim
	ttl  time.Duration
	next int
}

// Next is the number of the first entry that is not written yet: read it once,
// after Claim.
func (c *Claim) Next() int { return c.next }

// Append writes entry n and keeps the claim for another ttl. Writing an entry
// that is there already succeeds and changes nothing. ErrStop: it was not
// written, as Stop was called; only AppendLast is accepted then.
func (c *Claim) Append(ctx context.Context, n int, kind, data string) error {
	return c.write(ctx, n, kind, data, 0)
}

// AppendLast writes entry n as the last one, even after Stop; nothing can be
// written and nobody can claim after it (Claim: ErrLost).
func (c *Claim) AppendLast(ctx context.Context, n int, kind, data string) error {
	return c.write(ctx, n, kind, data, 1)
}

// Keep keeps the claim for another ttl, for writers that are silent. ErrStop as Append.
func (c *Claim) Keep(ctx context.Context) error { return c.run(ctx, 0, "", 0) }

// Release gives the claim back, so that another can go on at once: followers of
// the log are woken, with no entries.
func (c *Claim) Release(ctx context.Context) error {
	_, err := c.b.call(ctx, releaseScript, []string{key(c.log, "meta")}, c.by, c.log)
	return err
}

func (c *Claim) write(ctx context.Context, n int, kind, data string, last int) error {
	e := Entry{Kind: kind, Data: data}
	if err := check(c.log, e); err != nil {
		return err
	}
	return c.run(ctx, n, pack(e), last)
}

// run runs appendScript, which counts entries from 1.
func (c *Claim) run(ctx context.Context, n int, body string, last int) error {
	said, err := text(c.b.call(ctx, appendScript, []string{key(c.log, "log"), key(c.log, "meta")},
		c.log, c.by, n+1, body, last, ms(c.ttl), ms(c.b.o.Keep), limit))
	if err != nil {
		return err
	}
	switch said {
	case "ok":
		return nil
	case "lost":
		return fmt.Errorf("write %q: %w", c.log, ErrLost)
	case "stop":
		return fmt.Errorf("write %q: %w", c.log, ErrStop)
	case "full":
		return fmt.Errorf("write entry %d of %q: %d is the most", n, c.log, limit)
	}
	return fmt.Errorf("write entry %d of %q: out of order", n, c.log)
}
