package bus

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// An answer that is lost makes go-redis ask again; nothing happens twice by that.
func TestLostAnswers(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		p := between(t, s)
		b := s.open(t, Options{URL: p.url})
		f := follow(t, s.open(t, Options{}), "news", Start)
		if err := b.Create(t.Context(), "gen:1", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			p.eat.Store(int64(i % 3)) // of three attempts
			publish(t, b, "news", "", strconv.Itoa(i))
			p.eat.Store(int64(i % 3))
			if err := b.Create(t.Context(), fmt.Sprint("gen:new", i), ""); err != nil {
				t.Fatal(err)
			}
			p.eat.Store(int64(i % 3))
			c, err := b.Claim(t.Context(), "gen:1", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			p.eat.Store(int64(i % 3))
			if err := c.Append(t.Context(), i, "", strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
			p.eat.Store(int64(i % 3))
			if err := c.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.eat.Store(0)
		got, gaps := gather(t, f, 30)
		same(t, "news", got, numbers(0, 29))
		if gaps > 0 {
			t.Error("a gap")
		}
		es, _, err := b.History(t.Context(), "gen:1", Start)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "claimed", texts(es), numbers(0, 29))
	})
}

// Connections that break all the time lose nothing as long as the bus is there.
func TestBrokenConnections(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		p := between(t, s)
		a, b := s.open(t, Options{}), s.open(t, Options{URL: p.url})
		fs := []*Follower{follow(t, b, "news", Start), follow(t, b, "news", Start), follow(t, b, "news", Start)}
		var all sync.WaitGroup
		for _, f := range fs {
			all.Go(func() {
				got, gaps := gather(t, f, 300)
				same(t, "news", got, numbers(0, 299))
				if gaps > 0 {
					t.Error("a gap")
				}
			})
		}
		for i := range 300 {
			if i%30 == 29 {
				until(t, "connected", b.Up)
				p.cut()
			}
			publish(t, a, "news", "", strconv.Itoa(i))
		}
		all.Wait()
	})
}

// The bus is killed and started anew while entries come. Whoever follows ends
// with everything, or knows where something is missing.
func TestBusDiesUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		const entries, followers = 600, 8
		told := make(chan error, 1000)
		writer := s.open(t, Options{Report: func(err error) { told <- err }})
		readers := []*Bus{s.open(t, Options{}), s.open(t, Options{})}
		var all sync.WaitGroup
		for i := range followers {
			f := follow(t, readers[i%2], "news", Start)
			all.Go(func() { followThroughDeaths(t, f, entries-1) })
		}
		for i := range entries {
			if i%200 == 100 {
				s.kill()
				until(t, "down", func() bool { return !writer.Up() })
				if _, _, err := writer.Publish(t.Context(), "news", Entry{}); !errors.Is(err, ErrDown) {
					t.Errorf("published into nothing: %v", err)
				}
				s.start()
			}
			until(t, "published", func() bool {
				_, _, err := writer.Publish(t.Context(), "news", Entry{ID: strconv.Itoa(i), Data: strconv.Itoa(i)})
				return err == nil
			})
		}
		all.Wait()
		writer.Close() // tells nothing any more
		close(told)
		up := (<-told) == nil
		for err := range told {
			if up == (err == nil) {
				t.Errorf("told twice the same: %v", err)
			}
			up = err == nil
		}
	})
}

// followThroughDeaths reads numbers up to last: each is one more than the one
// before, but after a gap.
func followThroughDeaths(t *testing.T, f *Follower, last int) {
	before, told := -1, false
	for before < last {
		es, gap := take(t, f)
		told = told || gap
		for _, e := range es {
			n, err := strconv.Atoi(e.Data)
			if err != nil {
				t.Errorf("got %q", e.Data)
				return
			}
			if n != before+1 && !told {
				t.Errorf("%d after %d and no gap was told", n, before)
			}
			before, told = n, false
		}
	}
}

// A bus that does not answer is as good as none, and when it answers again
// nothing was lost.
func TestFrozenBus(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		b := s.open(t, Options{patience: patience})
		f := at(t, follow(t, b, "news", Now))
		publish(t, b, "news", "", "1")
		take(t, f)
		s.freeze()
		began := time.Now()
		_, _, err := b.Publish(t.Context(), "news", Entry{Data: "2"})
		if !errors.Is(err, ErrDown) {
			t.Errorf("published into nothing: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		until(t, "it is noticed", func() bool { return !b.Up() })
		if _, _, err := f.Next(t.Context()); !errors.Is(err, ErrDown) {
			t.Errorf("next: %v", err)
		}
		s.thaw()
		until(t, "published", func() bool {
			_, _, err := b.Publish(t.Context(), "news", Entry{Data: "3"})
			return err == nil
		})
		for told := false; !told; { // 2 may have arrived or not: its publisher was told that it does not know
			es, gap := take(t, f)
			if gap {
				t.Error("a gap")
			}
			told = slices.Contains(texts(es), "3")
		}
	})
}

// One call that fails is not the end: the follower is woken by the next sign of
// life.
func TestFailedReadIsTriedAgain(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		p := between(t, s)
		b := s.open(t, Options{URL: p.url})
		publish(t, b, "news", "", "1")
		p.eat.Store(3) // all attempts of one call
		f := follow(t, b, "news", Start)
		<-f.Ready()
		if _, _, err := f.Next(t.Context()); !errors.Is(err, ErrDown) {
			t.Fatalf("the read did not fail: %v", err)
		}
		p.eat.Store(0)
		got, _ := gather(t, f, 1)
		same(t, "news", got, numbers(1, 1))
	})
}

// A thousand logs that are read again at once do not keep anybody from publishing.
func TestManyLogsComeBack(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		p := between(t, s)
		b := s.open(t, Options{URL: p.url})
		fs := make([]*Follower, 1000)
		for i := range fs {
			fs[i] = at(t, follow(t, b, fmt.Sprint("user:", i), Now))
		}
		p.cut()
		var all sync.WaitGroup
		for i, f := range fs {
			all.Go(func() {
				es, gap := take(t, f)
				if gap || len(es) != 1 || es[0].Data != strconv.Itoa(i) {
					t.Errorf("follower %d: %v, %v", i, es, gap)
				}
			})
		}
		failed := 0
		for i := range fs {
			until(t, "published", func() bool {
				_, _, err := b.Publish(t.Context(), fmt.Sprint("user:", i), Entry{ID: "id", Data: strconv.Itoa(i)})
				if err != nil {
					failed++
				}
				return err == nil
			})
		}
		all.Wait()
		t.Logf("%d attempts failed", failed)
	})
}

// A bus that moves is found by its new URL.
func TestBusMoves(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		var mu sync.Mutex
		where := s.url
		b := s.open(t, Options{URL: func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return where, nil
		}})
		f := at(t, follow(t, b, "news", Now))
		publish(t, b, "news", "", "1")
		gather(t, f, 1)
		other := serverOf(t, s.kind)
		mu.Lock()
		where = other.url
		mu.Unlock()
		s.kill()
		until(t, "published to the other", func() bool {
			_, _, err := b.Publish(t.Context(), "news", Entry{Data: "2"})
			return err == nil
		})
		es, gap := take(t, f)
		if !gap {
			t.Error("the other bus knows nothing of it, and no gap was told")
		}
		same(t, "news", texts(es), numbers(2, 2))
	})
}

func TestPause(t *testing.T) {
	for failures := range 20 {
		if p := pause(failures); p < soonest || p > latest+time.Millisecond {
			t.Errorf("after %d failures %v", failures, p)
		}
	}
}
