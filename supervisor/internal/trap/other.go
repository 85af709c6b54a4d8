//go:build !linux

package trap

import "syscall"

// Install returns ErrUnsupported.
func Install() (fd int, noNewPrivs bool, err error) { return -1, false, ErrUnsupported }

// Receive returns ErrUnsupported.
func Receive(int) (Notification, error) { return Notification{}, ErrUnsupported }

// Valid returns false.
func Valid(int, uint64) bool { return false }

// Pass returns ErrUnsupported.
func Pass(int, uint64) error { return ErrUnsupported }

// Fail returns ErrUnsupported.
func Fail(int, uint64, syscall.Errno) error { return ErrUnsupported }

// Replace returns ErrUnsupported.
func Replace(int, uint64, int, int, bool) error { return ErrUnsupported }

// Look returns ErrUnsupported.
func Look(Notification) (Trap, int, error) { return Trap{}, -1, ErrUnsupported }
