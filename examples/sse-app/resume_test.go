package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Tickets in real processes that die: nothing of an answer is lost, nothing
// comes twice, nothing ends as if it were whole.

// launchOn starts an instance as a process on a bus.
func launchOn(t *testing.T, busURL, instance string, flags ...string) *process {
	t.Helper()
	p := startProcess(t, self(t, os.Args[0], flags...), "REDIS_URL="+busURL, "NODE_APP_INSTANCE="+instance)
	until(t, "the bus is there", func() bool { return status(t, p, "/v1/generations/"+newTicketID(time.Now())) == 404 })
	return p
}

// kill is the end without a word.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// wordsOf waits until so many words of an answer are written.
func wordsOf(t *testing.T, url, ticket string, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d words are written", n), func() bool { return stateAt(t, url, ticket).Tokens >= n })
}

// The writer's process is killed in the middle, at twenty random moments. The
// reader, on another instance, has the whole answer, and is told who went on.
func TestKillTheWriter(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		other := launchOn(t, m.url, "1", "-delay", "20ms")
		moments := len(answer("x")) * 20
		gaps := make(chan time.Duration, 20)
		var all sync.WaitGroup
		for i := range 20 {
			writer := launchOn(t, m.url, "2", "-delay", "20ms")
			g := order(t, writer.url, ask("x"))
			l := listenTo(t, g, at(other.url))
			killed := make(chan time.Time, 1)
			moment := time.After(time.Duration(rand.IntN(moments)) * time.Millisecond)
			all.Go(func() { <-moment; killed <- time.Now(); writer.kill() })
			all.Go(func() { // until the answer ends
				end := l.end()
				l.complete(end, "x")
				moved := l.named("takeover")
				if len(moved) > 1 || len(moved) == 1 && !strings.HasPrefix(moved[0], `{"instance":"1",`) {
					t.Errorf("run %d: takeovers %q", i, moved)
				}
				if l.connections != 1 {
					t.Errorf("run %d: %d connections, the reader's instance was well", i, l.connections)
				}
				if len(moved) == 1 {
					gaps <- l.taken.Sub(<-killed)
				}
			})
		}
		all.Wait()
		close(gaps)
		sorted := slices.Sorted(func(yield func(time.Duration) bool) {
			for gap := range gaps {
				if !yield(gap) {
					return
				}
			}
		})
		if len(sorted) == 0 {
			t.Fatal("no answer was cut: nothing was tried")
		}
		t.Logf("%d of 20 answers were cut; from the kill to the next word: median %s, longest %s",
			len(sorted), sorted[len(sorted)/2].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
	})
}

// The reader's instance is killed; then the reader's and the writer's, which
// are one or two. The reader comes back elsewhere with its Last-Event-ID.
func TestKillTheReadersInstance(t *testing.T) {
	busURL := small(t).url
	last := launchOn(t, busURL, "3", "-delay", "1ms")
	for name, together := range map[string]struct{ writer, same bool }{"the reader's": {}, "both": {writer: true}, "one that is both": {writer: true, same: true}} {
		t.Run(name, func(t *testing.T) {
			writer := launchOn(t, busURL, "1", "-delay", leisure.String())
			near := writer
			if !together.same {
				near = launchOn(t, busURL, "2", "-delay", leisure.String())
			}
			g := order(t, writer.url, ask("x"))
			l := listenTo(t, g, nil)
			l.where = func() string {
				if l.connections == 0 {
					return near.url
				}
				return last.url
			}
			end := make(chan string, 1)
			go func() { end <- l.end() }() // until the answer ends
			until(t, "the reader is there", func() bool { return metric(t, near.url, `sse_app_open_streams{kind="ticket"}`) == "1" })
			wordsOf(t, last.url, g, 3+rand.IntN(10))
			near.kill()
			if together.writer && !together.same {
				writer.kill()
			}
			l.complete(<-end, "x")
			if l.connections != 2 || len(l.named("hello")) != 2 || !strings.Contains(l.named("hello")[1], `"instance":"3"`) {
				t.Errorf("%d connections: %q", l.connections, l.named("hello"))
			}
			if moved := l.named("takeover"); together.writer && len(moved) != 1 || !together.writer && len(moved) != 0 {
				t.Errorf("takeovers %q", moved)
			}
		})
	}
}

