package monit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"gpm/supervisor/api"
)

// special is the keys that are not text.
var special = map[string]rune{
	"up": tea.KeyUp, "down": tea.KeyDown, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome,
	"enter": tea.KeyEnter, "tab": tea.KeyTab, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace,
}

// press presses keys by their names and returns the effects of all of them.
func press(m *model, keys ...string) []effect {
	var effects []effect
	for _, name := range keys {
		k := tea.KeyPressMsg{Text: name}
		if code, ok := special[name]; ok {
			k = tea.KeyPressMsg{Code: code}
		} else if c, ok := strings.CutPrefix(name, "ctrl+"); ok {
			k = tea.KeyPressMsg{Code: rune(c[0]), Mod: tea.ModCtrl}
		} else {
			k.Code = []rune(name)[0]
		}
		effects = append(effects, m.update(m.now, k)...)
	}
	return effects
}

func footerOf(m *model) string { return strings.TrimSpace(ansi.Strip(m.footer())) }

func selectedLabel(m *model) string {
	in, _ := m.selection()
	return label(in)
}

func TestKeysMoveTheSelection(t *testing.T) {
	m := screenOf(80, 24)
	for _, c := range []struct{ keys, want string }{
		{"", "a-rather-long-name-of-a-service-eu-west-11"},
		{"j", "ingest-0"},
		{"down j", "web-0"},
		{"k", "mailer-0"},
		{"G", "worker-0"},
		{"j", "worker-0"},
		{"up up", "web-1"},
		{"g", "a-rather-long-name-of-a-service-eu-west-11"},
		{"k", "a-rather-long-name-of-a-service-eu-west-11"},
		{"pgdown", "web-2"},
	} {
		press(m, strings.Fields(c.keys)...)
		if got := selectedLabel(m); got != c.want {
			t.Errorf("after %q: %s is selected, want %s", c.keys, got, c.want)
		}
	}
}

func TestSelectionOpensItsLogs(t *testing.T) {
	m := screenOf(80, 24)
	gen := m.logs.gen
	got := press(m, "j")
	if diff := cmp.Diff([]effect{follow{gen: gen + 1, ids: []int{6}, after: settle}}, got, cmp.AllowUnexported(follow{})); diff != "" {
		t.Errorf("effects, -want +got:\n%s", diff)
	}
	if m.logs.next != 0 {
		t.Errorf("%d lines of somebody else are shown", m.logs.next)
	}
	m.update(start, logBatch{gen: gen, lines: []line{{text: "late"}}})
	if m.logs.next != 0 {
		t.Error("a line of the previous stream is shown")
	}
}

func TestWholeAppFollowsItsInstances(t *testing.T) {
	m := screenOf(80, 24)
	press(m, "j", "j", "j")
	got := press(m, "a")
	if diff := cmp.Diff([]effect{follow{gen: m.logs.gen, ids: []int{0, 1, 2}}}, got, cmp.AllowUnexported(follow{})); diff != "" {
		t.Errorf("effects, -want +got:\n%s", diff)
	}
	got = press(m, "r")
	want := act{no: 1, verb: verbRestart, ids: []int{0, 1, 2}, label: "web (3 instances)"}
	if diff := cmp.Diff([]effect{want}, got, cmp.AllowUnexported(act{})); diff != "" {
		t.Errorf("effects, -want +got:\n%s", diff)
	}
	// Moving within the app keeps the stream.
	if got := press(m, "j"); len(got) != 0 {
		t.Errorf("effects of moving within the app: %v", got)
	}
}

func TestStopAsksFirst(t *testing.T) {
	for _, c := range []struct {
		key  string
		stop bool
	}{{"y", true}, {"Y", true}, {"n", false}, {"esc", false}, {"s", false}, {"enter", false}, {"q", false}} {
		m := screenOf(80, 24)
		if got := press(m, "G", "s"); slices.ContainsFunc(got, func(e effect) bool { _, ok := e.(act); return ok }) {
			t.Fatal("s stopped without a question")
		}
		if got, want := footerOf(m), "stop worker-0? y yes  n no"; got != want {
			t.Errorf("footer: %q, want %q", got, want)
		}
		got := press(m, c.key)
		want := []effect(nil)
		if c.stop {
			want = []effect{act{no: 1, verb: verbStop, ids: []int{3}, label: "worker-0"}}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(act{})); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.key, diff)
		}
		if m.mode != browsing {
			t.Errorf("%s: still %s", c.key, m.mode)
		}
	}
}

