package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"gpm/supervisor/internal/trap"
)

// protocol is raised when a message changes its meaning. An old keeper serves
// newer daemons: they find its number in the hello and ask for no more than it
// knows; a request that it does not know is answered with an error.
const protocol = 1

// kind is the type of a message.
type kind string

// Messages of the keeper.
const (
	msgHello     kind = "hello"     // the inventory, first; its descriptors follow
	msgFiles     kind = "files"     // some of them, in the order of Names
	msgReply     kind = "reply"     // to the request with the same ID
	msgExit      kind = "exit"      // a child has ended
	msgTrap      kind = "trap"      // a call waits
	msgTerminate kind = "terminate" // stop everything, then quit
)

// Requests of the daemon; each is answered.
const (
	msgSpawn  kind = "spawn"
	msgStore  kind = "store"
	msgDrop   kind = "drop"
	msgAck    kind = "ack"
	msgAdopt  kind = "adopt"
	msgAnswer kind = "answer"
	msgNext   kind = "next"
	msgReady  kind = "ready"
	msgQuit   kind = "quit"
)

// Between a daemon whose keeper has died and the next keeper: the former says
// takeover and files, the latter replies.
const msgTakeover kind = "takeover"

// message is the JSON of a packet. Which fields are set depends on Type.
type message struct {
	Type    kind          `json:"type"`
	ID      uint64        `json:"id,omitempty"`
	Failure *failure      `json:"failure,omitempty"` // reply: nil is success
	Name    string        `json:"name,omitempty"`    // store, drop: of a descriptor; next: of a program; adopt: the tag
	Names   []string      `json:"names,omitempty"`   // files
	PID     int           `json:"pid,omitempty"`     // ack, adopt
	Start   uint64        `json:"start,omitempty"`   // adopt
	Serial  uint64        `json:"serial,omitempty"`  // answer: of the trap
	Verdict *trap.Verdict `json:"verdict,omitempty"` // answer
	Spawn   *spawnOrder   `json:"spawn,omitempty"`
	Child   *Child        `json:"child,omitempty"` // reply to spawn, adopt
	Exit    *Exit         `json:"exit,omitempty"`
	Trap    *trap.Trap    `json:"trap,omitempty"`
	Hello   *hello        `json:"hello,omitempty"` // hello, takeover
}

// hello is the state that is handed over.
type hello struct {
	Protocol    int         `json:"protocol"`
	PID         int         `json:"pid"`
	Children    []Child     `json:"children,omitempty"`
	Files       int         `json:"files"` // descriptors that follow
	Hold        string      `json:"hold,omitempty"`
	NoNewPrivs  bool        `json:"no_new_privs,omitempty"`
	Terminating bool        `json:"terminating,omitempty"`
	Foreground  bool        `json:"foreground,omitempty"`
	Exe         string      `json:"exe"`
	Traps       []trap.Trap `json:"traps,omitempty"` // takeover: not answered yet
}

// spawnOrder is Spawn with its descriptors as indexes into those of the packet.
type spawnOrder struct {
	Tag      string      `json:"tag"`
	Path     string      `json:"path"`
	Argv     []string    `json:"argv"`
	Env      []string    `json:"env"`
	Dir      string      `json:"dir,omitempty"`
	Cred     *Credential `json:"cred,omitempty"`
	Filtered bool        `json:"filtered,omitempty"`
	Files    []int       `json:"files"`  // -1: /dev/null
	Cgroup   int         `json:"cgroup"` // -1: none
}

// failure is an error on the wire. The errno survives, so that errors.Is works
// on the other side.
type failure struct {
	Text   string        `json:"text"`
	Op     string        `json:"op,omitempty"`
	Path   string        `json:"path,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"`
	NoHold bool          `json:"no_hold,omitempty"`
}

// failed is err as a failure, nil for nil.
func failed(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error(), NoHold: errors.Is(err, ErrNoHold)}
	errors.As(err, &f.Errno)
	if p, ok := err.(*fs.PathError); ok {
		f.Op, f.Path = p.Op, p.Path
	}
	return f
}

// error is the failure as an error, nil for nil.
func (f *failure) error() error {
	switch {
	case f == nil:
		return nil
	case f.NoHold:
		return &remoteError{f.Text, ErrNoHold}
	case f.Op != "" && f.Errno != 0:
		return &fs.PathError{Op: f.Op, Path: f.Path, Err: f.Errno}
	case f.Errno != 0:
		return &remoteError{f.Text, f.Errno}
	}
	return fmt.Errorf("keeper: %s", f.Text)
}

// remoteError is an error of the keeper; its text names the cause already.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }
