package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

const (
	echoed      = "--返回数据" // what every message of the chat ends with when it comes back
	longestSaid = 16 << 10
	speakRate   = 20 // messages a second that one client may send
	speakBurst  = 40 // as many at once, if it was silent before
)

// addSocket serves the WebSocket chat.
func (a *app) addSocket(mux *http.ServeMux) {
	hall := newRoom(a.bus)
	if a.bus != nil {
		go hall.listen(a.cutoff, a.err.Printf) // until the cutoff
	}
	mux.HandleFunc("GET /ws", a.whenWarm(func(w http.ResponseWriter, r *http.Request) { a.socket(w, r, hall) }))
}

// socket is one client of the chat, from its handshake to its end.
func (a *app) socket(w http.ResponseWriter, r *http.Request, hall *room) {
	defer a.guests.stay()() // from now on the server does not know of this connection
	seat := hall.sit()      // before the client knows that it is in, so that it misses nothing
	defer seat.leave()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: literally(a.origins)})
	if err != nil {
		a.err.Printf("chat: %s: %v", r.RemoteAddr, err) // the client has its answer
		return
	}
	defer conn.CloseNow()          // if it was not closed in a better way
	conn.SetReadLimit(longestSaid) // more: 1009
	a.sockets.Add(1)
	defer a.sockets.Add(-1)
	open := a.metrics.open.WithLabelValues(kindSocket)
	open.Inc()
	defer open.Dec()
	a.out.Printf("chat: %s is here", r.RemoteAddr)

	// The request's own context means nothing once the connection is taken over.
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	defer context.AfterFunc(a.cutoff, func() { time.AfterFunc(lastWords/2, cut) })()
	m := &member{app: a, conn: conn, seat: seat, cut: cut}
	var writing sync.WaitGroup
	writing.Go(func() { // until the client is told to go, does not read, or has left
		defer cut()
		m.write(ctx)
	})
	err = m.read(ctx)
	cut()
	writing.Wait()
	m.over(r.RemoteAddr, err)
}

// literally makes patterns that match nothing but the origins themselves: an IPv6
// address has brackets.
func literally(origins []string) (patterns []string) {
	quote := strings.NewReplacer(`\`, `\\`, "[", `\[`, "*", `\*`, "?", `\?`)
	for _, origin := range origins {
		patterns = append(patterns, quote.Replace(origin))
	}
	return patterns
}

// member is one client of the chat: one goroutine reads from it, one writes to it.
type member struct {
	app  *app
	conn *websocket.Conn
	seat *seat
	cut  func() // ends the connection at once
	may  allowance
	told atomic.Pointer[websocket.CloseError] // why we have ended it, if we have
}

// read brings what the client says into the room, until the end of the connection.
func (m *member) read(ctx context.Context) error {
	for {
		kind, text, err := m.conn.Read(ctx)
		switch {
		case err != nil:
			return err
		case kind != websocket.MessageText:
			return m.end(websocket.StatusUnsupportedData, "text only; send binary data as base64")
		case !utf8.Valid(text):
			return m.end(websocket.StatusInvalidFramePayloadData, "not UTF-8")
		case !m.may.take(time.Now()):
			return m.end(websocket.StatusPolicyViolation, "too many messages in a second")
		}
		if err := m.seat.room.say(ctx, string(text)+echoed); err != nil {
			return m.end(websocket.StatusTryAgainLater, "the message was not sent: "+err.Error())
		}
	}
}

// write brings the client what is said in the room, and asks now and then
// whether it is still there: a connection whose other end was unplugged says
// nothing by itself.
func (m *member) write(ctx context.Context) {
	turn, undo := m.app.turn()
	defer undo()
	ping := time.NewTimer(between(m.app.ping, m.app.ping/4*5))
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-turn.Done():
			m.goodbye()
			return
		case <-ping.C:
			go m.ask(ctx) // ends with the pong, its time or the connection
			ping.Reset(between(m.app.ping, m.app.ping/4*5))
		case <-m.seat.ready:
			text, ok, err := m.seat.message()
			if err != nil {
				m.app.metrics.slow.WithLabelValues(kindSocket).Inc()
				m.end(websocket.StatusTryAgainLater, err.Error())
				return
			}
			if ok && m.send(ctx, text) != nil {
				return
			}
		}
	}
}

// send gives up on a client that does not read: it can be told nothing more.
func (m *member) send(ctx context.Context, text string) error {
	limited, cancel := context.WithTimeout(ctx, m.app.writeTimeout)
	defer cancel()
	err := m.conn.Write(limited, websocket.MessageText, []byte(text))
	switch {
	case err == nil:
		m.app.metrics.sent.WithLabelValues(kindSocket).Inc()
	case errors.Is(err, context.DeadlineExceeded):
		m.app.metrics.slow.WithLabelValues(kindSocket).Inc()
		m.app.err.Printf("chat: dropped a client that did not read for %s", m.app.writeTimeout)
	}
	return err
}

func (m *member) ask(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, 2*m.app.writeTimeout) // it may stand behind a slow message
	defer cancel()
	if m.conn.Ping(limited) != nil {
		m.cut()
	}
}

// goodbye sends the client to a sibling.
func (m *member) goodbye() {
	if m.app.leaving.over() {
		m.end(websocket.StatusServiceRestart, "service restart")
		return
	}
	m.end(websocket.StatusGoingAway, "max age, connect again")
}

// end closes the connection and tells why. A client that does not answer is cut.
func (m *member) end(code websocket.StatusCode, reason string) error {
	why := websocket.CloseError{Code: code, Reason: reason}
	m.told.CompareAndSwap(nil, &why) // the other goroutine may have done so already
	limit := time.AfterFunc(m.app.writeTimeout, m.cut)
	defer limit.Stop()
	m.conn.Close(code, reason) // fails only if the client did not wait for it
	return why
}

// over writes how it ended.
func (m *member) over(who string, err error) {
	if told := m.told.Load(); told != nil {
		m.app.out.Printf("chat: %s was sent away: %d %s", who, told.Code, told.Reason)
		return
	}
	m.app.metrics.left.WithLabelValues(kindSocket).Inc()
	if code := websocket.CloseStatus(err); code != -1 {
		m.app.out.Printf("chat: %s left: %d", who, code)
		return
	}
	m.app.err.Printf("chat: lost %s: %v", who, err)
}

// allowance is how much one client may say. The zero value is a whole burst.
type allowance struct {
	left float64
	at   time.Time // of the last look
}

func (a *allowance) take(now time.Time) bool {
	a.left = min(speakBurst, a.left+speakRate*now.Sub(a.at).Seconds())
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
