package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// The seed page and the page stop at the end mark, however it is spelt, and
// never ask again: they would get it all a second time.
func TestNobodyComesBackAfterTheEndMark(t *testing.T) {
	s := play(t, map[string]func(*scene){"GET /stream": func(c *scene) {
		mark := map[bool]string{true: "[done]", false: "[DONE]"}[c.req.URL.Query().Get("n") == "3"]
		c.begin(`retry: 10`, ``, "id: 1\ndata: one\n", "id: 2\ndata: <b>two</b>\ndata: lines\n", "id: done\ndata: "+mark, ``)
	}})
	small, large := browse(t, s.URL+"/seed?n=3"), browse(t, s.URL)
	small.shows("#state", "complete")
	if got := small.text("#text"); got != "one\n<b>two</b>\nlines\n" {
		t.Errorf("the seed page shows %q", got)
	}
	if state := js[int](small, "source.readyState"); state != 2 {
		t.Errorf("readyState %d", state)
	}
	large.shows("#feed-state", "closed: all messages arrived")
	if got := large.text("#feed-log .what"); got != "one|<b>two</b>\nlines" {
		t.Errorf("the page shows %q", got)
	}
	s.quiet("GET /stream", 5*time.Second)
}

func TestSeedPageSaysHowItIs(t *testing.T) {
	gate := make(chan struct{})
	s := play(t, map[string]func(*scene){"GET /stream": func(c *scene) {
		switch c.nth {
		case 1:
			c.begin(`retry: 300`, ``)
			c.wait(gate)
		case 2:
			c.begin(`retry: 10`, ``)
		default:
			c.fail(500, "no more")
		}
	}})
	b := browse(t, s.URL+"/seed")
	b.shows("#state", "connected")
	js[any](b, `globalThis.states = [], new MutationObserver(() => states.push(document.getElementById("state").textContent))
		.observe(document.getElementById("state"), { childList: true })`)
	close(gate)
	b.shows("#state", "closed")
	if got := js[string](b, "states.join()"); got != "reconnecting,connected,reconnecting,closed" {
		t.Errorf("states %s", got)
	}
}

// figures of the event stream: messages, reconnects, missed, twice, last id.
func (b *tab) figures() string {
	b.t.Helper()
	return b.text(".figures dd")
}

func TestStreamThroughARestart(t *testing.T) {
	tick := func(n int) string {
		return fmt.Sprintf("id: %d\ndata: ChatGPT says: Hello, this is message %d\n", n, n)
	}
	s := play(t, map[string]func(*scene){"GET /stream": func(c *scene) {
		c.begin(`retry: 50`, `event: hello`, `data: {"instance":"0","pid":100,"user":null}`, ``, tick(1), tick(2))
		c.stay()
	}})
	b := browse(t, s.URL)
	js[any](b, `globalThis.states = [], new MutationObserver(() => states.push(document.querySelector("#feed-state").dataset.state))
		.observe(document.querySelector("#feed-state"), { attributes: true, attributeFilter: ["data-state"] })`)
	b.shows("#feed-state", "open: served by process 100")
	b.until("document.getElementById('feed-last').textContent === '2'")

	address := s.Listener.Addr().String()
	s.CloseClientConnections()
	s.Close()
	b.shows("#feed-state", "reconnecting")
	successor := &stage{t: t, count: map[string]int{}, played: map[string]func(*scene){"GET /stream": func(c *scene) {
		c.begin(`event: hello`, `data: {"instance":"1","pid":101,"user":null}`, ``, tick(3), tick(4))
		c.stay()
	}}}
	server := &http.Server{Handler: http.HandlerFunc(successor.serve)}
	go server.Serve(sameAddress(t, address)) // until the test's end
	t.Cleanup(func() { server.Close() })

	b.shows("#feed-state", "open: served by process 101")
	b.until("document.getElementById('feed-last').textContent === '4'")
	if got := b.figures(); got != "4|1|0|0|4" {
		t.Errorf("figures %s", got)
	}
	if got := b.text("#feed-instance"); got != "instance 1 · 101" {
		t.Errorf("badge %q", got)
	}
	if got := successor.requests("GET /stream"); !slices.Equal(got, []string{"GET /stream 2"}) {
		t.Errorf("requests %q", got)
	}
	if got := js[string](b, "states.join()"); !strings.HasSuffix(got, "reconnecting,open,open") && !strings.HasSuffix(got, "reconnecting,open") {
		t.Errorf("states %s", got)
	}
	if got := b.text("#instances"); got != "instance 0 × 1|instance 1 × 1" && got != "instance 0 × 1instance 1 × 1" {
		t.Errorf("connections %q", got)
	}
}

