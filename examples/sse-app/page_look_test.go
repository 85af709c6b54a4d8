package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// crowded is a server for a page in the middle of everything: an answer on its way,
// resumed and taken over, news, pushes, a gap, a room with somebody in it.
func crowded(t *testing.T) *stage {
	stay := make(chan struct{})
	t.Cleanup(func() { close(stay) })
	return play(t, map[string]func(*scene){
		"POST /tickets": giveTicket,
		"GET /stream?ticket": func(c *scene) {
			c.begin(`event: hello`, `data: {"instance":"2","pid":48213,"resumed":9}`, ``)
			for i, text := range strings.SplitAfter("A stream is a promise: whoever opened it expects the end of the sentence. So this process, when asked to leave, first", " ") {
				c.say(numbered(i, text))
			}
			c.say(`event: takeover`, `data: {"instance":"2","token":9}`, ``)
			c.wait(stay)
		},
		"POST /v1/chat/completions": func(c *scene) {
			c.begin()
			c.say(wordChunk("Four of us answer on one port, and you need not know which one. ✓"), "", doneChunk)
		},
		"GET /stream": func(c *scene) {
			hello := func(instance, pid int) string {
				return fmt.Sprintf("event: hello\ndata: {\"instance\":\"%d\",\"pid\":%d,\"user\":\"alice\"}\n", instance, pid)
			}
			tick := func(n int, rest string) string {
				return fmt.Sprintf("id: %d%s\ndata: ChatGPT says: Hello, this is message %d\n", n, rest, n)
			}
			if c.nth == 1 {
				c.begin("retry: 10", hello(1, 48210), tick(1, ""), tick(2, ""), "event: reconnect\ndata: {\"instance\":\"1\"}\n")
				return
			}
			place := "~1763750000123-0~1763750000456-0"
			c.begin(hello(3, 48217), tick(3, ""), tick(4, ""),
				"event: message\nid: 4~1763750000123-0~\ndata: {\"message\":\"The new version is out\"}\n",
				"event: push\nid: 4"+place+"\ndata: Your report is ready\ndata: 14 pages, 2 of them new\n",
				tick(5, place), tick(6, place), tick(7, place),
				"event: gap\ndata: {\"log\":\"inbox\"}\n", tick(8, place))
			c.stay()
		},
		"POST /push":         func(c *scene) { io.WriteString(c, `{"id":"x","sent":{"bob":true}}`) },
		"POST /send_message": func(c *scene) { io.WriteString(c, `{}`) },
	})
}

// everything fills the page and leaves it in the middle of an answer.
func (b *tab) everything() {
	b.t.Helper()
	b.shows("#feed-log", "message 8")
	b.until("document.getElementById('room-state').dataset.state === 'open'")
	b.write("room-text", "hello from the other side\n")
	b.shows("#room-log", "other side")
	b.write("push-user", "bob")
	b.write("push-text", "hello bob\n")
	b.shows("#push-status", "pushed")
	b.ask("fetch", "Who are you?")
	b.shows("#chat-status", "complete")
	b.ask("ticket", "What happens to this answer if you are restarted?")
	b.shows(".theirs:last-child .notes", "went on writing at token 9")
}

// With SSE_APP_PICTURES=folder it leaves pictures there, for people.
func TestPageLooksRightEverywhere(t *testing.T) {
	checker := axe(t)
	for name, look := range map[string][]chromedp.Action[chromedp.Void]{
		"light-1280": {viewport(1280, 900), media("prefers-color-scheme", "light")},
		"dark-1280":  {viewport(1280, 900), media("prefers-color-scheme", "dark")},
		"light-360":  {viewport(360, 740), media("prefers-color-scheme", "light")},
		"dark-360":   {viewport(360, 740), media("prefers-color-scheme", "dark")},
	} {
		t.Run(name, func(t *testing.T) {
			b := browse(t, crowded(t).URL, look...)
			b.everything()
			if folder := os.Getenv("SSE_APP_PICTURES"); folder != "" {
				b.picture(folder, name)
			}
			b.wellMade(checker)
			b.do(chromedp.Navigate(b.url + "/seed?n=5"))
			b.shows("#text", "message 8")
			b.wellMade(checker)
		})
	}
}

