//go:build !linux

package steer

import "os"

// Detect finds nothing here.
func Detect(bool) (Mode, string) { return None, "connections can only be steered on Linux" }

// Migrates is never so here.
func Migrates() bool { return false }

func newGroup(Mode, Policy, map[string]*os.File, func(error)) (group, error) {
	return nil, ErrUnsupported
}

func detach(*os.File) error { return nil }
