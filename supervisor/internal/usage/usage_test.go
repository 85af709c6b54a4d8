package usage

import (
	"errors"
	"maps"
	"math"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"
)

// table is a machine with the given processes.
type table map[int]struct {
	reading
	memory uint64
}

func (tb table) look(pid int) (reading, uint64, error) {
	p, ok := tb[pid]
	if !ok {
		return reading{}, 0, errors.New("gone")
	}
	return p.reading, p.memory, nil
}

func TestSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UnixMilli()
		tb := table{
			1: {reading{born: start - 5000, cpu: 40}, 100},
			2: {reading{born: start - 5000, cpu: 1}, 10},
			3: {reading{born: start - 5000, cpu: 7}, 1},
		}
		s := &Sampler{look: tb.look, last: map[int]reading{}}
		trees := map[int][]int{0: {1, 2}, 7: {3}, 8: nil}
		check := func(want map[int]Usage) {
			t.Helper()
			got := s.Sample(trees)
			for _, u := range []map[int]Usage{got, want} { // float sums
				for k, v := range u {
					v.CPU = math.Round(v.CPU*1000) / 1000
					u[k] = v
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		check(map[int]Usage{0: {0, 110}, 7: {0, 1}, 8: {}})

		<-time.After(2 * time.Second)
		now := time.Now().UnixMilli()
		tb[1] = struct {
			reading
			memory uint64
		}{reading{born: start - 5000, cpu: 41}, 200} // one second in two
		delete(tb, 2)
		tb[3] = struct {
			reading
			memory uint64
		}{reading{born: now - 500, cpu: 0.5}, 2} // another process with that pid, born since
		tb[4] = struct {
			reading
			memory uint64
		}{reading{born: start - 9000, cpu: 99}, 3} // old, but new to us
		trees[8] = []int{4}
		check(map[int]Usage{0: {50, 200}, 7: {25, 2}, 8: {0, 3}})
		if _, ok := s.last[2]; ok {
			t.Error("a dead process is remembered")
		}

		<-time.After(time.Second)
		check(map[int]Usage{0: {0, 200}, 7: {0, 2}, 8: {0, 3}})
	})
}

func TestARealProcessThatSpins(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	s := NewSampler()
	trees := map[int][]int{1: {cmd.Process.Pid}, 2: {os.Getpid()}}
	s.Sample(trees)
	for late := time.After(20 * time.Second); ; {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-late:
			t.Fatal("a spinning process uses no processor time")
		}
		u := s.Sample(trees)
		if u[2].Memory < 1<<20 || u[1].Memory == 0 || u[1].CPU > 150 {
			t.Fatalf("usage %+v", u)
		}
		if u[1].CPU > 5 {
			return
		}
	}
}

func TestHost(t *testing.T) {
	s := NewSampler()
	first, err := s.Host()
	if err != nil {
		t.Fatal(err)
	}
	if first.CPU != 0 || first.MemoryTotal < 1<<20 || first.MemoryUsed == 0 || first.MemoryUsed > first.MemoryTotal {
		t.Errorf("first reading %+v", first)
	}
	second, err := s.Host()
	if err != nil || second.CPU < 0 || second.CPU > 100 {
		t.Errorf("second reading %+v, %v", second, err)
	}
}

func BenchmarkSampleOneProcess(b *testing.B) {
	s := NewSampler()
	trees := map[int][]int{1: {os.Getpid()}}
	for b.Loop() {
		s.Sample(trees)
	}
}
