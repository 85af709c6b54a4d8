// Package usage reads what processes and the host use: cpu and memory by pid
// through gopsutil. It never asks for children: that walks all of /proc for
// every process. Whoever samples knows the tree.
package usage

import (
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/process"
)

// Usage is what a process tree uses.
type Usage struct {
	CPU    float64 // percent of one core, since the sample before; 0 in the first one
	Memory uint64  // bytes resident, summed over the tree; shared pages count more than once
}

// Sampler remembers the last sample. Its methods may be called from any
// goroutine; it has none.
type Sampler struct {
	mu   sync.Mutex
	last map[int32]reading

	hostMu sync.Mutex
	busy   float64
	total  float64
}

type reading struct {
	p    *process.Process
	cpu  float64 // seconds since its start
	at   time.Time
	turn bool // seen in this sample
}

// NewSampler makes a Sampler without a past.
func NewSampler() *Sampler { return &Sampler{last: map[int32]reading{}} }

// Sample reads each tree, given as its pids by any key of the caller's. A
// process that is gone counts nothing and is forgotten; a pid that was given
// out again starts anew.
func (s *Sampler) Sample(trees map[int][]int) map[int]Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int]Usage, len(trees))
	for key, pids := range trees {
		var u Usage
		for _, pid := range pids {
			percent, rss := s.read(int32(pid))
			u.CPU += percent
			u.Memory += rss
		}
		out[key] = u
	}
	for pid, r := range s.last {
		if !r.turn {
			delete(s.last, pid)
			continue
		}
		r.turn = false
		s.last[pid] = r
	}
	return out
}

func (s *Sampler) read(pid int32) (percent float64, rss uint64) {
	was, known := s.last[pid]
	if known {
		if same, err := was.p.IsRunning(); err != nil || !same {
			known = false
		}
	}
	now := reading{at: time.Now(), turn: true}
	if known {
		now.p = was.p
	} else {
		p, err := process.NewProcess(pid)
		if err != nil {
			delete(s.last, pid)
			return 0, 0
		}
		now.p = p
	}
	times, err := now.p.Times()
	if err != nil {
		delete(s.last, pid)
		return 0, 0
	}
	now.cpu = times.User + times.System
	s.last[pid] = now
	if known {
		if d := now.at.Sub(was.at).Seconds(); d > 0 && now.cpu > was.cpu {
			percent = (now.cpu - was.cpu) / d * 100
		}
	}
	if m, err := now.p.MemoryInfo(); err == nil {
		rss = m.RSS
	}
	return percent, rss
}

// Host is a reading of the machine.
type Host struct {
	CPU         float64 // percent of all cores, since the call before; 0 in the first one
	MemoryUsed  uint64  // bytes
	MemoryTotal uint64  // bytes
}

// Host reads the machine. What cannot be read stays zero.
func (s *Sampler) Host() Host {
	var h Host
	if m, err := mem.VirtualMemory(); err == nil {
		h.MemoryUsed, h.MemoryTotal = m.Used, m.Total
	}
	t, err := cpu.Times(false)
	if err != nil || len(t) == 0 {
		return h
	}
	idle := t[0].Idle + t[0].Iowait
	total := t[0].User + t[0].System + t[0].Nice + t[0].Irq + t[0].Softirq + t[0].Steal + idle
	s.hostMu.Lock()
	defer s.hostMu.Unlock()
	if d := total - s.total; s.total > 0 && d > 0 {
		h.CPU = 100 * (total - idle - s.busy) / d
	}
	s.busy, s.total = total-idle, total
	return h
}
