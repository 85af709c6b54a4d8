// Package api is the wire between gpm's near side (CLI, monit) and its daemon:
// the types, the route table, the error kinds and the client. JSON field names
// and error kinds are append-only.
package api

import (
	"time"

	"gpm/config"
)

// Protocol is the version both sides send in the Gpm-Protocol header. A daemon
// refuses a higher one, a client warns about a lower one.
const Protocol = 1

// Status is what is true of an instance now. The names are PM2's.
type Status string

// The states of an instance.
const (
	Stopped   Status = "stopped"
	Launching Status = "launching"
	Online    Status = "online"
	Stopping  Status = "stopping"
	Pending   Status = "waiting" // for an app that it depends on; not PM2's
	Waiting   Status = "waiting restart"
	Errored   Status = "errored"
)

// Instance is one row of gpm list: an instance of an app, and the process in it.
type Instance struct {
	ID        int    `json:"id"` // pm_id, unique in this gpm
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Instance  int    `json:"instance"` // 0..N-1, NODE_APP_INSTANCE
	Mode      string `json:"mode"`     // fork | cluster
	User      string `json:"user"`
	Version   string `json:"version"` // of the app, from its package.json; "" if it has none

	Status     Status     `json:"status"`
	Reason     string     `json:"reason,omitempty"` // why it is in this status, a sentence
	PID        int        `json:"pid"`              // 0: no process
	Generation int        `json:"generation"`       // processes this instance has had
	Draining   int        `json:"draining"`         // outgoing processes still alive
	Restarts   int        `json:"restarts"`         // since start or reset
	Unstable   int        `json:"unstable_restarts"`
	Created    time.Time  `json:"created_at"`
	Started    time.Time  `json:"started_at"`             // of the current process; zero: none
	NextTry    *time.Time `json:"next_restart,omitempty"` // while waiting restart
	LastExit   *Exit      `json:"last_exit,omitempty"`

	CPU    float64 `json:"cpu"`    // percent of one core, the whole process tree
	Memory uint64  `json:"memory"` // bytes resident, the whole process tree

	Streams  int        `json:"streams"`            // established connections, of all its processes; accepted or not yet
	Idle     int        `json:"idle"`               // of these, without data for drain_idle; counted while it drains and in describe
	Queue    int        `json:"queue"`              // of these, not accepted yet
	Oldest   time.Time  `json:"oldest,omitzero"`    // since when the oldest of these is known; zero: none
	Traffic  Traffic    `json:"traffic,omitempty"`  // empty: it listens on nothing that gpm holds
	Steering string     `json:"steering,omitempty"` // "least (eBPF)", "random (cBPF)", "hash: <why>"
	Health   string     `json:"health,omitempty"`   // "ok", or "2 of 3 failed: <why>"; empty: no health probe
	Outgoing []Outgoing `json:"outgoing,omitempty"` // processes that drain or are being ended, oldest first
	Standby  int        `json:"standby,omitempty"`  // of the app: warm processes that wait for a place

	DependsOn []string   `json:"depends_on,omitempty"` // of the app
	Watching  bool       `json:"watching"`
	Hold      string     `json:"hold"` // "held", "off" (hold: false), or "unavailable: <why>"
	Listeners []Listener `json:"listeners,omitempty"`

	OutFile     string `json:"out_file"` // as written, with the suffix
	ErrorFile   string `json:"error_file"`
	LogProblem  string `json:"log_problem,omitempty"` // "disk full: 12 lines dropped"
	LogsDropped uint64 `json:"logs_dropped,omitempty"`
}

// Traffic says whether new connections come to an instance's current process.
type Traffic string

// The kinds of traffic.
const (
	Serving  Traffic = "serving"  // it gets its share
	Queueing Traffic = "queueing" // only if no instance serves: they wait for it
	Away     Traffic = "away"     // it was taken out of traffic
)

// Outgoing is a process that was replaced or taken out of traffic and has not
// ended yet.
type Outgoing struct {
	PID        int       `json:"pid"`
	Generation int       `json:"generation"`
	Streams    int       `json:"streams"`
	Live       int       `json:"live"`   // of these, not idle: they hold the drain up
	Oldest     time.Time `json:"oldest"` // since when its oldest stream is known; zero: none
	Deadline   time.Time `json:"deadline"`
	Ending     bool      `json:"ending"` // it was told to end
}

// Listener is a listening socket that gpm holds for an instance.
type Listener struct {
	Address   string `json:"address"` // "0.0.0.0:8080", "[::]:8080"
	Listening bool   `json:"listening"`
	Queue     int    `json:"queue"` // connections that wait to be accepted
}

// Exit is how a process ended: code or signal, never both.
type Exit struct {
	At      time.Time       `json:"at"`
	PID     int             `json:"pid"`
	Code    int             `json:"code"`              // -1: killed by a signal, or not known
	Signal  string          `json:"signal,omitempty"`  // "SIGKILL"
	Unknown bool            `json:"unknown,omitempty"` // ended while nobody could see how
	Uptime  config.Duration `json:"uptime"`
	Reason  string          `json:"reason"`         // "exited with code 1", "killed by SIGKILL (not by gpm)"
	Tail    []LogLine       `json:"tail,omitempty"` // last lines before the end
}

// Description is gpm describe of one instance.
type Description struct {
	Instance
	App    config.App `json:"app"` // env values are "[redacted]" unless asked for
	Exits  []Exit     `json:"exits"`
	Events []Event    `json:"events"`
	Tree   []Proc     `json:"processes"` // the process tree
	Ages   []AgeCount `json:"ages"`      // of its streams, youngest first; at least this old, gpm may not have seen their beginning
}

