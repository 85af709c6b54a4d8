package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/supervisor/api"
)

// What gpm is for. Reload after reload under load, of servers that know nothing
// of it: every stream ends with its last event, every request is answered. The
// long version is 80 replacements each.
func TestReloadBreaksNothing(t *testing.T) {
	everyMode(t, func(t *testing.T, s streamer, m mode) {
		g := newGPM(t).in(m)
		port := g.streams(s, 4)
		g.steered(m)
		o := s.load(port, s.rate())
		replaced := 0
		l := g.underLoad(o, func() { replaced = g.reloads(port, 2) })
		nothingBroken(t, o, l, fmt.Sprintf("%d replacements", replaced))
		g.steered(m)
	})
}

// The same while the daemon is killed at random moments. Who has asked for a
// reload may not hear what came of it; a stream must not notice.
func TestReloadBreaksNothingWhileTheDaemonDies(t *testing.T) {
	everyMode(t, func(t *testing.T, s streamer, m mode) {
		g := newGPM(t).in(m)
		port := g.streams(s, 4)
		o := s.load(port, s.rate())
		kills := 0
		l := g.underLoad(o, func() {
			kills = g.menaced(func() {
				for range long(2, 20) {
					g.across(port, func() { g.run("reload", "srv") }) // an interrupted one is no failure
				}
			})
			g.until("the last rollout is over", func() bool { return g.run("reload", "srv").code == 0 })
			g.drained()
		})
		nothingBroken(t, o, l, fmt.Sprintf("the daemon was killed %d times", kills))
		g.steered(m)
		for _, d := range g.describe("srv") {
			if most := len(tree(d.PID)); len(d.Tree) != most {
				t.Errorf("instance %d: %d processes belong to it, %d are of pid %d", d.Instance.Instance, len(d.Tree), most, d.PID)
			}
		}
	})
}

// kill -9 of one process after another: what the dead had accepted breaks, and
// nothing else. Nobody is refused, nobody who waits in a queue is reset.
func TestCrashBreaksOnlyItsOwn(t *testing.T) {
	everyMode(t, func(t *testing.T, s streamer, m mode) {
		g := newGPM(t).in(m)
		port := g.streams(s, 4, mortal)
		o := s.load(port, s.rate())
		var wounds []wound
		l := g.underLoad(o, func() { wounds = g.massacre(long(8, 80)) })
		onlyTheirOwn(t, o, l, wounds)
		g.online("srv", 4)
		g.steered(m)
	})
}

// The same while the daemon is killed, too.
func TestCrashBreaksOnlyItsOwnWhileTheDaemonDies(t *testing.T) {
	everyMode(t, func(t *testing.T, s streamer, m mode) {
		g := newGPM(t).in(m)
		port := g.streams(s, 4, mortal)
		o := s.load(port, s.rate())
		var wounds []wound
		kills := 0
		l := g.underLoad(o, func() {
			kills = g.menaced(func() { wounds = g.massacre(long(8, 80)) })
			g.online("srv", 4)
		})
		t.Logf("the daemon was killed %d times", kills)
		onlyTheirOwn(t, o, l, wounds)
	})
}

// everyMode runs a test with each server in each mode in which it is expected to
// hold, one at a time if the machine is to be under full load.
func everyMode(t *testing.T, f func(t *testing.T, s streamer, m mode)) {
	for _, s := range streamers {
		for _, m := range s.modes() {
			t.Run(s.name+"/"+m.String(), func(t *testing.T) {
				if !*soak {
					t.Parallel()
				}
				f(t, s, m)
			})
		}
	}
}

// long chooses between the short and the long version.
func long(short, soaking int) int {
	if *soak {
		return soaking
	}
	return short
}

// reloads reloads an app again and again and returns how many processes were
// replaced; 20 times in the long version.
func (g *gpm) reloads(port, short int) (replaced int) {
	g.t.Helper()
	was := pids(g.online("srv", 4))
	for range long(short, 20) {
		g.across(port, func() { g.ok("reload", "srv") })
		now := pids(g.online("srv", 4))
		for i, pid := range was {
			if slices.Contains(now, pid) {
				g.t.Errorf("instance %d: pid %d was not replaced", i, pid)
				continue
			}
			replaced++
		}
		was = now
		g.drained()
	}
	return replaced
}

// across runs f in the middle of eight streams, which have to come to their
// end: some servers are replaced in no time, before any load has reached them.
func (g *gpm) across(port int, f func()) {
	g.t.Helper()
	all := visit(g.t, port, "/stream?n=50", 8)
	f()
	for i, v := range all {
		if text, err := v.answer(); err != nil || !strings.HasSuffix(strings.TrimSpace(text), "data: [DONE]") {
			g.t.Errorf("stream %d of 8 that was open before ended with %q, %v", i+1, text[max(0, len(text)-40):], err)
		}
	}
}

// mortal is an app that may die often without being given up or made to wait.
var mortal = keys{"min_uptime": 100, "restart_delay": 10, "max_restarts": 1000000}

// massacre kills random instances, one every 400 ms.
func (g *gpm) massacre(n int) (wounds []wound) {
	g.t.Helper()
	next := time.NewTicker(400 * time.Millisecond)
	defer next.Stop()
	for range n {
		<-next.C
		wounds = append(wounds, behead(g.t, g.someone("srv").PID))
	}
	return wounds
}

// someone is an online instance, by chance. There may be no daemon at the moment.
func (g *gpm) someone(app string) (in api.Instance) {
	g.t.Helper()
	g.until("an instance is online", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		l, _ := api.Dial(g.home).List(ctx)
		all := slices.DeleteFunc(l.Instances, func(in api.Instance) bool {
			return in.Name != app || in.Status != api.Online || !alive(in.PID)
		})
		if len(all) > 0 {
			in = all[rand.IntN(len(all))]
		}
		return len(all) > 0
	})
	return in
}

// menaced runs f while the daemon is killed at random moments, and returns how
// often it was: at least once. Afterwards there is a daemon.
func (g *gpm) menaced(f func()) (kills int) {
	g.t.Helper()
	stop, done := make(chan struct{}), make(chan int, 1)
	go func() { // ends with f
		n := 0
		defer func() { done <- n }()
		for last := 0; ; {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(200+rand.IntN(1300)) * time.Millisecond):
			}
			// The file may still name the dead one.
			if pid := g.pid("gpm.pid"); pid > 1 && pid != last && syscall.Kill(pid, syscall.SIGKILL) == nil {
				n, last = n+1, pid
			}
		}
	}()
	func() {
		defer close(stop) // also when f ends the test
		f()
	}()
	kills = <-done
	g.until("a daemon answers", g.answers)
	if kills == 0 { // f was fast
		pid := g.pid("gpm.pid")
		kill9(g.t, pid)
		g.until("a new daemon answers", func() bool { return g.pid("gpm.pid") != pid && g.answers() })
		kills = 1
	}
	return kills
}
