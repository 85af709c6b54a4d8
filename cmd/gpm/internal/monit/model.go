package monit

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"gpm/supervisor/api"
)

// Times of the model. It sees the clock only through the now of its messages.
const (
	listEvery  = 2 * time.Second        // cpu and memory, which make no events
	listSoon   = 200 * time.Millisecond // after an event: pid, counters, uptime
	settle     = 150 * time.Millisecond // so long the selection rests before its logs are opened
	firstRetry = 250 * time.Millisecond // the daemon is back within that, mostly
	lastRetry  = 5 * time.Second
	steady     = 5 * time.Second  // a connection that lasted this long was a good one
	noteFor    = 6 * time.Second  // a success stays in the footer
	badFor     = 30 * time.Second // a failure stays, or until esc
	maxActs    = 8                // verbs at work at once
)

// nobody is the id of no instance.
const nobody = -1

// mode says what keys mean now.
type mode string

// The modes. browsing leads to each of the others by its key, they lead back to it.
const (
	browsing   mode = "browsing"
	filtering  mode = "filtering"  // "/": keys are text
	confirming mode = "confirming" // "s": y or anything else
	helping    mode = "helping"    // "?": any key leaves
)

// note is the last thing to be told in the footer.
type note struct {
	text  string
	bad   bool
	minor bool // an event: any other note is more important
	until time.Time
}

// working is a verb that the daemon has not answered yet.
type working struct {
	act
	since time.Time
}

// model is all that monit knows. It is owned by the program's loop; update and
// render have no effects but on it.
type model struct {
	now           time.Time
	width, height int
	glyphs        glyphs

	scope    scope
	list     api.List
	rows     []api.Instance // the shown ones, sorted
	inScope  int            // rows without a filter
	selected int            // by id, as rows come and go
	top      int            // first row on the screen
	whole    bool           // logs and verbs concern all instances of the app
	filter   string

	mode    mode
	before  string // the filter before filtering
	asked   act    // what confirming asks about
	inLogs  bool   // the focus
	note    note
	working []working
	acts    int // numbers verbs

	link  link
	fresh freshness
	logs  logView
}

// link is the state of the event stream.
type link struct {
	no    int // of the current attempt
	up    bool
	since time.Time // up since
	tries int       // since the last good connection
	next  time.Time // of the next attempt
}

// freshness keeps one list call in flight at most.
type freshness struct {
	asking bool
	stale  bool // something happened while asking
	at     time.Time
	silent bool // the last call failed although the link is up
}

// newModel is the state before the first message. list is shown until the event
// stream brings a snapshot.
func newModel(now time.Time, list api.List, s scope, g glyphs) *model {
	m := &model{now: now, width: 80, height: 24, glyphs: g, scope: s, list: list, selected: nobody, mode: browsing}
	m.logs.follow = true
	m.fresh.at = now
	m.link.up, m.link.since = true, now
	m.arrange()
	return m
}

// start is the effects of the beginning.
func (m *model) start() []effect {
	m.link.no++
	return append([]effect{connect{no: m.link.no}}, m.followSelection(0)...)
}

// update takes one message. It is the only place where the model changes.
func (m *model) update(now time.Time, msg tea.Msg) []effect {
	m.now = now
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.showSelected()
	case tea.KeyPressMsg:
		return m.key(msg)
	case tea.PasteMsg:
		if m.mode == filtering {
			return m.typeFilter(m.filter + clean(strings.TrimSpace(msg.Content), false))
		}
	case tick:
		return m.tick()
	case connected:
		return m.connected(msg)
	case disconnected:
		return m.disconnected(msg)
	case eventBatch:
		return m.events(msg)
	case listed:
		return m.listed(msg)
	case logBatch:
		m.logs.add(msg, now)
	case logsEnded:
		return m.logsEnded(msg)
	case acted:
		return m.acted(msg)
	}
	return nil
}

func (m *model) tick() []effect {
	if m.note.text != "" && !m.now.Before(m.note.until) {
		m.note = note{}
	}
	if m.link.up && !m.fresh.asking && m.now.Sub(m.fresh.at) >= listEvery-listSoon {
		return m.askList(0)
	}
	return nil
}

// connected takes the snapshot that begins an event stream.
func (m *model) connected(msg connected) []effect {
	if msg.no != m.link.no {
		return nil
	}
	was, wasUp := m.list.Daemon, m.link.up
	m.link.up, m.link.since = true, m.now
	m.takeList(msg.list)
	if !wasUp {
		text := fmt.Sprintf("the daemon is back, pid %d", msg.list.Daemon.PID)
		if now := msg.list.Daemon.Version; now != was.Version {
			text += fmt.Sprintf(", now %s instead of %s", clean(now, false), clean(was.Version, false))
		}
		m.tell(text, false)
	}
	return m.followSelection(0)
}

