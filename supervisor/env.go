package supervisor

import (
	"context"
	"fmt"
	"time"

	"gpm/config"
)

// World is all that the brain can touch: a few functions, real in the daemon,
// faked in tests. None may block for long except Launch, Build and Sync, which
// are called from goroutines of their own. None may wait for a Report: who
// takes the facts may be the one who called.
type World struct {
	// Launch spawns a process and returns when it has been exec'ed or has
	// failed to be, at the latest soon after ctx ends. An error means that no
	// process is left of it. Facts about the process go to l.Report, even
	// before Launch returns; after an error there are none.
	Launch func(ctx context.Context, l Launch) (*Process, error)
	// Release closes the listeners held for a place. Park does that, too, for a
	// place that will be down for long while others serve, unless those who wait
	// in its queue are better off waiting.
	Release func(app string, index int)
	Park    func(app string, index int)
	// Route says what new connections a generation gets. Of one that is away
	// Counted facts come from then on.
	Route func(app string, index, gen int, t Traffic)
	// Probe does one check of a generation, within ctx and its own timeout.
	Probe func(ctx context.Context, app *config.App, index, gen int, p *config.Probe) error
	// Settled is told that a generation is online, so that listeners which
	// only earlier ones had can go.
	Settled func(app string, index, gen int)
	// Save writes the record of an app soon, Forget removes it soon; the later
	// call wins, and neither blocks. Sync waits until all that was saved is on
	// disk.
	Save   func(Record)
	Forget func(app string)
	Sync   func() error
	// Watch reports changes of the app's watched files until stop is called.
	Watch func(app *config.App, changed func(paths []string)) (stop func(), err error)
	// Reserve keeps n standbys of an app for Launch to take from; those of an
	// earlier call are ended.
	Reserve func(app *config.App, n int)
	// Build runs the app's build command; its error carries the last output.
	Build func(ctx context.Context, app *config.App) error
	// Jitter is a random number in [0,1).
	Jitter func() float64
}

// Launch is an order to start one process.
type Launch struct {
	App    *config.App
	ID     int // pm_id
	Index  int // place, 0..N-1
	Gen    int // generation, from 1
	Report func(Fact)
}

// Process is a live process in the hands of the world.
type Process struct {
	PID     int
	Start   uint64 // kernel start time: with PID and Boot its identity
	Boot    string // boot id of the machine
	Started time.Time
	Hold    string // Held, "off", "unavailable: <why>"
	// Tag is the world's own name for it, if that is not made of its place; it
	// goes into the record.
	Tag string
	// Unsteered is why no traffic can be kept from a process that is Held;
	// empty: it can.
	Unsteered string
	// Signal sends the signal ("SIGINT") that tells the whole tree to end, once
	// in a process's life: a second one would cut its drain short. Kill ends the tree
	// with SIGKILL. Both are safe after the end.
	Signal func(name string) error
	Kill   func() error
}

// Held is the Process.Hold of a process whose listeners outlive it.
const Held = "held"

// FactKind names what was learned about a process.
type FactKind string

// The kinds of facts.
const (
	Listening FactKind = "listening" // it called listen() on a held address (Text)
	Refused   FactKind = "refused"   // its bind() was refused; Text says who has the port
	Told      FactKind = "told"      // it said that it is ready
	Ended     FactKind = "ended"     // it is gone, with all its tree; Exit says how
	Counted   FactKind = "counted"   // its connections were counted; Count, Began
	Stalled   FactKind = "stalled"   // its accept queue does not move; Stalled, Count. Zero: it does again
	Tail      FactKind = "tail"      // after Ended: its last lines, once its pipes are drained
)

// Fact is one thing learned about a process, of generation Gen of a place.
type Fact struct {
	Kind FactKind
	Text string
	Exit Exit
	Tail []Line

	Count   Count
	Began   time.Time     // when the count began
	Stalled time.Duration // how long the queue has not moved
}

// Line is a line of output kept for a crash report.
type Line struct {
	Stream string    `json:"stream"` // "out" or "err"
	At     time.Time `json:"at"`
	Text   string    `json:"text"`
}

// Exit is how a process ended.
type Exit struct {
	At        time.Time     `json:"at"`
	PID       int           `json:"pid,omitempty"`
	Gen       int           `json:"gen"`
	Code      int           `json:"code"`
	Signal    string        `json:"signal,omitempty"`
	Unknown   bool          `json:"unknown,omitempty"`   // nobody could see how
	Spawnless bool          `json:"spawnless,omitempty"` // it never ran: Cause says why
	Cause     string        `json:"cause,omitempty"`     // what gpm knows beyond code and signal
	ByUs      bool          `json:"by_us,omitempty"`     // gpm ended it
	Uptime    time.Duration `json:"uptime"`
	Tail      []Line        `json:"tail,omitempty"`
	Drained   bool          `json:"drained,omitempty"` // Tail is complete, or nobody waits for it any more
}

// Sentence says how the process ended, for people.
func (e Exit) Sentence() string {
	s := ""
	switch {
	case e.Spawnless:
		return e.Cause
	case e.Unknown:
		s = "ended while nobody could see how"
	case e.Signal != "" && e.ByUs:
		s = "ended by " + e.Signal
	case e.Signal != "":
		s = "killed by " + e.Signal + " (not by gpm)"
	default:
		s = fmt.Sprintf("exited with code %d", e.Code)
	}
	if e.Cause != "" {
		s = e.Cause + "; " + s
	}
	return s
}
