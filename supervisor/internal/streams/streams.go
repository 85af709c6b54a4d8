// Package streams reads the kernel's list of TCP sockets: who listens, how long
// the accept queues are, and how many connections each process has.
package streams

import (
	"errors"
	"net/netip"
	"time"
)

// ErrUnsupported says that this system or kernel does not list its sockets.
var ErrUnsupported = errors.New("counting streams is not supported here")

// Listener is a listening socket of this network namespace.
type Listener struct {
	Addr  netip.AddrPort
	Only6 bool // IPV6_V6ONLY; false if only /proc/net/tcp6 could be read, which does not tell it
	Inode uint64
	Queue int // connections that wait to be accepted
	Max   int // its backlog; 0 if only /proc/net could be read
}

// Process is somebody whose connections are counted: a process of an instance
// with its whole tree.
type Process struct {
	Key  string // the caller's name for it
	PIDs []int  // of its tree
}

// Query is what a Counter is asked.
type Query struct {
	Ports     []uint16  // the local ports that matter; with none, nothing is counted
	Processes []Process // should two of them have one connection, the first gets it
	// Closely are the processes, by Key, for which Live and Sent are wanted,
	// with their idle time. It makes the whole Count dearer if it is not empty.
	Closely map[string]time.Duration
}

// Reading is the answer to a Query.
type Reading struct {
	By        map[string]Count // by Process.Key: every one that was asked for
	Listeners []Listener       // on the ports asked for
	Queued    map[uint64]int   // connections that wait to be accepted, by inode of a listener of Listeners
	// Unowned are accepted connections on the ports that none of the processes
	// has, among them those that ended while the kernel was being read.
	Unowned int
}

// Count is what a process has.
type Count struct {
	Streams int // accepted connections on the ports asked for, established or half closed
	// Live are those of Streams with data in either direction within the idle
	// time. To be connected counts as data: a client has the idle time to begin
	// with. Only if it was asked for.
	Live int
	// Oldest is since when the oldest of these is known: it may be older than
	// the Counter. Zero: it has none.
	Oldest time.Time
	Ages   []int // by Bounds: Ages[i] are younger than Bounds[i], the last one is the rest
	New    int   // of Streams, not there at the last Count
	// Blind says that the process's descriptors may not be looked at: what it
	// has is among Unowned.
	Blind bool
	// Sent is when any of these last sent data to its client; zero: unknown or
	// never. Only if it was asked for.
	Sent time.Time
}

// Bounds are the upper bounds of Count.Ages.
var Bounds = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute, time.Hour}