// disconnected tries again, ever more slowly: the daemon may be away for
// milliseconds (a restart) or for ever (gpm kill).
func (m *model) disconnected(msg disconnected) []effect {
	if msg.no != m.link.no {
		return nil
	}
	if m.link.up && m.now.Sub(m.link.since) >= steady {
		m.link.tries = 0
	}
	pause := retryAfter(m.link.tries)
	m.link.up = false
	m.link.tries++
	m.link.no++
	m.link.next = m.now.Add(pause)
	m.fresh.silent = false
	return []effect{connect{no: m.link.no, after: pause}}
}

// retryAfter is 250 ms, doubled with each try, 5 s at most.
func retryAfter(tries int) time.Duration {
	pause := firstRetry
	for range tries {
		if pause *= 2; pause >= lastRetry {
			return lastRetry
		}
	}
	return pause
}

// events shows at once what an event says, and asks for the rest.
func (m *model) events(msg eventBatch) []effect {
	if msg.no != m.link.no {
		return nil
	}
	for _, e := range msg.events {
		for i := range m.list.Instances {
			in := &m.list.Instances[i]
			if in.ID == e.ID && e.Status != "" {
				in.Status, in.Reason = e.Status, e.Message
			}
		}
		if m.note.text == "" || m.note.minor {
			m.note = note{text: eventText(e), minor: true, until: m.now.Add(noteFor)}
		}
	}
	m.arrange()
	return append(m.askList(listSoon), m.followSelection(settle)...)
}

// eventText is an event as a sentence that names its instance once.
func eventText(e api.Event) string {
	text, who := clean(e.Message, false), clean(e.App, false)
	if e.Progress != nil {
		text = progressText(*e.Progress)
	}
	if text == "" {
		text = clean(e.Kind, false)
	}
	if who == "" || strings.Contains(text, who) {
		return text
	}
	if e.Instance >= 0 {
		who = fmt.Sprintf("%s-%d", who, e.Instance)
	}
	return who + ": " + text
}

// progressText is "2/4 ready, 37 streams draining, waiting: pause 10s".
func progressText(p api.Progress) string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d/%d ready", p.Ready, p.Total))
	}
	if p.Draining > 0 {
		parts = append(parts, plural(p.Streams, "stream")+" draining")
	}
	if p.Waiting != "" {
		parts = append(parts, "waiting: "+clean(p.Waiting, false))
	}
	return strings.Join(parts, ", ")
}

// askList keeps one call in flight; what happens meanwhile makes another one.
func (m *model) askList(after time.Duration) []effect {
	if m.fresh.asking {
		m.fresh.stale = true
		return nil
	}
	m.fresh.asking = true
	return []effect{refresh{after: after}}
}

func (m *model) listed(msg listed) []effect {
	stale := m.fresh.stale
	m.fresh.asking, m.fresh.stale, m.fresh.at = false, false, m.now
	m.fresh.silent = msg.err != nil && m.link.up
	if msg.err == nil && m.link.up {
		m.takeList(msg.list)
	}
	effects := m.followSelection(settle)
	if stale && m.link.up {
		effects = append(effects, m.askList(listSoon)...)
	}
	return effects
}

func (m *model) takeList(list api.List) {
	m.list = list
	m.fresh.silent = false
	m.arrange()
}

// acted reports what became of a verb.
func (m *model) acted(msg acted) []effect {
	for i, w := range m.working {
		if w.no == msg.no {
			m.working = append(m.working[:i:i], m.working[i+1:]...)
			break
		}
	}
	switch {
	case msg.err != nil:
		m.tell(fmt.Sprintf("%s %s: %s", msg.verb, msg.label, sentence(msg.err)), true)
	case msg.result.Failed():
		m.tell(failure(msg), true)
	case len(msg.result.Instances) == 0:
		m.tell(fmt.Sprintf("%s %s: there was nothing to do", msg.verb, msg.label), false)
	default:
		m.tell(fmt.Sprintf("%s %s", msg.verb.done(), msg.label), false)
	}
	return m.askList(0)
}

// failure says how many failed, and why the first one did.
func failure(msg acted) string {
	var first *api.Outcome
	failed := 0
	for i, o := range msg.result.Instances {
		if !o.OK {
			failed++
			if first == nil {
				first = &msg.result.Instances[i]
			}
		}
	}
	text := fmt.Sprintf("%s %s failed", msg.verb, msg.label)
	if n := len(msg.result.Instances); n > 1 {
		text = fmt.Sprintf("%s %s: %d of %d failed, %s-%d", msg.verb, msg.label, failed, n, clean(first.Name, false), first.Instance)
	}
	if first.Reason != "" {
		text += ": " + clean(first.Reason, false)
	}
	return text
}

func (m *model) tell(text string, bad bool) {
	stay := noteFor
	if bad {
		stay = badFor
	}
	m.note = note{text: text, bad: bad, until: m.now.Add(stay)}
}
