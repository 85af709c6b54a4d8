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

	"gpm/supervisor/internal/aim"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/trap"
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
	// UID is the user the app runs as; -1: gpm's own. Sockets made by gpm for
	// it get that user: the kernel lets only sockets of one user share a port.
	UID int
	// Balance is how the app's listeners on one address share; "" is steer.Least.
	Balance steer.Policy
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
	// Steer steers the listeners. Nil, and one of mode None: the kernel's hash
	// decides, and generations of a place share one socket.
	Steer Steerer
	// InUse tells whether a process of the tree that was spawned with tag has
	// the socket with this inode open. It is asked only when an app binds where
	// it has bound before. May be nil: no.
	InUse func(tag string, inode uint64) bool
	// Gate tells whether the processes of tag are to wait in bind() until
	// Ungate: a standby. May be nil: none.
	Gate func(tag string) bool
}

// Steerer is what the Holder needs of a steer.Steerer. It may not call back.
type Steerer interface {
	Mode() steer.Mode
	Join(group string, p steer.Policy, l steer.Listener, t steer.Traffic) error
	Route(cookie uint64, t steer.Traffic) error
	Leave(cookie uint64) (closed func())
	Aim(cookie uint64) (aim.Aim, bool)
	How(group string) string
	Verify(group string, live []uint64) error
	SetPolicy(group string, p steer.Policy) error
}

// Answer is the verdict on a call that had to wait at the gate.
type Answer struct {
	Trap    *trap.Trap // its Socket is not the caller's
	Verdict trap.Verdict
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
	Other string // Conflict: `app "web"`, `process 812 (nginx)`, "another process", "the app itself"
	Err   error
}

// Listener is a socket held for a place.
type Listener struct {
	Addr      netip.AddrPort
	Listening bool // false: bound, listen() did not come yet
	Inode     uint64
	Cookie    uint64        // SO_COOKIE
	Gens      []int         // living generations that use it, oldest first
	Traffic   steer.Traffic // what it should get; Serve if it is not steered; "" before listen()
	How       string        // how its group is steered, or "hash" and why; "" before listen()
}
