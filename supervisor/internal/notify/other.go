//go:build !linux

package notify

import "os"

// Socket cannot be made here.
type Socket struct{}

// Listen fails with ErrUnsupported.
func Listen(string) (*Socket, error) { return nil, ErrUnsupported }

// FromFile fails with ErrUnsupported.
func FromFile(*os.File) (*Socket, error) { return nil, ErrUnsupported }

// File fails with ErrUnsupported.
func (*Socket) File() (*os.File, error) { return nil, ErrUnsupported }

// Serve fails with ErrUnsupported.
func (*Socket) Serve(func(pid int, state map[string]string)) error { return ErrUnsupported }

// Close does nothing.
func (*Socket) Close() error { return nil }

// NewChannel fails with ErrUnsupported.
func NewChannel() (ours, child *os.File, err error) { return nil, nil, ErrUnsupported }

// Name is empty.
func (*Socket) Name() string { return "" }
