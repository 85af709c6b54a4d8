package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// number is the value as a whole number. From a flag, text is one too.
func (n node) number() (int64, bool) {
	if n.kind != kindNumber && (n.kind != kindText || !n.loose) {
		return 0, false
	}
	if v, err := strconv.ParseInt(n.text, 10, 64); err == nil {
		return v, true
	}
	if n.kind != kindNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.text, 64) // 1e3 and 4.0 are whole, too
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// boolean is the value as a boolean. From a flag, text is one too.
func (n node) boolean() (value, ok bool) {
	if n.kind != kindBool && (n.kind != kindText || !n.loose) {
		return false, false
	}
	return n.text == "true", n.text == "true" || n.text == "false"
}

// unquoted proposes to write 4 for "4", if that is what is wrong with n.
func (n node) unquoted() string {
	if n.kind != kindText || n.loose || len(n.text) > 20 {
		return ""
	}
	_, err := strconv.ParseFloat(n.text, 64)
	if err == nil || n.text == "true" || n.text == "false" {
		return "write " + n.text + " without quotes"
	}
	return ""
}

// str is the value as text that a process can be given: execve takes no NUL.
func (n node) str() (string, bool) {
	return n.text, n.kind == kindText && !strings.Contains(n.text, "\x00")
}

func wantBool(at func(*App) *bool) setter {
	return func(d *draft, m member) {
		v, ok := m.value.boolean()
		if !ok {
			d.wrong(m, "true or false")
			return
		}
		*at(&d.app) = v
	}
}

func wantInt(least, most int, at func(*App) *int) setter {
	expected := fmt.Sprintf("a whole number from %d to %d", least, most)
	return func(d *draft, m member) {
		v, ok := m.value.number()
		if !ok || v < int64(least) || v > int64(most) {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = int(v)
	}
}

func wantDuration(least time.Duration, at func(*App) *Duration) setter {
	expected := `milliseconds as a number, or text like "5s", "1m", "2h", "7d"`
	if least > 0 {
		expected += ", at least " + least.String()
	}
	return func(d *draft, m member) {
		v, ok := durationOf(m.value)
		if !ok || v < least {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = Duration(v)
	}
}

func durationOf(n node) (time.Duration, bool) {
	if ms, ok := n.number(); ok {
		return time.Duration(ms) * time.Millisecond, ms >= 0 && ms <= maxDuration.Milliseconds()
	}
	if n.kind != kindText {
		return 0, false
	}
	if isDigits(n.text) { // "1000": only where PM2 takes it, see wantMinUptime
		return 0, false
	}
	return parseDuration(n.text)
}

// wantMinUptime also takes milliseconds as text, as PM2 does for this key alone.
func wantMinUptime(at func(*App) *Duration) setter {
	inner := wantDuration(100*time.Millisecond, at)
	return func(d *draft, m member) {
		if m.value.kind == kindText && isDigits(m.value.text) {
			m.value.kind = kindNumber
		}
		inner(d, m)
	}
}

func wantSize(least uint64, expected string, at func(*App) *uint64) setter {
	return func(d *draft, m member) {
		var v uint64
		n, ok := m.value.number()
		if ok && n >= 0 && n <= maxSize {
			v = uint64(n)
		} else {
			v, ok = 0, false
			if m.value.kind == kindText {
				v, ok = parseSize(m.value.text)
			}
		}
		if !ok || v < least {
			d.wrong(m, expected)
			return
		}
		*at(&d.app) = v
	}
}

// wantText takes text for which problem finds nothing to say.
func wantText(expected string, problem func(string) string, at func(*App) *string) setter {
	return func(d *draft, m member) {
		s, ok := m.value.str()
		if !ok {
			d.wrong(m, expected)
			return
		}
		if what := problem(s); what != "" {
			d.refuse(m, excerpt(s)+" "+what, expected, "")
			return
		}
		*at(&d.app) = s
	}
}

// wantChoice takes one of the names; each stands for its value.
func wantChoice(names, values []string, at func(*App) *string) setter {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	expected := strings.Join(quoted, " or ")
	return func(d *draft, m member) {
		i := slices.Index(names, m.value.text)
		if m.value.kind != kindText || i < 0 {
			d.wrongNear(m, expected, names)
			return
		}
		*at(&d.app) = values[i]
	}
}

// wantWords takes a list of text, or a line that is cut into words.
func wantWords(at func(*App) *[]string) setter {
	const expected = "a list of text, or text"
	return func(d *draft, m member) {
		if s, ok := m.value.str(); ok {
			words, closed := splitWords(s)
			if !closed {
				d.refuse(m, "a quote in "+excerpt(s)+" is not closed", expected, "")
				return
			}
			*at(&d.app) = words
			return
		}
		if m.value.kind != kindList {
			d.wrong(m, expected)
			return
		}
		var words []string
		for _, item := range m.value.items {
			if item.kind == kindNumber || item.kind == kindBool { // ["--port", 8080]
				item.kind = kindText
			}
			word, ok := item.str()
			if !ok {
				d.wrong(m.with(item), "text in the list")
				continue
			}
			words = append(words, word)
		}
		*at(&d.app) = words
	}
}

// with is m for one item of its list, so that a problem points at the item.
func (m member) with(item node) member {
	return member{name: m.name, at: m.at, value: item}
}

// texts is a list of text or one text, each checked by problem.
func (d *draft) texts(m member, expected string, problem func(string) string) []node {
	items := m.value.items
	if m.value.kind == kindText {
		items = []node{m.value}
	} else if m.value.kind != kindList {
		d.wrong(m, expected)
		return nil
	}
	var good []node
	for _, item := range items {
		s, ok := item.str()
		if !ok {
			d.wrong(m.with(item), "text in the list")
			continue
		}
		if what := problem(s); what != "" {
			d.refuse(m.with(item), excerpt(s)+" "+what, expected, "")
			continue
		}
		good = append(good, item)
	}
	return good
}
