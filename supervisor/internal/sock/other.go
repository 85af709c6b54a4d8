//go:build !linux

package sock

import (
	"net/netip"
	"os"

	"gpm/supervisor/internal/aim"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/streams"
	"gpm/supervisor/internal/trap"
)

// Holder holds nothing here.
type Holder struct{}

// New makes a Holder that holds nothing and continues every call.
func New(Options) *Holder { return &Holder{} }

// Handle continues.
func (*Holder) Handle(t *trap.Trap) trap.Verdict {
	if t.Socket != nil {
		t.Socket.Close()
	}
	return trap.Continue()
}

// Release does nothing.
func (*Holder) Release(string, int) error { return nil }

// Retire does nothing.
func (*Holder) Retire(string, int, int) error { return nil }

// Settle does nothing.
func (*Holder) Settle(string, int, int) error { return nil }

// Adopt does nothing.
func (*Holder) Adopt(Owner, map[uint64]bool) error { return nil }

// Sweep does nothing.
func (*Holder) Sweep() error { return nil }

// Down does nothing.
func (*Holder) Down(string, int, int) error { return nil }

// Route does nothing.
func (*Holder) Route(string, int, int, steer.Traffic) error { return nil }

// Verify does nothing.
func (*Holder) Verify([]streams.Listener) error { return nil }

// Target is false.
func (*Holder) Target(string, int, int, int) (addr netip.AddrPort, how aim.Aim, ok bool) {
	return addr, how, false
}

// Ports is empty.
func (*Holder) Ports() []uint16 { return nil }

// Gated is false.
func (*Holder) Gated(string) bool { return false }

// Ungate is empty.
func (*Holder) Ungate(string) []Answer { return nil }

// Forget does nothing.
func (*Holder) Forget(string) {}

// Listeners is empty.
func (*Holder) Listeners(string, int) []Listener { return nil }

// LearnedPorts is false.
func (*Holder) LearnedPorts(string, int) bool { return false }

// Restore fails with ErrUnsupported and closes f.
func (*Holder) Restore(_ string, f *os.File) error {
	f.Close()
	return ErrUnsupported
}

// Open fails with ErrUnsupported.
func (*Holder) Open(Owner, string) (*os.File, error) { return nil, ErrUnsupported }

// Files is empty.
func (*Holder) Files() map[string]*os.File { return nil }

// Apps is empty.
func (*Holder) Apps() map[string]bool { return nil }

// ReleaseApp does nothing.
func (*Holder) ReleaseApp(string) error { return nil }

// Retake closes f.
func (*Holder) Retake(_ Owner, f *os.File) error {
	f.Close()
	return ErrUnsupported
}

// Resume does nothing.
func (h *Holder) Resume() {}
