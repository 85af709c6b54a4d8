package main

import (
	"context"
	"fmt"
	"time"
)

const listRuns = 30

// few measures list and memory with four instances.
func (b *bench) few(ctx context.Context, k kind) error {
	list, mem := b.sheet.row("list, 4 instances: whole command, median, ms"), b.sheet.row("memory, 4 instances: RSS / PSS / private, MiB")
	app := b.idle("idle", 4)
	return b.with(ctx, k, []spec{app}, func(t tool) error {
		all, err := b.startIdle(ctx, t, app)
		if err != nil {
			return err
		}
		if err := b.stable(ctx, t, all); err != nil {
			return err
		}
		m, used, err := observe(ctx, t, 4)
		if err != nil {
			return err
		}
		list.set(k, "%s", ms(m)).judge(k, "< 15 ms", m < 15*time.Millisecond)
		mem.set(k, "%s", used).judge(k, "RSS < 25 MiB", used.rss < 25<<20)
		return nil
	})
}

// many measures the same with two hundred, and how long the first hundred take
// to start.
func (b *bench) many(ctx context.Context, k kind) error {
	const half = 100
	list, mem := b.sheet.row("list, 200 instances: whole command, median, ms"), b.sheet.row("memory, 200 instances: RSS / PSS / private, MiB")
	start := b.sheet.row("start of 100: all run / command returns, ms")
	one, two := b.idle("one", half), b.idle("two", half)
	return b.with(ctx, k, []spec{one, two}, func(t tool) error {
		began := now()
		first, err := b.startIdle(ctx, t, one)
		if err != nil {
			return err
		}
		returned := since(began)
		var run int64
		for _, w := range first {
			run = max(run, w.at)
		}
		start.set(k, "%s / %s", ms(time.Duration(run-began)), ms(returned))
		second, err := b.startIdle(ctx, t, two)
		if err != nil {
			return err
		}
		if err := b.stable(ctx, t, append(first, second...)); err != nil {
			return err
		}
		m, used, err := observe(ctx, t, 2*half)
		if err != nil {
			return err
		}
		list.set(k, "%s", ms(m))
		mem.set(k, "%s", used)
		return nil
	})
}

// observe runs list many times, and then, with the supervisor in use, reads
// its memory.
func observe(ctx context.Context, t tool, instances int) (time.Duration, memory, error) {
	var all []time.Duration
	for i := range listRuns + 2 {
		cmd := t.command(ctx, t.list())
		began := now()
		if err := cmd.Run(); err != nil {
			return 0, memory{}, fmt.Errorf("run list: %w", err)
		}
		if took := since(began); i >= 2 { // the first ones read the program from disk
			all = append(all, took)
		}
	}
	if n, err := t.online(ctx); err != nil || n != instances {
		return 0, memory{}, fmt.Errorf("list %d instances: it has %d, error %v", instances, n, err)
	}
	pids, err := t.pids()
	if err != nil {
		return 0, memory{}, err
	}
	used, err := memoryOf(pids)
	return median(all), used, err
}

func (m memory) String() string {
	return fmt.Sprintf("%s / %s / %s", mib(m.rss), mib(m.pss), mib(m.private))
}
