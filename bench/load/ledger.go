package load

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Kind is what a unit was.
type Kind string

// The kinds of units.
const (
	Stream  Kind = "stream"  // a finite event stream
	Held    Kind = "held"    // one connection of a held stream
	Request Kind = "request" // a short request on a new connection
)

var kinds = []Kind{Stream, Held, Request}

// Class is how a unit ended; each unit has exactly one.
type Class string

// The classes. All but Complete and Told are bad.
const (
	Complete   Class = "complete"   // all of it arrived; held: it lived to the end of the run
	Told       Class = "told"       // it ended early and the service said so: event reconnect, or an error chunk
	Refused    Class = "refused"    // connection refused
	Reset      Class = "reset"      // connection reset, at any point
	Empty      Class = "empty"      // connection closed before any byte of an answer
	Cut        Class = "cut"        // the answer ended, cleanly or not, before its end (mark)
	Duplicated Class = "duplicated" // an event came a second time
	Wrong      Class = "wrong"      // another answer: status, content type, missing events
	Timeout    Class = "timeout"    // silence
	Unsent     Class = "unsent"     // never left this machine; the run proves less than it says
)

var classes = []Class{Complete, Told, Refused, Reset, Empty, Cut, Duplicated, Wrong, Timeout, Unsent}

// Bad reports whether units of this class were lost, or prove nothing.
func (c Class) Bad() bool { return c != Complete && c != Told }

const (
	maxSamples = 3 // per kind and class
	maxLosses  = 20000
)

// Sample is one unit that did not end well.
type Sample struct {
	At       time.Duration // when it ended, from the start of the run
	Instance string        // empty: unknown
	Why      string
}

// Loss is one unit in a bad class.
type Loss struct {
	Kind     Kind
	Class    Class
	Instance string // empty: unknown
	Why      string
	// From is our side of the connection: what the kernel knows of the process
	// that had accepted it goes by that. Invalid: there was no connection.
	From  netip.AddrPort
	Began time.Time // before connecting
	Ended time.Time
}

func (l Loss) String() string {
	return fmt.Sprintf("%s %s from %s, instance %s, %s after %s: %s", l.Kind, l.Class, l.From, orDash(l.Instance),
		l.Ended.Format("15:04:05.000"), short(l.Ended.Sub(l.Began)), l.Why)
}

// Tally is the account of one kind.
type Tally struct {
	Sent      int
	Classes   map[Class]int
	Instances map[string]map[Class]int // by instance; "" for units that no instance answered
	Samples   map[Class][]Sample       // the first of each class that is not Complete

	Late    Latency // from when a unit was due to when it began: the generator's own fault
	Connect Latency // of the connection
	First   Latency // from the start of connecting to the first byte
	Gap     Latency // longest wait between two events of a unit
	Whole   Latency // from when the unit was due to its end
	Resume  Latency // held: from the end of a connection to the first event of the next
}

// Ledger is the account of a run. Once Run returned it nothing changes it.
type Ledger struct {
	Took    time.Duration
	Sending time.Duration   // the part of Took in which units were started
	Kinds   map[Kind]*Tally // kinds without a unit are absent
	Losses  []Loss          // all that Bad counts, up to 20,000

	mu    sync.Mutex
	start time.Time
}

// unitResult is what became of one unit.
type unitResult struct {
	class    Class
	why      string
	instance string
	from     netip.AddrPort
	began    time.Time

	connect, first, gap, whole, resume time.Duration // zero: did not come to it
}

func newLedger() *Ledger {
	return &Ledger{Kinds: map[Kind]*Tally{}, start: time.Now()}
}

// add enters one unit. It is the only place where units are counted.
func (l *Ledger) add(kind Kind, u unitResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tally(kind)
	t.Sent++
	t.Classes[u.class]++
	if t.Instances[u.instance] == nil {
		t.Instances[u.instance] = map[Class]int{}
	}
	t.Instances[u.instance][u.class]++
	if u.class != Complete && len(t.Samples[u.class]) < maxSamples {
		t.Samples[u.class] = append(t.Samples[u.class], Sample{time.Since(l.start), u.instance, u.why})
	}
	if u.class.Bad() && len(l.Losses) < maxLosses {
		now := time.Now()
		if u.began.IsZero() {
			u.began = now // it was not sent
		}
		l.Losses = append(l.Losses, Loss{kind, u.class, u.instance, u.why, u.from, u.began, now})
	}
	t.Connect.add(u.connect)
	t.First.add(u.first)
	t.Gap.add(u.gap)
	t.Resume.add(u.resume)
	if u.class == Complete && kind != Held { // how long a held stream lives says nothing
		t.Whole.add(u.whole)
	}
}

