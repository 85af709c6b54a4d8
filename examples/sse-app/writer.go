package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

const (
	maxPens  = 256
	tryAgain = 50 * time.Millisecond
)

// What an entry of an answer's log is. The kinds of the last one are what
// GET /v1/generations/{id} says about the answer.
const (
	kindWord     = "word"
	kindFinished = "finished"
	kindStopped  = "stopped"
	kindFailed   = "failed"
)

// pens are what the answers of this process are written with: there are so many.
type pens struct {
	taken chan struct{}
	mark  string        // of the process: its successor, of the same number, has another
	ttl   time.Duration // after it, others go on with what a dead process wrote
	away  time.Duration // how long a model may wait for a bus that is away
}

func newPens() pens {
	return pens{make(chan struct{}, maxPens), rand.Text()[:8], 2 * time.Second, time.Minute}
}

// take is false if all are taken.
func (p pens) take() bool {
	select {
	case p.taken <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p pens) put() { <-p.taken }

// collect waits until all are back, and keeps them: nobody writes any more.
func (p pens) collect(end <-chan struct{}) {
	for range cap(p.taken) {
		select {
		case p.taken <- struct{}{}:
		case <-end:
			return
		}
	}
}

// token is the data of an entry: a word, or why the answer ended, and who wrote
// it.
type token struct {
	By    string          `json:"by"`
	Text  string          `json:"text,omitempty"`
	Error json.RawMessage `json:"error,omitempty"` // what a client is told
}

func (a *app) token(t token) string {
	t.By = a.pens.mark + ":" + a.instance
	return string(mustJSON(t))
}

// stopped is the last entry of an answer that somebody stopped; of the reasons
// that clients of this format know, it is the nearest.
var stopped = token{Text: "stop"}

func readToken(e bus.Entry) (t token) {
	json.Unmarshal([]byte(e.Data), &t) // only this app writes them; of others nothing is taken
	return t
}

func (t token) instance() string {
	_, instance, _ := strings.Cut(t.By, ":")
	return instance
}

// writer writes one answer for as long as it has the claim. It belongs to one
// goroutine.
type writer struct {
	app    *app
	claim  *bus.Claim
	ticket string
	about  string   // of the log
	next   int      // index of the entry that is due
	said   []string // all entries, if it has written all; for a bus that forgets
	size   int      // bytes of them
}

// claimLife is how long an answer stays with a writer of whom nothing is heard.
// Where nobody else could go on it is longer: to take it away would be its end.
func (a *app) claimLife() time.Duration {
	if a.upstream != "" {
		return 5 * a.pens.ttl
	}
	return a.pens.ttl
}

// write is the goroutine that writes an answer from where the log ends, with a
// pen that was taken. It does not care whether anybody reads. It ends with the
// answer, with the claim, or at the cutoff, when it leaves the rest to a sibling.
func (a *app) write(claim *bus.Claim, ticket string, q *question) {
	defer a.pens.put()
	var model sync.WaitGroup
	defer model.Wait()
	ctx, quit := context.WithCancel(a.cutoff)
	defer quit()
	words, end := make(chan string), make(chan ending, 1)
	first := claim.Next()
	model.Go(func() { end <- a.think(ctx, q, first, words) }) // until the answer or ctx ends
	w := &writer{app: a, claim: claim, ticket: ticket, about: string(mustJSON(q)), next: first}
	w.copy(ctx, words, end)
}

// ending is how a model came to its end.
type ending struct {
	reason string
	err    error
}

// think runs the model. Each word waits until the one before is on the bus.
func (a *app) think(ctx context.Context, q *question, from int, words chan<- string) ending {
	if q.Keyed && q.key == "" {
		return ending{err: errNoResume} // nobody else may ask for this client
	}
	reason, err := a.speak(ctx, q.request(), from, func(word string) error {
		select {
		case words <- word:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return ending{reason, err}
}

// copy brings words to the bus until something ends it.
func (w *writer) copy(ctx context.Context, words <-chan string, end <-chan ending) {
	keep := time.NewTicker(w.app.pens.ttl / 5) // signs of life while the model is silent
	defer keep.Stop()
	for {
		var err error
		select {
		case word := <-words:
			err = w.add(ctx, word)
		case <-keep.C:
			err = w.insist(ctx, func(ctx context.Context) error { return w.claim.Keep(ctx) })
		case e := <-end:
			err = w.finish(ctx, e)
			if err == nil {
				return
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			w.giveUp(ctx, err)
			return
		}
	}
}

func (w *writer) add(ctx context.Context, word string) error {
	entry := w.app.token(token{Text: word})
	err := w.insist(ctx, func(ctx context.Context) error { return w.claim.Append(ctx, w.next, kindWord, entry) })
	if err == nil {
		w.remember(entry)
		w.next++
	}
	return err
}

// remember keeps an entry for a bus that forgets, within limits.
func (w *writer) remember(entry string) {
	if w.size += len(entry); w.size > maxAnswer || len(w.said) != w.next {
		w.said = nil
		return
	}
	w.said = append(w.said, entry)
}

// revive writes the answer anew on a bus that has lost its memory. It is false
// if the log is there: then another writes it, or it has ended.
func (w *writer) revive(ctx context.Context) bool {
	b, log := w.app.bus, logOf(w.ticket)
	if len(w.said) != w.next {
		return false
	}
	if _, there, err := b.About(ctx, log); there || err != nil || b.Create(ctx, log, w.about) != nil {
		return false
	}
	claim, err := b.Claim(ctx, log, w.app.claimLife())
	for n := 0; err == nil && n < len(w.said); n++ {
		err = claim.Append(ctx, n, kindWord, w.said[n])
	}
	if err == nil {
		w.claim = claim
	}
	return err == nil
}

// finish writes the last entry: an answer never ends in silence.
func (w *writer) finish(ctx context.Context, e ending) error {
	if ctx.Err() != nil {
		return ctx.Err() // the model was interrupted, it did not fail
	}
	if e.err != nil {
		return w.fail(ctx, e.err)
	}
	return w.last(ctx, kindFinished, w.app.token(token{Text: e.reason}))
}

func (w *writer) fail(ctx context.Context, err error) error {
	w.app.err.Printf("answer %s failed after %d words: %v", w.ticket, w.next, err)
	return w.last(ctx, kindFailed, w.app.token(token{Error: mustJSON(failure(err))}))
}

func (w *writer) last(ctx context.Context, kind, entry string) error {
	return w.insist(ctx, func(ctx context.Context) error { return w.claim.AppendLast(ctx, w.next, kind, entry) })
}

// failure is what a client is told of an error.
func failure(err error) *apiError {
	if errors.Is(err, errNoResume) {
		return serverError("Whoever wrote this answer is gone or cut off, and its model cannot go on in the middle. Ask again.", "generation_interrupted")
	}
	if e, ok := errors.AsType[*chatError](err); ok {
		return e.fault
	}
	return serverError("The answer could not be finished. Ask again.", "generation_failed")
}

// insist repeats a write while the bus is away; if that was for too long, the
// claim has passed to another, and the bus will say so. Nothing can be written
// twice: an entry has its number. Nothing is collected meanwhile: the model waits.
func (w *writer) insist(ctx context.Context, write func(context.Context) error) error {
	patience := time.After(w.app.pens.away)
	for {
		err := write(ctx)
		if errors.Is(err, bus.ErrLost) && w.revive(ctx) {
			continue
		}
		if !errors.Is(err, bus.ErrDown) {
			return err
		}
		select {
		case <-time.After(tryAgain):
		case <-patience:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveUp ends the writing before the answer has ended: because it was stopped,
// because another is to go on, or because nobody could.
func (w *writer) giveUp(ctx context.Context, err error) {
	switch {
	case errors.Is(err, bus.ErrStop):
		err = w.last(ctx, kindStopped, w.app.token(stopped))
	case ctx.Err() != nil:
		// With the claim given back, a sibling who has a reader goes on at once.
		bye, cancel := context.WithTimeout(context.Background(), lastWords/2)
		defer cancel()
		err = w.claim.Release(bye)
	case !errors.Is(err, bus.ErrDown) && !errors.Is(err, bus.ErrLost):
		err = w.fail(ctx, err) // the bus does not take it: the answer is too long
	}
	if err != nil && !errors.Is(err, bus.ErrLost) {
		w.app.err.Printf("stop writing answer %s at word %d: %v", w.ticket, w.next, err)
	}
}
