package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestPushReachesItsUserWhereverHeIs(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		u, v := login(t, a.url, "u"), login(t, b.url, "v") // a cookie of one is good for all
		hers := tune(t, b.url+"/stream?user=u", "Cookie", u)
		his := tune(t, b.url+"/stream", "Cookie", v)
		if sent := push(t, a.url, "user=u", "for u\nalone"); !sent["u"] || len(sent) != 1 {
			t.Errorf("sent %v", sent)
		}
		push(t, a.url, "users=u,v&user=v&user=w", "for all three")
		if got := hers.hears("push"); got != "for u\nalone" {
			t.Errorf("u got %q", got)
		}
		for name, s := range map[string]*tuned{"u": hers, "v": his} {
			if got := s.hears("push"); got != "for all three" {
				t.Errorf("%s got %q", name, got)
			}
		}
	})
}

func TestNewsReachEverybody(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		streams := []*tuned{tune(t, a.url+"/stream"), tune(t, b.url+"/stream"), tune(t, b.url+"/stream?only=news", "Cookie", login(t, a.url, "u"))}
		for _, path := range []string{"/send_message", "/send_message?message=hi%20there"} {
			resp := do(t, "GET", a.url+path, "")
			if body := read(t, resp.Body); resp.StatusCode != 200 || !strings.Contains(body, "Message sent!") {
				t.Errorf("%s: %s %s", path, resp.Status, body)
			}
		}
		tell(t, b.url, "from the body: \"✓\"\n<b>")
		for i, s := range streams {
			for _, want := range []string{"Hello, SSE!", "hi there", "from the body: \"✓\"\n<b>"} {
				var got map[string]string
				if err := json.Unmarshal([]byte(s.hears("message")), &got); err != nil || got["message"] != want {
					t.Errorf("stream %d got %v, %v; want %q", i, got, err, want)
				}
			}
		}
	})
}

// A process listens to a user's channel as long as one of his streams is open.
func TestChannelsAreLeft(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		cookie := login(t, a.url, "u")
		first, second, elsewhere := tune(t, a.url+"/stream", "Cookie", cookie), tune(t, a.url+"/stream", "Cookie", cookie), tune(t, b.url+"/stream", "Cookie", cookie)
		listen := func(want int64) {
			t.Helper()
			until(t, fmt.Sprint(want, " listen"), func() bool { return m.listeners(t, "user:u") == want })
		}
		listen(2)
		first.close()
		elsewhere.close()
		listen(1)
		push(t, b.url, "user=u", "x")
		second.hears("push")
		second.close()
		listen(0)
	})
}

func TestPublishedTwiceArrivesOnce(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		s := tune(t, b.url+"/stream", "Cookie", login(t, a.url, "u"))
		if sent := push(t, a.url, "user=u&id=m-1", "one"); !sent["u"] {
			t.Error("the first is not fresh")
		}
		if sent := push(t, b.url, "user=u&id=m-1", "one"); sent["u"] {
			t.Error("the second is fresh")
		}
		resp := do(t, "POST", b.url+"/push?user=u&user=v", "one", "Idempotency-Key", "m-1")
		if body := read(t, resp.Body); resp.StatusCode != 202 || strings.TrimSpace(body) != `{"id":"m-1","sent":{"u":false,"v":true}}` {
			t.Errorf("%s %s", resp.Status, body)
		}
		push(t, b.url, "user=u&id=m-2", "two")
		if one, two := s.hears("push"), s.hears("push"); one != "one" || two != "two" {
			t.Errorf("got %q, %q", one, two)
		}
	})
}

// What is pushed while nobody is there waits, and is given once.
func TestOfflineStore(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		cookie := login(t, a.url, "u")
		push(t, a.url, "user=u", "one")
		push(t, a.url, "user=u", "two")
		s := tune(t, b.url+"/stream", "Cookie", cookie)
		if one, two := s.hears("push"), s.hears("push"); one != "one" || two != "two" {
			t.Errorf("got %q, %q", one, two)
		}
		s.close()
		until(t, "the stream is over", func() bool { return b.streams.Load() == 0 }) // and what it gave is marked
		push(t, b.url, "user=u", "three")
		again := tune(t, a.url+"/stream", "Cookie", cookie)
		if got := again.hears("push"); got != "three" {
			t.Errorf("the second time %q comes first", got)
		}
		push(t, b.url, "user=u", "four")
		if got := again.hears("push"); got != "four" {
			t.Errorf("then %q", got)
		}
	})
}

func TestEveryTabGetsThePush(t *testing.T) {
	a, b := small(t).two(t, nil)
	cookie := login(t, a.url, "u")
	tabs := []*tuned{tune(t, a.url+"/stream", "Cookie", cookie), tune(t, a.url+"/stream", "Cookie", cookie), tune(t, b.url+"/stream", "Cookie", cookie)}
	for i := range 20 {
		push(t, b.url, "user=u", fmt.Sprint(i))
	}
	for n, tab := range tabs {
		for i := range 20 {
			if got := tab.hears("push"); got != fmt.Sprint(i) {
				t.Fatalf("tab %d got %q, want %d", n, got, i)
			}
		}
	}
}

