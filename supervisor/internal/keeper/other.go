//go:build !linux

package keeper

import (
	"context"
	"fmt"
	"os"

	"gpm/supervisor/internal/trap"
)

// Link is the daemon's side; it exists on Linux only.
type Link struct{}

// Main reports ErrUnsupported.
func Main(string, string, ...Option) int {
	fmt.Fprintln(os.Stderr, "gpm:", ErrUnsupported)
	return ExitFailed
}

// Running is false.
func Running(string) (pid int, ok bool) { return 0, false }

// Connect returns ErrUnsupported.
func Connect(int) (*Link, Inventory, error) { return nil, Inventory{}, ErrUnsupported }

// Replace returns ErrUnsupported.
func Replace(string, string, map[string]*os.File, []Child, []*trap.Trap) error { return ErrUnsupported }

// Abandon returns ErrUnsupported.
func Abandon(map[string]*os.File, []*trap.Trap) error { return ErrUnsupported }

// Close returns ErrUnsupported, as do all methods.
func (*Link) Close() error { return ErrUnsupported }

// Serve returns ErrUnsupported.
func (*Link) Serve(Handler) error { return ErrUnsupported }

// Spawn returns ErrUnsupported.
func (*Link) Spawn(context.Context, Spawn) (Child, error) { return Child{}, ErrUnsupported }

// Adopt returns ErrUnsupported.
func (*Link) Adopt(context.Context, int, uint64, string) (Child, error) {
	return Child{}, ErrUnsupported
}

// Store returns ErrUnsupported.
func (*Link) Store(string, *os.File) error { return ErrUnsupported }

// Drop returns ErrUnsupported.
func (*Link) Drop(string) error { return ErrUnsupported }

// Ack returns ErrUnsupported.
func (*Link) Ack(int) error { return ErrUnsupported }

// Answer returns ErrUnsupported.
func (*Link) Answer(*trap.Trap, trap.Verdict) error { return ErrUnsupported }

// Unanswered is empty.
func (*Link) Unanswered() []*trap.Trap { return nil }

// Next returns ErrUnsupported.
func (*Link) Next(string) error { return ErrUnsupported }

// Ready returns ErrUnsupported.
func (*Link) Ready() error { return ErrUnsupported }

// Quit returns ErrUnsupported.
func (*Link) Quit() error { return ErrUnsupported }

// Pollable reports ErrUnsupported.
func Pollable(*os.File) (*os.File, error) { return nil, ErrUnsupported }

// Quiet reports ErrUnsupported.
func Quiet(int, string) (*os.File, error) { return nil, ErrUnsupported }
