package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const (
	floodLines = 1_000_000 // 100 MB
	floodRuns  = 3
	floodTime  = 10 * time.Second // no further run after this
	floodMost  = 40 * time.Second // one run
	quiet      = time.Second      // a file that did not grow for so long, with nobody writing, is complete
)

// pouring is one of the ways to write a log.
type pouring struct {
	what    string
	mode    string // of bench/app
	stamped bool
}

var pourings = []pouring{
	{"log, 64 KiB writes: MB/s / CPU s per GB / lines missing", "blocks", false},
	{"log, 64 KiB writes, timestamps: MB/s / CPU s per GB / lines missing", "blocks", true},
	{"log, a write per line: MB/s / CPU s per GB / lines missing", "lines", false},
	{"log, a write per line, timestamps: MB/s / CPU s per GB / lines missing", "lines", true},
}

// flood times how fast lines go from an app that writes as fast as it can, and
// ends, to the log file.
func (b *bench) flood(ctx context.Context, k kind) error {
	stamps := k.name != "supervisord" // it knows no timestamps
	dir := filepath.Join(b.dir, "flood")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var apps []spec
	for n, p := range pourings {
		for run := range floodRuns {
			name := fmt.Sprintf("flood%d%d", n, run)
			apps = append(apps, spec{
				name: name, argv: []string{b.app, p.mode, b.ear.path, strconv.Itoa(floodLines)}, instances: 1,
				grace: 5 * time.Second, out: filepath.Join(dir, name+".log"), stamped: p.stamped,
			})
		}
	}
	return b.with(ctx, k, apps, func(t tool) error {
		for n, p := range pourings {
			line := b.sheet.row(p.what)
			if p.stamped && !stamps {
				line.set(k, "-")
				continue
			}
			sum, err := b.floodOne(ctx, t, apps[n*floodRuns:][:floodRuns])
			if err != nil {
				return fmt.Errorf("%s: %w", p.what, err)
			}
			line.set(k, "%s", sum)
		}
		pids, err := t.pids()
		if err != nil {
			return err
		}
		used, err := memoryOf(pids)
		if err != nil {
			return err
		}
		b.sheet.row("memory, highest during the logs (VmHWM), MiB").set(k, "%s", mib(used.peak))
		return nil
	})
}

// flooding is what some runs of one kind came to.
type flooding struct {
	took  []time.Duration
	cpu   time.Duration
	bytes int
	lines tally
}

func (f flooding) String() string {
	rate := float64(floodLines*lineLength) / 1e6 / median(f.took).Seconds()
	return fmt.Sprintf("%.0f / %.1f / %s", rate, f.cpu.Seconds()/(float64(f.bytes)/1e9), f.lines)
}

func (b *bench) floodOne(ctx context.Context, t tool, runs []spec) (flooding, error) {
	var sum flooding
	began := now()
	for _, app := range runs {
		if len(sum.took) > 0 && since(began) > floodTime {
			break
		}
		pids, err := t.pids()
		if err != nil {
			return sum, err
		}
		before, err := cpuOf(pids)
		if err != nil {
			return sum, err
		}
		took, err := b.fill(ctx, t, app)
		if err != nil {
			return sum, err
		}
		after, err := cpuOf(pids)
		if err != nil {
			return sum, err
		}
		lines, err := countFile(app.out)
		if err != nil {
			return sum, err
		}
		sum.took = append(sum.took, took)
		sum.cpu += after - before
		sum.bytes += floodLines * lineLength
		sum.lines = sum.lines.plus(lines)
	}
	return sum, nil
}

// fill starts app and times from its start to the last growth of its file.
func (b *bench) fill(ctx context.Context, t tool, app spec) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, floodMost)
	defer cancel()
	b.ear.forget()
	started := make(chan error, 1)
	go func() { started <- t.start(ctx, app.name) }() // ends with its command; received below
	defer func() { <-started }()                      // the app may have ended before it counts as started: no error of the run
	first, err := b.ear.starts(ctx, 1)
	if err != nil {
		return 0, err
	}
	var size, want int64
	var grown int64
	ended := false
	full := until(ctx, func() bool {
		select {
		case w := <-b.ear.heard:
			ended = ended || w.what == "end"
		default:
		}
		if info, err := os.Stat(app.out); err == nil && info.Size() != size {
			size, grown = info.Size(), now()
		}
		if want == 0 {
			if n, ok := prefixLength(app.out); ok {
				want = int64(floodLines * (lineLength + n))
			}
		}
		return ended && (size == want || since(max(grown, first[0].at)) > quiet)
	})
	if !full {
		return 0, fmt.Errorf("the log of %q has %d of %d bytes after %s", app.name, size, want, since(first[0].at))
	}
	return time.Duration(grown - first[0].at), nil
}

func countFile(path string) (tally, error) {
	f, err := os.Open(path)
	if err != nil {
		return tally{}, err
	}
	defer f.Close()
	t, err := countLines(f, floodLines)
	_ = os.Remove(path) // the disk is needed for the next one
	return t, err
}

// bareFlood is how fast the program writes the file itself, in MB/s. Line by
// line a pipe is the faster place to write to.
func (b *bench) bareFlood(ctx context.Context, mode string) (float64, error) {
	f, err := os.CreateTemp(b.dir, "bare")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd := exec.CommandContext(ctx, b.app, mode, b.ear.path, strconv.Itoa(floodLines))
	cmd.Stdout, cmd.Stderr = f, os.Stderr
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	began, err := b.ear.next(ctx)
	if err != nil {
		return 0, err
	}
	ended, err := b.ear.next(ctx)
	return float64(floodLines*lineLength) / 1e6 / time.Duration(ended.at-began.at).Seconds(), err
}
