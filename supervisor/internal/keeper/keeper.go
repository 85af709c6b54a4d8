// Package keeper is the part of gpm that must not die, and the daemon's link to
// it. The keeper is the parent of the daemon and of every app, and a subreaper.
// It holds named descriptors, spawns what the daemon asks for, reaps, remembers
// exits until they are acknowledged, and starts the daemon again when it dies.
// It has no config, no policy and no growing state.
//
// One goroutine, keeper.run, owns all state. Readers feed it through channels:
// one for the daemon's requests, one per notify descriptor, one per adopted
// process; one goroutine writes the log. Starting a program is done inside the
// loop, so that no exit can be seen before the child is known; the price is that
// an exec on a dead network file system stops the loop, as it would stop any
// other fork of the process, which Go serialises.
package keeper

import (
	"errors"
	"os"
	"syscall"
	"time"

	"gpm/supervisor/internal/trap"
)

// Exit codes of Main.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitBusy   = 75 // EX_TEMPFAIL: another keeper has this home
)

// Option changes how Main runs.
type Option int

// Foreground keeps stderr where it is instead of moving it to gpm.log, and tells
// systemd (NOTIFY_SOCKET) when the daemon is ready. Systemd also keeps a duplicate
// of each descriptor for the keeper that it starts after this one was killed.
const Foreground Option = 1

// Names of descriptors that every Inventory has besides the stored ones. They
// are what Replace needs. Store and Drop refuse names with ReservedPrefix.
const (
	ReservedPrefix = "keeper/"
	APIFile        = ReservedPrefix + "api"     // the listening gpm.sock
	LockFile       = ReservedPrefix + "lock"    // the flock on gpm.lock: held as long as any duplicate is open
	NotifyPrefix   = ReservedPrefix + "notify-" // + a number: the seccomp notify descriptors
)

var (
	// ErrGone is returned when the keeper is dead. Its children live on: Replace it.
	ErrGone = errors.New("the keeper is gone")
	// ErrNoHold is wrapped when a filtered spawn is refused because the keeper
	// could not install its filter; Inventory.Hold says why.
	ErrNoHold = errors.New("cannot hold listeners")
	// ErrUnsupported is returned on systems other than Linux.
	ErrUnsupported = errors.New("run the keeper: needs Linux")
)

// Child is a process that the keeper watches.
type Child struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // kernel start time, field 22 of /proc/pid/stat, in clock ticks since boot
	Tag     string `json:"tag"`   // whatever the daemon called it
	Exit    *Exit  `json:"exit,omitempty"`
	Adopted bool   `json:"adopted,omitempty"` // not our child by birth: its exit may turn out Unknown
}

// Exit is how a child ended: by Code, or by Signal and then Code is -1.
type Exit struct {
	PID     int            `json:"pid"`
	Tag     string         `json:"tag"`
	Code    int            `json:"code"`
	Signal  syscall.Signal `json:"signal,omitempty"`
	Core    bool           `json:"core,omitempty"`    // a core was dumped
	Unknown bool           `json:"unknown,omitempty"` // it ended and nobody could see how; Code is -1
	At      time.Time      `json:"at"`                // when the keeper saw it
}

// Credential is the user a child runs as; another than one's own takes root.
type Credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // supplementary; set by root only
}

// Spawn says what to start. The child is the leader of a new session.
type Spawn struct {
	Tag      string
	Path     string // absolute; not looked up in PATH
	Argv     []string
	Env      []string // complete: nothing is added
	Dir      string   // empty: /
	Cred     *Credential
	Filtered bool       // its TCP bind() and listen() calls are trapped
	Files    []*os.File // become 0, 1, 2, 3...; nil is /dev/null, as are 0 to 2 if missing. Caller closes them.
	Cgroup   *os.File   // an open cgroup v2 directory to be born in (5.7); nil: the keeper's. Caller closes it.
}

// Inventory is what the keeper hands to each new daemon. Outstanding traps
// follow through Handler.Trapped, exits are in Children and are not repeated.
type Inventory struct {
	KeeperPID   int
	Protocol    int // the keeper's; it may be older than this package's
	Children    []Child
	Files       map[string]*os.File // the caller owns them; none is in the runtime poller
	Hold        string              // "": can hold listeners; else why not
	NoNewPrivs  bool                // holding sets no_new_privs: setuid programs inside apps gain nothing
	Terminating bool                // the keeper was told to end: stop everything, then Quit
	Foreground  bool                // somebody else (systemd, a container) watches the keeper
	Exe         string              // the gpm that this daemon was started from
}

// Handler receives what happens. Its methods run on the goroutine of
// Link.Serve, one at a time, in order; they may call the Link.
type Handler interface {
	// Exited tells of a child's end, once per daemon. Acknowledge it with Ack
	// when it is recorded; until then each new daemon hears of it again.
	Exited(Exit)
	// Trapped tells of a call that waits for Answer. The receiver closes
	// t.Socket. A next daemon gets the trap again if this one dies first.
	Trapped(t *trap.Trap)
	// Terminate asks to stop all apps, say Quit, and end.
	Terminate()
}