// A 502 closes an EventSource for good; the page builds a new one, with its place.
func TestStreamIsRebuiltAfterA502(t *testing.T) {
	read := make(chan struct{})
	s := play(t, map[string]func(*scene){
		"GET /stream": func(c *scene) {
			switch c.nth {
			case 1:
				c.begin(`retry: 10`, ``, "id: 1~n1~\ndata: ChatGPT says: 1\n")
				c.wait(read)
				c.cut()
			case 2, 3:
				c.fail(502, "bad gateway")
			default:
				c.begin(`event: hello`, `data: {"instance":"1","pid":101,"user":null}`, ``)
				c.stay()
			}
		},
		"HEAD /stream": func(c *scene) { c.fail(502, "bad gateway") },
	})
	b := browse(t, s.URL)
	b.shows("#feed-last", "1~n1~")
	close(read)
	b.shows("#feed-state", "reconnecting: next try in")
	b.shows("#feed-state", "open: served by process 101")
	all := s.requests("GET /stream")
	if last := all[len(all)-1]; len(all) != 4 || last != "GET /stream?last_event_id=1%7En1%7E" {
		t.Errorf("requests %q", all)
	}
}

// A server that does not know our place never will: the page begins anew, and says so.
func TestStreamBeginsAnewWhenItsPlaceIsUnknown(t *testing.T) {
	s := play(t, map[string]func(*scene){
		"GET /stream": func(c *scene) {
			switch {
			case c.nth == 1:
				c.begin(`retry: 10`, ``, "id: 7\ndata: ChatGPT says: 7\n")
			case c.req.Header.Get("Last-Event-ID") != "" || c.req.URL.Query().Has("last_event_id"):
				c.fail(400, "Last-Event-ID is none of this stream")
			default:
				c.begin("id: 1\ndata: ChatGPT says: 1\n")
				c.stay()
			}
		},
		"HEAD /stream": func(c *scene) { c.WriteHeader(400) },
	})
	b := browse(t, s.URL)
	b.shows("#feed-log li:last-child", "ChatGPT says: 1")
	b.shows("#feed-log", "something may be missing")
}

func TestStreamShowsTicksNewsPushesAndGaps(t *testing.T) {
	s := play(t, map[string]func(*scene){"GET /stream": func(c *scene) {
		c.begin(`event: hello`, `data: {"instance":"0","pid":100,"user":"alice"}`, ``)
		c.say("id: 1\ndata: ChatGPT says: 1\n",
			"event: message\nid: 1~n1~\ndata: "+`{"message":`+quote(attack)+"}\n",
			"event: push\nid: 1~n1~i1\ndata: two\ndata: lines\n",
			"event: push\nid: 1~n1~i1\ndata: two\ndata: lines\n", // once more
			"id: 2~n1~i1\ndata: ChatGPT says: 2\n",
			"id: 2~n1~i1\ndata: ChatGPT says: 2\n", // once more
			"id: 5~n1~i1\ndata: ChatGPT says: 5\n", // 3 and 4 are lost
			"event: gap\ndata: {\"log\":\"inbox\"}\n",
			"event: gap\ndata: {\"log\":\"news\"}\n",
			"event: reconnect\nretry: 60000\ndata: {\"instance\":\"0\"}\n")
		c.stay()
	}})
	b := browse(t, s.URL)
	b.shows("#feed-log", "hands over")
	want := "ChatGPT says: 1|" + attack + "|two\nlines|ChatGPT says: 2|ChatGPT says: 5|some pushes may be missing|some news may be missing|this instance ends the stream and hands over"
	if got := b.text("#feed-log .what"); got != want {
		t.Errorf("shows %q\nwant  %q", got, want)
	}
	if got := b.figures(); got != "5|0|2|2|5~n1~i1" {
		t.Errorf("figures %s", got)
	}
	if got := b.text("#inbox-log .what"); got != "two\nlines|something before this may be missing" {
		t.Errorf("inbox %q", got)
	}
	if b.text("#inbox-count") != "1" || b.text("#login-user") != "alice" {
		t.Error("the inbox does not know whose it is")
	}
	if js[bool](b, "'pwned' in window") {
		t.Error("text from outside was taken for HTML")
	}
}

