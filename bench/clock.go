package main

import (
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// now is CLOCK_MONOTONIC in nanoseconds: the clock that the supervised program
// reads, too, so that times of two processes can be compared.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return t.Nano()
}

func since(t int64) time.Duration { return time.Duration(now() - t) }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until looks every millisecond whether done; it is false when ctx ended first.
func until(ctx context.Context, done func() bool) bool {
	for !done() {
		if pause(ctx, time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// quantile is the smallest value that at least the share q of all do not
// exceed; zero of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func median(all []time.Duration) time.Duration { return quantile(all, 0.5) }
