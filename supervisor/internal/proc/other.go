//go:build !linux

package proc

import (
	"context"
	"os"
	"syscall"
)

// Read fails with ErrUnsupported.
func Read(int) (Identity, error) { return Identity{}, ErrUnsupported }

// Alive is false.
func (id Identity) Alive() bool { return false }

// Snapshot fails with ErrUnsupported.
func Snapshot() (map[int]Stat, error) { return nil, ErrUnsupported }

// Forest cannot be made here.
type Forest struct{}

// Plant fails with ErrUnsupported.
func Plant(Options) (*Forest, error) { return nil, ErrUnsupported }

// Kind is Session.
func (*Forest) Kind() (Kind, string) { return Session, ErrUnsupported.Error() }

// Close does nothing.
func (*Forest) Close() error { return nil }

// Tree fails with ErrUnsupported.
func (*Forest) Tree(string) (*Tree, error) { return nil, ErrUnsupported }

// Open fails with ErrUnsupported.
func (*Forest) Open(string, Identity) (*Tree, error) { return nil, ErrUnsupported }

// Tree cannot be made here.
type Tree struct{}

// Env is empty.
func (*Tree) Env() string { return "" }

// Kind is Session.
func (*Tree) Kind() Kind { return Session }

// Cgroup is nil.
func (*Tree) Cgroup() *os.File { return nil }

// Root does nothing.
func (*Tree) Root(Identity) {}

// Members is empty.
func (*Tree) Members() []Proc { return nil }

// PIDs is empty.
func (*Tree) PIDs() []int { return nil }

// Left is false.
func (*Tree) Left() bool { return false }

// Signal fails with ErrUnsupported.
func (*Tree) Signal(syscall.Signal) (int, error) { return 0, ErrUnsupported }

// Kill fails with ErrUnsupported.
func (*Tree) Kill(context.Context) error { return ErrUnsupported }

// Close does nothing.
func (*Tree) Close() error { return nil }
