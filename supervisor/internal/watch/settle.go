package watch

import "time"

// maxPaths bounds how many changed paths a Change names.
const maxPaths = 20

// settler turns many events into one change: it fires when nothing came for
// quiet, or when the first event is longest old. It holds no clock; times are
// handed in.
type settler struct {
	quiet   time.Duration
	longest time.Duration
	first   time.Time // zero: nothing pending
	last    time.Time
	paths   []string // at most maxPaths, each once
	more    int
}

// add notes an event.
func (s *settler) add(now time.Time, path string) {
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
	for _, p := range s.paths {
		if p == path {
			return
		}
	}
	if len(s.paths) == maxPaths {
		s.more++
		return
	}
	s.paths = append(s.paths, path)
}

// due is when the change is complete if nothing more comes; false: nothing is pending.
func (s *settler) due() (time.Time, bool) {
	if s.first.IsZero() {
		return time.Time{}, false
	}
	due := s.last.Add(s.quiet)
	if latest := s.first.Add(s.longest); latest.Before(due) {
		due = latest
	}
	return due, true
}

// change is what is pending.
func (s *settler) change() Change { return Change{Paths: s.paths, More: s.more} }

// take forgets what was pending.
func (s *settler) take() {
	s.first, s.last, s.paths, s.more = time.Time{}, time.Time{}, nil, 0
}