// wellMade is what is true of every page at every width.
func (b *tab) wellMade(checker string) {
	b.t.Helper()
	for _, c := range b.complaints(checker) {
		b.t.Errorf("axe: %s", c)
	}
	if over := js[string](b, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && e.checkVisibility())
		.map((e) => e.tagName + "#" + e.id).join()`); over != "" || js[bool](b, "document.documentElement.scrollWidth > innerWidth") {
		b.t.Errorf("wider than the screen: %s", over)
	}
	if small := js[string](b, `[...document.querySelectorAll("button, input, select, textarea, a")].map((e) => e.type === "radio" ? e.parentElement : e)
		.filter((e) => e.checkVisibility()).filter((e) => { const r = e.getBoundingClientRect(); return r.width < 24 || r.height < 24; })
		.map((e) => e.tagName + "#" + e.id).join()`); small != "" {
		b.t.Errorf("too small to hit: %s", small)
	}
	if bare := js[string](b, `[...document.querySelectorAll("input, select, textarea")].filter((e) => !e.labels.length).map((e) => e.id).join()`); bare != "" {
		b.t.Errorf("without a label: %s", bare)
	}
	if errs := b.consoleErrors(); len(errs) > 0 {
		b.t.Errorf("console: %q", errs)
	}
}

// The policy holds whatever the code does: no script but the page's own files,
// and no text that becomes markup.
func TestPagePolicyIsStrict(t *testing.T) {
	s := play(t, nil)
	files, err := web.ReadDir("web")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		path := "/" + strings.TrimSuffix(strings.TrimSuffix(file.Name(), ".html"), "index")
		resp := do(t, "GET", s.URL+path, "")
		body, policy := read(t, resp.Body), resp.Header.Get("Content-Security-Policy")
		if resp.StatusCode != 200 || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %s, policy %q", path, resp.Status, policy)
		}
		for _, bad := range []string{"https://", "innerHTML =", "insertAdjacentHTML", "document.write", "eval("} {
			if strings.Contains(body, bad) {
				t.Errorf("%s contains %q", path, bad)
			}
		}
	}
	b := browse(t, s.URL)
	if got := js[string](b, `(() => { try { document.body.innerHTML = "<b>"; } catch (e) { return e.name; } })()`); got != "TypeError" {
		t.Errorf("text became markup: %q", got)
	}
	b.mu.Lock()
	b.faults = nil // that was one
	b.mu.Unlock()
}

// What a screen reader hears: whole sentences when something happens, and not
// one announcement per word.
func TestPageSpeaksInSentences(t *testing.T) {
	gate := make(chan struct{})
	s := play(t, map[string]func(*scene){"POST /v1/chat/completions": func(c *scene) {
		c.begin()
		c.say(wordChunk("one "), "")
		c.wait(gate)
		c.say(wordChunk("two"), "", doneChunk)
	}})
	b := browse(t, s.URL, media("prefers-reduced-motion", "reduce"))
	js[any](b, `globalThis.said = [], new MutationObserver(() => said.push(document.getElementById("chat-status").textContent))
		.observe(document.getElementById("chat-status"), { childList: true })`)
	b.ask("fetch", "talk")
	b.shows(".theirs[aria-busy=true] .text", "one ")
	if moving := js[int](b, "document.getAnimations().length"); moving != 0 {
		t.Errorf("%d animations for a reader who wants none", moving)
	}
	close(gate)
	b.shows(".theirs[aria-busy=false] .text", "one two")
	b.until("said.length > 1")
	if got := js[string](b, "said.join()"); got != "generating…,answer complete, 2 words" {
		t.Errorf("said %s", got)
	}
	if live := js[string](b, `document.getElementById("chat-log").getAttribute("aria-live")`); live != "off" {
		t.Errorf("the words themselves are a live region: %q", live)
	}
}
