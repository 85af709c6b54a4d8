//go:build !linux

package streams

// Listeners fails with ErrUnsupported.
func Listeners(...uint16) ([]Listener, uint64, error) { return nil, 0, ErrUnsupported }

// Counter counts nothing here.
type Counter struct{}

// New fails with ErrUnsupported.
func New() (*Counter, error) { return nil, ErrUnsupported }

// Count fails with ErrUnsupported.
func (*Counter) Count(Query) (Reading, error) { return Reading{}, ErrUnsupported }

// Close does nothing.
func (*Counter) Close() error { return nil }
