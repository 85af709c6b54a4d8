package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	kills     = 50
	stableFor = 2 * time.Second // longer than PM2's min_uptime and supervisord's startsecs
	patience  = 15 * time.Second
)

// respawn kills each of 50 stable processes once, and times from just before
// kill(2) to the first statement of the successor's main. Each is killed only
// once because all three restart a first death at once, and later ones, by
// design, not.
func (b *bench) respawn(ctx context.Context, k kind) error {
	line := b.sheet.row("kill -9 to the successor's first statement: median / p95 / max, ms")
	app := b.idle("idle", kills)
	return b.with(ctx, k, []spec{app}, func(t tool) error {
		first, err := b.startIdle(ctx, t, app)
		if err != nil {
			return err
		}
		if err := b.stable(ctx, t, first); err != nil {
			return err
		}
		var all []time.Duration
		for _, i := range rand.Perm(len(first)) {
			if err := breathe(ctx); err != nil {
				return err
			}
			took, err := b.killOne(ctx, first[i].pid)
			if err != nil {
				return fmt.Errorf("after %d respawns: %w", len(all), err)
			}
			all = append(all, took)
		}
		m := median(all)
		line.set(k, "%s / %s / %s", ms(m), ms(quantile(all, 0.95)), ms(quantile(all, 1)))
		line.judge(k, "median < 10 ms", m < 10*time.Millisecond)
		return nil
	})
}

// breathe lets a supervisor finish with the kill before; its random length hits
// one that polls at any phase.
func breathe(ctx context.Context) error {
	return pause(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond))
}

// startIdle starts app and returns its processes when all have begun.
func (b *bench) startIdle(ctx context.Context, t tool, app spec) ([]word, error) {
	b.ear.forget()
	if err := t.start(ctx, app.name); err != nil {
		return nil, err
	}
	return b.ear.starts(ctx, app.instances)
}

// stable waits until all are said to be up and have been for a while.
func (b *bench) stable(ctx context.Context, t tool, all []word) error {
	var last int64
	for _, w := range all {
		last = max(last, w.at)
	}
	var err error
	up := until(ctx, func() bool {
		n := 0
		n, err = t.online(ctx)
		return n == len(all)
	})
	if !up {
		return fmt.Errorf("wait until %d instances are online: %w, %w", len(all), ctx.Err(), err)
	}
	return pause(ctx, stableFor-since(last))
}

func (b *bench) killOne(ctx context.Context, pid int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill %d: %w", pid, err)
	}
	next, err := b.ear.starts(ctx, 1)
	if err != nil {
		return 0, err
	}
	return time.Duration(next[0].at - began), nil
}

// bareSpawn is what fork, exec and the Go runtime of the program cost on this
// machine without a supervisor: nobody's respawn can be faster.
func (b *bench) bareSpawn(ctx context.Context) (time.Duration, error) {
	var all []time.Duration
	for range 20 {
		if err := breathe(ctx); err != nil {
			return 0, err
		}
		cmd := exec.CommandContext(ctx, b.app, "idle", b.ear.path)
		cmd.Stderr = os.Stderr
		began := now()
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		next, err := b.ear.starts(ctx, 1)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: its error says nothing
		if err != nil {
			return 0, err
		}
		all = append(all, time.Duration(next[0].at-began))
	}
	return median(all), nil
}
