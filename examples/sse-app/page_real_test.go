package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The page on the app itself: several processes on one port, with a bus.

// siblings are processes that share a port.
type siblings struct {
	t   *testing.T
	bus string
	url string
	all []*process // by instance
}

func together(t *testing.T, n int) *siblings {
	t.Helper()
	s := &siblings{t: t, bus: small(t).url}
	for range n {
		s.add()
	}
	return s
}

// add starts one more.
func (s *siblings) add() {
	s.t.Helper()
	addr := "127.0.0.1:0"
	if s.url != "" {
		addr = strings.TrimPrefix(s.url, "http://")
	}
	p := launchOn(s.t, s.bus, fmt.Sprint(len(s.all)), "-addr", addr,
		"-interval", "50ms", "-delay", leisure.String(), "-linger", "10ms", "-spread", "10ms")
	s.url = p.url
	s.all = append(s.all, p)
}

// of is the process that a badge names: "instance 1 · 4711".
func (s *siblings) of(badge string) *process {
	s.t.Helper()
	i := slices.IndexFunc(s.all, func(p *process) bool {
		return badge == fmt.Sprintf("instance %d · %d", slices.Index(s.all, p), p.cmd.Process.Pid)
	})
	if i < 0 {
		s.t.Fatalf("no process is %q", badge)
	}
	return s.all[i]
}

// ticket is the id of the last answer that the page follows.
func (b *tab) ticket() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range slices.Backward(b.asked) {
		if _, id, ok := strings.Cut(address, "/stream?ticket="); ok {
			id, _, _ = strings.Cut(id, "&")
			return id
		}
	}
	b.t.Fatal("the page follows no answer")
	return ""
}

func (b *tab) hasWords(n int) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector('.theirs .text').textContent.split(' ').length > %d", n))
}

// nothingLost is what the figures of the event stream say.
func (b *tab) nothingLost() {
	b.t.Helper()
	if got := b.figures(); !strings.Contains(got, "|0|0|") {
		b.t.Errorf("figures %s: messages are missing, or came twice", got)
	}
}

func TestPageOnTheApp(t *testing.T) {
	s := together(t, 2)
	b := browse(t, s.url)
	b.shows("#feed-log", "Hello, this is message 3")
	for _, mode := range []string{"fetch", "ticket"} {
		js[any](b, "document.getElementById('chat-log').replaceChildren()")
		b.ask(mode, "who are you")
		b.finished(strings.Join(answer("who are you"), ""))
	}
	b.write("login-name", "alice\n")
	b.shows("#login-user", "alice")
	for i := range 8 { // through both instances, sooner or later
		push(t, s.url, "user=alice", fmt.Sprintf("push %d %s", i, attack))
	}
	b.shows("#inbox-log li:last-child", "push 7 "+attack)
	if n := js[int](b, "document.querySelectorAll('#inbox-log li').length"); n != 8 {
		t.Errorf("%d pushes arrived, 8 were sent", n)
	}
	b.write("push-user", "alice")
	b.write("push-text", "from the page\n")
	b.shows("#push-status", "pushed to alice")
	b.shows("#inbox-log", "from the page")
	b.write("news-text", "it rains\n")
	b.shows("#feed-log", "it rains")
	b.write("room-text", "hello\n")
	b.shows("#room-log", "hello--返回数据")
	b.nothingLost()
	if errs := b.consoleErrors(); len(errs) > 0 {
		t.Errorf("console: %q", errs)
	}
}

func TestPageStopsTheWriter(t *testing.T) {
	s := together(t, 2)
	b := browse(t, s.url)
	b.ask("ticket", "talk")
	b.hasWords(2)
	b.click("chat-stop")
	b.until("document.getElementById('chat-status').textContent === 'stopped'")
	until(t, "nobody writes", func() bool { return stateAt(t, s.url, b.ticket()).Status == "stopped" })
}

// The instance that the browser reads from and the one that writes the answer
// are killed in the middle of it. Another has the rest, and the page says so.
func TestPageSurvivesAKill(t *testing.T) {
	s := together(t, 3)
	b := browse(t, s.url)
	b.shows("#feed-state", "served by process")
	b.ask("ticket", "what if you die")
	b.hasWords(4)
	reader := s.of(b.text(".theirs .badge"))
	writer := stateAt(t, s.url, b.ticket()).Instance
	for i, p := range s.all {
		if p == reader || writer == fmt.Sprint(i) {
			p.kill()
		}
	}
	b.finished(strings.Join(answer("what if you die"), ""))
	notes := b.text(".notes li")
	if !strings.Contains(notes, "resumed at token ") || !strings.Contains(notes, " went on writing at token ") {
		t.Errorf("notes %q", notes)
	}
	b.until("document.getElementById('feed-state').dataset.state === 'open'")
	b.nothingLost()
}

// Every process is replaced, one after the other, while an answer is written.
func TestPageSurvivesAReload(t *testing.T) {
	s := together(t, 2)
	b := browse(t, s.url)
	b.shows("#feed-state", "served by process")
	js[any](b, `globalThis.states = new Set(), new MutationObserver(() => states.add(document.querySelector("#feed-state").dataset.state))
		.observe(document.querySelector("#feed-state"), { attributes: true, attributeFilter: ["data-state"] })`)
	b.ask("ticket", "what if you leave")
	b.hasWords(2)
	for _, old := range slices.Clone(s.all) {
		s.add()
		old.signal(syscall.SIGTERM)
	}
	b.finished(strings.Join(answer("what if you leave"), ""))
	for _, old := range s.all[:2] {
		old.ended(t)
	}
	b.until(fmt.Sprintf("[%d, %d].some((pid) => document.getElementById('feed-state').textContent.endsWith(pid))", s.all[2].cmd.Process.Pid, s.all[3].cmd.Process.Pid))
	b.nothingLost()
	if got := js[string](b, "[...states].sort().join()"); got != "open,reconnecting" {
		t.Errorf("states %s: an EventSource was closed for good", got)
	}
}