// TestStopIsAboutWhomItAskedFor: the list may change under the question.
func TestStopIsAboutWhomItAskedFor(t *testing.T) {
	m := screenOf(80, 24)
	press(m, "G", "s")
	list := fleet(start)
	list.Instances = slices.DeleteFunc(list.Instances, func(in api.Instance) bool { return in.ID == 3 })
	m.update(start, listed{list: list})
	got := press(m, "y")
	if len(got) != 1 || !slices.Equal(got[0].(act).ids, []int{3}) {
		t.Errorf("effects: %+v, want a stop of 3", got)
	}
}

func TestVerbsReport(t *testing.T) {
	ok := api.Result{Instances: []api.Outcome{{ID: 3, OK: true}}}
	failed := api.Result{Instances: []api.Outcome{{ID: 3, OK: true}, {ID: 4, Name: "web", Instance: 1, Reason: "not ready\nin 3s"}}}
	for _, c := range []struct {
		name   string
		result api.Result
		err    error
		want   string
		bad    bool
	}{
		{"done", ok, nil, "reloaded worker-0", false},
		{"failed", failed, nil, "reload worker-0: 1 of 2 failed, web-1: not readyin 3s", true},
		{"failed alone", api.Result{Instances: failed.Instances[1:]}, nil, "reload worker-0 failed: not readyin 3s", true},
		{"refused", api.Result{}, &api.Error{Message: "a rollout is running", Hint: "wait"}, "reload worker-0: a rollout is running (wait)", true},
		{"nobody", api.Result{}, nil, "reload worker-0: there was nothing to do", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := screenOf(80, 24)
			press(m, "G")
			a := press(m, "l")[0].(act)
			m.update(start.Add(2*time.Second), tick{})
			if got := footerOf(m); !strings.HasPrefix(got, "reloading worker-0, 2s") {
				t.Errorf("while it works: %q", got)
			}
			m.fresh.asking = false
			if got := m.update(m.now, acted{act: a, result: c.result, err: c.err}); !slices.Contains(got, effect(refresh{})) {
				t.Errorf("effects: %v, want a list", got)
			}
			if m.note.text != c.want || m.note.bad != c.bad {
				t.Errorf("note: %q, bad: %v", m.note.text, m.note.bad)
			}
			if len(m.working) != 0 {
				t.Error("still at work")
			}
			m.update(m.now.Add(badFor), tick{})
			if m.note.text != "" {
				t.Errorf("the note stays for ever: %q", m.note.text)
			}
		})
	}
}

func TestVerbsAreBounded(t *testing.T) {
	m := screenOf(80, 24)
	sent := 0
	for range maxActs + 3 {
		sent += len(press(m, "r"))
	}
	if sent != maxActs || len(m.working) != maxActs {
		t.Errorf("%d verbs were sent, %d at work, want %d", sent, len(m.working), maxActs)
	}
}

func TestFilter(t *testing.T) {
	m := screenOf(80, 24)
	press(m, "/", "W", "e", "b")
	if len(m.rows) != 3 || selectedLabel(m) != "web-0" {
		t.Errorf("%d rows, %s selected", len(m.rows), selectedLabel(m))
	}
	press(m, "q", "s") // text, not keys
	if len(m.rows) != 0 || m.mode != filtering {
		t.Errorf("%d rows, %s", len(m.rows), m.mode)
	}
	press(m, "backspace", "backspace", "enter")
	if len(m.rows) != 3 || m.mode != browsing {
		t.Errorf("%d rows, %s", len(m.rows), m.mode)
	}
	press(m, "/", "x", "esc")
	if m.filter != "Web" {
		t.Errorf("esc left the filter at %q", m.filter)
	}
	press(m, "esc")
	if m.filter != "" || len(m.rows) != 7 {
		t.Errorf("filter %q, %d rows", m.filter, len(m.rows))
	}
	press(m, "/")
	m.update(start, tea.PasteMsg{Content: strings.Repeat("x", 5000)})
	if len(m.filter) > maxFilter {
		t.Errorf("the filter holds %d bytes", len(m.filter))
	}
}