// tally is the account of a kind; l.mu is held.
func (l *Ledger) tally(kind Kind) *Tally {
	t := l.Kinds[kind]
	if t == nil {
		t = &Tally{Classes: map[Class]int{}, Instances: map[string]map[Class]int{}, Samples: map[Class][]Sample{}}
		l.Kinds[kind] = t
	}
	return t
}

// began notes that a unit was started, so much after it was due.
func (l *Ledger) began(kind Kind, late time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally(kind).Late.add(late)
}

func (l *Ledger) finish() *Ledger {
	l.Took = time.Since(l.start)
	return l
}

// Rate is how many connections per second were tried while units were started.
func (l *Ledger) Rate() float64 {
	n := 0
	for _, t := range l.Kinds {
		n += t.Sent - t.Classes[Unsent]
	}
	if l.Sending <= 0 {
		return 0
	}
	return float64(n) / l.Sending.Seconds()
}

// Count is the number of units of a kind and class.
func (l *Ledger) Count(k Kind, c Class) int {
	if t := l.Kinds[k]; t != nil {
		return t.Classes[c]
	}
	return 0
}

// Sent is the number of units of a kind; the sum over all classes.
func (l *Ledger) Sent(k Kind) int {
	if t := l.Kinds[k]; t != nil {
		return t.Sent
	}
	return 0
}

// Bad is the number of units of all kinds in a bad class.
func (l *Ledger) Bad() int {
	bad := 0
	for _, t := range l.Kinds {
		for c, n := range t.Classes {
			if c.Bad() {
				bad += n
			}
		}
	}
	return bad
}

// String is the ledger as tables: units, instances, latencies, samples.
func (l *Ledger) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "took %s, %.0f connections per second, bad: %d\n", l.Took.Round(time.Millisecond), l.Rate(), l.Bad())
	l.units(&b)
	l.latencies(&b)
	for _, k := range kinds {
		if t := l.Kinds[k]; t != nil {
			for _, c := range classes {
				for _, s := range t.Samples[c] {
					fmt.Fprintf(&b, "%s %s at %s, instance %s: %s\n", k, c, s.At.Round(time.Millisecond), orDash(s.Instance), s.Why)
				}
			}
		}
	}
	return b.String()
}

func (l *Ledger) units(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(kind, instance string, sent int, counts map[Class]int) {
		fmt.Fprintf(w, "%s\t%s\t%d\t", kind, instance, sent)
		for _, c := range classes {
			fmt.Fprintf(w, "%d\t", counts[c])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "kind\tinstance\tsent\t")
	for _, c := range classes {
		fmt.Fprintf(w, "%s\t", c)
	}
	fmt.Fprintln(w)
	for _, k := range kinds {
		t := l.Kinds[k]
		if t == nil {
			continue
		}
		row(string(k), "all", t.Sent, t.Classes)
		for _, name := range slices.Sorted(maps.Keys(t.Instances)) {
			sent := 0
			for _, n := range t.Instances[name] {
				sent += n
			}
			row("", orDash(name), sent, t.Instances[name])
		}
	}
	w.Flush()
}

func (l *Ledger) latencies(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "kind\tlatency\tp50\tp99\tworst\t")
	for _, k := range kinds {
		t := l.Kinds[k]
		if t == nil {
			continue
		}
		for _, m := range []struct {
			name string
			l    *Latency
		}{{"late", &t.Late}, {"connect", &t.Connect}, {"first byte", &t.First}, {"longest gap", &t.Gap}, {"whole", &t.Whole}, {"resume", &t.Resume}} {
			if m.l.Count() > 0 {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", k, m.name, short(m.l.Quantile(0.5)), short(m.l.Quantile(0.99)), short(m.l.Worst()))
			}
		}
	}
	w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short keeps three digits or so: 1.23ms, 45.6ms, 3.21s.
func short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit)
}
