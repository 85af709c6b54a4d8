package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"gpm/supervisor/api"
)

// crowd opens n streams at once, at most width at a time on their way.
func (g *gpm) crowd(port, n, width int) (all []*tap) {
	g.t.Helper()
	var mu sync.Mutex
	var failed []error
	var workers sync.WaitGroup
	turns := make(chan struct{}, n)
	for range n {
		turns <- struct{}{}
	}
	close(turns)
	for range width {
		workers.Go(func() { // until there are no more turns
			for range turns {
				s, err := openTap(g.t, port, "/stream")
				mu.Lock()
				if err == nil {
					all = append(all, s)
				} else {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	g.t.Cleanup(func() {
		for _, s := range all {
			s.close()
		}
	})
	if len(failed) > 0 {
		g.t.Fatalf("%d of %d streams failed, the first: %v", len(failed), n, failed[0])
	}
	return all
}

// uneven is how much more the fullest has than its share, and how many each has.
func uneven(n int, crowds ...[]*tap) (float64, map[string]int) {
	by, sum := map[string]int{}, 0
	for _, s := range slices.Concat(crowds...) {
		by[s.instance]++
		sum++
	}
	most := 0
	for _, have := range by {
		most = max(most, have)
	}
	return float64(most) * float64(n) / float64(sum), by
}

// A thousand streams on four instances: each has its share. Then one dies, and
// everybody comes again at once: whoever has few gets more, and not all.
func TestBalance(t *testing.T) {
	for _, m := range modes() {
		if m.steer == "none" || m.user && !*soak {
			continue
		}
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			share, again := 1.01, 1.05 // exact
			if m.steer == "cbpf" {
				share, again = 1.3, 1.5 // by chance, from counts that may be older than the death
			}
			g, port := newGPM(t).in(m), freePort(t)
			g.ok("start", g.conf(keys{
				"name": "sse", "script": filepath.Join(bin, "sse-app"), "args": []string{"-interval", "30s"}, "instances": 4, "balance": "least",
				"env": keys{"PORT": fmt.Sprint(port)}, "drain": "signal",
			}))
			g.online("sse", 4)
			g.listeners("sse", port, 4, 1)
			g.steered(m)
			first := g.crowd(port, 1000, 50)
			off, by := uneven(4, first)
			t.Logf("1,000 streams: %v, fullest %.3f of its share", by, off)
			if off > share {
				t.Errorf("the fullest instance has %.3f of its share, at most %.2f is expected: %v", off, share, by)
			}
			g.counted(first)

			dead := g.instance("sse", 0)
			behead(t, dead.PID)
			g.until("it is back, with no stream", func() bool {
				in := g.instance("sse", 0)
				return in.Status == api.Online && in.Generation > dead.Generation && in.Streams == 0
			})
			left := slices.DeleteFunc(slices.Clone(first), func(s *tap) bool { return s.instance == "0" })
			second := g.crowd(port, 1000, 1000)
			off, by = uneven(4, left, second)
			t.Logf("one has died, 1,000 come at once: %v, fullest %.3f of its share", by, off)
			if off > again {
				t.Errorf("the fullest instance has %.3f of its share, at most %.2f is expected: %v", off, again, by)
			}
			g.counted(slices.Concat(left, second))
		})
	}
}

// counted waits until gpm counts for each instance what we know it has.
func (g *gpm) counted(all []*tap) {
	g.t.Helper()
	_, by := uneven(4, all)
	g.until(fmt.Sprintf("gpm counts %v streams", by), func() bool {
		for _, in := range g.list() {
			if in.Streams != by[fmt.Sprint(in.Instance)] {
				return false
			}
		}
		return true
	})
}