func TestHistory(t *testing.T) {
	everyBus(t, func(t *testing.T, m *meeting) {
		a, b := m.two(t, nil)
		cookie := login(t, a.url, "u")
		ask := func(query string) (texts []string, last string) {
			t.Helper()
			resp := do(t, "GET", b.url+"/history?"+query, "", "Cookie", cookie)
			var h struct {
				Events []struct {
					Cursor, ID, Data string
					At               time.Time
				}
				Gap, More bool
			}
			if err := json.NewDecoder(resp.Body).Decode(&h); err != nil || resp.StatusCode != 200 || h.Events == nil || h.Gap || h.More {
				t.Fatalf("%s: %s, %+v, %v", query, resp.Status, h, err)
			}
			for _, e := range h.Events {
				if e.ID == "" || time.Since(e.At).Abs() > time.Hour {
					t.Errorf("event %+v", e)
				}
				texts, last = append(texts, e.Data), e.Cursor
			}
			return texts, last
		}
		if texts, _ := ask("user=u"); texts != nil {
			t.Errorf("an empty history has %v", texts)
		}
		push(t, a.url, "user=u", "one")
		_, first := ask("user=u")
		s := tune(t, a.url+"/stream", "Cookie", cookie)
		s.hears("push")
		push(t, a.url, "user=u", "two")
		push(t, b.url, "user=u", "three")
		s.hears("push")
		for query, want := range map[string]string{
			"user=u":                "[one two three]",
			"user=u&after=" + first: "[two three]",
			"user=u&after=" + url.QueryEscape(s.last): "[three]", // the id of an event does as well
			"log=news": "[]",
		} {
			if texts, _ := ask(query); fmt.Sprint(texts) != want {
				t.Errorf("%s: %v, want %s", query, texts, want)
			}
		}
		for _, after := range []string{"x", "-1", "0", "later", "5~~", "5~~v:" + first, "1~2"} {
			resp := do(t, "GET", b.url+"/history?user=u&after="+url.QueryEscape(after), "", "Cookie", cookie)
			if resp.StatusCode != 400 {
				t.Errorf("after=%s: %s %s", after, resp.Status, read(t, resp.Body))
			}
		}
	})
}

func TestPushRefuses(t *testing.T) {
	a, _ := small(t).two(t, nil)
	many := strings.Repeat("a,", 5) + "b"
	for i := range 100 {
		many += fmt.Sprint(",u", i)
	}
	for _, tt := range []struct {
		query, body, id string
		status          int
		says            string
	}{
		{"", "x", "", 400, "nobody"},
		{"user=", "x", "", 400, "a name has"},
		{"user=a~b", "x", "", 400, "a name has"},
		{"users=a,,b", "x", "", 400, "a name has"},
		{"users=" + many, "x", "", 400, "more than 100"},
		{"user=u", "", "", 400, "empty"},
		{"user=u", "\xff\xfe", "", 400, "base64"},
		{"user=u", "a\x00b", "", 400, "base64"},
		{"user=u", strings.Repeat("x", 64<<10), "", 202, ""},
		{"user=u", strings.Repeat("x", 64<<10+1), "", 413, "64 KiB"},
		{"user=u", "x", "a b", 400, "printable"},
		{"user=u", "x", strings.Repeat("i", 129), 400, "printable"},
		{"user=u&id=%0d%0a", "x", "", 400, "printable"},
	} {
		headers := []string{}
		if tt.id != "" {
			headers = []string{"Idempotency-Key", tt.id}
		}
		resp := do(t, "POST", a.url+"/push?"+tt.query, tt.body, headers...)
		if body := read(t, resp.Body); resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%.40s with %.20q: %s %s", tt.query, tt.body, resp.Status, body)
		}
	}
	if resp := do(t, "GET", a.url+"/send_message?message=%ff", ""); resp.StatusCode != 400 {
		t.Errorf("binary news: %s", resp.Status)
	}
}

func TestPushToken(t *testing.T) {
	t.Setenv("PUSH_TOKEN", "secret")
	a, _ := small(t).two(t, nil)
	for _, ask := range [][2]string{{"POST", "/push?user=u"}, {"GET", "/send_message"}, {"POST", "/send_message"}} {
		for token, allowed := range map[string]bool{"": false, "Bearer ": false, "Bearer secreT": false, "secret": false, "Bearer secret": true} {
			resp := do(t, ask[0], a.url+ask[1], "x", "Authorization", token)
			if got := resp.StatusCode < 300; got != allowed || !allowed && resp.StatusCode != 401 {
				t.Errorf("%v with %q: %s", ask, token, resp.Status)
			}
		}
	}
}

func TestWithoutABus(t *testing.T) {
	r := start(t, nil)
	cookie := login(t, r.url, "u")
	for _, ask := range [][2]string{
		{"POST", "/push?user=u"}, {"GET", "/send_message"}, {"GET", "/history?user=u"}, {"GET", "/stream?only=news"}, {"GET", "/stream?only=inbox"},
	} {
		resp := do(t, ask[0], r.url+ask[1], "x", "Cookie", cookie)
		if body := read(t, resp.Body); resp.StatusCode != 503 || !strings.Contains(body, "There is no bus: set REDIS_URL, or start sse-bus and set BUS_FILE.") {
			t.Errorf("%s: %s %s", ask[1], resp.Status, body)
		}
	}
	s := tune(t, r.url+"/stream?user=u", "Cookie", cookie)
	if got := s.hears(""); !strings.HasSuffix(got, "message 1") || s.last != "1" {
		t.Errorf("got %q with id %q", got, s.last)
	}
}