// Who signs in gets a stream of his own: the place in the ticks and the news is
// kept, that in the inbox of somebody else is not.
func TestSigningInRejoinsTheStream(t *testing.T) {
	var logins []string
	s := play(t, map[string]func(*scene){
		"GET /stream": func(c *scene) {
			user := "null"
			if cookie, err := c.req.Cookie("sse_user"); err == nil && cookie.Value != "" {
				user = quote(cookie.Value)
			}
			c.begin(`event: hello`, `data: {"instance":"0","pid":100,"user":`+user+`}`, ``,
				fmt.Sprintf("id: %d~n1~of-%d\ndata: ChatGPT says: %d\n", c.nth, c.nth, c.nth))
			c.stay()
		},
		"POST /login": func(c *scene) {
			logins = append(logins, c.body)
			if c.body == "user=nobody" {
				c.fail(400, "nobody may not")
				return
			}
			http.SetCookie(c, &http.Cookie{Name: "sse_user", Value: strings.TrimPrefix(c.body, "user="), HttpOnly: true, Path: "/"})
			c.WriteHeader(204)
		},
		"POST /logout": func(c *scene) {
			http.SetCookie(c, &http.Cookie{Name: "sse_user", Path: "/", MaxAge: -1})
			c.WriteHeader(204)
		},
	})
	b := browse(t, s.URL)
	b.shows("#feed-last", "1~n1~of-1")
	b.write("login-name", "nobody")
	b.click("login-button")
	b.shows("#login-status", "nobody may not")
	js[any](b, "document.getElementById('login-name').value = ''")
	b.write("login-name", "alice")
	b.click("login-button")
	b.shows("#feed-last", "2~n1~of-2")
	if got := b.text("#login-who, #login-button"); got != "Signed in as alice|Sign out" {
		t.Errorf("shows %q", got)
	}
	b.click("login-button")
	b.shows("#feed-last", "3~n1~of-3")
	b.shows("#login-button", "Sign in")
	if got, want := s.requests("GET /stream"), []string{"GET /stream", "GET /stream?last_event_id=1%7En1%7E", "GET /stream?last_event_id=2%7En1%7E"}; !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
	if got := b.figures(); got != "3|2|0|0|3~n1~of-3" {
		t.Errorf("figures %s", got)
	}
}

// A push that failed is sent again under the same id; the next text has another.
func TestPushFormKeepsItsIdUntilItSucceeds(t *testing.T) {
	var bodies []string
	s := play(t, map[string]func(*scene){
		"POST /push": func(c *scene) {
			if c.nth == 1 {
				c.fail(503, "The bus is down.")
				return
			}
			bodies = append(bodies, c.body)
			io.WriteString(c, `{"id":"x","sent":{"bob":true}}`)
		},
		"POST /send_message": func(c *scene) { bodies = append(bodies, c.body); io.WriteString(c, `{}`) },
	})
	b := browse(t, s.URL)
	b.write("push-user", "bob")
	b.write("push-text", "one & <two>")
	b.click("push-form button")
	b.shows("#push-status", "The bus is down.")
	b.click("push-form button")
	b.shows("#push-status", "pushed to bob")
	b.write("push-text", "three\n") // Enter sends
	b.until("document.getElementById('push-text').value === ''")
	b.write("news-text", "it is late\n")
	b.shows("#news-status", "published")
	if want := []string{"one & <two>", "three", "it is late"}; !slices.Equal(bodies, want) {
		t.Errorf("bodies %q, want %q", bodies, want)
	}
	all := s.requests("POST /push")
	if len(all) != 3 || all[0] != all[1] || all[1] == all[2] || !strings.HasPrefix(all[0], "POST /push?user=bob&id=") {
		t.Errorf("requests %q", all)
	}
}

