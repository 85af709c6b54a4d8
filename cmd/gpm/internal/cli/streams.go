package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

// holding tells how many streams hold up the drain of an instance that was
// taken out of traffic.
func holding(i api.Instance) int { return max(i.Streams-i.Idle, 0) }

// away tells that an instance is up and gets no new connections.
func away(i api.Instance) bool { return i.Status == api.Online && i.Traffic == api.Away }

// statusWord is an instance's status in the list: with what traffic adds to it,
// and the number of the old processes that a reload has left.
func statusWord(i api.Instance) string {
	word := string(i.Status)
	switch {
	case away(i) && holding(i) > 0:
		word = "draining"
	case away(i):
		word = "drained"
	}
	if n := leaving(i); n > 0 {
		word += " +" + strconv.Itoa(n)
	}
	return word
}

// outgoing is the instance's old processes, without the current one.
func outgoing(i api.Instance) []api.Outgoing {
	var old []api.Outgoing
	for _, o := range i.Outgoing {
		if o.PID != i.PID {
			old = append(old, o)
		}
	}
	return old
}

// leaving is how many old processes an instance has.
func leaving(i api.Instance) int {
	if len(i.Outgoing) == 0 {
		return i.Draining // a daemon that does not tell which
	}
	return len(outgoing(i))
}

// streamsCell is the number of an instance's streams; "-" where gpm cannot know.
func streamsCell(i api.Instance) string {
	if i.Streams == 0 && (i.PID == 0 || i.Traffic == "") {
		return "-"
	}
	return strconv.Itoa(i.Streams)
}

// leftover sums old processes up.
type leftover struct {
	processes, streams int
	oldest             time.Time // zero: none
	deadline           time.Time // the last one; zero: none
}

func (l *leftover) add(all ...api.Outgoing) {
	for _, o := range all {
		l.processes++
		l.streams += o.Streams
		l.oldest = earlier(l.oldest, o.Oldest)
		if o.Deadline.After(l.deadline) {
			l.deadline = o.Deadline
		}
	}
}

// earlier is the first of two times; one that is zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// sentence is "37 streams finish in 3 old processes".
func (l leftover) sentence() string {
	finish := "finish"
	if l.streams == 1 {
		finish = "finishes"
	}
	return fmt.Sprintf("%s %s in %s", plural(l.streams, "stream", "streams"), finish, plural(l.processes, "old process", "old processes"))
}

// line is all that the list says of an instance's old processes.
func (l leftover) line(s *session, now time.Time) string {
	text := plural(l.processes, "old process is", "old processes are") + " ending"
	if l.streams > 0 {
		text = l.sentence()
	}
	if !l.oldest.IsZero() {
		text += ", oldest " + term.Age(now.Sub(l.oldest))
	}
	if !l.deadline.IsZero() {
		text += ", until " + s.moment(l.deadline, now)
	}
	return text
}

// moment is a time of today as it is needed: to the second only if that is soon.
func (s *session) moment(t, now time.Time) string {
	switch left := t.Sub(now); {
	case left < 10*time.Minute:
		return t.In(s.zone).Format("15:04:05")
	case left < 12*time.Hour:
		return t.In(s.zone).Format("15:04")
	}
	return t.In(s.zone).Format("2006-01-02 15:04")
}

// trafficText says whether new connections come to an instance, and how they
// are dealt out.
func trafficText(i api.Instance) string {
	text := ""
	switch i.Traffic {
	case api.Serving:
		text = "gets its share"
	case api.Queueing:
		text = "gets connections only while no instance serves: they wait for it"
	case api.Away:
		text = "gets no new connections"
	}
	if i.Steering != "" && text != "" {
		text += "; " + i.Steering
	}
	return text
}

// streamsText is the number of streams and what they are made of.
func streamsText(i api.Instance, now time.Time) string {
	text := streamsCell(i)
	for _, part := range []struct {
		n    int
		what string
	}{{i.Idle, "idle"}, {i.Queue, "not accepted yet"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if !i.Oldest.IsZero() {
		text += ", oldest " + term.Age(now.Sub(i.Oldest))
	}
	return text
}

// longestBar is the width of a histogram's longest bar, in columns.
const longestBar = 30

// printAges is a histogram: how many streams are how old.
func (s *session) printAges(ages []api.AgeCount) {
	most := 0
	for _, a := range ages {
		most = max(most, a.Count)
	}
	if most == 0 {
		return
	}
	s.heading("Streams by age (at least)")
	labels, wide, digits := make([]string, len(ages)), 0, len(strconv.Itoa(most))
	for n, a := range ages {
		labels[n] = "below " + term.Wait(a.Below.D())
		if a.Below == 0 {
			labels[n] = "older"
		}
		wide = max(wide, len(labels[n]))
	}
	for n, a := range ages {
		// One stream among thousands is still there to be seen.
		bar := strings.Repeat("█", (a.Count*longestBar+most-1)/most)
		s.out.Println(strings.TrimRight(fmt.Sprintf("  %s  %*d  %s", term.Pad(labels[n], wide), digits, a.Count, bar), " "))
	}
}

// printOutgoing is a row for each old process.
func (s *session) printOutgoing(all []api.Outgoing, now time.Time) {
	if len(all) == 0 {
		return
	}
	s.heading("Outgoing processes")
	for _, o := range all {
		line := fmt.Sprintf("  pid %d  generation %d  %s, %d live", o.PID, o.Generation, plural(o.Streams, "stream", "streams"), o.Live)
		if !o.Oldest.IsZero() {
			line += ", oldest " + term.Age(now.Sub(o.Oldest))
		}
		switch {
		case o.Ending:
			line += "; it was told to end"
		case !o.Deadline.IsZero():
			line += "; until " + s.moment(o.Deadline, now)
		}
		s.out.Println(line)
	}
}
