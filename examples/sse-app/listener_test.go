package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"gpm/examples/sse-app/internal/bus"
	"gpm/examples/sse-app/ssetest"
)

// leisure is a pace at which something can be done before the answer has ended,
// on a busy machine, too.
const leisure = 100 * time.Millisecond

// writers are instances on a bus. What dies is missed after 300 ms.
func (m *meeting) writer(t *testing.T, name string, change func(*app)) *running {
	t.Helper()
	r := m.instance(t, name, func(a *app) {
		a.pens.ttl = 300 * time.Millisecond
		if change != nil {
			change(a)
		}
	})
	until(t, "the bus is there", r.bus.Up)
	return r
}

// bare is a connection to the bus without an instance.
func (m *meeting) bare(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Open(bus.Options{URL: m.where})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	until(t, "the bus is there", b.Up)
	return b
}

// order hands in a ticket.
func order(t *testing.T, url, question string) (ticket string) {
	t.Helper()
	resp := do(t, "POST", url+"/tickets", question)
	var got struct{ Ticket, URL string }
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &got); err != nil || resp.StatusCode != 201 {
		t.Fatalf("POST /tickets: %s, %v", resp.Status, err)
	}
	if got.URL != "/stream?ticket="+got.Ticket {
		t.Errorf("ticket %q has the URL %q", got.Ticket, got.URL)
	}
	return got.Ticket
}

func ask(prompt string) string { return string(mustJSON(map[string]string{"prompt": prompt})) }

// listener is an EventSource: it comes back by itself, with the id of the last
// whole event, until it has the end or is sent away.
type listener struct {
	t      *testing.T
	where  func() string // the instance that it reaches now
	ticket string

	id          string // of the last event
	words       []string
	events      []ssetest.Event
	connections int
	faults      []string  // words that were lost or came twice
	taken       time.Time // when the last takeover was told
}

func listenTo(t *testing.T, ticket string, where func() string) *listener {
	return &listener{t: t, ticket: ticket, where: where}
}

func at(url string) func() string { return func() string { return url } }

// end listens to the end, and says what it was: "done", "error: code", or the
// status that sent it away.
func (l *listener) end() string {
	tr := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: &ssetest.Transport{T: l.t, Base: tr, Options: func(*http.Request) ssetest.Options {
		return ssetest.Options{JSON: true}
	}}}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if end := l.connect(ctx, client); end != "" {
			return end
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Sprintf("no end within %s", 2*patience)
		}
	}
}

// connect is one connection; empty: come again.
func (l *listener) connect(ctx context.Context, client *http.Client) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", l.where()+"/stream?ticket="+l.ticket, nil)
	if err != nil {
		return err.Error()
	}
	if l.id != "" {
		req.Header.Set("Last-Event-ID", l.id)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "" // refused, as between two lives of an instance
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return strconv.Itoa(resp.StatusCode)
	}
	l.connections++
	var p ssetest.Parser
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		for _, e := range p.Feed(buf[:n]) {
			if end := l.take(e); end != "" {
				return end
			}
		}
		if id := p.LastEventID(); id != "" {
			l.id = id
		}
		if err != nil {
			return ""
		}
	}
}

func (l *listener) take(e ssetest.Event) (end string) {
	l.events = append(l.events, e)
	var c chunk
	switch {
	case e.Event == "takeover":
		l.taken = time.Now()
		return ""
	case e.Event != "message":
		return ""
	case e.Data == "[DONE]":
		return "done"
	case json.Unmarshal([]byte(e.Data), &c) != nil:
		return "not JSON: " + e.Data
	case c.Error != nil:
		return "error: " + c.Error.Code
	}
	for _, ch := range c.Choices {
		if ch.Delta.Content != nil && ch.Delta.Role == "" {
			if want := fmt.Sprintf("%s.%d", l.ticket, len(l.words)); e.ID != want {
				l.faults = append(l.faults, fmt.Sprintf("word %q has id %s, want %s", *ch.Delta.Content, e.ID, want))
			}
			l.words = append(l.words, *ch.Delta.Content)
		}
	}
	return ""
}

// named are the data of the events of a name.
func (l *listener) named(name string) (data []string) {
	for _, e := range l.events {
		if e.Event == name {
			data = append(data, e.Data)
		}
	}
	return data
}

// complete checks that the whole answer to prompt has come, each word once.
func (l *listener) complete(end, prompt string) {
	l.t.Helper()
	if want := answer(prompt); end != "done" || !slices.Equal(l.words, want) || len(l.faults) > 0 {
		l.t.Errorf("ended with %q after %d of %d words: %q, faults %q", end, len(l.words), len(want), l.words, l.faults)
	}
}

// stateAt is what GET /v1/generations/{id} says.
func stateAt(t *testing.T, url, ticket string) (s state) {
	t.Helper()
	resp := do(t, "GET", url+"/v1/generations/"+ticket, "")
	if err := json.Unmarshal([]byte(read(t, resp.Body)), &s); err != nil || resp.StatusCode != 200 || s.ID != ticket {
		t.Fatalf("%s %+v %v", resp.Status, s, err)
	}
	return s
}