func TestWaysOut(t *testing.T) {
	quits := func(effects []effect) bool { return slices.Contains(effects, effect(quit{})) }
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"esc"}, {"/", "ctrl+c"}, {"s", "ctrl+c"}, {"?", "ctrl+c"}, {"tab", "q"}, {"tab", "esc", "esc"}, {"?", "x", "q"}} {
		if !quits(press(screenOf(80, 24), keys...)) {
			t.Errorf("%v does not leave", keys)
		}
	}
	for _, keys := range [][]string{{"/", "q"}, {"?", "q"}, {"tab", "esc"}, {"/", "esc"}, {"s", "q"}} {
		if quits(press(screenOf(80, 24), keys...)) {
			t.Errorf("%v leaves", keys)
		}
	}
}

// TestKeyTable: no key has two meanings.
func TestKeyTable(t *testing.T) {
	seen := map[string]string{}
	for _, b := range bindings {
		for _, k := range b.keys {
			if other, ok := seen[k]; ok {
				t.Errorf("%q is both %q and %q", k, other, b.doc)
			}
			seen[k] = b.doc
		}
	}
}

func TestSelectionSurvivesTheList(t *testing.T) {
	m := screenOf(80, 24)
	press(m, "j", "j", "j", "j") // web-1, id 1
	list := fleet(start)
	list.Instances = append([]api.Instance{{ID: 99, Name: "aaa"}}, list.Instances...)
	slices.Reverse(list.Instances)
	m.update(start, listed{list: list})
	if selectedLabel(m) != "web-1" {
		t.Errorf("%s is selected, want web-1", selectedLabel(m))
	}
	list.Instances = slices.DeleteFunc(list.Instances, func(in api.Instance) bool { return in.ID == 1 })
	got := m.update(start, listed{list: list})
	if selectedLabel(m) != "web-2" {
		t.Errorf("%s is selected, want its neighbour web-2", selectedLabel(m))
	}
	if len(got) != 1 || !slices.Equal(got[0].(follow).ids, []int{2}) {
		t.Errorf("effects: %+v, want the logs of 2", got)
	}
	got = m.update(start, listed{})
	if m.selected != nobody || len(got) != 1 || len(got[0].(follow).ids) != 0 {
		t.Errorf("selected %d, effects %+v", m.selected, got)
	}
}

func TestEventsShowAtOnce(t *testing.T) {
	m := screenOf(80, 24)
	e := api.Event{ID: 0, App: "web", Instance: 0, Status: api.Stopping, Message: "asked to stop"}
	got := m.update(start, eventBatch{no: m.link.no, events: []api.Event{e}})
	if !slices.Contains(got, effect(refresh{after: listSoon})) {
		t.Errorf("effects: %v, want a list soon", got)
	}
	press(m, "j", "j", "j")
	if in, _ := m.selection(); in.Status != api.Stopping || in.Reason != "asked to stop" {
		t.Errorf("%s: %s, %s", label(in), in.Status, in.Reason)
	}
	if got := footerOf(m); !strings.HasPrefix(got, "web-0: asked to stop") {
		t.Errorf("footer: %q", got)
	}
	// One list call at a time, and one more for what happened meanwhile.
	if got := m.update(start, eventBatch{no: m.link.no, events: []api.Event{e}}); len(got) != 0 {
		t.Errorf("a second list is asked for: %v", got)
	}
	if got := m.update(start, listed{list: fleet(start)}); !slices.Contains(got, effect(refresh{after: listSoon})) {
		t.Errorf("effects: %v, want one more list", got)
	}
	if got := m.update(start, listed{list: fleet(start)}); len(got) != 0 {
		t.Errorf("effects: %v, want none", got)
	}
}

