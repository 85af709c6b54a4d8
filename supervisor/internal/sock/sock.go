// Package sock holds the listening sockets of apps, so that they outlive the
// processes that made them: while nobody accepts, connections queue in the
// kernel and are not refused.
//
// The trapped bind() and listen() calls of apps come in as traps; a Holder
// answers each with a verdict and keeps a duplicate of the socket. It is never
// in the data path: sockets it holds are kept outside the runtime poller and
// their O_NONBLOCK, which all duplicates share, belongs to the app.
package sock

import (
	"errors"
	"net/netip"
	"os"
)

// ErrUnsupported says that listeners cannot be held on this system.
var ErrUnsupported = errors.New("held listeners are only supported on linux")

// backlog is the queue of every held listener (the kernel lowers it to
// net.core.somaxconn). Apps ask for 5 or 511; while they are down that many
// connections would be the end of it.
const backlog = 4096

// Owner is the process generation that a trapped call belongs to.
type Owner struct {
	App   string
	Index int // instance, 0..N-1
	Gen   int // counts the processes of the instance, from 1
}

func (o Owner) place() place { return place{o.App, o.Index} }

// Options are the Holder's ties to the rest of gpm. All callbacks run on the
// goroutine that called the Holder and must not call back into it; they may be
// slow: List and the like do not wait for them.
type Options struct {
	// Owner says whose call a trap is, by the tag its process was spawned
	// with; false: not to be held.
	Owner func(tag string) (Owner, bool)
	// Store gives a listener to the keeper under a name; the file stays the
	// Holder's. An error is reported as an event: the listener is held, but
	// not beyond the end of this daemon.
	Store func(name string, f *os.File) error
	// Drop makes the keeper forget one.
	Drop func(name string) error
	// Event tells what happened. May be nil.
	Event func(Event)
}

// EventKind says what an Event is about.
type EventKind string

// The kinds of events.
const (
	// Listening: a process called listen() on a held address: it is ready to accept.
	Listening EventKind = "listening"
	// Conflict: a bind was refused with EADDRINUSE; Other says who has the address.
	Conflict EventKind = "conflict"
	// Unheld: a socket could not be held; Err says why. The app works as without gpm.
	Unheld EventKind = "unheld"
	// Unsaved: a listener is held but the keeper did not take it; Err says why.
	Unsaved EventKind = "unsaved"
)

// Event is something that happened to a listener.
type Event struct {
	Kind  EventKind
	Owner Owner
	Addr  netip.AddrPort
	Other string // Conflict: `app "web"`, `process 812 (nginx)`, "another process"
	Err   error
}

// Listener is a socket held for a place.
type Listener struct {
	Addr      netip.AddrPort
	Listening bool // false: bound, listen() did not come yet
}