// SIGTERM in the middle of a long answer: at the end of the drain another
// instance goes on, at once.
func TestTheWriterLeaves(t *testing.T) {
	busURL := small(t).url
	other := launchOn(t, busURL, "1", "-delay", "1ms")
	writer := launchOn(t, busURL, "2", "-delay", leisure.String(), "-linger", "1ms", "-drain", "100ms")
	g := order(t, writer.url, ask("x"))
	l := listenTo(t, g, at(other.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, other.url, g, 3)
	writer.signal(syscall.SIGTERM)
	l.complete(<-end, "x")
	if moved := l.named("takeover"); len(moved) != 1 || !strings.HasPrefix(moved[0], `{"instance":"1",`) {
		t.Errorf("takeovers %q", moved)
	}
	writer.ended(t)
}

// A writer that stands still for longer than its claim lives, and then goes on
// as if nothing had been, writes nothing twice.
func TestAWriterThatWasFrozen(t *testing.T) {
	busURL := small(t).url
	other := launchOn(t, busURL, "1", "-delay", leisure.String())
	writer := launchOn(t, busURL, "2", "-delay", leisure.String())
	g := order(t, writer.url, ask("x"))
	l := listenTo(t, g, at(other.url))
	end := make(chan string, 1)
	go func() { end <- l.end() }() // until the answer ends
	wordsOf(t, other.url, g, 5)
	writer.signal(syscall.SIGSTOP)
	until(t, "it stands still", func() bool { return writer.state(t) == "T" })
	frozen := stateAt(t, other.url, g).Tokens
	wordsOf(t, other.url, g, frozen+2) // the other one is in the middle of it
	writer.signal(syscall.SIGCONT)
	l.complete(<-end, "x")
	if moved := l.named("takeover"); len(moved) != 1 {
		t.Errorf("takeovers %q", moved)
	}
	own := listenTo(t, g, at(writer.url)) // the one that woke up serves the same
	own.complete(own.end(), "x")
}

// fleet is a few instances, some of which are dead at times.
type fleet struct {
	t      *testing.T
	busURL string
	flags  []string

	mu   sync.Mutex
	runs []*process
}

func launchFleet(t *testing.T, busURL string, n int, flags ...string) *fleet {
	f := &fleet{t: t, busURL: busURL, flags: flags}
	for i := range n {
		f.runs = append(f.runs, launchOn(t, busURL, strconv.Itoa(i), flags...))
	}
	return f
}

// any is one of the instances.
func (f *fleet) any() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[rand.IntN(len(f.runs))].url
}

// strike ends one instance, with a signal, and starts its successor.
func (f *fleet) strike(sig syscall.Signal) {
	f.mu.Lock()
	i := rand.IntN(len(f.runs))
	victim := f.runs[i]
	f.mu.Unlock()
	victim.signal(sig)
	if sig == syscall.SIGKILL {
		victim.cmd.Wait()
	}
	next := launchOn(f.t, f.busURL, strconv.Itoa(i), f.flags...)
	f.mu.Lock()
	f.runs[i] = next
	f.mu.Unlock()
}

// Fifty answers while instances die and come back, by force and by request. The
// ledger has one class.
func TestTicketsInAStorm(t *testing.T) {
	busURL := small(t).url
	f := launchFleet(t, busURL, 3, "-delay", "100ms", "-linger", "1ms", "-spread", "1ms", "-drain", "300ms")
	var mu sync.Mutex
	ledger, resumed, moved := map[string]int{}, 0, 0
	var all sync.WaitGroup
	for i := range 50 {
		prompt := fmt.Sprintf("question %d", i)
		l := listenTo(t, order(t, f.any(), ask(prompt)), f.any)
		all.Go(func() { // until the answer ends
			end := l.end()
			mu.Lock()
			defer mu.Unlock()
			ledger[l.verdict(end, prompt)]++
			resumed += l.connections - 1
			moved += len(l.named("takeover"))
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }() // until all answers have ended
	strikes, calm := 0, time.After(patience/2)
	for running := true; running; strikes++ {
		f.strike([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[strikes%2])
		select {
		case <-over:
			running = false
		case <-calm:
			running = false
		case <-time.After(time.Duration(200+rand.IntN(1000)) * time.Millisecond): // another moment each time
		}
	}
	<-over
	t.Logf("ledger %v after %d strikes: %d reconnects, %d takeovers", ledger, strikes, resumed, moved)
	if ledger["complete"] != 50 || len(ledger) != 1 {
		t.Errorf("ledger %v", ledger)
	}
	if resumed == 0 || moved == 0 {
		t.Errorf("%d reconnects, %d takeovers: nothing was tried", resumed, moved)
	}
}

// verdict is the class of the ledger that an answer belongs to.
func (l *listener) verdict(end, prompt string) string {
	got, want := strings.Join(l.words, ""), strings.Join(answer(prompt), "")
	switch {
	case len(l.faults) > 0:
		return "lost or doubled: " + l.faults[0]
	case end == "done" && got == want:
		return "complete"
	case end == "done" || end == "204":
		return "silent truncation"
	case regexp.MustCompile(`^\d+$`).MatchString(end):
		return "refused: " + end
	}
	return end
}
