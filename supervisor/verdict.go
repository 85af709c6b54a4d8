package supervisor

import (
	"fmt"
	"slices"
	"time"

	"github.com/adhocore/gronx"

	"gpm/config"
)

const (
	backoffFirst  = 100 * time.Millisecond // of the second fast death in a row; the first restarts at once
	backoffGrowth = 1.5
	backoffMost   = 15 * time.Second
	parkAfter     = time.Second      // a wait longer than this must not hold up clients whom others could serve
	stableAfter   = 30 * time.Second // this long alive, and earlier deaths are forgotten
	settleTime    = time.Second      // a process that owns no port is ready when it has lived this long
	lackTime      = 10 * time.Second // for the other addresses of its predecessor, after the first one
	killDeadline  = 10 * time.Second // after SIGKILL, before we say that it is still alive
	spawnTime     = time.Minute      // for the world to spawn a process or to say why not
	spawnDeadline = 70 * time.Second // before we say that it does neither
)

// streak is what an instance remembers of its recent deaths. The zero value is
// an instance that never died.
type streak struct {
	Deaths   int           `json:"deaths,omitempty"`   // since it was last stable
	Unstable int           `json:"unstable,omitempty"` // of these, sooner than min_uptime or before it was ready
	Delay    time.Duration `json:"delay,omitempty"`    // last one given
}

// verdict is what follows a death.
type verdict struct {
	To     State // Launching (now), Waiting (after Delay), Stopped or Errored
	Delay  time.Duration
	Fine   bool // Stopped, and it ended as it was meant to
	Reason string
	Streak streak
}

// judgeDeath decides what follows the death of a process that served for
// uptime; zero if it was never ready. jitter in [0,1) spreads the delays of
// instances that died together.
func judgeDeath(app *config.App, s streak, e Exit, uptime time.Duration, jitter float64) verdict {
	why := e.Sentence()
	// An exit code is the process's own word only if nobody made it say so.
	own := !e.Spawnless && e.Signal == "" && !e.Unknown && !e.ByUs
	if own && slices.Contains(app.StopExitCodes, e.Code) {
		return verdict{To: Stopped, Fine: true, Reason: why + ", one of stop_exit_codes"}
	}
	if !app.Autorestart {
		return verdict{To: Stopped, Fine: own && e.Code == 0, Reason: why + ", autorestart is off"}
	}
	if uptime >= stableAfter {
		s = streak{}
	}
	s.Deaths++
	if uptime < app.MinUptime.D() {
		s.Unstable++
	}
	if app.MaxRestarts > 0 && s.Unstable >= app.MaxRestarts {
		return verdict{To: Errored, Streak: s, Reason: fmt.Sprintf("%s; %d times in a row it ended sooner than min_uptime (%s) or before it was ready", why, s.Unstable, app.MinUptime)}
	}
	s.Delay = nextDelay(app, s)
	if s.Delay == 0 {
		return verdict{To: Launching, Streak: s, Reason: why}
	}
	d := time.Duration(float64(s.Delay) * (0.9 + 0.2*jitter))
	return verdict{To: Waiting, Delay: d, Streak: s, Reason: fmt.Sprintf("%s, try %d", why, s.Deaths+1) + ofMost(app)}
}

func ofMost(app *config.App) string {
	if app.MaxRestarts > 0 {
		return fmt.Sprintf(" (%d unstable ones end it)", app.MaxRestarts)
	}
	return ""
}

// nextDelay is the pause before the restart that follows death number
// s.Deaths: PM2's keys where they are set, else none after the first death and
// a growing one after that.
func nextDelay(app *config.App, s streak) time.Duration {
	switch {
	case app.Backoff > 0:
		return grow(s.Delay, app.Backoff.D())
	case app.RestartDelay > 0:
		return app.RestartDelay.D()
	case s.Deaths == 1:
		return 0
	}
	return grow(s.Delay, backoffFirst)
}

// grow is the delay after last. A first delay beyond the limit is what the user
// wants, so it does not shrink.
func grow(last, first time.Duration) time.Duration {
	if last == 0 {
		return first
	}
	return min(time.Duration(float64(last)*backoffGrowth), max(first, backoffMost))
}

// readiness is what is known of a process that is not ready yet.
type readiness struct {
	Listening bool // it called listen() on a port of its own
	Lacking   bool // its predecessor listened on more addresses, and there is time for them yet
	Told      bool // it said so itself (IPC 'ready', READY=1)
	Settled   bool // it has lived for settleTime
	Expected  bool // an earlier generation listened, so this one has to
	Probed    bool // its readiness probe found it ready
}

// ready tells whether the process serves, by the first rule that applies.
func (r readiness) ready(app *config.App) bool {
	switch {
	case app.WaitReady && !r.Told, app.Ready != nil && !r.Probed:
		return false
	case app.WaitReady, app.Ready != nil:
		return true
	case r.Listening:
		return !r.Lacking
	case r.Expected:
		return false
	}
	return r.Settled
}

// limited tells whether listen_timeout applies: a process that has to do
// something to be ready may fail to; one that need only live may not.
func (r readiness) limited(app *config.App) bool {
	return app.WaitReady || app.Ready != nil || r.Expected
}

// missing says what a process did not do within listen_timeout.
// trouble is what its readiness probe found last.
func (r readiness) missing(app *config.App, trouble error) string {
	switch {
	case app.Ready != nil && !r.Probed && trouble != nil:
		return fmt.Sprintf("not ready within listen_timeout (%s): %v", app.ListenTimeout, trouble)
	case app.Ready != nil && !r.Probed:
		return fmt.Sprintf("not ready: its readiness probe got no answer within listen_timeout (%s)", app.ListenTimeout)
	case app.WaitReady:
		return fmt.Sprintf("not ready: it did not say 'ready' within listen_timeout (%s)", app.ListenTimeout)
	}
	return fmt.Sprintf("not ready: it did not listen within listen_timeout (%s), as the one before it did", app.ListenTimeout)
}

// nextTick is when a cron expression fires next after now.
func nextTick(expr string, now time.Time) (time.Time, error) {
	t, err := gronx.NextTickAfter(expr, now, false)
	if err != nil {
		return time.Time{}, fmt.Errorf("find next time of cron_restart %q: %w", expr, err)
	}
	return t, nil
}
