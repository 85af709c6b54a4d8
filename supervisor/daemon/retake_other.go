//go:build !linux

package daemon

import "gpm/supervisor/internal/proc"

func (d *daemon) retake(place, proc.Identity) {}
