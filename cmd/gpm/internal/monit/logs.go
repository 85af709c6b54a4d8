package monit

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"gpm/supervisor/api"
)

// Bounds of the log pane.
const (
	maxLines = 2000            // kept of the selected instance; with maxLine, 8 MiB at most
	backlog  = 500             // asked for when a stream is opened
	skipFor  = 3 * time.Second // so long the title tells of skipped lines
)

// mark says what kind of line it is, in one column and without colour.
type mark byte

// The marks.
const (
	markOut  mark = ' '
	markErr  mark = '!'
	markGpm  mark = '*' // the daemon's own word
	markSkip mark = '~' // lines are missing here
)

// line is a line as shown: safe for the screen, about maxLine bytes at most.
type line struct {
	who  string // "web-0"
	mark mark
	text string
}

// newLine makes a line of what the daemon sent.
func newLine(l api.LogLine) line {
	if l.Skipped > 0 {
		return skipLine(l.Skipped)
	}
	made := line{who: clean(l.Name, false) + "-" + strconv.Itoa(l.Instance), mark: markOut}
	switch l.Stream {
	case "err":
		made.mark = markErr
	case "gpm":
		made.mark = markGpm
	}
	made.text = clean(cut(l.Text, maxLine), true)
	return made
}

func skipLine(n int) line {
	return line{mark: markSkip, text: plural(n, "line") + " skipped"}
}

// logView is the log pane: a ring of lines and a place in it. Lines have serial
// numbers, so that the place stays while the ring turns.
type logView struct {
	gen     int    // of the stream whose lines are shown
	ids     []int  // whose stream it is
	live    bool   // the stream is open, or about to be
	tries   int    // reopened without a line since
	trouble string // why it had to be reopened
	replace bool   // the first lines of this stream replace what is shown

	skipped   int // of late; see skip
	skippedAt time.Time

	lines  []line // a ring once it is full
	next   int    // serial of the line to come
	follow bool
	top    int // serial of the first line on the screen, unless follow
	wrap   bool
}

// first is the serial of the oldest line that is kept.
func (v *logView) first() int { return v.next - len(v.lines) }

// at is the line of that serial, which must be kept.
func (v *logView) at(serial int) line { return v.lines[serial%maxLines] }

func (v *logView) push(l line) {
	if len(v.lines) < maxLines {
		v.lines = append(v.lines, l)
	} else {
		v.lines[v.next%maxLines] = l
	}
	v.next++
	v.top = max(v.top, v.first())
}

func (v *logView) clear() { v.lines, v.next, v.top = nil, 0, 0 }

// add takes a batch if it is of the current stream.
func (v *logView) add(b logBatch, now time.Time) {
	if b.gen != v.gen {
		return
	}
	v.tries, v.trouble = 0, ""
	if n := b.skipped + b.missed; n > 0 {
		v.skip(n, now)
	}
	lines, fromEnd, anew := b.lines, v.next-v.top, false
	if v.replace {
		known := v.known(lines)
		lines, anew = lines[known:], known == 0
		v.replace = false
	}
	if anew {
		v.clear()
	}
	if b.skipped > 0 {
		v.push(skipLine(b.skipped))
	}
	for _, l := range lines {
		v.push(l)
	}
	if anew { // as far from the end as it was
		v.top = max(v.next-fromEnd, v.first())
	}
}

// skip counts what was not shown, for the title: the line that says so has long
// scrolled by when a flood is followed.
func (v *logView) skip(n int, now time.Time) {
	if now.Sub(v.skippedAt) > skipFor {
		v.skipped = 0
	}
	v.skipped += n
	v.skippedAt = now
}

// known is how many of the lines that a reopened stream begins with are shown
// already. It begins with the last lines once more: after a daemon restart they
// are the old ones and what came meanwhile. 0 is also said if they do not join:
// then more was written than asked for, or several logs come in another order.
func (v *logView) known(lines []line) int {
	joint := min(len(v.lines), 8)
	for end := joint; joint > 0 && end <= len(lines); end++ {
		same := true
		for i := 1; i <= joint && same; i++ {
			same = lines[end-i] == v.at(v.next-i)
		}
		if same {
			return end
		}
	}
	return 0
}

// followSelection opens the logs of whom the selection concerns, unless they
// are open.
func (m *model) followSelection(pause time.Duration) []effect {
	v := &m.logs
	ids, _ := m.concerned()
	same := slices.Equal(ids, v.ids)
	if !m.link.up || same && (v.live || len(ids) == 0) {
		return nil // without a link, connected comes here again
	}
	// Lines that still belong under the title stay until new ones come, others go at once.
	gone := func(id int) bool { return !slices.Contains(ids, id) }
	v.replace = same || m.whole && len(v.ids) > 0 && !slices.ContainsFunc(v.ids, gone)
	if !v.replace {
		v.clear()
		v.follow = true
	}
	v.ids, v.tries, v.trouble = ids, 0, ""
	return m.openLogs(pause)
}

func (m *model) openLogs(pause time.Duration) []effect {
	v := &m.logs
	v.gen++
	v.live = len(v.ids) > 0
	return []effect{follow{gen: v.gen, ids: v.ids, after: pause}}
}

// logsEnded opens the stream again. While the daemon is away that is left to
// connected: both streams end when it goes.
func (m *model) logsEnded(msg logsEnded) []effect {
	v := &m.logs
	if msg.gen != v.gen {
		return nil
	}
	v.live, v.replace = false, true
	if !m.link.up {
		return nil
	}
	if v.tries > 0 {
		v.trouble = "reopening"
		if msg.err != nil {
			v.trouble = sentence(msg.err)
		}
	}
	pause := retryAfter(v.tries)
	v.tries++
	return m.openLogs(pause)
}

// scroll moves the log pane by n lines; downwards it follows again at the end.
func (m *model) scroll(n int) {
	v, size := &m.logs, m.measure()
	end := v.topAtEnd(size.logs, m.textWidth(size))
	if v.follow {
		v.top = end
	}
	v.top = max(v.top+n, v.first())
	v.follow = v.top >= end && (n > 0 || v.follow)
	v.top = min(v.top, end)
}

// hold shows the same lines from now on, whatever comes.
func (m *model) hold() {
	v, size := &m.logs, m.measure()
	v.top, v.follow = v.topAtEnd(size.logs, m.textWidth(size)), false
}

// topAtEnd is the first line on a screen of so many rows that ends with the
// newest line.
func (v *logView) topAtEnd(rows, width int) int {
	serial := v.next
	for serial > v.first() {
		n := 1
		if v.wrap {
			n = len(wrapText(v.at(serial-1).text, width))
		}
		if rows -= n; rows < 0 {
			break
		}
		serial--
	}
	return max(min(serial, v.next-1), v.first())
}

// place says where in the logs we are; end is topAtEnd.
func (v *logView) place(end int, now time.Time) string {
	switch {
	case v.trouble != "":
		return fmt.Sprintf("try %d: %s", v.tries, v.trouble)
	case v.follow && v.skipped > 0 && now.Sub(v.skippedAt) <= skipFor:
		return "following, " + plural(v.skipped, "line") + " skipped"
	case v.follow:
		return "following"
	case v.top < end:
		return plural(end-v.top, "line") + " below"
	}
	return "holding still"
}
