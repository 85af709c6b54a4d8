package supervisor

import (
	"context"
	"fmt"
	"time"

	"gpm/config"
)

// probed is the result of one check of a process.
type probed struct {
	gen   int
	ready bool // it was the readiness probe
	err   error
}

// probe is the check that a process is due: of readiness, then of life. Nil:
// none.
func (p *process) probe() *config.Probe {
	if !p.ready {
		return p.app.Ready
	}
	return p.app.Health
}

// check runs one check in a goroutine of its own, which ends with its deadline.
func (in *instance) check(p *process) {
	spec := p.probe()
	if spec == nil || p.checking || p.ending || p.p == nil {
		return
	}
	if !p.aimed(spec) {
		in.alarms.set(alarmProbe, p.gen, spec.Interval.D())
		return
	}
	p.checking = true
	app, gen, ready := p.app, p.gen, !p.ready
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), spec.Timeout.D()+time.Second) // the check's own deadline says more
		defer cancel()
		err := in.world.Probe(ctx, app, in.index, gen, spec)
		select {
		case in.probes <- probed{gen, ready, err}:
		case <-in.done:
		}
	}()
}

// aimed tells whether a check of readiness would reach this process: without
// steering, whoever else has its listener may answer until it listens itself.
func (p *process) aimed(spec *config.Probe) bool {
	return p.ready || p.known.Listening || !p.known.Expected || spec.Kind == config.ProbeExec || p.unsteered() == ""
}

// checked takes the result of a check and sets the clock for the next one.
func (in *instance) checked(r probed) {
	p := in.find(r.gen)
	if p == nil {
		return
	}
	p.checking = false
	if p.ending || p.draining() {
		return
	}
	switch {
	case r.ready && !p.ready:
		p.known.Probed, p.trouble = r.err == nil, r.err
		in.consider(p)
	case !r.ready:
		in.pulse(p, r.err)
	}
	if spec := p.probe(); spec != nil && !p.ending {
		in.alarms.set(alarmProbe, p.gen, spec.Interval.D())
	}
}

// pulse is the verdict on one health check.
func (in *instance) pulse(p *process, err error) {
	if err == nil {
		p.failures, p.trouble = 0, nil
		in.heal(p)
		return
	}
	p.failures++
	p.trouble = err
	if most := p.app.Health.Failures; p.failures >= most {
		in.ail(p, fmt.Sprintf("%s in a row failed: %v", many(p.failures, "health check"), err))
	}
}

// health is what is known of the current process's life, for people.
func (in *instance) health() string {
	p := in.cur
	switch {
	case p == nil || !p.ready || p.app.Health == nil && p.sick == "":
		return ""
	case p.sick != "":
		return p.sick
	case p.failures > 0:
		return fmt.Sprintf("%d of %d failed: %v", p.failures, p.app.Health.Failures, p.trouble)
	}
	return "ok"
}

// stalled: connections wait in the process's queue, none was accepted and
// nothing was sent for d.
func (in *instance) stalled(f genFact) {
	p := in.find(f.gen)
	if p == nil {
		return
	}
	limit := p.app.HangTimeout.D()
	switch {
	case limit <= 0:
	case p.draining() && f.Stalled >= limit: // nothing of it will ever finish, and who waits is better off elsewhere
		in.event("drain", fmt.Sprintf("pid %d hangs: its drain is over, %s", p.pid(), waits(f.Count.Queue)))
		in.ladder(p)
	case p != in.cur:
	case f.Stalled >= limit:
		in.ail(p, fmt.Sprintf("it hangs: %s for %s, none was accepted and nothing was sent", waits(f.Count.Queue), f.Stalled.Round(time.Second)))
	case f.Stalled == 0 && p.failures == 0:
		in.heal(p)
	}
}

func waits(n int) string {
	if n == 1 {
		return "1 connection waits"
	}
	return fmt.Sprintf("%d connections wait", n)
}
