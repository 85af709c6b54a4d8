package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPublishAndFollow(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		early, now := follow(t, b, "news", Start), at(t, follow(t, b, "news", Now))
		before := time.Now().Add(-time.Minute)
		for i, text := range numbers(0, 99) {
			e, fresh, err := a.Publish(t.Context(), "news", Entry{Kind: "kind", Data: text})
			if err != nil || !fresh || e.ID == "" || e.Cursor == "" || e.Index != -1 {
				t.Fatal(i, e, fresh, err)
			}
		}
		for name, f := range map[string]*Follower{"start": early, "now": now} {
			got, gaps := gather(t, f, 100)
			same(t, name, got, numbers(0, 99))
			if gaps > 0 {
				t.Error(name, "was told a gap")
			}
		}
		es, gap, err := b.History(t.Context(), "news", Start)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "history", texts(es), numbers(0, 99))
		last := es[99]
		if last.Cursor != early.Cursor() || last.Cursor != now.Cursor() {
			t.Errorf("the last is at %q, the followers at %q and %q", last.Cursor, early.Cursor(), now.Cursor())
		}
		if last.Kind != "kind" || last.ID == "" || last.Index != -1 || last.At.Before(before) || last.At.After(time.Now().Add(time.Minute)) {
			t.Errorf("came back as %+v", last)
		}
		es, gap, err = b.History(t.Context(), "news", es[96].Cursor)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "history after", texts(es), numbers(97, 99))
	})
}

func TestWhatGoesInComesOut(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		f := follow(t, b, "user:ü@x", Start)
		for _, data := range []string{"", " ", "a\r\nb\x00c", "<b>&\u2028</b>", "你好 😀", strings.Repeat("x", longest)} {
			publish(t, b, "user:ü@x", "", data)
			es, gap := take(t, f)
			if gap || len(es) != 1 || es[0].Data != data {
				t.Errorf("%.20q came out as %.100v", data, es)
			}
		}
		for name, e := range map[string]Entry{
			"binary":   {Data: "\xff"},
			"too long": {Data: strings.Repeat("x", longest+1)},
			"kind":     {Kind: strings.Repeat("x", longName+1)},
			"id":       {ID: strings.Repeat("x", longName+1)},
		} {
			if _, _, err := b.Publish(t.Context(), "news", e); err == nil || errors.Is(err, ErrDown) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"", "a{b", strings.Repeat("x", longName+1)} {
			if _, _, err := b.Publish(t.Context(), name, Entry{}); err == nil || errors.Is(err, ErrDown) {
				t.Errorf("log %.10q: %v", name, err)
			}
			if _, err := b.Follow(name, Now); err == nil {
				t.Errorf("log %.10q can be followed", name)
			}
		}
	})
}

func TestSameIDIsPublishedOnce(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		var fresh, all sync.Map
		var racing sync.WaitGroup
		for i := range 20 {
			racing.Go(func() {
				e, first, err := []*Bus{a, b}[i%2].Publish(t.Context(), "news", Entry{ID: "same", Data: fmt.Sprint(i)})
				if err != nil {
					t.Error(err)
				}
				if first {
					fresh.Store(i, true)
				}
				all.Store(e.Cursor, true)
			})
		}
		racing.Wait()
		if n := count(&fresh); n != 1 {
			t.Errorf("%d of 20 were fresh", n)
		}
		if n := count(&all); n != 1 {
			t.Errorf("%d cursors for one entry", n)
		}
		publish(t, a, "other", "same", "another log")
		es, _, err := a.History(t.Context(), "news", Start)
		if err != nil || len(es) != 1 {
			t.Error(es, err)
		}
	})
}

func count(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// IDs are remembered for Keep and forgotten some time after it, by age and by
// number.
func TestIDsAreForgotten(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		raw := s.raw(t)
		b := s.open(t, Options{Max: 2})
		publish(t, b, "news", "first", "")
		for i := range 30 { // 10*Max and some more: the older ones are put aside, not away
			publish(t, b, "news", fmt.Sprint("id", i), "")
		}
		if _, fresh, err := b.Publish(t.Context(), "news", Entry{ID: "id12"}); fresh || err != nil {
			t.Error("forgotten too early", err)
		}
		for i := range 30 {
			publish(t, b, "news", fmt.Sprint("more", i), "")
		}
		for _, key := range []string{"sse:{news}:ids", "sse:{news}:ids2"} {
			if n := raw.HLen(t.Context(), key).Val(); n > 22 {
				t.Errorf("%s has %d", key, n)
			}
		}
		publish(t, b, "news", "first", "") // is fresh: it is forgotten

		short := s.open(t, Options{Keep: 200 * time.Millisecond})
		publish(t, short, "inbox", "id", "")
		born := time.Now()
		if _, fresh, _ := short.Publish(t.Context(), "inbox", Entry{ID: "id"}); fresh && time.Since(born) < 200*time.Millisecond {
			t.Error("forgotten within Keep")
		}
		until(t, "the id is forgotten", func() bool {
			_, fresh, err := short.Publish(t.Context(), "inbox", Entry{ID: "id"})
			return fresh && err == nil
		})
	})
}

