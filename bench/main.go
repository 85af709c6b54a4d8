// Command bench measures gpm beside PM2 and supervisord on this machine and
// prints one Markdown table. It installs the peers where it can, works in a
// temporary folder, and leaves nothing running.
//
//	go run ./bench                      everything, below nine minutes
//	go run ./bench -only respawn,few    some of it
//	go run ./bench -only breaks         what a replacement under load breaks
//	go run ./bench -only ssefanout,ssememory -peers=false   examples/sse-app under gpm
//
// It exits 0 when a mark is missed: a busy machine misses marks. The table says
// so, and the load average beside it says how busy the machine was. Do not run
// it with a real-time scheduling class: the supervised processes inherit it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const budget = 520 * time.Second // the whole run; cleaning up comes on top

type bench struct {
	dir    string // all that it writes
	app    string // what is supervised, built into dir
	server string // an unmodified Go server, built into dir
	stream string // an unmodified Node server, copied into dir
	chat   string // examples/sse-app, built into dir if it is measured
	bus    string // its bus
	ear    *ear
	sheet  *sheet
	tables [][][]string // further tables, each with its head
	homes  int
	notes  []string
}

type section struct {
	name    string
	limit   time.Duration // for one supervisor
	measure func(*bench, context.Context, kind) error
}

var sections = []section{
	{"respawn", 75 * time.Second, (*bench).respawn},
	{"few", 40 * time.Second, (*bench).few},
	{"many", 60 * time.Second, (*bench).many},
	{"logs", 75 * time.Second, (*bench).flood},
	{"death", 30 * time.Second, (*bench).death},
}

// comparisons are not done by one supervisor after another.
var comparisons = []struct {
	name    string
	asked   bool // measured only if it is asked for by name
	measure func(*bench, context.Context) error
}{
	{"breaks", false, (*bench).breaks},
	{"cost", false, (*bench).cost},
	{"standby", false, (*bench).standby},
	{"ssefanout", true, (*bench).fanout},
	{"ssememory", true, (*bench).idleStreams},
}

func main() {
	gpmExe := flag.String("gpm", "bin/gpm", "`path` of the gpm to measure")
	only := flag.String("only", "", "`sections` to measure: respawn,few,many,logs,death,breaks,cost,standby; only by name: ssefanout,ssememory")
	peers := flag.Bool("peers", true, "measure PM2 and supervisord, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := measure(ctx, *gpmExe, *only, *peers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	// Only now: a reader that leaves kills whoever writes to it.
	fmt.Print(report)
}

// measure cleans up behind itself and returns what there is to print.
func measure(ctx context.Context, gpmExe, only string, peers bool) (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("needs Linux")
	}
	b, err := open(ctx)
	if err != nil {
		return "", err
	}
	defer b.close()
	gpmExe, err = filepath.Abs(gpmExe)
	if err != nil {
		return "", err
	}
	b.sheet = &sheet{kinds: findTools(ctx, gpmExe, peers)}
	if why := b.sheet.kinds[0].missing; why != "" {
		return "", fmt.Errorf("%s: %s; make build makes it", gpmExe, why)
	}
	machine := machineLine(ctx)
	limited, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	began := time.Now()
	wanted := func(name string) bool { return only == "" || slices.Contains(strings.Split(only, ","), name) }
	if wanted("respawn") || wanted("logs") {
		if err := b.floor(limited); err != nil {
			return "", err
		}
	}
	for _, s := range sections {
		if wanted(s.name) {
			b.measure(limited, s)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("interrupted")
		}
	}
	for _, c := range comparisons {
		if !wanted(c.name) || c.asked && only == "" {
			continue
		}
		if err := c.measure(b, limited); err != nil {
			b.notes = append(b.notes, fmt.Sprintf("%s failed: %v", c.name, err))
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("interrupted")
		}
	}
	return b.report(machine, time.Since(began)), nil
}

// open makes the folder of this run, and in it what is supervised.
func open(ctx context.Context) (*bench, error) {
	// Short, because the path of a unix socket has 107 bytes at most.
	dir, err := os.MkdirTemp("", "gpm-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, app: filepath.Join(dir, "app"), server: filepath.Join(dir, "server"), stream: filepath.Join(dir, "stream.js")}
	for exe, from := range map[string]string{b.app: "./bench/app", b.server: "./e2e/testdata/gosrv"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", exe, from)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // static: no loader in the measured time
		if err == nil {
			err = run(build)
		}
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile("e2e/testdata/node/stream.js")
	}
	if err == nil {
		err = os.WriteFile(b.stream, text, 0o644)
	}
	if err == nil {
		b.ear, err = openEar(dir)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	sweep(b.app)
	sweep(b.server)
	b.sweepMarked()
	b.ear.close()
	os.RemoveAll(b.dir)
}

// measure lets every supervisor that is here do one section.
func (b *bench) measure(ctx context.Context, s section) {
	for _, k := range b.sheet.kinds {
		if k.missing != "" {
			continue
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, s.limit)
		err := s.measure(b, limited, k)
		cancel()
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("%s of %s failed: %v", s.name, k.name, err))
		}
		fmt.Fprintf(os.Stderr, "bench: %s, %s: %.1f s\n", s.name, k.name, time.Since(began).Seconds())
	}
}

// with opens a supervisor in a home of its own, and cleans up behind it.
func (b *bench) with(ctx context.Context, k kind, apps []spec, do func(tool) error) error {
	b.homes++
	home := filepath.Join(b.dir, fmt.Sprintf("h%d", b.homes))
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	t := k.in(home)
	err := t.open(ctx, apps)
	if err == nil {
		err = do(t)
	}
	// ctx may be over, and nobody must be left behind.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if closing := t.close(end); closing != nil {
		b.notes = append(b.notes, fmt.Sprintf("%s: %v", k.name, closing))
	}
	sweep(b.app)
	sweep(b.server)
	b.sweepMarked()
	b.ear.forget()
	return err
}

// idle is an app that says that it began, and then does nothing.
func (b *bench) idle(name string, instances int) spec {
	return spec{name: name, argv: []string{b.app, "idle", b.ear.path}, instances: instances, restart: true, grace: 5 * time.Second}
}

// floor measures the machine itself.
func (b *bench) floor(ctx context.Context) error {
	spawn, err := b.bareSpawn(ctx)
	if err != nil {
		return err
	}
	blocks, err := b.bareFlood(ctx, "blocks")
	if err != nil {
		return err
	}
	lines, err := b.bareFlood(ctx, "lines")
	if err != nil {
		return err
	}
	b.notes = append(b.notes, fmt.Sprintf(
		"without any supervisor: fork, exec and Go runtime until the first statement %s ms; the app writing the file itself %.0f MB/s in 64 KiB, %.0f MB/s line by line", ms(spawn), blocks, lines))
	return nil
}
