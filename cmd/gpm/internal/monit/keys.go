package monit

import (
	"slices"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// binding is a row of the key table: the help screen and the footer are made of
// it, so they cannot differ from what the keys do.
type binding struct {
	keys []string // as Bubble Tea names them
	show string   // in the help
	doc  string
	do   func(*model) []effect
}

// bindings is every key of the browsing mode.
var bindings = []binding{
	{[]string{"up", "k"}, "↑ k", "up", func(m *model) []effect { return m.step(-1) }},
	{[]string{"down", "j"}, "↓ j", "down", func(m *model) []effect { return m.step(1) }},
	{[]string{"pgup", "ctrl+b"}, "pgup", "page up", func(m *model) []effect { return m.page(-1) }},
	{[]string{"pgdown", "ctrl+f", "space"}, "pgdn", "page down", func(m *model) []effect { return m.page(1) }},
	{[]string{"g", "home"}, "g", "first row, or line", (*model).first},
	{[]string{"G", "end"}, "G", "last row, or line", (*model).last},
	{[]string{"enter", "tab", "shift+tab"}, "tab", "to the logs, and back", (*model).otherPane},
	{[]string{"f"}, "f", "follow, or hold still", (*model).toggleFollow},
	{[]string{"w"}, "w", "wrap long lines", (*model).toggleWrap},
	{[]string{"a"}, "a", "one instance, or all", (*model).toggleWhole},
	{[]string{"r"}, "r", "restart", func(m *model) []effect { return m.ask(verbRestart) }},
	{[]string{"l"}, "l", "reload", func(m *model) []effect { return m.ask(verbReload) }},
	{[]string{"s"}, "s", "stop (asks first)", (*model).askStop},
	{[]string{"/"}, "/", "filter by name", (*model).startFilter},
	{[]string{"?", "h", "f1"}, "?", "this help", (*model).help},
	{[]string{"q", "ctrl+c"}, "q ^C", "leave, apps go on", (*model).leave},
	{[]string{"esc"}, "esc", "back, at last leave", (*model).back},
	{[]string{"ctrl+z"}, "^Z", "suspend", func(*model) []effect { return []effect{suspend{}} }},
}

// key does what a key means in the current mode.
func (m *model) key(k tea.KeyPressMsg) []effect {
	name := k.String()
	if name == "ctrl+c" {
		return m.leave()
	}
	switch m.mode {
	case filtering:
		return m.filterKey(k, name)
	case confirming:
		m.mode = browsing
		if name == "y" || name == "Y" {
			return m.send(m.asked)
		}
		m.tell("nothing was stopped", false)
		return nil
	case helping:
		m.mode = browsing
		return nil
	case browsing:
	}
	for _, b := range bindings {
		if slices.Contains(b.keys, name) {
			return b.do(m)
		}
	}
	return nil
}

func (m *model) leave() []effect { return []effect{quit{}} }

func (m *model) help() []effect {
	m.mode = helping
	return nil
}

// back undoes one thing: a note, the focus, the filter; then it leaves.
func (m *model) back() []effect {
	switch {
	case m.note.bad:
		m.note = note{}
	case m.inLogs:
		m.inLogs = false
	case m.filter != "":
		return m.typeFilter("")
	default:
		return m.leave()
	}
	return nil
}

func (m *model) step(n int) []effect {
	if m.inLogs {
		m.scroll(n)
		return nil
	}
	return m.moveTo(m.selectedRow() + n)
}

func (m *model) page(n int) []effect {
	if m.inLogs {
		m.scroll(n * max(m.measure().logs-1, 1))
		return nil
	}
	return m.moveTo(m.selectedRow() + n*max(m.measure().list-1, 1))
}

func (m *model) first() []effect {
	if m.inLogs {
		m.scroll(-maxLines)
		return nil
	}
	return m.moveTo(0)
}

func (m *model) last() []effect {
	if m.inLogs {
		m.logs.follow = true
		return nil
	}
	return m.moveTo(len(m.rows) - 1)
}

func (m *model) otherPane() []effect {
	m.inLogs = !m.inLogs
	return nil
}

func (m *model) toggleFollow() []effect {
	if m.logs.follow {
		m.hold()
	} else {
		m.logs.follow = true
	}
	return nil
}

func (m *model) toggleWrap() []effect {
	m.logs.wrap = !m.logs.wrap
	return nil
}

func (m *model) toggleWhole() []effect {
	m.whole = !m.whole
	return m.followSelection(0)
}

// ask has a verb done at once.
func (m *model) ask(v verb) []effect {
	ids, name := m.concerned()
	if len(ids) == 0 {
		return nil
	}
	return m.send(act{verb: v, ids: ids, label: name})
}

func (m *model) askStop() []effect {
	ids, name := m.concerned()
	if len(ids) == 0 {
		return nil
	}
	m.asked, m.mode = act{verb: verbStop, ids: ids, label: name}, confirming
	return nil
}

// send hands a verb to the daemon. Which verbs exclude each other is the
// daemon's to say; here their number is bounded.
func (m *model) send(a act) []effect {
	if len(m.working) >= maxActs {
		m.tell("too much at once: wait until something is done", true)
		return nil
	}
	m.acts++
	a.no = m.acts
	m.working = append(m.working, working{a, m.now})
	m.note = note{}
	return []effect{a}
}

func (m *model) startFilter() []effect {
	m.mode, m.before, m.inLogs = filtering, m.filter, false
	return nil
}

// maxFilter bounds what can be typed or pasted.
const maxFilter = 64

func (m *model) filterKey(k tea.KeyPressMsg, name string) []effect {
	switch name {
	case "enter":
		m.mode = browsing
		return nil
	case "esc":
		m.mode = browsing
		return m.typeFilter(m.before)
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.filter)
		return m.typeFilter(m.filter[:len(m.filter)-n])
	case "ctrl+u":
		return m.typeFilter("")
	case "up":
		return m.moveTo(m.selectedRow() - 1)
	case "down":
		return m.moveTo(m.selectedRow() + 1)
	}
	if k.Text == "" {
		return nil
	}
	return m.typeFilter(m.filter + clean(k.Text, false))
}

func (m *model) typeFilter(text string) []effect {
	if len(text) > maxFilter {
		return nil
	}
	m.filter = text
	m.arrange()
	return m.followSelection(settle)
}
