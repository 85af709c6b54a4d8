package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// followTicket is GET /stream?ticket=...: the answer from where the client
// stands to its end, whoever writes it.
func (a *app) followTicket(w http.ResponseWriter, r *http.Request, ticket string) {
	last, err := lastIndex(r, ticket)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	to := &reader{app: a, ticket: ticket, last: last}
	if to.q, err = a.ticket(r, ticket); err == nil {
		to.from, to.next, err = a.place(r.Context(), ticket, last)
	}
	switch {
	case r.Context().Err() != nil: // the client is gone already
	case errors.Is(err, busDown):
		a.untilBus(w, r)
	case errors.Is(err, errNothingUnread):
		w.WriteHeader(http.StatusNoContent)
	case err != nil:
		asRefusal(err).asText(w)
	default:
		a.read(w, r, to)
	}
}

var (
	errNothingUnread = errors.New("the client has everything")
	neverSent        = &refusal{http.StatusBadRequest, "", "Last-Event-ID is after the end of this answer."}
)

// place finds where to read for a client that has entry last: from that entry
// on, as it tells who wrote it.
func (a *app) place(ctx context.Context, ticket string, last int) (from string, next int, err error) {
	if last < 0 {
		return bus.Start, 0, nil
	}
	from = bus.After(last - 1)
	entries, _, err := a.bus.History(ctx, logOf(ticket), from)
	switch {
	case err != nil:
		return "", 0, busDown
	case len(entries) > 0 && entries[0].Index == last && entries[0].Kind != kindWord:
		return "", 0, errNothingUnread
	case len(entries) > 0 && entries[0].Index == last:
		return from, last, nil
	}
	switch end, err := a.newest(ctx, ticket); {
	case err != nil:
		return "", 0, busDown
	case end.Kind != kindWord || a.upstream != "":
		return "", 0, neverSent
	}
	// The bus has less than the client: it has lost the last moments. They are
	// written again, and passed over.
	return bus.Start, 0, nil
}

// untilBus holds a client for which nothing can be known while the bus is away.
// A 503 would close its EventSource for good. When the bus is back, the client
// is asked to come again, to hear what is true then.
func (a *app) untilBus(w http.ResponseWriter, r *http.Request) {
	s, ok := a.begin(w, r)
	if !ok {
		return
	}
	defer s.close()
	turn, undo := a.turn()
	defer undo()
	for !a.bus.Up() {
		if on, err := s.wait(tryAgain, turn.Done()); err != nil {
			return // the client is gone
		} else if !on {
			break
		}
	}
	s.send(a.goodbye())
}

// reader sends one answer to one client. It belongs to the handler's goroutine.
type reader struct {
	*eventStream
	app    *app
	log    *bus.Follower
	ticket string
	q      *question
	chunks *generation
	last   int           // index of the last entry that the client has
	from   string        // cursor where the reading begins
	next   int           // index of the entry that the log gives next
	by     string        // who wrote the one before
	quiet  *time.Timer   // when nothing has come for so long that the writer may be gone
	pause  time.Duration // after a look at the writer that found one
	lapse  time.Time     // since when the bus does not know the answer; zero: it does
	astray bool          // log stands where a forgotten one would have gone on
}

func (a *app) read(w http.ResponseWriter, r *http.Request, to *reader) {
	log, err := a.bus.Follow(logOf(to.ticket), to.from)
	if err != nil {
		asRefusal(err).asText(w)
		return
	}
	to.log = log
	defer func() { to.log.Close() }() // whichever it is then
	var ok bool
	if to.eventStream, ok = a.begin(w, r); !ok {
		return
	}
	defer to.close()
	to.chunks = to.q.answer()
	if err := to.send(to.greeting()...); err != nil {
		return // the client is gone
	}
	// The first look is soon: a client that comes back may have seen the writer die.
	to.pause = a.pens.ttl / 16
	to.quiet = time.NewTimer(to.pause)
	defer to.quiet.Stop()
	to.follow() // an error means: the client left
}

// silence is how long nothing comes before a reader looks after the writer. It
// differs, so that not all readers of an answer do so at the same moment.
func (p pens) silence() time.Duration { return between(p.ttl, p.ttl*9/8) }

// follow sends what comes, and looks after the answer when nothing does: if its
// writer is gone, this process goes on with it.
func (to *reader) follow() error {
	limit, undo := to.app.ageLimit()
	defer undo()
	for {
		select {
		case <-to.ctx.Done():
			return to.ctx.Err()
		case <-limit:
			return to.send(to.app.goodbye())
		case <-to.beat.C:
			if err := to.comment(); err != nil {
				return err
			}
		case <-to.log.Ready():
			if more, err := to.copy(); err != nil || !more {
				return err
			}
		case <-to.quiet.C:
			if to.forgotten(to.app.goOn(to.ctx, to.ticket, to.q)) {
				return to.lost()
			}
			if err := to.again(); err != nil {
				return err
			}
			to.pause = min(to.pause*5/4, to.app.pens.ttl/2)
			to.quiet.Reset(between(to.pause/2, to.pause))
		}
	}
}

