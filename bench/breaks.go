package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpm/bench/load"
)

const (
	breakReloads = 3
	breakRate    = 330.0 // new connections per second, a tenth of them streams
	breakHeld    = 10    // endless streams, which the server ends after 2 or 3 s
)

// breakLengths are those of the streams, in events of 20 ms.
var breakLengths = []int{5, 20, 50, 150}

// contest is one way to replace a running server.
type contest struct {
	name string
	// run starts the server on a port, calls use with what replaces it, and
	// cleans up.
	run func(ctx context.Context, port int, use func(replace func(context.Context) error, old func() []int) error) error
}

// breaks puts an unmodified Node server under the same load with each supervisor,
// replaces it a few times, and counts every connection that was not served.
func (b *bench) breaks(ctx context.Context) error {
	node, err := exec.LookPath("node")
	if err != nil {
		b.notes = append(b.notes, "breaks: node is not installed")
		return nil
	}
	rows := [][]string{{
		fmt.Sprintf("%d times replaced under load", breakReloads), "broken of all connections", "streams broken",
		"refused / reset / empty / cut / other", "old processes gone, s", "mark for gpm",
	}}
	for _, c := range b.contests(node) {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 60*time.Second)
		row, err := b.contest(limited, c)
		cancel()
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("breaks of %s failed: %v", c.name, err))
			row = []string{c.name, "failed", "", "", "", ""}
		}
		rows = append(rows, row)
		fmt.Fprintf(os.Stderr, "bench: breaks, %s: %.1f s\n", c.name, time.Since(began).Seconds())
	}
	b.tables = append(b.tables, rows)
	b.notes = append(b.notes, fmt.Sprintf("replaced under load: a Node server without any signal handling, %.0f new connections per second, of them a tenth streams of %v events at 20 ms, and %d held streams; each supervisor with its defaults; "+
		"PM2's fork mode and supervisord can only run one instance of it on a port; nginx is the mark of a proxy: its own reload, with the server behind it left alone", breakRate, breakLengths, breakHeld))
	return nil
}

func (b *bench) contests(node string) (all []contest) {
	for _, k := range b.sheet.kinds {
		if k.missing != "" {
			continue
		}
		title := strings.TrimSpace(k.name + " " + k.version)
		switch k.name {
		case "gpm":
			all = append(all, b.supervised(title+" reload, 4 instances", k, node, 4, false))
		case "PM2":
			all = append(all, b.supervised(title+" cluster reload, 4 instances", k, node, 4, true),
				b.supervised(title+" fork restart, 1 instance", k, node, 1, false))
		default:
			all = append(all, b.supervised(title+" restart, 1 instance", k, node, 1, false))
		}
	}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		all = append(all, contest{"nginx -s reload, before 1 instance", func(ctx context.Context, port int, use func(func(context.Context) error, func() []int) error) error {
			return b.proxied(ctx, nginx, node, port, use)
		}})
	}
	return all
}

// supervised is the Node server under a supervisor.
func (b *bench) supervised(name string, k kind, node string, instances int, cluster bool) contest {
	return contest{name, func(ctx context.Context, port int, use func(func(context.Context) error, func() []int) error) error {
		app := spec{
			name: "stream", argv: []string{node, b.stream}, instances: instances, cluster: cluster, restart: true,
			env: map[string]string{"PORT": strconv.Itoa(port), "MAX_AGE": "3000", b.mark(): "1"},
		}
		return b.with(ctx, k, []spec{app}, func(t tool) error {
			if err := t.start(ctx, app.name); err != nil {
				return err
			}
			if err := b.answering(ctx, port, instances); err != nil {
				return err
			}
			replace := func(ctx context.Context) error { return t.reload(ctx, app.name) }
			return use(replace, func() []int { return slices.Collect(maps.Keys(b.askPIDs(port, 40*instances))) })
		})
	}}
}

// proxied is nginx before a Node server that nobody touches.
func (b *bench) proxied(ctx context.Context, nginx, node string, port int, use func(func(context.Context) error, func() []int) error) error {
	behind, err := freePort()
	if err != nil {
		return err
	}
	server := exec.CommandContext(ctx, node, b.stream)
	server.Env = append(os.Environ(), "PORT="+strconv.Itoa(behind), "MAX_AGE=3000", b.mark()+"=1")
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }() // killed: its error says nothing
	dir := filepath.Join(b.dir, "nginx")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf(nginxConf, dir, port, behind, nginxUser())), 0o600); err != nil {
		return err
	}
	proxy := exec.CommandContext(ctx, nginx, "-c", conf)
	if err := proxy.Start(); err != nil {
		return err
	}
	defer func() { _ = proxy.Process.Signal(syscall.SIGTERM); _ = proxy.Wait() }()
	if err := b.answering(ctx, port, 1); err != nil {
		return err
	}
	return use(func(ctx context.Context) error {
		return run(exec.CommandContext(ctx, nginx, "-c", conf, "-s", "reload"))
	},
		func() []int { return children(proxy.Process.Pid) })
}

