package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// reload replaces four streaming servers on one port while clients come, and
// counts those that are not served. It is over when the processes of before are
// gone: a command that returns sooner has not finished.
func (b *bench) reload(ctx context.Context, k kind) error {
	line := b.sheet.row("reload of 4 sse-app on one port: old ones gone, ms / requests failed of all")
	port, err := freePort()
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	app := spec{
		name: "sse", argv: []string{b.sse, "-addr", address}, instances: 4, restart: true, grace: 15 * time.Second,
	}
	return b.with(ctx, k, []spec{app}, func(t tool) error {
		if err := t.start(ctx, app.name); err != nil {
			return err
		}
		if !until(ctx, func() bool { n, err := t.online(ctx); return err == nil && n == app.instances && ask(address) == nil }) {
			return fmt.Errorf("wait until %q serves: %w", app.name, ctx.Err())
		}
		old := running(b.sse)
		clients, stop := context.WithCancel(ctx)
		defer stop()
		counted := make(chan [2]int, 1)
		go func() { counted <- askOnAndOn(clients, address) }() // ends at stop
		began := now()
		if err := t.reload(ctx, app.name); err != nil {
			return err
		}
		replaced := until(ctx, func() bool { return !slices.ContainsFunc(old, func(pid int) bool { return !gone(pid) }) })
		took := since(began)
		stop()
		n := <-counted
		if !replaced || len(running(b.sse)) != app.instances {
			return fmt.Errorf("%d processes run after the reload of %v", len(running(b.sse)), old)
		}
		line.set(k, "%s / %d of %d", ms(took), n[1], n[0])
		return nil
	})
}

// askOnAndOn is one client after another; it returns how many there were, and
// how many were not served.
func askOnAndOn(ctx context.Context, address string) [2]int {
	var all, failed int
	for ctx.Err() == nil {
		all++
		if ask(address) != nil {
			failed++
		}
		_ = pause(ctx, time.Millisecond) // a machine of one core has to serve, too
	}
	return [2]int{all, failed}
}

// ask is one request on a connection of its own.
func ask(address string) error {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, conn)
	if err == nil && n == 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// freePort is a port that nobody listens on at the moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

const daemonKills = 5

// death kills the supervisor itself.
func (b *bench) death(ctx context.Context, k kind) error {
	line := b.sheet.row("kill -9 of the supervisor itself")
	app := b.idle("idle", 4)
	return b.with(ctx, k, []spec{app}, func(t tool) error {
		all, err := b.startIdle(ctx, t, app)
		if err != nil {
			return err
		}
		if err := b.stable(ctx, t, all); err != nil {
			return err
		}
		if k.name == "gpm" {
			return b.deathOfGpm(ctx, k, t, line)
		}
		pids, err := t.pids()
		if err != nil {
			return err
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			return err
		}
		if !until(ctx, func() bool { return gone(pids[0]) }) {
			return ctx.Err()
		}
		if n, err := t.online(ctx); err != nil {
			line.set(k, "%d of 4 apps live, list fails", len(running(b.app)))
		} else {
			line.set(k, "%d of 4 apps live, list has %d", len(running(b.app)), n)
		}
		return nil
	})
}

func (b *bench) deathOfGpm(ctx context.Context, k kind, t tool, line *row) error {
	var all []time.Duration
	for range daemonKills {
		pids, err := t.pids()
		if err != nil {
			return err
		}
		began := now()
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			return err
		}
		if !until(ctx, func() bool { n, err := t.online(ctx); return err == nil && n == 4 }) {
			return ctx.Err()
		}
		all = append(all, since(began))
		if err := b.anew(ctx, t, pids[0]); err != nil {
			return err
		}
	}
	line.set(k, "%d of 4 apps live (%d new), list answers in %s ms", len(running(b.app)), b.ear.forget(), ms(median(all)))
	return nil
}

// anew waits until another daemon has written its pid.
func (b *bench) anew(ctx context.Context, t tool, old int) error {
	if !until(ctx, func() bool { pids, err := t.pids(); return err == nil && pids[0] != old }) {
		return fmt.Errorf("wait for a daemon other than %d: %w", old, ctx.Err())
	}
	return nil
}
