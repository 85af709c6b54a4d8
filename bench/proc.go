package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memory is what processes use, summed, in bytes.
type memory struct {
	rss     uint64 // pages shared between the processes count for each of them
	pss     uint64 // shared pages are divided among those that share them: the sum is what the machine pays
	private uint64
	peak    uint64 // VmHWM, the highest rss so far
}

func memoryOf(pids []int) (memory, error) {
	var sum memory
	for _, pid := range pids {
		rollup, err := sizes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return sum, err
		}
		status, err := sizes(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return sum, err
		}
		sum.rss += rollup["Rss"]
		sum.pss += rollup["Pss"]
		sum.private += rollup["Private_Clean"] + rollup["Private_Dirty"]
		sum.peak += status["VmHWM"]
	}
	return sum, nil
}

// sizes reads the "Name:  123 kB" lines of a file of /proc.
func sizes(path string) (map[string]uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "kB" {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				all[strings.TrimSuffix(f[0], ":")] = n << 10
			}
		}
	}
	return all, nil
}

// clockTick is the unit of times in /proc/pid/stat; USER_HZ is 100 on every
// architecture that Go knows.
const clockTick = 10 * time.Millisecond

// cpuOf is the processor time that the processes have used.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name in parentheses may hold anything; utime and stime are the
		// 12th and 13th field after it (proc(5)).
		_, rest, _ := bytes.Cut(text, []byte(") "))
		f := bytes.Fields(rest)
		if len(f) < 13 {
			return 0, fmt.Errorf("read cpu time of %d: only %d fields", pid, len(f))
		}
		for _, field := range f[11:13] {
			n, err := strconv.ParseInt(string(field), 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * clockTick
		}
	}
	return sum, nil
}

// readPID is the pid in a pid file.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read pid in %q: %w", path, err)
	}
	return n, nil
}

// gone tells whether no such process runs; a zombie does not run.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}

// running is who runs the program exe.
func running(exe string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	var pids []int
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && at == exe {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// sweep kills whoever runs exe: the orphans that a supervisor left. exe must be
// a file of this run's own folder, so that nobody else can be meant.
func sweep(exe string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	until(ctx, func() bool {
		pids := running(exe)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
}
