// Package usage measures processor time and memory of process trees, and of
// the machine. The caller knows which processes a tree has: asking for the
// children of a process would walk all of /proc each time.
package usage

import (
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/process"
)

// Usage is what a tree uses.
type Usage struct {
	CPU    float64 // percent of one core since the last sample; 0 in the first
	Memory uint64  // bytes resident; pages that processes share count for each
}

// Host is a reading of the machine.
type Host struct {
	CPU         float64 // percent of all cores since the last reading; 0 in the first
	MemoryUsed  uint64  // bytes, without caches
	MemoryTotal uint64  // bytes
}

// reading is what one process had used when it was last looked at.
type reading struct {
	born int64     // milliseconds since the epoch; another process may have the pid next time
	cpu  float64   // seconds, user and system
	at   time.Time // before it was looked at
}

// Sampler remembers the last sample. It belongs to one goroutine.
type Sampler struct {
	look func(pid int) (reading, uint64, error)
	last map[int]reading
	at   time.Time // of the last sample; zero: none yet

	busy, total float64 // of the last Host, seconds of all cores
}

// NewSampler makes a sampler without a past.
func NewSampler() *Sampler {
	// The time of boot does not change, and gopsutil would read it for each process.
	process.EnableBootTimeCache(true)
	return &Sampler{look: look, last: map[int]reading{}}
}

// Sample measures trees: for each key the pids of its processes. Those that
// have ended are left out and forgotten; a tree of none uses nothing.
func (s *Sampler) Sample(trees map[int][]int) map[int]Usage {
	now := time.Now()
	next := make(map[int]reading, len(s.last))
	out := make(map[int]Usage, len(trees))
	for key, pids := range trees {
		var u Usage
		for _, pid := range pids {
			at := time.Now()
			r, memory, err := s.look(pid)
			if err != nil {
				continue
			}
			r.at = at
			next[pid] = r
			u.Memory += memory
			// Up to now, not to a moment before the look: a gpm that stood still
			// in between would tell of more than the processors there are.
			since := s.at
			if before, known := s.last[pid]; known && before.born == r.born {
				since = before.at
			}
			if elapsed := time.Since(since).Seconds(); elapsed > 0 {
				u.CPU += s.spent(pid, r) / elapsed * 100
			}
		}
		out[key] = u
	}
	s.last, s.at = next, now
	return out
}

// spent is the seconds of processor time since the last sample. A process that
// was born after it has spent all its time since; one that is older, but was
// not in it, has an unknown past.
func (s *Sampler) spent(pid int, r reading) float64 {
	switch before, known := s.last[pid]; {
	case s.at.IsZero():
		return 0
	case known && before.born == r.born:
		return max(r.cpu-before.cpu, 0)
	case r.born >= s.at.UnixMilli():
		return r.cpu
	}
	return 0
}

func look(pid int) (reading, uint64, error) {
	p := &process.Process{Pid: int32(pid)}
	times, err := p.Times()
	if err != nil {
		return reading{}, 0, err
	}
	born, err := p.CreateTime()
	if err != nil {
		return reading{}, 0, err
	}
	memory, err := p.MemoryInfo()
	if err != nil {
		return reading{}, 0, err
	}
	return reading{born: born, cpu: times.User + times.System}, memory.RSS, nil
}

// Host reads the machine.
func (s *Sampler) Host() (Host, error) {
	m, err := mem.VirtualMemory()
	if err != nil {
		return Host{}, err
	}
	h := Host{MemoryUsed: m.Used, MemoryTotal: m.Total}
	times, err := cpu.Times(false)
	if err != nil || len(times) == 0 {
		return h, err
	}
	t := times[0]
	// Guest time is part of user and nice already (proc_stat(5)).
	total := t.User + t.Nice + t.System + t.Idle + t.Iowait + t.Irq + t.Softirq + t.Steal
	busy := total - t.Idle - t.Iowait
	if s.total > 0 && total > s.total {
		h.CPU = min(max((busy-s.busy)/(total-s.total)*100, 0), 100)
	}
	s.busy, s.total = busy, total
	return h, nil
}