func TestListIsAskedForEveryTwoSeconds(t *testing.T) {
	m := screenOf(80, 24)
	asked := 0
	for i := range 20 {
		now := start.Add(time.Duration(i+1) * time.Second)
		if len(m.update(now, tick{})) > 0 {
			asked++
			m.update(now, listed{list: fleet(start)})
		}
	}
	if asked != 10 {
		t.Errorf("%d lists in 20 s, want 10", asked)
	}
	m.update(start, disconnected{no: m.link.no})
	if got := m.update(m.now.Add(time.Minute), tick{}); len(got) != 0 {
		t.Errorf("a list is asked of a daemon that is gone: %v", got)
	}
}

func TestReconnect(t *testing.T) {
	m := screenOf(80, 24)
	m.update(start, connected{no: m.link.no, list: fleet(start)})
	var pauses []time.Duration
	for range 8 {
		got := m.update(m.now, disconnected{no: m.link.no, err: api.ErrNoDaemon})
		pauses = append(pauses, got[0].(connect).after)
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	want := []time.Duration{ms(250), ms(500), ms(1000), ms(2000), ms(4000), ms(5000), ms(5000), ms(5000)}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Errorf("pauses, -want +got:\n%s", diff)
	}
	if header := ansi.Strip(m.header()); !strings.Contains(header, "daemon gone, reconnecting in 5s") {
		t.Errorf("header: %q", header)
	}
	m.update(m.now, logsEnded{gen: m.logs.gen, err: api.ErrBroken})

	// A late word of an earlier attempt means nothing.
	if got := m.update(m.now, connected{no: m.link.no - 1}); m.link.up || got != nil {
		t.Error("an attempt of the past connected")
	}
	list := fleet(start)
	list.Daemon.PID, list.Daemon.Version = 901, "1.5.0"
	got := m.update(m.now, connected{no: m.link.no, list: list})
	if len(got) != 1 || !slices.Equal(got[0].(follow).ids, []int{5}) || got[0].(follow).after != 0 {
		t.Errorf("effects: %+v, want the logs at once", got)
	}
	if want := "the daemon is back, pid 901, now 1.5.0 instead of 1.4.2"; m.note.text != want {
		t.Errorf("note: %q, want %q", m.note.text, want)
	}
	// A connection that breaks at once does not start the pauses anew, a good one does.
	if got := m.update(m.now, disconnected{no: m.link.no}); got[0].(connect).after != lastRetry {
		t.Errorf("pause after a short connection: %v", got)
	}
	m.update(m.now, connected{no: m.link.no, list: list})
	if got := m.update(m.now.Add(time.Minute), disconnected{no: m.link.no}); got[0].(connect).after != firstRetry {
		t.Errorf("pause after a long connection: %v", got)
	}
}

func TestSilentDaemon(t *testing.T) {
	m := screenOf(80, 24)
	m.update(start, listed{err: errors.New("late")})
	if header := ansi.Strip(m.header()); !strings.Contains(header, "the daemon does not answer") {
		t.Errorf("header: %q", header)
	}
	m.update(start, listed{list: fleet(start)})
	if header := ansi.Strip(m.header()); strings.Contains(header, "does not answer") {
		t.Errorf("header: %q", header)
	}
}

func TestScope(t *testing.T) {
	for target, want := range map[string]int{"": 7, "all": 7, "web": 3, "jobs": 2, "4": 1, "/^w/": 4, "none": 0} {
		s, err := parseScope(target)
		if err != nil {
			t.Fatal(err)
		}
		m := newModel(start, fleet(start), s, unicodeGlyphs)
		if len(m.rows) != want {
			t.Errorf("%q: %d rows, want %d", target, len(m.rows), want)
		}
		if got := s.matchesAny(fleet(start).Instances); got != (want > 0) {
			t.Errorf("%q matches any: %v", target, got)
		}
	}
	if _, err := parseScope("/(/"); err == nil {
		t.Error("a broken regex is taken")
	}
	m := newModel(start, fleet(start), scope{text: "web"}, unicodeGlyphs)
	m.start()
	press(m, "a")
	if ids, _ := m.concerned(); fmt.Sprint(ids) != "[0 1 2]" {
		t.Errorf("concerned: %v", ids)
	}
}
