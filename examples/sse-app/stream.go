package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gpm/examples/sse-app/internal/bus"
)

// stream is GET /stream, the one connection of a page for everything, since a
// browser allows an origin six of them: a numbered message per interval, the
// news, and what is pushed to the visitor. ?only=ticks,news,inbox chooses; ?n=5
// is five numbered messages and then "[DONE]"; Last-Event-ID (or
// ?last_event_id=) goes on after that event, on whichever instance the client
// arrives.
func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	if ticket := r.URL.Query().Get("ticket"); ticket != "" {
		a.followTicket(w, r, ticket)
		return
	}
	q, status, err := a.readWish(r)
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	if q.over {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	news, inbox, err := a.follow(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer news.close()
	defer inbox.close()
	s, ok := a.begin(w, r)
	if !ok {
		return
	}
	defer s.close()
	if q.limit > 0 {
		a.messages(s, q) // an error means: the client left
		return
	}
	f := &feed{eventStream: s, wish: q, at: q.from, news: news, inbox: inbox}
	f.run()
}

// begin opens an event stream. If it is not ok it has answered by itself, or the
// client is gone.
func (a *app) begin(w http.ResponseWriter, r *http.Request) (s *eventStream, ok bool) {
	if r.Method == http.MethodHead {
		eventHeaders(w.Header(), r)
		return nil, false
	}
	s, err := a.openEvents(w, r)
	if errors.Is(err, errStreaming) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return s, err == nil
}

// wish is what a client asks of /stream.
type wish struct {
	ticks, news, inbox bool
	limit              uint64 // number of the last tick; 0: none is
	user               string // who asks; empty: nobody
	unsure             bool   // the cookie cannot be read until the bus is there
	from               position
	over               bool // it has seen the end already
}

// readWish reads what is asked, and refuses what may not be. A refusal closes an
// EventSource for good, so there is none for what time heals: as long as a
// cookie cannot be read, its owner is nobody and gets what nobody gets.
func (a *app) readWish(r *http.Request) (q wish, status int, err error) {
	query := r.URL.Query()
	if err := q.readParts(query.Get("only"), query.Get("n")); err != nil {
		return q, http.StatusBadRequest, err
	}
	explicit := query.Has("only")
	if a.bus == nil && explicit && (q.news || q.inbox) {
		return q, http.StatusServiceUnavailable, errNoBus
	}
	q.user, err = a.visitor(r)
	q.unsure = err != nil && (q.inbox || query.Has("user"))
	if query.Has("user") || explicit && q.inbox {
		owner := q.user
		if query.Has("user") {
			owner = query.Get("user")
		}
		if status, err := mayRead(q.user, owner); err != nil && !q.unsure {
			return q, status, err
		}
	}
	q.news, q.inbox = q.news && a.bus != nil, q.inbox && a.bus != nil && q.user != ""
	if err := q.readPosition(lastEventID(r)); err != nil {
		return q, http.StatusBadRequest, err
	}
	return q, 0, nil
}

// readParts reads which parts of the stream are wanted.
func (q *wish) readParts(only, n string) (err error) {
	if n != "" {
		if q.limit, err = strconv.ParseUint(n, 10, 32); err != nil || q.limit == 0 {
			return fmt.Errorf("n=%.40q is not a number of messages", n)
		}
		if only == "" {
			only = "ticks"
		}
	}
	if only == "" {
		only = "ticks,news,inbox"
	}
	for part := range strings.SplitSeq(only, ",") {
		switch part {
		case "ticks":
			q.ticks = true
		case "news":
			q.news = true
		case "inbox":
			q.inbox = true
		default:
			return fmt.Errorf("only=%.40q: there are ticks, news and inbox", part)
		}
	}
	if q.limit > 0 && (!q.ticks || q.news || q.inbox) {
		return errors.New("n is for ticks only: news and inbox have no end")
	}
	return nil
}

// readPosition reads where the client stands.
func (q *wish) readPosition(seen string) (err error) {
	switch seen {
	case "":
	case finished:
		q.over = true
	default:
		q.from, err = parsePosition(seen)
	}
	if q.from.owner != q.user && !q.unsure { // another one has logged in since
		q.from.inbox, q.from.owner = "", ""
	}
	if q.inbox {
		q.from.owner = q.user
	}
	if q.limit > 0 && q.from.tick > q.limit {
		q.over = true
	}
	return err
}

// follow opens what the client wants of the bus; what it does not want is nil.
func (a *app) follow(q wish) (news, inbox *source, err error) {
	if q.news {
		if news, err = a.openSource(newsLog, "news", "message", q.from.news); err != nil {
			return nil, nil, err
		}
	}
	if q.inbox {
		from := q.from.inbox
		if from == "" {
			from = bus.Unseen // what came while nobody was there
		}
		if inbox, err = a.openSource(inboxLog(q.user), "inbox", "push", from); err != nil {
			news.close()
			return nil, nil, err
		}
	}
	return news, inbox, nil
}

// messages writes the numbered messages up to the limit. A stream with an end
// may reach it, even if the process leaves meanwhile.
func (a *app) messages(s *eventStream, q wish) error {
	if err := s.send(a.hello(q.user)); err != nil {
		return err
	}
	for at := q.from; at.tick < q.limit; {
		on, err := s.wait(a.interval, a.cutoff.Done())
		if err != nil {
			return err
		}
		if !on {
			return s.send(a.goodbye())
		}
		at.tick++
		if err := s.send(tick(at)); err != nil {
			return err
		}
	}
	return s.send(event{id: finished, data: "[DONE]"})
}

func tick(at position) event {
	return event{id: at.String(), data: "ChatGPT says: Hello, this is message " + strconv.FormatUint(at.tick, 10)}
}
