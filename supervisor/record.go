package supervisor

import (
	"slices"
	"time"

	"gpm/config"
)

// RecordVersion is the version of Record that this gpm writes. It reads this
// one and all before it.
const RecordVersion = 1

// Record is what outlives the daemon of one app: what is wanted, and what was
// running. It holds the environment, so it is written 0600.
type Record struct {
	Version   int              `json:"version"`
	App       config.App       `json:"app"`
	Leaving   bool             `json:"leaving,omitempty"` // it was deleted, but processes of it are still alive
	Instances []InstanceRecord `json:"instances"`
}

// atRest is the record of an app that has been ended together with gpm.
func (r Record) atRest() Record {
	r.Instances = slices.Clone(r.Instances)
	for i := range r.Instances {
		r.Instances[i].Procs = nil
	}
	return r
}

// InstanceRecord is an instance in a Record.
type InstanceRecord struct {
	ID       int             `json:"id"`
	Index    int             `json:"index"`
	Wanted   bool            `json:"wanted"` // a process is wanted: also after a reboot
	State    State           `json:"state"`
	Reason   string          `json:"reason,omitempty"`
	Fine     bool            `json:"fine,omitempty"` // while Stopped: the last process ended as it was meant to
	Gen      int             `json:"gen"`
	Restarts int             `json:"restarts"`
	Streak   streak          `json:"streak,omitzero"`
	Created  time.Time       `json:"created"`
	Listens  bool            `json:"listens,omitempty"`
	Away     bool            `json:"away,omitempty"` // its user took it out of traffic
	Exits    []Exit          `json:"exits,omitempty"`
	Procs    []ProcessRecord `json:"processes,omitempty"`
}

// Role is what a process is to its instance.
type Role string

// The roles of a process.
const (
	Current   Role = "current"
	Candidate Role = "candidate" // of a reload, not ready yet
	Outgoing  Role = "outgoing"  // being ended after a reload
)

// ProcessRecord identifies a process of an instance.
type ProcessRecord struct {
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"`
	Boot    string    `json:"boot"`
	Tag     string    `json:"tag,omitempty"` // Process.Tag
	Gen     int       `json:"gen"`
	Role    Role      `json:"role"`
	Ready   bool      `json:"ready"`
	Ending  bool      `json:"ending,omitempty"` // the stop ladder has begun
	Until   time.Time `json:"until,omitzero"`   // when its drain is cut
	Started time.Time `json:"started"`
}

// Snapshot is an instance as it is now, taken by its own goroutine.
type Snapshot struct {
	InstanceRecord
	App      *config.App
	NextTry  time.Time // while Waiting
	Hold     string
	PID      int
	Started  time.Time // of the current process
	Draining int       // outgoing processes
	CurGen   int       // generation of the current process
	Traffic  Traffic   // of the current process; empty: not decided yet
	Sick     string    // why the current process needs a successor
	Health   string    // of the current process, for people
}

// Survivor is a process that the world still has after a restart of the daemon:
// alive, or dead with its facts on the way to Attach's report.
type Survivor struct {
	App   string
	Index int
	Gen   int
	Told  bool     // it was told to end: the record may not say so yet
	Heard []string // the addresses of its held listeners
	Bound bool     // it has a held listener, or may have
	Dead  bool     // its end is among the facts that follow
	// Attach hands the process over, never nil, from a goroutine of its own;
	// facts about it go to report from now on, those that were missed first.
	Attach func(app *config.App, report func(Fact)) *Process
}
