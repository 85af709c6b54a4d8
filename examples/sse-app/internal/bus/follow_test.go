package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Whoever joins while entries come gets every one exactly once, in order.
func TestLateSubscribers(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		const entries, followers = 400, 60
		b := []*Bus{s.open(t, Options{}), s.open(t, Options{}), s.open(t, Options{})}
		var all sync.WaitGroup
		step := make(chan int) // makes the followers join all along
		all.Go(func() {
			for i := range entries {
				publish(t, b[0], "news", "", strconv.Itoa(i))
				if i%(entries/followers) == 0 && i/(entries/followers) < followers {
					step <- i
				}
			}
		})
		for i := range followers {
			all.Go(func() {
				<-step
				f, err := b[i%len(b)].Follow("news", Start)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				var got []string
				for len(got) < entries {
					select {
					case <-f.Ready():
					case <-time.After(long):
						t.Errorf("follower %d got %d of %d", i, len(got), entries)
						return
					}
					es, gap, err := f.Next(t.Context())
					if gap || err != nil {
						t.Errorf("follower %d: %v, %v", i, gap, err)
						return
					}
					got = append(got, texts(es)...)
				}
				same(t, fmt.Sprint("follower ", i), got, numbers(0, entries-1))
			})
		}
		all.Wait()
	})
}

// Followers come and go on one log while entries come: a subscription that is
// given up and taken again at once misses nothing.
func TestComingAndGoing(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				a.Publish(ctx, "news", Entry{Data: strconv.Itoa(i)})
			}
		})
		from, want := Start, 0
		for range 200 {
			f, err := b.Follow("news", from)
			if err != nil {
				t.Fatal(err)
			}
			es, gap := take(t, f)
			if gap {
				t.Fatal("a gap")
			}
			for _, e := range es {
				if e.Data != strconv.Itoa(want) {
					t.Fatalf("got %s, want %d", e.Data, want)
				}
				want++
			}
			from = f.Cursor()
			f.Close()
		}
		stop()
		all.Wait()
	})
}

// The very last follower of a moment: it must hear what is published when it has
// just been told where it stands.
func TestNowMissesNothing(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		a, b := s.open(t, Options{}), s.open(t, Options{})
		for i := range 100 {
			f := at(t, follow(t, b, "news", Now))
			publish(t, a, "news", "", strconv.Itoa(i))
			es, gap := take(t, f)
			if gap || len(es) != 1 || es[0].Data != strconv.Itoa(i) {
				t.Fatal(i, es, gap)
			}
			f.Close()
		}
	})
}

// One who never looks costs the others nothing and finds it all when it does.
func TestSlowFollower(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Max: 2000})
		slow, quick := follow(t, b, "news", Start), follow(t, b, "news", Start)
		for i := range 1000 {
			publish(t, b, "news", "", strconv.Itoa(i))
			if i%50 == 0 {
				take(t, quick)
			}
		}
		slow.t.mu.Lock()
		if n := len(slow.t.run); n > held {
			t.Errorf("%d entries are held", n)
		}
		slow.t.mu.Unlock()
		got, gaps := gather(t, slow, 1000)
		same(t, "slow", got, numbers(0, 999))
		if gaps > 0 {
			t.Error("a gap")
		}
	})
}

func TestTrimmedIsAGap(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{Max: 100})
		f := at(t, follow(t, b, "news", Now))
		publish(t, b, "news", "", "0")
		take(t, f)
		back := f.Cursor()
		for _, text := range numbers(1, 300) {
			publish(t, b, "news", "", text)
		}
		es, gap := take(t, f)
		if !gap {
			t.Error("the slow one was not told")
		}
		same(t, "slow", texts(es), numbers(201, 300))
		es, gap, err := b.History(t.Context(), "news", back)
		if err != nil || !gap {
			t.Error("history did not tell", err)
		}
		same(t, "history", texts(es), numbers(201, 300))
		es, gap, err = b.History(t.Context(), "news", es[0].Cursor)
		if err != nil || gap || len(es) != 99 {
			t.Error("told twice:", len(es), gap, err)
		}
	})
}