func TestRoomComesBack(t *testing.T) {
	gate := make(chan struct{})
	s := play(t, map[string]func(*scene){"GET /ws": func(c *scene) {
		switch c.nth {
		case 1:
			c.room(gate)
		case 2:
			c.fail(503, "not now")
		default:
			c.room(nil)
		}
	}})
	b := browse(t, s.URL)
	b.until("document.getElementById('room-state').dataset.state === 'open'")
	b.write("room-text", "hello "+attack+"\n")
	b.shows("#room-log", "hello "+attack+echoSuffix)
	close(gate)
	b.shows("#room-state", "reconnecting: service restart, next try in")
	b.until("document.getElementById('room-state').dataset.state === 'open'")
	b.write("room-text", "again\n")
	b.shows("#room-log", "again"+echoSuffix)
	if n := len(s.requests("GET /ws")); n != 3 {
		t.Errorf("%d connections", n)
	}
	if js[bool](b, "'pwned' in window") {
		t.Error("text from outside was taken for HTML")
	}
}

// A tab that nobody looks at gives its connection back, of which there are six.
func TestHiddenTabGivesItsConnectionBack(t *testing.T) {
	left := make(chan struct{})
	s := play(t, map[string]func(*scene){"GET /stream": func(c *scene) {
		c.begin(fmt.Sprintf("id: %d\ndata: ChatGPT says: %d\n", c.nth, c.nth))
		c.stay()
		if c.nth == 1 {
			close(left)
		}
	}})
	b := browse(t, s.URL, early(`
		let state = "visible"; // and a minute is over at once
		const later = setTimeout;
		setTimeout = (f, ms) => later(f, ms >= 60000 ? 0 : ms);
		Object.defineProperty(document, "visibilityState", { get: () => state });
		globalThis.turn = (to) => { state = to; document.dispatchEvent(new Event("visibilitychange")); };`))
	b.shows("#feed-last", "1")
	js[any](b, `turn("hidden")`)
	b.shows("#feed-state", "closed: as long as nobody looks")
	happens(t, "the connection is closed", left)
	js[any](b, `turn("visible")`)
	b.shows("#feed-state", "open")
	b.shows("#feed-last", "2")
	if got := s.requests("GET /stream"); !slices.Equal(got, []string{"GET /stream", "GET /stream?last_event_id=1"}) {
		t.Errorf("requests %q", got)
	}
	if got := b.figures(); got != "2|1|0|0|2" {
		t.Errorf("figures %s", got)
	}
}

// The wait before another try is over at once when the network is back.
func TestNobodyWaitsWhenTheNetworkIsBack(t *testing.T) {
	s := play(t, nil)
	b := browse(t, s.URL+"/seed") // the same origin, without the page's own tries
	js[any](b, `import("/again.js").then(({ later }) => {
		globalThis.result = "";
		later(20, () => { result += "once "; });
		later(20, () => { result += "never "; }).cancel();
		later(0, () => { result += "never "; }).cancel(); // it would have come within half a second
		dispatchEvent(new Event("online"));
		dispatchEvent(new Event("online"));
		return new Promise((go) => setTimeout(go, 600));
	})`)
	if got := js[string](b, "result"); got != "once " {
		t.Errorf("happened: %q", got)
	}
	waits := js[[]float64](b, `import("/again.js").then(({ later }) => [0, 1, 2, 3, 9, 50].map((n) => {
		const w = later(n, () => {});
		w.cancel();
		return parseFloat(w.text.match(/[\d.]+/)[0]);
	}))`)
	for i, most := range []float64{0.5, 1, 2, 4, 30, 30} {
		if waits[i] < most/2-0.06 || waits[i] > most+0.06 {
			t.Errorf("waits %v", waits)
		}
	}
}
