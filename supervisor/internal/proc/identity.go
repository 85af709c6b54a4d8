// Package proc knows operating system processes: who one is beyond its pid
// (Identity), which signal a text means, and how to reach every process of an
// app's tree (Forest, Tree), also after the daemon was replaced.
//
// Linux only; elsewhere it compiles and answers ErrUnsupported.
package proc

import "errors"

// ErrUnsupported says that this system has no /proc and no pidfd.
var ErrUnsupported = errors.New("process identity and trees are only supported on linux")

// ErrGone says that there is no such process (any more).
var ErrGone = errors.New("no such process")

// Identity names one process for all time on this machine. A pid alone does
// not: the kernel gives it out again. It is written to disk as it is.
type Identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks between boot and fork: field 22 of /proc/<pid>/stat
	Boot  string `json:"boot"`  // /proc/sys/kernel/random/boot_id
}

// Zero tells whether id names nobody.
func (id Identity) Zero() bool { return id.PID == 0 }

// Stat is what /proc/<pid>/stat says of one process.
type Stat struct {
	PID     int
	PPid    int
	PGrp    int
	Session int
	Start   uint64 // clock ticks since boot
	State   byte   // R S D T t Z X I ...
	Threads int
	Comm    string // at most 15 bytes
}

// Dead tells whether the process has ended and only waits for its parent to
// take the exit code. A zombie with threads left is alive: its main thread
// ended first, which Linux allows.
func (s Stat) Dead() bool {
	return s.Threads <= 1 && (s.State == 'Z' || s.State == 'X' || s.State == 'x')
}

// Proc is one process of a tree, as shown to people.
type Proc struct {
	PID     int
	Parent  int
	Start   uint64 // clock ticks since boot
	Command string // the command line, at most 4096 bytes; "[comm]" if it has none
}
