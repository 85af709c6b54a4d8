package main

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// attack is text that would run if it were taken for HTML.
const attack = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>`

// finished is how both ways of an answer end.
func (b *tab) finished(text string) {
	b.t.Helper()
	b.shows("#chat-status", "answer complete")
	if got := b.text(".theirs .text"); got != text {
		b.t.Errorf("the answer is %q, want %q", got, text)
	}
	if busy := b.text(".theirs[aria-busy=true]"); busy != "" {
		b.t.Errorf("still busy: %q", busy)
	}
}

func TestChatEndsWithTheWholeTextInBothWays(t *testing.T) {
	answer := func(c *scene) {
		c.begin(`event: hello`, `data: {"instance":"1","pid":7}`, ``)
		c.say(numbered(0, "Hello, "), numbered(1, attack), numbered(2, " — 世界\n"), numbered(3, "line two"), doneChunk)
	}
	s := play(t, map[string]func(*scene){
		"POST /tickets":      giveTicket,
		"GET /stream?ticket": answer,
		"POST /v1/chat/completions": func(c *scene) {
			c.begin()
			c.say(wordChunk("Hello, "), "", wordChunk(attack), "", wordChunk(" — 世界\n"), "", wordChunk("line two"), "", doneChunk)
		},
	})
	for _, mode := range []string{"ticket", "fetch"} {
		t.Run(mode, func(t *testing.T) {
			b := browse(t, s.URL)
			b.ask(mode, "say "+attack)
			b.finished("Hello, " + attack + " — 世界\nline two")
			if got := b.text(".mine"); got != "say "+attack {
				t.Errorf("the question is %q", got)
			}
			if n := js[int](b, "document.querySelectorAll('#chat-log img, #chat-log script').length"); n != 0 || js[bool](b, "'pwned' in window") {
				t.Error("text from outside was taken for HTML")
			}
			if badge := b.text(".theirs .badge"); !strings.HasPrefix(badge, "instance 1") {
				t.Errorf("badge %q", badge)
			}
			if id := js[string](b, "document.activeElement.id"); id != "chat-input" {
				t.Errorf("the focus went to %q", id)
			}
		})
	}
	if n := len(s.requests("GET /stream?ticket=g")); n != 1 {
		t.Errorf("%d connections for one answer: the browser came back after the end", n)
	}
}

// What comes is read the same, however the network cuts it up and whichever line
// ends the server likes.
func TestReaderSurvivesEveryCutAndLineEnd(t *testing.T) {
	whole := strings.Join([]string{":", "retry: 5", "", "id: 1", wordChunk("a é"), "", ": note", wordChunk("€"), "", "data:" + strings.TrimPrefix(wordChunk("𝄞"), "data: "), "", wordChunk("z"), "", doneChunk, ""}, "\n")
	variants := map[string]func(*scene){
		"byte by byte": func(c *scene) {
			for i := range len(whole) {
				c.raw(whole[i : i+1])
			}
		},
		"all at once": func(c *scene) { c.raw(whole) },
		"CR LF, cut between the two": func(c *scene) {
			for line := range strings.SplitSeq(whole, "\n") {
				c.raw(line + "\r")
				c.raw("\n")
			}
		},
		"CR alone":    func(c *scene) { c.raw(strings.ReplaceAll(whole, "\n", "\r")); c.stay() },
		"with a BOM":  func(c *scene) { c.raw("\uFEFF" + whole) },
		"never ended": func(c *scene) { c.raw(whole); c.stay() },
		"two data lines are one JSON": func(c *scene) {
			c.say("data: {\"choices\":[{\"delta\":{\"content\":", `data: "a é€𝄞z"}}]}`, "", doneChunk)
		},
	}
	s := play(t, map[string]func(*scene){"POST /v1/chat/completions": func(c *scene) {
		c.Header().Set("Content-Type", "text/event-stream")
		for name, f := range variants {
			if strings.Contains(c.body, quote(name)) {
				f(c)
			}
		}
	}})
	b := browse(t, s.URL)
	b.way("fetch")
	for name := range variants {
		t.Run(name, func(t *testing.T) {
			js[any](b, "document.getElementById('chat-log').replaceChildren(), document.getElementById('chat-status').textContent = ''")
			b.write("chat-input", name)
			b.click("chat-send")
			b.finished("a é€𝄞z")
		})
	}
}

// The reader alone, by the rules of the standard, with every text cut in two at
// every byte.
func TestReaderByTheStandard(t *testing.T) {
	cases := []struct {
		stream string
		want   []string
	}{
		{"data: a\ndata: b\n\n", []string{"a\nb"}},
		{"data: a\r\ndata: b\r\n\r\n", []string{"a\nb"}},
		{"data: a\rdata: b\r\rdata: c\r\r", []string{"a\nb", "c"}},
		{"data: a\n\rdata: b\r\n\n", []string{"a", "b"}},
		{"data\ndata\n\n", []string{"\n"}},
		{"data:\n\n", []string{""}},
		{"data:a\n\ndata:  b\n\ndata: c: d\n\n", []string{"a", " b", "c: d"}},
		{"\uFEFFdata: a\n\n", []string{"a"}},
		{":\n: data: x\nid: 1\nevent: e\nretry: 1\ndatas: x\nDATA: x\n data: x\n\ndata: 世 é 𝄞\n\n", []string{"世 é 𝄞"}},
		{"\n\n\ndata: a\n\n\n", []string{"a"}},
		{"data: a\n\ndata: never ended\n", []string{"a"}},
		{"", []string{}},
	}
	b := browse(t, play(t, nil).URL+"/seed")
	for _, c := range cases {
		got := js[[][]string](b, `(async () => {
			const { messages } = await import("/reader.js");
			const bytes = new TextEncoder().encode(`+quote(c.stream)+`), all = [];
			for (let cut = 0; cut <= bytes.length; cut++) {
				const body = new ReadableStream({ start(c) {
					for (const part of [bytes.slice(0, cut), bytes.slice(cut)]) if (part.length) c.enqueue(part);
					c.close();
				} });
				const found = [];
				for await (const data of messages(body)) found.push(data);
				all.push(found);
			}
			return all;
		})()`)
		for cut, found := range got {
			if !slices.Equal(found, c.want) {
				t.Errorf("%q, cut at %d: %q, want %q", c.stream, cut, found, c.want)
			}
		}
	}
}

func TestTruncatedFetchIsNoAnswer(t *testing.T) {
	cases := map[string]struct {
		server func(*scene)
		says   string
	}{
		"a clean end":            {func(c *scene) { c.begin(); c.say(wordChunk("half an "), "") }, "cut off"},
		"an end within an event": {func(c *scene) { c.begin(); c.say(wordChunk("half an "), "", wordChunk("answer")) }, "cut off"},
		"a broken connection":    {func(c *scene) { c.begin(); c.say(wordChunk("half an "), ""); c.cut() }, "error"},
		"an error chunk": {func(c *scene) {
			c.begin()
			c.say(wordChunk("half an "), "", `data: {"error":{"message":"The server restarts and could not finish."}}`, "")
		}, "could not finish"},
		"a refusal": {func(c *scene) { c.fail(503, `{"error":{"message":"No words today."}}`) }, "No words today."},
		"a refusal in HTML": {func(c *scene) {
			c.Header().Set("Content-Type", "text/html")
			c.WriteHeader(502)
			io.WriteString(c, "<h1>nginx</h1>")
		}, "answered 502"},
		"a line without end": {func(c *scene) { c.begin(); c.raw("data: " + strings.Repeat("x", 3<<20)); c.stay() }, "without an end"},
	}
	s := play(t, map[string]func(*scene){"POST /v1/chat/completions": func(c *scene) {
		for name, k := range cases {
			if strings.Contains(c.body, quote(name)) {
				k.server(c)
			}
		}
	}})
	b := browse(t, s.URL)
	b.way("fetch")
	for name, k := range cases {
		t.Run(name, func(t *testing.T) {
			js[any](b, "document.getElementById('chat-log').replaceChildren()")
			b.write("chat-input", name)
			b.click("chat-send")
			b.shows(".fault", k.says)
			b.until("document.getElementById('chat-send').disabled === false")
			if status := b.text("#chat-status"); strings.Contains(status, "complete") {
				t.Errorf("status %q", status)
			}
		})
	}
}

func TestStopByFetchEndsTheConnection(t *testing.T) {
	left := make(chan struct{})
	s := play(t, map[string]func(*scene){"POST /v1/chat/completions": func(c *scene) {
		c.begin()
		c.say(wordChunk("endless "), "")
		c.stay()
		close(left)
	}})
	b := browse(t, s.URL)
	b.ask("fetch", "talk")
	b.shows(".theirs .text", "endless")
	b.press(kb.Escape)
	b.shows("#chat-status", "stopped")
	happens(t, "the connection is closed", left)
	if b.text(".fault") != "" || js[bool](b, "document.getElementById('chat-send').disabled") {
		t.Error("the page does not look stopped")
	}
}

func TestStopByTicketIsARequestOfItsOwn(t *testing.T) {
	left, stopped := make(chan struct{}), make(chan struct{})
	s := play(t, map[string]func(*scene){
		"POST /tickets": giveTicket,
		"GET /stream?ticket": func(c *scene) {
			c.begin(numbered(0, "endless "))
			c.stay()
			close(left)
		},
		"POST /v1/generations/g/stop": func(c *scene) {
			close(stopped)
			c.WriteHeader(http.StatusAccepted)
		},
	})
	b := browse(t, s.URL)
	b.ask("ticket", "talk")
	b.shows(".theirs .text", "endless")
	b.click("chat-stop")
	happens(t, "the server is told to stop", stopped)
	happens(t, "the connection is closed", left)
	b.until("document.getElementById('chat-status').textContent === 'stopped'")
	if id := js[string](b, "document.activeElement.id"); id != "chat-input" {
		t.Errorf("the focus is on %q", id)
	}
}

// An instance dies in the middle of an answer. Another has what was said, and a
// third goes on writing.
func TestCutAnswerIsResumed(t *testing.T) {
	read := make(chan struct{}) // what was sent: a browser may drop what it has not read at a cut
	s := play(t, map[string]func(*scene){
		"POST /tickets": giveTicket,
		"GET /stream?ticket": func(c *scene) {
			if c.nth == 1 {
				c.begin(`retry: 10`, `event: hello`, `data: {"instance":"1","pid":11}`, ``)
				c.say(numbered(0, "one "), numbered(1, "two "), numbered(2, "three "))
				c.raw("id: g.3\n" + wordChunk("half of ")) // no blank line: this event never was
				c.wait(read)
				c.cut()
			}
			c.begin(`event: hello`, `data: {"instance":"2","pid":12,"resumed":3}`, ``)
			c.say(numbered(1, "two "), numbered(2, "three "), numbered(3, "four ")) // more than was asked for
			c.say(`event: takeover`, `data: {"instance":"3","token":4}`, ``, numbered(4, "five"), doneChunk)
		},
	})
	b := browse(t, s.URL)
	b.ask("ticket", "count")
	b.shows(".theirs .text", "three")
	close(read)
	b.finished("one two three four five")
	if got, want := b.text(".notes li"), "resumed at token 3 on instance 2|instance 3 went on writing at token 4"; got != want {
		t.Errorf("notes %q, want %q", got, want)
	}
	if badge := b.text(".theirs .badge"); badge != "instance 2 · 12" {
		t.Errorf("badge %q", badge)
	}
	if got, want := s.requests("GET /stream?ticket=g"), []string{"GET /stream?ticket=g", "GET /stream?ticket=g g.2"}; !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

// After a 502 the browser gives up; the page asks what it is about and goes on.
func TestAnswerSurvivesA502(t *testing.T) {
	read := make(chan struct{})
	s := play(t, map[string]func(*scene){
		"POST /tickets": giveTicket,
		"GET /stream?ticket": func(c *scene) {
			switch c.nth {
			case 1:
				c.begin(`retry: 10`, ``, numbered(0, "one "))
				c.wait(read)
				c.cut()
			case 2, 3:
				c.fail(502, "bad gateway")
			default:
				c.begin(`event: hello`, `data: {"instance":"2","pid":12,"resumed":1}`, ``, numbered(1, "two"), doneChunk)
			}
		},
		"GET /v1/generations/g": func(c *scene) { c.fail(502, "bad gateway") },
	})
	b := browse(t, s.URL)
	b.ask("ticket", "count")
	b.shows(".theirs .text", "one")
	close(read)
	b.finished("one two")
	all := s.requests("GET /stream?ticket=g")
	if last := all[len(all)-1]; len(all) != 4 || last != "GET /stream?ticket=g&last_event_id=g.0" {
		t.Errorf("requests %q", all)
	}
}

func TestTicketThatIsGoneEndsInASentence(t *testing.T) {
	s := play(t, map[string]func(*scene){
		"POST /tickets":         giveTicket,
		"GET /stream?ticket":    func(c *scene) { c.fail(410, "gone") },
		"GET /v1/generations/g": func(c *scene) { c.fail(410, `{"error":{"message":"This answer is not kept any more."}}`) },
	})
	b := browse(t, s.URL)
	b.ask("ticket", "count")
	b.shows(".fault", "This answer is not kept any more.")
	if n := len(s.requests("GET /stream?ticket=g")); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A server that leaves words out is found out.
func TestMissingWordsAreSaid(t *testing.T) {
	s := play(t, map[string]func(*scene){
		"POST /tickets":      giveTicket,
		"GET /stream?ticket": func(c *scene) { c.begin(numbered(0, "one "), numbered(3, "four"), doneChunk) },
	})
	b := browse(t, s.URL)
	b.ask("ticket", "count")
	b.finished("one four")
	if got := b.text(".notes li"); got != "2 words are missing here" {
		t.Errorf("notes %q", got)
	}
}

// A long burst is one change of the page per frame, not one per word.
func TestBurstIsRenderedInBatches(t *testing.T) {
	const words = 3000
	s := play(t, map[string]func(*scene){"POST /v1/chat/completions": func(c *scene) {
		c.begin()
		c.raw(strings.Repeat(wordChunk("x ")+"\n\n", words) + doneChunk + "\n")
	}})
	b := browse(t, s.URL)
	js[any](b, `globalThis.changes = 0, new MutationObserver((all) => changes += all.length)
		.observe(document.getElementById("chat-log"), { characterData: true, subtree: true })`)
	b.ask("fetch", "burst")
	b.finished(strings.Repeat("x ", words))
	if n := js[int](b, "changes"); n > words/10 {
		t.Errorf("%d changes of the page for %d words", n, words)
	}
}