func TestOfflineStore(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		for _, text := range numbers(1, 5) {
			publish(t, b, "user:u", "", text)
		}
		first, second := follow(t, b, "user:u", Unseen), follow(t, b, "user:u", Unseen)
		for _, f := range []*Follower{first, second} {
			got, gaps := gather(t, f, 5)
			same(t, "offline", got, numbers(1, 5))
			if gaps > 0 {
				t.Error("a gap")
			}
		}
		if err := first.Seen(t.Context()); err != nil {
			t.Fatal(err)
		}
		publish(t, b, "user:u", "", "6")
		gather(t, first, 1)
		first.Seen(t.Context())
		if err := second.Seen(t.Context()); err != nil { // stands before 6: the mark does not go back
			t.Fatal(err)
		}
		publish(t, b, "user:u", "", "7")
		es, gap, err := b.History(t.Context(), "user:u", Unseen)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "unseen", texts(es), numbers(7, 7))

		nobody, gap, err := b.History(t.Context(), "user:new", Unseen)
		if len(nobody) > 0 || gap || err != nil {
			t.Error("a new inbox:", nobody, gap, err)
		}
		publish(t, b, "user:new", "", "1")
		es, gap, err = b.History(t.Context(), "user:new", Unseen)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "unseen of a new one", texts(es), numbers(1, 1))
	})
}

func TestUnseenThatWasTrimmedIsAGap(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Max: 3})
		for _, text := range numbers(1, 5) {
			publish(t, b, "user:u", "", text)
		}
		es, gap, err := b.History(t.Context(), "user:u", Unseen)
		if err != nil || !gap {
			t.Error("no gap", err)
		}
		same(t, "unseen", texts(es), numbers(3, 5))
		es, gap, err = b.History(t.Context(), "user:u", Start)
		if err != nil || gap {
			t.Error("a gap before the start", err)
		}
		same(t, "start", texts(es), numbers(3, 5))
	})
}

func TestHistoryIsReadInParts(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Max: 600})
		for _, text := range numbers(1, 610) {
			publish(t, b, "news", "", text)
		}
		es, gap, err := b.History(t.Context(), "news", Start)
		if err != nil || gap {
			t.Fatal(gap, err)
		}
		same(t, "all", texts(es), numbers(11, 610))
		got, _ := gather(t, follow(t, b, "news", Start), 600)
		same(t, "followed", got, numbers(11, 610))

		big := strings.Repeat("x", 400<<10)
		for range 5 {
			publish(t, b, "big", "", big)
		}
		p, err := b.read(t.Context(), "big", "start", chunk)
		if err != nil || len(p.entries) != 3 { // the third is the first too much
			t.Errorf("%d of 400 kB in one part, %v", len(p.entries), err)
		}
		if es, _, _ := b.History(t.Context(), "big", Start); len(es) != 5 {
			t.Errorf("%d in all", len(es))
		}
	})
}

func TestAgree(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		first, err := a.Agree(t.Context(), "secret", "one")
		if first != "one" || err != nil {
			t.Error(first, err)
		}
		second, err := b.Agree(t.Context(), "secret", "two")
		if second != "one" || err != nil {
			t.Error(second, err)
		}
		if ttl := s.raw(t).PTTL(t.Context(), "sse:agree:secret").Val(); ttl < time.Hour {
			t.Errorf("is kept for %v", ttl)
		}
	})
}

// Everything that is kept has an end.
func TestEveryKeyExpires(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b, raw := s.open(t, Options{Max: 1}), s.raw(t)
		for i := range 20 {
			publish(t, b, "news", fmt.Sprint(i), "")
		}
		b.History(t.Context(), "user:a", Unseen)
		b.Agree(t.Context(), "name", "value")
		f := follow(t, b, "user:b", Unseen)
		until(t, "the follower stands somewhere", func() bool {
			f.Next(t.Context())
			return f.Cursor() != ""
		})
		f.Seen(t.Context())
		b.Stop(t.Context(), "gen:none")
		b.Create(t.Context(), "gen:1", "it")
		c, err := b.Claim(t.Context(), "gen:1", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Append(t.Context(), 0, "", "x"); err != nil {
			t.Fatal(err)
		}
		keys := raw.Keys(t.Context(), "*").Val()
		if len(keys) < 8 {
			t.Errorf("only %q", keys)
		}
		for _, key := range keys {
			if ttl := raw.PTTL(t.Context(), key).Val(); ttl <= 0 {
				t.Errorf("%s: %v", key, ttl)
			}
		}
	})
}

func TestOpen(t *testing.T) {
	for name, o := range map[string]Options{
		"no URL":        {},
		"negative Keep": {URL: func() (string, error) { return "", nil }, Keep: -1},
		"negative Max":  {URL: func() (string, error) { return "", nil }, Max: -1},
	} {
		if b, err := Open(o); err == nil {
			t.Error(name, "is fine")
			b.Close()
		}
	}
}

// What fails for want of a bus fails at once and says so.
func TestDown(t *testing.T) {
	told := make(chan error, 100)
	b, err := Open(Options{
		URL:    func() (string, error) { return "", errors.New("no file yet") },
		Report: func(err error) { told <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := <-told; err == nil || err.Error() != "no file yet" {
		t.Errorf("told %v", err)
	}
	f, err := b.Follow("news", Now)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx := t.Context()
	calls := map[string]func() error{
		"publish": func() error { _, _, err := b.Publish(ctx, "news", Entry{}); return err },
		"history": func() error { _, _, err := b.History(ctx, "news", Start); return err },
		"next":    func() error { _, _, err := f.Next(ctx); return err },
		"agree":   func() error { _, err := b.Agree(ctx, "a", "b"); return err },
		"create":  func() error { return b.Create(ctx, "gen:1", "") },
		"about":   func() error { _, _, err := b.About(ctx, "gen:1"); return err },
		"stop":    func() error { _, err := b.Stop(ctx, "gen:1"); return err },
		"claim":   func() error { _, err := b.Claim(ctx, "gen:1", time.Second); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrDown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.Cursor() != "" || f.Seen(ctx) != nil || b.Up() {
		t.Error("it pretends to be there")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := b.Publish(gone, "news", Entry{}); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller that left: %v", err)
	}
	if len(told) > 0 {
		t.Errorf("told again: %v", <-told)
	}
}
