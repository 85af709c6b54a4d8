package daemon

import (
	"sync"
	"sync/atomic"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/api"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/usage"
)

const sampleEvery = 2 * time.Second

// sampler reads cpu and memory of all process trees: one look at /proc for
// all of them, then each process once.
type sampler struct {
	brain  *supervisor.Supervisor
	mu     sync.Mutex // one sample at a time: its goroutine's, or that of a list of new processes
	read   *usage.Sampler
	latest atomic.Pointer[usage.Host]
}

func newSampler(b *supervisor.Supervisor) *sampler {
	s := &sampler{brain: b, read: usage.NewSampler()}
	s.latest.Store(&usage.Host{})
	return s
}

// run is the sampler's goroutine.
func (s *sampler) run(stop <-chan struct{}, h *hands) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	s.sample(h)
	for {
		select {
		case <-tick.C:
			s.sample(h)
		case <-stop:
			return
		}
	}
}

func (s *sampler) sample(h *hands) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host, err := s.read.Host()
	if err != nil {
		h.log.Error("look at the host", "error", err)
	}
	s.latest.Store(&host)
	roots := h.roots()
	if len(roots) == 0 {
		return
	}
	all, err := proc.Snapshot()
	if err != nil {
		h.log.Error("look at processes", "error", err)
		return
	}
	by := map[int]supervisor.Usage{}
	for id, u := range s.read.Sample(trees(all, roots)) {
		by[id] = supervisor.Usage{CPU: u.CPU, Memory: u.Memory}
	}
	s.brain.Measured(by)
}

// trees sorts processes to the instances they belong to, by descent or by
// session: roots is pid -> id of the instance.
func trees(all map[int]proc.Stat, roots map[int]int) map[int][]int {
	out := map[int][]int{}
	for pid, st := range all {
		if st.Dead() {
			continue
		}
		for up := pid; up > 1; up = all[up].PPid {
			if id, ok := roots[up]; ok {
				out[id] = append(out[id], pid)
				break
			}
			if id, ok := roots[all[up].Session]; ok {
				out[id] = append(out[id], pid)
				break
			}
		}
	}
	return out
}

// roots are the processes that the keeper spawned, with their instance's id.
func (h *hands) roots() map[int]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := map[int]int{}
	for _, p := range h.procs {
		if p.pid != 0 {
			r[p.pid] = p.id
		}
	}
	return r
}

func (s *sampler) host() api.Host {
	h := s.latest.Load()
	return api.Host{CPU: h.CPU, MemoryUsed: h.MemoryUsed, MemoryTotal: h.MemoryTotal}
}
