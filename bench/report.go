package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// method tells how to read the table of all supervisors.
var method = []string{
	"first statement: the program reads CLOCK_MONOTONIC as the first statement of main; fork, exec and the Go runtime's start are in the time; 50 stable processes, each killed once",
	"memory of gpm is daemon and keeper; RSS counts shared pages for each process, PSS once",
	"logs: 1,000,000 numbered lines of 100 bytes from an app that then exits, up to 3 runs, median; until the file is complete; missing of all runs; torn are lines of the file that nobody wrote so",
	"start: PM2 and supervisord call a process without a port started at once or after startsecs (1 s); gpm after 1 s of life",
}

func machineLine(ctx context.Context) string {
	node := "no node"
	if out, err := exec.CommandContext(ctx, "node", "--version").Output(); err == nil {
		node = "node " + strings.TrimSpace(string(out))
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), Linux %s, %s, %s, load average %s before", runtime.NumCPU(), model,
		strings.TrimSpace(string(kernel)), runtime.Version(), node, loadAverage())
}

// loadAverage is that of the last minute; others at work make noise.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// report is the machine, the table and how to read it, as Markdown.
func (b *bench) report(machine string, took time.Duration) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s; %s after %.0f s; measured on %s\n\n", machine, loadAverage(), took.Seconds(), time.Now().Format("2006-01-02"))
	if len(b.sheet.rows) > 0 {
		b.sheet.write(&w)
		fmt.Fprintln(&w)
	}
	for _, t := range b.tables {
		writeTable(&w, t)
		fmt.Fprintln(&w)
	}
	if len(b.sheet.rows) > 0 {
		b.notes = append(b.notes, method...)
	}
	for _, n := range b.notes {
		fmt.Fprintln(&w, "-", n)
	}
	missed, marks := b.sheet.missed()
	fmt.Fprintf(&w, "\n%d of %d marks met\n", marks-missed, marks)
	return w.String()
}
