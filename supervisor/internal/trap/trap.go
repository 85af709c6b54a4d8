// Package trap is the mechanics of held listeners: a seccomp filter whose
// children have their bind() and listen() calls on TCP sockets stopped and
// reported (seccomp user notification), and the verdicts that end such a call.
// It decides nothing. It imports nothing of gpm.
package trap

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
)

// ErrUnsupported is returned on systems without seccomp user notification.
var ErrUnsupported = errors.New("hold listeners: needs Linux with seccomp user notification (5.9)")

// Call names the system call that was stopped.
type Call string

// The calls that are trapped. Listen is among them because a held socket that
// is given to a new process is already listening: only the call itself tells
// that the process is ready to accept.
const (
	Bind   Call = "bind"
	Listen Call = "listen"
)

// Notification is a stopped call as the kernel reports it.
type Notification struct {
	ID   uint64    `json:"id"`  // of this stop; unique per filter, not across filters
	TID  int       `json:"tid"` // the thread that waits, in the receiver's pid namespace
	Nr   int32     `json:"nr"`
	Args [6]uint64 `json:"args"`
}

// Trap is a thread of an app waiting in bind() or listen() for a Verdict.
//
// A signal may interrupt the wait where the kernel lacks WAIT_KILLABLE_RECV
// (before 5.19): the app then calls again, a second Trap comes, and answering
// the first fails with ENOENT. What the first verdict had done to the socket
// (bound it, replaced it) is still done when the second one is judged.
type Trap struct {
	Serial       uint64       `json:"serial"` // of the trap in the keeper that reports it
	Filter       string       `json:"filter"` // name of the notify descriptor it came through
	Notification Notification `json:"notification"`

	Call        Call           `json:"call"`
	PID         int            `json:"pid"`              // process of the waiting thread
	Child       int            `json:"child"`            // gpm's own child it descends from
	Tag         string         `json:"tag"`              // of that child
	FD          int            `json:"fd"`               // the socket's number in the process
	CloseOnExec bool           `json:"close_on_exec"`    // FD has FD_CLOEXEC there
	Address     netip.AddrPort `json:"address,omitzero"` // bind: asked for; listen: bound to, zero if it is not
	Backlog     int            `json:"backlog"`          // listen only

	// Socket is a duplicate of the app's socket: options set on it are set on
	// the app's. Whoever receives the Trap closes it. It is not registered with
	// the runtime poller and its O_NONBLOCK is the app's: leave that alone.
	Socket *os.File `json:"-"`
}

// Verdict ends a trapped call. Make one with Continue, Errno or Inject; Later is
// none yet.
type Verdict struct {
	Action      Action        `json:"action"`
	Errno       syscall.Errno `json:"errno,omitempty"`
	CloseOnExec bool          `json:"close_on_exec,omitempty"`
	File        *os.File      `json:"-"`
}

// Action is the kind of a verdict.
type Action string

// The actions.
const (
	ActContinue Action = "continue"
	ActErrno    Action = "errno"
	ActInject   Action = "inject"
	// ActLater is not sent to the keeper: the caller goes on waiting, and
	// another Verdict follows some time.
	ActLater Action = "later"
)

// Continue lets the kernel perform the call as if nobody had looked.
func Continue() Verdict { return Verdict{Action: ActContinue} }

// Errno makes the call return e without being performed; 0 is success, for a
// call that was carried out on the duplicate socket.
func Errno(e syscall.Errno) Verdict { return Verdict{Action: ActErrno, Errno: e} }

// Later leaves the call waiting.
func Later() Verdict { return Verdict{Action: ActLater} }

// Inject puts f in place of the caller's descriptor and makes the call succeed.
// The caller of Inject still owns f.
func Inject(f *os.File, closeOnExec bool) Verdict {
	return Verdict{Action: ActInject, File: f, CloseOnExec: closeOnExec}
}