// AgeCount is one bar of a histogram of streams by age.
type AgeCount struct {
	Below config.Duration `json:"below"` // upper bound; zero: none
	Count int             `json:"count"`
}

// Proc is one process of an instance's tree.
type Proc struct {
	PID     int    `json:"pid"`
	Parent  int    `json:"ppid"`
	Command string `json:"command"`
}

// LogLine is one line of an app's output.
type LogLine struct {
	ID       int       `json:"id"`
	Name     string    `json:"name"`
	Instance int       `json:"instance"`
	Stream   string    `json:"stream"`            // "out" or "err"; "gpm" for the daemon's own
	At       time.Time `json:"at,omitzero"`       // when it was read; zero if it comes from a file
	Text     string    `json:"text"`              // as written to the file, without the newline
	Skipped  int       `json:"skipped,omitempty"` // >0: this many lines were skipped here, Text is empty
}

// Event is something that happened to an app or an instance.
type Event struct {
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // "start", "online", "exit", "restart", "reload", "wait", "stop", "delete", "errored", "watch", "listen", "conflict", "log", "daemon", "rollout"
	App      string    `json:"app,omitempty"`
	ID       int       `json:"id"`       // -1: of the app or the daemon, not of an instance
	Instance int       `json:"instance"` // -1: as above
	Status   Status    `json:"status,omitempty"`
	Message  string    `json:"message"`
	Progress *Progress `json:"progress,omitempty"` // of kind "rollout"
}

// Progress is how far a rollout or drain of an app is.
type Progress struct {
	Ready    int       `json:"ready"` // instances that run the new version
	Total    int       `json:"total"`
	Draining int       `json:"draining"`          // processes
	Streams  int       `json:"streams"`           // in these
	Oldest   time.Time `json:"oldest"`            // since when the oldest of these streams is known; zero: none
	Deadline time.Time `json:"deadline"`          // when the last drain is cut; zero: none drains
	Waiting  string    `json:"waiting,omitempty"` // why the rollout does not go on right now: "pause 10s", "max_draining 4"
	Done     bool      `json:"done"`              // the rollout is over; drains may go on
}

// StartRequest asks the daemon to start apps. Apps whose name exists already
// are restarted with the new config (reloaded with Reload), others are added.
type StartRequest struct {
	Apps   []config.App `json:"apps"`
	Needs  []config.App `json:"needs,omitempty"` // started only if one of the others depends on them and they do not run
	Reload bool         `json:"reload,omitempty"`
	Force  bool         `json:"force,omitempty"` // a second app with a used name is refused unless set
	NoWait bool         `json:"no_wait,omitempty"`
}

// ActRequest asks for one verb on targets. A target is an id, a name, a
// namespace, a /regex/, or "all".
type ActRequest struct {
	Targets   []string          `json:"targets"`
	UpdateEnv map[string]string `json:"update_env,omitempty"` // restart, reload: the caller's environment
	Instances string            `json:"instances,omitempty"`  // scale: "4", "+2", "-1"
	Drain     bool              `json:"drain,omitempty"`      // stop, delete: let streams finish first
	Undo      bool              `json:"undo,omitempty"`       // drain: back into traffic
}

// Result is the outcome of a verb for each instance it touched.
type Result struct {
	Instances []Outcome `json:"instances"`
}

// Outcome is what became of one instance.
type Outcome struct {
	ID       int       `json:"id"`
	Name     string    `json:"name"`
	Instance int       `json:"instance"`
	Status   Status    `json:"status"`
	PID      int       `json:"pid"`
	OK       bool      `json:"ok"`
	Reason   string    `json:"reason,omitempty"`    // why not OK
	Tail     []LogLine `json:"tail,omitempty"`      // last log lines, if not OK
	Runs     Edition   `json:"runs,omitempty"`      // abort: which version it runs
	NeededBy string    `json:"needed_by,omitempty"` // nobody asked for it, but this app depends on it
	UsedBy   []string  `json:"used_by,omitempty"`   // stop, delete: running apps that depend on it
}

// Edition tells the two versions of an app in a rollout apart.
type Edition string

// The editions.
const (
	NewVersion Edition = "new"
	OldVersion Edition = "old"
)

// Failed tells whether any instance did not reach what was asked for.
func (r Result) Failed() bool {
	for _, o := range r.Instances {
		if !o.OK {
			return true
		}
	}
	return false
}

// List is the answer of GET /v1/apps.
type List struct {
	Instances []Instance `json:"instances"`
	Host      Host       `json:"host"`
	Daemon    Daemon     `json:"daemon"`
}

// Host is a reading of the machine.
type Host struct {
	CPU         float64 `json:"cpu"` // percent of all cores
	MemoryUsed  uint64  `json:"memory_used"`
	MemoryTotal uint64  `json:"memory_total"`
}

// Daemon tells who answers.
type Daemon struct {
	Version  string    `json:"version"`
	Protocol int       `json:"protocol"`
	PID      int       `json:"pid"`
	Keeper   int       `json:"keeper_pid"`
	Started  time.Time `json:"started_at"`
	Home     string    `json:"home"`
	Exe      string    `json:"exe"`
	Unsaved  bool      `json:"unsaved"` // the list differs from dump.json
	Warnings []string  `json:"warnings,omitempty"`
}

// Check is one line of gpm doctor.
type Check struct {
	Name     string `json:"name"`   // "held listeners", "process trees", ...
	State    string `json:"state"`  // "ok", "limited", "missing"
	Detail   string `json:"detail"` // what this machine offers
	Fallback string `json:"fallback,omitempty"`
}
