// Package steer tells the kernel which listener of an SO_REUSEPORT group gets a
// new connection. It is never in the data path: it attaches one small program
// to each group and then only changes what that program reads.
package steer

import (
	"errors"
	"net/netip"
	"os"
)

// ErrUnsupported says that nothing can be steered here; the kernel's hash
// decides.
var ErrUnsupported = errors.New("steering is not available")

// Mode is how connections are steered.
type Mode string

// The modes, best first.
const (
	// EBPF is a BPF_PROG_TYPE_SK_REUSEPORT program (Linux 4.19, CAP_BPF or
	// root): stable slots, exact balance, refusal when nobody is open, and
	// (5.14) the queue of a listener that is closed goes to the others.
	EBPF Mode = "ebpf"
	// CBPF is a classic program (Linux 4.6, no privileges), replaced when a
	// state changes; only on kernels where that is safe.
	CBPF Mode = "cbpf"
	// None is the kernel's hash over all listeners.
	None Mode = "none"
)

// Policy says how open listeners share new connections.
type Policy string

// The policies.
const (
	Least  Policy = "least"
	Random Policy = "random"
	Hash   Policy = "hash"
)

// Traffic is what a listener gets.
type Traffic string

// The kinds of traffic.
const (
	// Kept: for a Join, what an earlier daemon said; Queue if it said nothing.
	Kept Traffic = ""
	// Away: nothing, but for connections that are aimed at it.
	Away Traffic = "away"
	// Queue: new connections only while no listener of the group serves; they
	// wait to be accepted.
	Queue Traffic = "queue"
	// Serve: its share.
	Serve Traffic = "serve"
)

// Listener is a listening TCP socket to be steered. File stays the caller's and
// is open until Leave. It must listen already, with SO_REUSEPORT set before
// listen(), and be plain TCP: the kernel steers no MPTCP socket.
type Listener struct {
	File   *os.File
	Cookie uint64 // SO_COOKIE: its name in all calls here
	Inode  uint64 // its name in the kernel's lists of sockets
	Addr   netip.AddrPort
	Only6  bool // IPV6_V6ONLY: "::" without IPv4
}

// Mark is what every listener had been given at one moment.
type Mark struct{ loads map[uint64]int64 }

// Options are a Steerer's ties to the rest of gpm. The callbacks run on the
// goroutine that called the Steerer, after it has done what it was called for;
// they may be slow, and must not call back into it.
type Options struct {
	// Mode as Detect gave it; Why is the sentence that came with it.
	Mode Mode
	Why  string
	// Store gives a descriptor to the keeper under a name, so that the next
	// daemon finds it; it replaces what had that name. The file stays the
	// Steerer's. Drop makes the keeper forget it. May be nil.
	Store func(name string, f *os.File) error
	Drop  func(name string) error
	// Problem is told, once for each group and cause, what limits the steering
	// of a group. May be nil.
	Problem func(group string, err error)
}
