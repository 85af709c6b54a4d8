package monit

import (
	"iter"
	"time"

	"gpm/supervisor/api"
)

// effect is something the model wants done outside of it. The set is sealed;
// the shell does each kind, and answers with a message.
type effect interface{ isEffect() }

type (
	// connect opens the event stream after a pause; no tells one attempt's
	// messages from another's. Answers: connected or disconnected, eventBatch.
	connect struct {
		no    int
		after time.Duration
	}
	// refresh asks for a list after a pause. Answer: listed.
	refresh struct{ after time.Duration }
	// follow ends the current log stream and, if ids is not empty, opens the one
	// of these instances after a pause. Answers: logBatch, logsEnded.
	follow struct {
		gen   int
		ids   []int
		after time.Duration
	}
	// act does a verb on instances. Answer: acted.
	act struct {
		no    int
		verb  verb
		ids   []int
		label string // "web-0", "web (3 instances)"
	}
	quit    struct{} // leave
	suspend struct{} // ctrl-z: give the terminal back until SIGCONT
)

func (connect) isEffect() {}
func (refresh) isEffect() {}
func (follow) isEffect()  {}
func (act) isEffect()     {}
func (quit) isEffect()    {}
func (suspend) isEffect() {}

// Messages from the shell to the model, besides Bubble Tea's keys and sizes.
type (
	tick      struct{}
	connected struct {
		no     int
		list   api.List
		stream iter.Seq2[api.Event, error] // the shell reads it
	}
	disconnected struct {
		no  int
		err error // nil: the stream ended without a word
	}
	eventBatch struct {
		no     int
		events []api.Event
	}
	listed struct {
		list api.List
		err  error
	}
	logBatch struct {
		gen     int
		lines   []line
		skipped int // lines dropped before these
		missed  int // lines that the daemon dropped; a line says where
	}
	logsEnded struct {
		gen int
		err error
	}
	acted struct {
		act
		result api.Result
		err    error
	}
)

// verb is what the user can have done to instances.
type verb string

// The verbs.
const (
	verbRestart verb = "restart"
	verbReload  verb = "reload"
	verbStop    verb = "stop"
)

// doing and done are the verb's forms for the footer.
func (v verb) doing() string {
	if v == verbStop {
		return "stopping"
	}
	return string(v) + "ing"
}

func (v verb) done() string {
	if v == verbStop {
		return "stopped"
	}
	return string(v) + "ed"
}