func TestExpiredIsAGap(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b, raw := s.open(t, Options{Keep: 50 * time.Millisecond}), s.raw(t)
		first := publish(t, b, "news", "", "1")
		last := publish(t, b, "news", "", "2")
		gone := func() bool { return raw.Exists(t.Context(), "sse:{news}:log").Val() == 0 }
		until(t, "the log has expired", gone)
		es, gap, err := b.History(t.Context(), "news", first.Cursor)
		if len(es) > 0 || !gap || err != nil {
			t.Error("after the first:", es, gap, err)
		}
		es, gap, err = b.History(t.Context(), "news", last.Cursor)
		if len(es) > 0 || gap || err != nil {
			t.Error("after the last:", es, gap, err)
		}
		f := follow(t, b, "news", first.Cursor)
		es, gap = take(t, f)
		if len(es) > 0 || !gap || f.Cursor() != last.Cursor {
			t.Error("follower:", es, gap, f.Cursor())
		}
		publish(t, b, "news", "", "3")
		es, gap = take(t, f)
		if gap || len(es) != 1 || es[0].Data != "3" {
			t.Error("follower, later:", es, gap)
		}
		until(t, "the log has expired again", gone)
		es, gap, err = b.History(t.Context(), "news", last.Cursor)
		if len(es) > 0 || !gap || err != nil {
			t.Error("after the one before the last:", es, gap, err)
		}
	})
}

// A bus without memory has nothing to offer, and says that this is not all.
func TestForgottenIsAGap(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		old := publish(t, b, "news", "", "1")
		f := follow(t, b, "news", Start)
		gather(t, f, 1)
		s.raw(t).FlushAll(t.Context())
		es, gap, err := b.History(t.Context(), "news", old.Cursor)
		if len(es) > 0 || !gap || err != nil {
			t.Error("at first:", es, gap, err)
		}
		for _, text := range numbers(2, 4) {
			publish(t, b, "news", "", text)
		}
		es, gap, err = b.History(t.Context(), "news", old.Cursor)
		if !gap || err != nil {
			t.Error("then:", gap, err)
		}
		same(t, "history", texts(es), numbers(2, 4))
		es, gap = take(t, f)
		if !gap {
			t.Error("the follower was not told")
		}
		same(t, "follower", texts(es), numbers(2, 4))

		future := cursor(1<<53 - 1) // or the clock of the new bus is behind
		es, gap, err = b.History(t.Context(), "news", future)
		if !gap || err != nil {
			t.Error("from the future:", gap, err)
		}
		same(t, "from the future", texts(es), numbers(2, 4))
		es, gap = take(t, follow(t, b, "news", future))
		if !gap {
			t.Error("a follower from the future was not told")
		}
		same(t, "follower from the future", texts(es), numbers(2, 4))
	})
}

// A log that nobody has written yet has a place to stand, too.
func TestEmptyLogIsNoGap(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		f := at(t, follow(t, b, "user:new", Now))
		f.Close()
		publish(t, b, "user:new", "", "1")
		es, gap, err := b.History(t.Context(), "user:new", f.Cursor())
		if gap || err != nil {
			t.Error(gap, err)
		}
		same(t, "history", texts(es), numbers(1, 1))
	})
}