// copy sends what is new in the log. more is false after the end.
func (to *reader) copy() (more bool, err error) {
	entries, gap, err := to.log.Next(to.ctx)
	if err != nil {
		return true, to.ctx.Err() // the bus is away; the client waits
	}
	freed := to.log.Freed() // after Next: what comes in between wakes us again
	events, more, hole := to.news(entries)
	if len(events) > 0 {
		err = to.send(events...)
	}
	switch {
	case err != nil || !more:
		return false, err
	case hole:
		return false, to.lost()
	case len(entries) > 0 && !gap && !freed:
		to.pause = to.app.pens.ttl / 16
		to.quiet.Reset(to.app.pens.silence())
	default:
		// Woken for nothing: perhaps the writer has left. Or the bus has lost its
		// memory, if only of the last moments: these can be written again.
		to.astray = to.astray || gap && len(entries) == 0
		to.quiet.Reset(0)
	}
	return true, nil
}

// comesBack is how long after others a writer may find a bus that was away, and
// bring it what it has forgotten: it tries every 2 s.
const comesBack = 3 * time.Second

// forgotten tells whether the bus does not know the answer for so long that its
// writer, if it lived, would have written it anew.
func (to *reader) forgotten(now bool) bool {
	switch {
	case !now:
		to.lapse = time.Time{}
	case to.lapse.IsZero():
		to.lapse = time.Now()
	}
	return now && time.Since(to.lapse) > to.app.pens.ttl+comesBack
}

// again follows the log from its start if it has been forgotten and written anew.
func (to *reader) again() error {
	if !to.astray || !to.lapse.IsZero() {
		return nil
	}
	log, err := to.app.bus.Follow(logOf(to.ticket), bus.Start)
	if err == nil {
		to.log.Close()
		to.log, to.astray = log, false
	}
	return err
}

// news is what the client does not have yet; more is false if it ends with the
// end, hole is true if something is missing.
func (to *reader) news(entries []bus.Entry) (events []event, more, hole bool) {
	for _, e := range entries {
		if e.Index < to.next {
			continue // written again
		}
		if e.Index > to.next {
			return events, true, true
		}
		to.next++
		events = append(events, to.translate(e)...)
		if e.Kind != kindWord {
			return events, false, false
		}
	}
	return events, true, false
}

// greeting tells where the client is, and opens the answer if it is at its start.
func (to *reader) greeting() []event {
	hello := map[string]any{"instance": to.app.instance, "pid": os.Getpid()}
	if to.last >= 0 {
		hello["resumed"] = to.last + 1
	}
	events := []event{{name: "hello", retry: between(time.Second, 3*time.Second), data: string(mustJSON(hello))}}
	if to.last < 0 {
		empty := ""
		events = append(events, to.chunks.chunk(choice{Delta: &delta{Role: "assistant", Content: &empty}}))
	}
	return events
}

// translate makes events of an entry: none of one that the client has.
func (to *reader) translate(e bus.Entry) (events []event) {
	t := readToken(e)
	before := to.by
	to.by = t.By
	if e.Index <= to.last {
		return nil
	}
	id := to.ticket + "." + strconv.Itoa(e.Index)
	switch e.Kind {
	case kindWord:
		if before != "" && before != t.By {
			events = append(events, event{name: "takeover", data: fmt.Sprintf(`{"instance":%q,"token":%d}`, t.instance(), e.Index)})
		}
		word := to.chunks.chunk(choice{Delta: &delta{Content: &t.Text}})
		word.id = id
		return append(events, word)
	case kindFailed:
		return []event{{id: id, data: string(t.Error)}}
	}
	events = []event{to.chunks.chunk(choice{Delta: &delta{}, FinishReason: &t.Text})}
	if to.q.Usage {
		events = append(events, to.usage(e.Index))
	}
	// Only the very last event has the id of the end: a client that missed it
	// gets the end again.
	return append(events, event{id: id, data: endMark})
}

// answer is what all chunks of this answer have in common.
func (q *question) answer() *generation {
	return &generation{base: completion{ID: q.ID, Created: q.Created, Model: q.Model}, question: q.request()}
}

func (to *reader) usage(words int) event {
	c := to.chunks.base
	c.Object, c.Choices, c.Usage = "chat.completion.chunk", []choice{}, to.chunks.usage(words)
	return event{data: string(mustJSON(c))}
}

// lost says that the rest of the answer is nowhere: neither silence nor an end
// that looks like one.
func (to *reader) lost() error {
	fault := serverError("The rest of this answer was lost. Ask again.", "generation_lost")
	return to.send(event{name: "gap", data: `{"log":"ticket"}`}, event{data: string(mustJSON(fault))})
}

// goOn makes this process the writer of an answer that nobody writes. lost: the
// bus has forgotten it.
func (a *app) goOn(ctx context.Context, ticket string, q *question) (lost bool) {
	if a.cutoff.over() || !a.pens.take() {
		return false
	}
	claim, err := a.bus.Claim(ctx, logOf(ticket), a.claimLife())
	if err == nil {
		go a.write(claim, ticket, q) // until the answer, the claim or this process ends
		return false
	}
	a.pens.put()
	if !errors.Is(err, bus.ErrLost) {
		return false // as a rule: somebody writes
	}
	_, ok, err := a.bus.About(ctx, logOf(ticket)) // if it is there, it has just been finished
	return err == nil && !ok
}

// ageLimit is done when a stream that has an end must end before it: at the
// cutoff, or at its max age. The caller calls undo when it is over.
func (a *app) ageLimit() (limit <-chan struct{}, undo context.CancelFunc) {
	if a.maxAge == 0 {
		return a.cutoff.Done(), func() {}
	}
	ctx, undo := context.WithTimeout(a.cutoff, between(a.maxAge/5*4, a.maxAge))
	return ctx.Done(), undo
}
