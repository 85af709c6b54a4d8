//go:build !linux

package probe

import (
	"context"

	"gpm/config"
)

// run fails with ErrUnsupported.
func run(context.Context, config.Probe, Target) error { return ErrUnsupported }