// The channel has the name of the log, one subscription per process, and none
// when nobody follows any more.
func TestSubscriptions(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		raw := s.raw(t)
		subscribers := func(name string) int64 { return raw.PubSubNumSub(t.Context(), name).Val()[name] }
		a, b := s.open(t, Options{}), s.open(t, Options{})
		first, second, other := at(t, follow(t, a, "user:u", Now)), at(t, follow(t, a, "user:u", Now)), at(t, follow(t, b, "user:u", Now))
		if n := subscribers("user:u"); n != 2 {
			t.Errorf("%d subscribers of two processes", n)
		}
		first.Close()
		first.Close()
		other.Close()
		until(t, "one subscriber", func() bool { return subscribers("user:u") == 1 })
		second.Close()
		until(t, "no subscriber", func() bool { return subscribers("user:u") == 0 })
		follow(t, a, "user:u", Now)
		until(t, "one subscriber again", func() bool { return subscribers("user:u") == 1 })
		a.Close()
		until(t, "no subscriber after Close", func() bool { return subscribers("user:u") == 0 })
	})
}

func TestStrangersOnTheChannel(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		f := at(t, follow(t, b, "news", Now))
		for _, rubbish := range []string{"", "hello", "1 2 3", "99999999999999999999 1 {}", `-1 1 {"data":"x"}`, "1 1 []"} {
			s.raw(t).Publish(t.Context(), "news", rubbish)
		}
		publish(t, b, "news", "", "1")
		es, gap := take(t, f)
		if gap {
			t.Error("a gap")
		}
		same(t, "news", texts(es), numbers(1, 1))
	})
}

// Ten followers or ten thousand: if they come back together the log is read once
// or so, not by each.
func TestManyReadOnce(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		p := between(t, s)
		a, b := s.open(t, Options{}), s.open(t, Options{URL: p.url})
		start := publish(t, a, "news", "", "0").Cursor
		for _, text := range numbers(1, 50) {
			publish(t, a, "news", "", text)
		}
		var fs []*Follower
		for i := range 500 {
			fs = append(fs, follow(t, b, "news", []string{start, Now}[i%2]))
		}
		for i, f := range fs {
			if i%2 == 1 {
				at(t, f)
				continue
			}
			got, _ := gather(t, f, 50)
			same(t, "at first", got, numbers(1, 50))
		}
		before := p.calls.Load()
		p.cut()
		publish(t, a, "news", "", "51")
		for _, f := range fs {
			got, _ := gather(t, f, 1)
			same(t, "again", got, numbers(51, 51))
		}
		if n := p.calls.Load() - before; before > 50 || n > 50 {
			t.Errorf("%d reads at first, %d to come back", before, n)
		}
	})
}

func TestCloseWakesFollowers(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{})
		f := at(t, follow(t, b, "news", Now))
		b.Close()
		<-f.Ready()
		if _, _, err := f.Next(t.Context()); !errors.Is(err, ErrDown) {
			t.Error(err)
		}
		if _, _, err := b.Publish(t.Context(), "news", Entry{}); !errors.Is(err, ErrDown) {
			t.Error(err)
		}
		f.Close()
	})
}

func TestJudge(t *testing.T) {
	found := func(ns ...uint64) (es []Entry) {
		for _, n := range ns {
			es = append(es, Entry{Cursor: cursor(n)})
		}
		return es
	}
	for _, c := range []struct {
		what       string
		found      []Entry
		from, last uint64
		strict     bool
		entries    int
		pos        uint64
		gap        bool
	}{
		{"nothing new", nil, 7, 7, true, 0, 7, false},
		{"all", found(8, 9), 7, 9, true, 2, 9, false},
		{"part", found(8, 9), 7, 12, true, 2, 9, false},
		{"first ones trimmed", found(10, 11), 7, 11, true, 2, 11, true},
		{"all expired", nil, 7, 11, true, 0, 11, true},
		{"from the start", found(10, 11), 0, 11, false, 2, 11, false},
		{"nothing from the start", nil, 0, 11, false, 0, 11, false},
		{"a hole in the middle", found(8, 9, 12), 7, 12, true, 2, 9, false},
		{"and behind it", found(12), 9, 12, true, 1, 12, true},
	} {
		p := judge(c.found, c.from, c.last, c.strict)
		if len(p.entries) != c.entries || p.pos != c.pos || p.gap != c.gap || p.last != c.last {
			t.Errorf("%s: %+v", c.what, p)
		}
	}
}
