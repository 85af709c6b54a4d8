package bus

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func create(t testing.TB, b *Bus, log string) {
	t.Helper()
	if err := b.Create(t.Context(), log, "about "+log); err != nil {
		t.Fatal(err)
	}
}

func claim(t testing.TB, b *Bus, log string, ttl time.Duration) *Claim {
	t.Helper()
	c, err := b.Claim(t.Context(), log, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClaimedLog(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{Max: 3}), s.open(t, Options{})
		ctx := t.Context()
		create(t, a, "gen:1")
		if err := b.Create(ctx, "gen:1", "again"); err == nil || errors.Is(err, ErrDown) {
			t.Error("created twice:", err)
		}
		about, ok, err := b.About(ctx, "gen:1")
		if about != "about gen:1" || !ok || err != nil {
			t.Error(about, ok, err)
		}
		f := follow(t, b, "gen:1", Start)
		c := claim(t, a, "gen:1", time.Minute)
		if c.Next() != 0 {
			t.Errorf("next is %d", c.Next())
		}
		for i := range 10 { // more than Max: it is not trimmed
			if err := c.Append(ctx, i, "word", strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
			if err := c.Append(ctx, i, "word", "again"); err != nil {
				t.Error("again:", err)
			}
		}
		if err := c.Append(ctx, 11, "word", "x"); err == nil || errors.Is(err, ErrLost) {
			t.Error("out of order:", err)
		}
		if err := c.AppendLast(ctx, 5, "end", "x"); err == nil || errors.Is(err, ErrLost) {
			t.Error("the last one in the middle:", err)
		}
		if err := c.AppendLast(ctx, 10, "end", "10"); err != nil {
			t.Fatal(err)
		}
		if err := c.AppendLast(ctx, 10, "end", "10"); err != nil {
			t.Error("the last one again:", err)
		}
		if err := c.Append(ctx, 11, "word", "x"); !errors.Is(err, ErrLost) {
			t.Error("after the last:", err)
		}
		c.Release(ctx)
		if _, err := b.Claim(ctx, "gen:1", time.Minute); !errors.Is(err, ErrLost) {
			t.Error("claimed a closed one:", err)
		}
		es, gap, err := b.History(ctx, "gen:1", After(-1))
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "history", texts(es), numbers(0, 10))
		for i, e := range es {
			if e.Index != i || e.Cursor != After(i) || e.ID != "" || e.At.IsZero() {
				t.Errorf("entry %d is %+v", i, e)
			}
		}
		if es[9].Kind != "word" || es[10].Kind != "end" {
			t.Error(es[9:])
		}
		got, _ := gather(t, f, 11)
		same(t, "followed", got, numbers(0, 10))
		es, gap = take(t, follow(t, b, "gen:1", After(7)))
		if gap {
			t.Error("a gap")
		}
		same(t, "from the middle", texts(es), numbers(8, 10))
	})
}

func TestNoSuchLog(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Keep: 100 * time.Millisecond})
		ctx := t.Context()
		publish(t, b, "news", "", "") // is one, but not of this kind
		for _, name := range []string{"gen:none", "news", "a{b", strings.Repeat("x", 1000)} {
			if _, ok, err := b.About(ctx, name); ok || err != nil {
				t.Errorf("about %.10q: %v, %v", name, ok, err)
			}
			if ok, err := b.Stop(ctx, name); ok || err != nil {
				t.Errorf("stop %.10q: %v, %v", name, ok, err)
			}
			if _, err := b.Claim(ctx, name, time.Second); err == nil || errors.Is(err, ErrDown) {
				t.Errorf("claim %.10q: %v", name, err)
			}
		}
		create(t, b, "gen:1")
		until(t, "it has expired", func() bool {
			_, ok, err := b.About(ctx, "gen:1")
			return !ok && err == nil
		})
		if _, err := b.Claim(ctx, "gen:1", time.Second); !errors.Is(err, ErrLost) {
			t.Error("claimed an expired one:", err)
		}
		if _, err := b.Claim(ctx, "gen:1", 0); err == nil {
			t.Error("claimed for no time")
		}
	})
}

// A log that is written slowly stays as long as somebody writes.
func TestClaimKeepsTheLog(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Keep: 3 * time.Second})
		create(t, b, "gen:1")
		c := claim(t, b, "gen:1", time.Minute)
		if err := c.Append(t.Context(), 0, "", "0"); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
			if err := c.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Append(t.Context(), 1, "", "1"); err != nil {
			t.Fatal(err)
		}
		es, gap, err := b.History(t.Context(), "gen:1", Start)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "all", texts(es), numbers(0, 1))
	})
}

