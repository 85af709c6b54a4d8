//go:build !linux

package daemon

func (d *daemon) retake(place, int) {}
