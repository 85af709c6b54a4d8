package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

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