func nginxUser() string {
	if os.Geteuid() == 0 {
		return "user root;" // the folder is ours alone
	}
	return ""
}

const nginxConf = `daemon off; %[4]s worker_processes 2; pid %[1]s/nginx.pid; error_log %[1]s/error.log warn;
events { worker_connections 8000; }
worker_rlimit_nofile 16384;
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]d backlog=2048;
    location / { proxy_pass http://127.0.0.1:%[3]d; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 1h; }
  }
}
`

// contest runs one of them and is its row.
func (b *bench) contest(ctx context.Context, c contest) ([]string, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	var l *load.Ledger
	var took []time.Duration
	err = c.run(ctx, port, func(replace func(context.Context) error, old func() []int) error {
		loading, stop := context.WithCancel(ctx)
		defer stop()
		type outcome struct {
			l   *load.Ledger
			err error
		}
		done := make(chan outcome, 1)
		go func() { // ends after stop and the units under way
			l, err := load.Run(loading, breakLoad(port))
			done <- outcome{l, err}
		}()
		var failed error
		took, failed = replaceAll(ctx, replace, old)
		stop()
		o := <-done
		l = o.l
		return errors.Join(failed, o.err)
	})
	if err != nil {
		return nil, err
	}
	return b.breakRow(c.name, l, took), nil
}

func breakLoad(port int) load.Options {
	return load.Options{
		Addr: "127.0.0.1:" + strconv.Itoa(port), RequestRate: breakRate * 0.9, Request: load.Call{Path: "/"},
		Stream: load.Call{Path: "/stream?n={n}"}, StreamRate: breakRate / 10, Lengths: breakLengths,
		Hold: load.Call{Path: "/stream"}, Held: breakHeld, Timeout: 10 * time.Second, Grace: 10 * time.Second,
	}
}

// replaceAll replaces the server a few times, and each time waits until the
// processes of before are gone.
func replaceAll(ctx context.Context, replace func(context.Context) error, old func() []int) (took []time.Duration, err error) {
	for range breakReloads {
		if err := pause(ctx, time.Second); err != nil { // streams of all lengths are under way
			return nil, err
		}
		before := old()
		if len(before) == 0 {
			return nil, fmt.Errorf("nobody answers before the replacement")
		}
		began := now()
		if err := replace(ctx); err != nil {
			return nil, err
		}
		if !until(ctx, func() bool { return !slices.ContainsFunc(before, func(pid int) bool { return !gone(pid) }) }) {
			return nil, fmt.Errorf("of the processes %v some still run: %w", before, ctx.Err())
		}
		took = append(took, since(began))
	}
	return took, nil
}

func (b *bench) breakRow(name string, l *load.Ledger, took []time.Duration) []string {
	all, streams, streamsBad := 0, 0, 0
	classes := map[load.Class]int{}
	for kind, t := range l.Kinds {
		all += t.Sent
		for c, n := range t.Classes {
			if c.Bad() {
				classes[c] += n
				if kind != load.Request {
					streamsBad += n
				}
			}
		}
		if kind != load.Request {
			streams += t.Sent
		}
	}
	other := l.Bad() - classes[load.Refused] - classes[load.Reset] - classes[load.Empty] - classes[load.Cut]
	verdict := ""
	if strings.HasPrefix(name, "gpm") {
		verdict = b.judged("0 broken", l.Bad() == 0)
	}
	return []string{
		name, fmt.Sprintf("%d of %d", l.Bad(), all), fmt.Sprintf("%d of %d", streamsBad, streams),
		fmt.Sprintf("%d / %d / %d / %d / %d", classes[load.Refused], classes[load.Reset], classes[load.Empty], classes[load.Cut], other),
		fmt.Sprintf("%.1f", median(took).Seconds()), verdict,
	}
}

// answering waits until so many processes answer on a port, with their pids.
func (b *bench) answering(ctx context.Context, port, n int) error {
	if !until(ctx, func() bool { return len(b.askPIDs(port, 8*n)) == n }) {
		return fmt.Errorf("wait until %d processes answer on port %d: %w", n, port, ctx.Err())
	}
	return nil
}

// askPIDs asks a few times and returns who has answered.
func (b *bench) askPIDs(port, times int) map[int]bool {
	who := map[int]bool{}
	for range times {
		if pid, err := askPID(port); err == nil {
			who[pid] = true
		}
	}
	return who
}