// A holder that is silent for longer than ttl loses the claim to whoever wants
// it, and however late it writes then, it writes nothing.
func TestTakeover(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		ctx := t.Context()
		create(t, a, "gen:1")
		paused := claim(t, a, "gen:1", 300*time.Millisecond)
		began := time.Now()
		if err := paused.Append(ctx, 0, "", "0"); err != nil {
			t.Fatal(err)
		}
		second, err := b.Claim(ctx, "gen:1", time.Minute)
		if !errors.Is(err, ErrClaimed) && time.Since(began) < 300*time.Millisecond {
			t.Error("claimed twice:", err)
		}
		until(t, "taken over", func() bool {
			if err != nil {
				second, err = b.Claim(ctx, "gen:1", time.Minute)
			}
			return err == nil
		})
		if second.Next() != 1 {
			t.Errorf("it goes on with %d", second.Next())
		}
		for name, err := range map[string]error{
			"append":      paused.Append(ctx, 1, "", "wrong"),
			"append old":  paused.Append(ctx, 0, "", "wrong"),
			"append last": paused.AppendLast(ctx, 1, "", "wrong"),
			"keep":        paused.Keep(ctx),
		} {
			if !errors.Is(err, ErrLost) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := paused.Release(ctx); err != nil { // is no longer its to give
			t.Error(err)
		}
		if _, err := a.Claim(ctx, "gen:1", time.Minute); !errors.Is(err, ErrClaimed) {
			t.Error("claimed twice:", err)
		}
		if err := second.AppendLast(ctx, 1, "", "1"); err != nil {
			t.Error(err)
		}
		if err := paused.Append(ctx, 1, "", "wrong"); !errors.Is(err, ErrLost) {
			t.Error("at the end:", err)
		}
		es, _, _ := b.History(ctx, "gen:1", Start)
		same(t, "all", texts(es), numbers(0, 1))
	})
}

// A holder that was slow but is not replaced yet may go on.
func TestLateButNotReplaced(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		create(t, b, "gen:1")
		c := claim(t, b, "gen:1", time.Millisecond)
		wait := time.NewTimer(50 * time.Millisecond)
		<-wait.C
		if err := c.Append(t.Context(), 0, "", "0"); err != nil {
			t.Error(err)
		}
	})
}

func TestRelease(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		create(t, a, "gen:1")
		first := claim(t, a, "gen:1", time.Hour)
		f, err := b.Follow("gen:1", Start)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		<-f.Ready()
		f.Next(t.Context())
		for woken := true; woken; {
			select {
			case <-f.Ready():
				f.Next(t.Context())
			default:
				woken = false
			}
		}
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-f.Ready():
		case <-time.After(long):
			t.Error("those who wait for the claim were not woken")
		}
		if err := first.Append(t.Context(), 0, "", "x"); !errors.Is(err, ErrLost) {
			t.Error("wrote after it gave up:", err)
		}
		second := claim(t, b, "gen:1", time.Hour)
		first.Release(t.Context())
		if err := second.Append(t.Context(), 0, "", "0"); err != nil {
			t.Error(err)
		}
	})
}

func TestStop(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		ctx := t.Context()
		create(t, a, "gen:1")
		c := claim(t, a, "gen:1", time.Minute)
		if err := c.Append(ctx, 0, "", "0"); err != nil {
			t.Fatal(err)
		}
		if ok, err := b.Stop(ctx, "gen:1"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := c.Append(ctx, 1, "", "x"); !errors.Is(err, ErrStop) {
			t.Error(err)
		}
		if err := c.Keep(ctx); !errors.Is(err, ErrStop) {
			t.Error(err)
		}
		if err := c.Append(ctx, 0, "", "x"); err != nil {
			t.Error("one that is there:", err)
		}
		c.Release(ctx)
		c = claim(t, b, "gen:1", time.Minute) // somebody must end it, whoever it is
		if err := c.Append(ctx, 1, "", "x"); !errors.Is(err, ErrStop) {
			t.Error(err)
		}
		if err := c.AppendLast(ctx, 1, "stopped", "1"); err != nil {
			t.Error(err)
		}
		if ok, err := b.Stop(ctx, "gen:1"); !ok || err != nil {
			t.Error("stopping what has ended:", ok, err)
		}
		es, _, _ := b.History(ctx, "gen:1", Start)
		same(t, "all", texts(es), numbers(0, 1))
	})
}

func TestFullLog(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		create(t, b, "gen:1")
		s.raw(t).HSet(t.Context(), "sse:{gen:1}:meta", "n", limit-1)
		c := claim(t, b, "gen:1", time.Minute)
		if err := c.Append(t.Context(), limit-1, "", ""); err != nil {
			t.Error("the last that fits:", err)
		}
		if err := c.Append(t.Context(), limit, "", ""); err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrDown) {
			t.Error("one too many:", err)
		}
		if err := c.AppendLast(t.Context(), limit, "", ""); err != nil {
			t.Error("the end fits always:", err)
		}
	})
}

// Eight writers fight for one log, with claims that end all the time: whatever
// happens, every entry is there once and in order.
func TestEightWriters(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		const entries = 500
		a, b := s.open(t, Options{}), s.open(t, Options{})
		create(t, a, "gen:1")
		f := follow(t, b, "gen:1", Start)
		var all sync.WaitGroup
		wrote := make([]int, 8)
		for i := range wrote {
			all.Go(func() {
				me := []*Bus{a, b}[i%2]
				for end := time.Now().Add(long); time.Now().Before(end); {
					c, err := me.Claim(t.Context(), "gen:1", time.Millisecond)
					if errors.Is(err, ErrLost) {
						return // complete
					}
					if err != nil {
						continue
					}
					n, err := c.Next(), error(nil)
					for ; n < entries && err == nil; n++ {
						if err = c.Append(t.Context(), n, "", strconv.Itoa(n)); err == nil {
							wrote[i]++
						}
					}
					if err == nil {
						c.AppendLast(t.Context(), n, "", strconv.Itoa(n))
					}
				}
			})
		}
		got, gaps := gather(t, f, entries+1)
		all.Wait()
		same(t, "followed", got, numbers(0, entries))
		es, gap, err := a.History(t.Context(), "gen:1", Start)
		if err != nil || gap || gaps > 0 {
			t.Fatal(gap, gaps, err)
		}
		same(t, "all", texts(es), numbers(0, entries))
		t.Log("each wrote", fmt.Sprint(wrote))
	})
}
