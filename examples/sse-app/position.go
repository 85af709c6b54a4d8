package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gpm/examples/sse-app/internal/bus"
)

// position is where a client of /stream stands. The id of every event is the
// whole of it, so that a client can go on after any event, on any instance:
//
//	7                   message 7, and nothing else to follow
//	7~n1~alice:i5       message 7, after n1 in the news and i5 in alice's inbox
type position struct {
	tick  uint64 // the last numbered message; 0: none yet
	news  string // cursor of the news; empty: from now on
	inbox string // cursor of the inbox; empty: from the first that was not seen
	owner string // whose inbox: the cursor means nothing in another one
}

// finished is the id of the last event of a stream that ended. A client that
// reconnects with it gets 204, which tells an EventSource to stop.
const finished = "done"

// maxPosition is the longest id that is read: a cursor has no more than some
// dozens of letters, a name 64.
const maxPosition = 256

func (p position) String() string {
	tick, inbox := "", ""
	if p.tick > 0 {
		tick = strconv.FormatUint(p.tick, 10)
	}
	if p.inbox != "" {
		inbox = p.owner + ":" + p.inbox
	}
	if p.news+inbox == "" {
		return tick
	}
	return tick + "~" + p.news + "~" + inbox
}

// parsePosition reads an id. One that this app never sent is refused: taking it
// for "from the start" would send everything twice. Whether the cursors are
// some is for the bus to say.
func parsePosition(id string) (p position, err error) {
	parts := strings.Split(id, "~")
	fault := fmt.Errorf("Last-Event-ID %.80q is none of this stream", id)
	if len(id) > maxPosition || len(parts) != 1 && len(parts) != 3 {
		return p, fault
	}
	if parts[0] != "" || len(parts) == 1 {
		if p.tick, err = strconv.ParseUint(parts[0], 10, 53); err != nil {
			return p, fault
		}
	}
	if len(parts) == 1 {
		return p, nil
	}
	p.news = parts[1]
	if parts[2] != "" {
		p.owner, p.inbox, _ = strings.Cut(parts[2], ":")
		if !validUser(p.owner) || p.inbox == "" {
			return p, fault
		}
	}
	for _, cursor := range []string{p.news, p.inbox} {
		if cursor == bus.Start || cursor == bus.Unseen {
			return p, fault // places to begin at, and no cursors
		}
	}
	return p, nil
}

// lastEventID is what the client saw last. An EventSource keeps the header up to
// date; the query is for a page that makes a new one.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("last_event_id")
}
