package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	costRounds  = 25
	costRound   = 700 * time.Millisecond // of one server
	costClients = 8
)

// variant is one of the ways to run a server, and what was measured of it.
type variant struct {
	name string
	port int
	rate []float64 // requests per second, by round
	took []time.Duration
	cpu  time.Duration // of the server, for all of took
}

// cost measures what holding costs: the same server alone, under gpm with its
// sockets held and steered, and under gpm without. All three run all the time;
// they are asked in turn, in another order each round, so that the noise of the
// machine hits all alike. Every request is a connection of its own, because
// connections are where the filter and the steering are.
func (b *bench) cost(ctx context.Context) error {
	rows := [][]string{{"cost of holding, a connection per request", "alone", "held", "hold: false", "held against alone", "mark for gpm"}}
	servers := []struct {
		name string
		argv []string
	}{{"Go net/http", []string{b.server}}}
	if node, err := exec.LookPath("node"); err == nil {
		servers = append(servers, struct {
			name string
			argv []string
		}{"Node http", []string{node, b.stream}})
	}
	for _, s := range servers {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 90*time.Second)
		all, err := b.costOf(limited, s.argv)
		cancel()
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("cost of %s failed: %v", s.name, err))
			continue
		}
		rows = append(rows, b.costRows(s.name, all)...)
		fmt.Fprintf(os.Stderr, "bench: cost, %s: %.1f s\n", s.name, time.Since(began).Seconds())
	}
	b.tables = append(b.tables, rows)
	b.notes = append(b.notes, fmt.Sprintf("cost of holding: %d rounds of %s for each, interleaved, %d clients one request after another; medians of the rounds; the quotient is the median of the quotients of each round; the load takes its part of the same cores", costRounds, costRound, costClients))
	return nil
}

func (b *bench) costOf(ctx context.Context, argv []string) (all []*variant, err error) {
	for _, name := range []string{"alone", "held", "hold: false"} {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		all = append(all, &variant{name: name, port: port})
	}
	env := func(v *variant) map[string]string {
		return map[string]string{"PORT": strconv.Itoa(v.port), "ADDR": fmt.Sprintf(":%d", v.port), b.mark(): "1"}
	}
	alone := exec.CommandContext(ctx, argv[0], argv[1:]...)
	alone.Env = os.Environ()
	for k, v := range env(all[0]) {
		alone.Env = append(alone.Env, k+"="+v)
	}
	// gpm starts everything in a session of its own, and the scheduler shares the
	// cores between sessions (sched_autogroup): in ours it would share with the load.
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := alone.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = alone.Process.Kill(); _ = alone.Wait() }() // killed: its error says nothing
	var apps []spec
	for i, hold := range map[int]bool{1: true, 2: false} {
		apps = append(apps, spec{name: fmt.Sprintf("hold-%t", hold), argv: argv, instances: 1, restart: true, env: env(all[i]), keys: map[string]any{"hold": hold}})
	}
	err = b.with(ctx, b.sheet.kinds[0], apps, func(t tool) error {
		for _, a := range apps {
			if err := t.start(ctx, a.name); err != nil {
				return err
			}
		}
		for _, v := range all {
			if err := b.answering(ctx, v.port, 1); err != nil {
				return err
			}
		}
		return rounds(ctx, all)
	})
	return all, err
}

// rounds asks all in turn. The first round is only for the servers to warm up.
func rounds(ctx context.Context, all []*variant) error {
	for r := range costRounds + 1 {
		for _, i := range rand.Perm(len(all)) {
			if err := all[i].round(ctx, r > 0); err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
	}
	return nil
}

// round asks once; it counts or it is to warm up.
func (v *variant) round(ctx context.Context, counts bool) error {
	pid, err := askPID(v.port)
	if err != nil {
		return err
	}
	before, err := cpuOf([]int{pid})
	if err != nil {
		return err
	}
	rate, took, err := ask(ctx, v.port)
	if err != nil {
		return err
	}
	after, err := cpuOf([]int{pid})
	if err == nil && counts {
		v.rate, v.took, v.cpu = append(v.rate, rate), append(v.took, took...), v.cpu+after-before
	}
	return err
}

// each is the processor time of one request.
func (v *variant) each() float64 { return float64(v.cpu) / float64(max(len(v.took), 1)) }

// ask lets clients ask for one round, and returns how many requests per second
// were answered and how long each took.
func ask(ctx context.Context, port int) (rate float64, took []time.Duration, err error) {
	var mu sync.Mutex
	var clients sync.WaitGroup
	began := now()
	for range costClients {
		clients.Go(func() { // until the round is over
			var own []time.Duration
			var failed error
			for failed == nil && since(began) < costRound && ctx.Err() == nil {
				start := now()
				if _, failed = askPID(port); failed == nil {
					own = append(own, since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			if failed != nil {
				err = failed
			}
		})
	}
	clients.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return float64(len(took)) / since(began).Seconds(), took, err
}

func (b *bench) costRows(name string, all []*variant) [][]string {
	quotient := func(v *variant) float64 {
		q := make([]float64, len(v.rate))
		for i := range q {
			q[i] = v.rate[i] / all[0].rate[i]
		}
		return middle(q)
	}
	rate, delay, cpu := []string{name + ", requests per second"}, []string{name + ", p50 / p99 of a request, ms"}, []string{name + ", CPU of the server per request, µs"}
	for _, v := range all {
		cpu = append(cpu, fmt.Sprintf("%.1f", v.each()/1000))
		rate = append(rate, fmt.Sprintf("%.0f", middle(v.rate)))
		delay = append(delay, fmt.Sprintf("%.2f / %.2f", millis(quantile(v.took, 0.5)), millis(quantile(v.took, 0.99))))
	}
	held := quotient(all[1])
	p99 := float64(quantile(all[1].took, 0.99)) / float64(quantile(all[0].took, 0.99))
	rate = append(rate, fmt.Sprintf("%+.1f %% (hold: false %+.1f %%)", 100*(held-1), 100*(quotient(all[2])-1)), b.judged("within 5 %", held >= 0.95))
	delay = append(delay, fmt.Sprintf("p99 %+.1f %%", 100*(p99-1)), "")
	more := func(v *variant) float64 { return 100 * (v.each()/all[0].each() - 1) }
	cpu = append(cpu, fmt.Sprintf("%+.1f %% (hold: false %+.1f %%)", more(all[1]), more(all[2])), b.judged("within 5 %", more(all[1]) <= 5))
	return [][]string{rate, delay, cpu}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// middle is the median.
func middle(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
