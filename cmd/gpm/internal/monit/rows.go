package monit

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gpm/supervisor/api"
)

// scope is the target that monit was started with.
type scope struct {
	text string // "": everything
	re   *regexp.Regexp
}

func parseScope(target string) (scope, error) {
	if target == "all" {
		return scope{}, nil
	}
	s := scope{text: target}
	if len(target) > 2 && strings.HasPrefix(target, "/") && strings.HasSuffix(target, "/") {
		re, err := regexp.Compile(target[1 : len(target)-1])
		if err != nil {
			return s, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("read target %q: %v", target, err)}
		}
		s.re = re
	}
	return s, nil
}

func (s scope) matches(in api.Instance) bool {
	switch {
	case s.text == "":
		return true
	case s.re != nil:
		return s.re.MatchString(in.Name)
	}
	return s.text == in.Name || s.text == in.Namespace || s.text == strconv.Itoa(in.ID)
}

// matchesAny is true without a target even if there is nothing yet.
func (s scope) matchesAny(all []api.Instance) bool {
	return s.text == "" || slices.ContainsFunc(all, s.matches)
}

// label is how an instance is called on the screen. Names come from configs and
// may hold anything.
func label(in api.Instance) string {
	return clean(in.Name, false) + "-" + strconv.Itoa(in.Instance)
}

// arrange chooses and sorts the rows from the last list and keeps the selection
// on its instance, or on its place if the instance is gone.
func (m *model) arrange() {
	place := m.selectedRow()
	m.rows, m.inScope = m.rows[:0], 0
	want := strings.ToLower(m.filter)
	for _, in := range m.list.Instances {
		if !m.scope.matches(in) {
			continue
		}
		m.inScope++
		if want == "" || strings.Contains(strings.ToLower(label(in)), want) {
			m.rows = append(m.rows, in)
		}
	}
	slices.SortFunc(m.rows, func(a, b api.Instance) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
	if m.selectedRow() < 0 {
		m.selectRow(max(place, 0))
	}
	m.showSelected()
}

// selectedRow is the index of the selected instance in rows; -1: it is not there.
func (m *model) selectedRow() int {
	return slices.IndexFunc(m.rows, func(in api.Instance) bool { return in.ID == m.selected })
}

// selection is the selected instance.
func (m *model) selection() (api.Instance, bool) {
	if i := m.selectedRow(); i >= 0 {
		return m.rows[i], true
	}
	return api.Instance{}, false
}

func (m *model) selectRow(i int) {
	if len(m.rows) == 0 {
		m.selected = nobody
		return
	}
	m.selected = m.rows[min(max(i, 0), len(m.rows)-1)].ID
}

// showSelected scrolls the list as little as possible.
func (m *model) showSelected() {
	height := m.measure().list
	i := max(m.selectedRow(), 0)
	m.top = min(max(m.top, i-height+1), i)
	m.top = max(min(m.top, len(m.rows)-height), 0)
}

// moveTo selects a row and follows its logs.
func (m *model) moveTo(i int) []effect {
	m.selectRow(i)
	m.showSelected()
	return m.followSelection(settle)
}

// concerned is whom logs and verbs are about: the selected instance, or all
// instances of its app.
func (m *model) concerned() (ids []int, name string) {
	in, ok := m.selection()
	switch {
	case !ok:
		return nil, ""
	case !m.whole:
		return []int{in.ID}, label(in)
	}
	for _, other := range m.list.Instances {
		if other.Name == in.Name && other.Namespace == in.Namespace {
			ids = append(ids, other.ID)
		}
	}
	slices.Sort(ids)
	name = clean(in.Name, false)
	if len(ids) == 1 {
		return ids, name + " (1 instance)"
	}
	return ids, fmt.Sprintf("%s (%d instances)", name, len(ids))
}

// counts is how many of the shown instances are in which state, the worst
// first; in signs where there is no room for words.
func (m *model) counts(width int) string {
	if len(m.rows) == 0 {
		return "no instances"
	}
	n := map[api.Status]int{}
	for _, in := range m.rows {
		if in.Status == api.Pending { // for another app, not for its restart: the same in few words
			in.Status = api.Waiting
		}
		n[in.Status]++
	}
	var words, signs []string
	for _, s := range []api.Status{api.Errored, api.Waiting, api.Launching, api.Stopping, api.Online, api.Stopped} {
		if n[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[s], shortStatus(s)))
			sign, look := m.glyphs.sign(s)
			signs = append(signs, fmt.Sprintf("%s %d", look.on(sign), n[s]))
		}
	}
	if text := strings.Join(words, ", "); len(text) <= width {
		return text
	}
	return strings.Join(signs, "  ")
}

// sentence is an error as one clean line, with its hint.
func sentence(err error) string {
	text := err.Error()
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return clean(text, false)
}
