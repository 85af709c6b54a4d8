package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const standbyKills = 15

// standby kills the only process of a Node server and times how long a client
// that connects at that moment waits for its answer, with a warm process in
// reserve and without.
func (b *bench) standby(ctx context.Context) error {
	node, err := exec.LookPath("node")
	if err != nil {
		b.notes = append(b.notes, "standby: node is not installed")
		return nil
	}
	rows := [][]string{{"Node http, 1 instance under gpm", "kill -9 to the next answer: median / p95 / max, ms", "mark for gpm"}}
	for _, reserve := range []int{0, 1} {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 60*time.Second)
		all, err := b.standbyWith(limited, node, reserve)
		cancel()
		if err != nil {
			return fmt.Errorf("with %d in reserve: %w", reserve, err)
		}
		row := []string{fmt.Sprintf("standby: %d", reserve), fmt.Sprintf("%s / %s / %s", ms(median(all)), ms(quantile(all, 0.95)), ms(quantile(all, 1))), ""}
		if reserve > 0 {
			row[2] = b.judged("median < 10 ms", median(all) < 10*time.Millisecond)
		}
		rows = append(rows, row)
		fmt.Fprintf(os.Stderr, "bench: standby %d: %.1f s\n", reserve, time.Since(began).Seconds())
	}
	b.tables = append(b.tables, rows)
	return nil
}

func (b *bench) standbyWith(ctx context.Context, node string, reserve int) (all []time.Duration, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	app := spec{
		name: "node", argv: []string{node, b.stream}, instances: 1, restart: true,
		env:  map[string]string{"PORT": strconv.Itoa(port), b.mark(): "1"},
		keys: map[string]any{"standby": reserve, "min_uptime": "100ms", "max_restarts": 1000000},
	}
	err = b.with(ctx, b.sheet.kinds[0], []spec{app}, func(t tool) error {
		if err := t.start(ctx, app.name); err != nil {
			return err
		}
		for range standbyKills {
			ready := until(ctx, func() bool { n, err := standbys(ctx, t); return err == nil && n == reserve })
			if !ready {
				return fmt.Errorf("wait for %d in reserve: %w", reserve, ctx.Err())
			}
			if err := breathe(ctx); err != nil {
				return err
			}
			// Else gpm would remember the kill before, and wait on purpose.
			if _, err := output(t.command(ctx, "reset", app.name)); err != nil {
				return err
			}
			victim, err := askPID(port)
			if err != nil {
				return err
			}
			began := now()
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill %d: %w", victim, err)
			}
			took, err := answered(port, victim, began)
			if err != nil {
				return fmt.Errorf("after %d kills: %w", len(all), err)
			}
			all = append(all, took)
		}
		return nil
	})
	return all, err
}

// answered waits for an answer of somebody else than the dead. Who asks before
// the kernel has killed it may be accepted by it, and loses that connection with
// it, as nobody can prevent; he asks again.
func answered(port, dead int, began int64) (time.Duration, error) {
	var err error
	for since(began) < patience {
		var pid int
		if pid, err = askPID(port); err == nil && pid != dead {
			return since(began), nil
		}
	}
	return 0, fmt.Errorf("no answer within %s: %w", patience, err)
}

// standbys is how many warm processes gpm says there are while the app is up.
func standbys(ctx context.Context, t tool) (int, error) {
	out, err := output(t.command(ctx, "list", "--json"))
	if err != nil {
		return 0, err
	}
	var l struct {
		Instances []struct {
			Status  string
			Standby int
		}
	}
	if err := json.Unmarshal(out, &l); err != nil {
		return 0, fmt.Errorf("read gpm list: %w", err)
	}
	if len(l.Instances) != 1 || l.Instances[0].Status != "online" {
		return 0, fmt.Errorf("it is not online")
	}
	return l.Instances[0].Standby, nil
}
