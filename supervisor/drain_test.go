package supervisor

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

// busy is a server with ten streams that end a minute after it was taken out
// of traffic.
var busy = life{listens: 50 * time.Millisecond, dies: 20 * time.Millisecond, streams: 10, drained: time.Minute}

// patient is an app whose streams get five minutes.
func patient(n int) config.App {
	app := webApp("web", n)
	app.Drain = config.DrainWait
	app.DrainTimeout = config.Duration(5 * time.Minute)
	app.ShutdownTimeout = config.Duration(10 * time.Second)
	return app
}

func (m *machine) traffic(gen int, index int) Traffic {
	m.t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.procs {
		if p.l.Index == index && p.l.Gen == gen {
			return p.traffic
		}
	}
	m.t.Fatalf("no generation %d of place %d", gen, index)
	return ""
}

func TestReloadWaitsForTheStreamsOfTheOldOne(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(1)), 1)
		if got := m.traffic(1, 0); got != Serving {
			t.Errorf("traffic %q", got)
		}
		began := time.Now()
		allOK(t, m.act(Reload, "web"), 1)
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("took %s: nobody waits for the drain", took)
		}
		if was, is := m.traffic(1, 0), m.traffic(2, 0); was != Away || is != Serving {
			t.Errorf("traffic of the old one %q, of the new one %q", was, is)
		}
		pass(59 * time.Second)
		s := m.status("web", 0)
		if s.Draining != 1 || len(m.procs[0].got()) != 0 {
			t.Errorf("draining %d, the old one got %v", s.Draining, m.procs[0].got())
		}
		i := slices.IndexFunc(s.Procs, func(p ProcessRecord) bool { return p.Role == Outgoing })
		if left := time.Until(s.Procs[i].Until); left < 4*time.Minute || left > 4*time.Minute+2*time.Second {
			t.Errorf("deadline in %s", left)
		}
		pass(2 * time.Second)
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) || !slices.Equal(m.alive("web", 0), []int{2}) {
			t.Errorf("the old one got %v, alive %v", got, m.alive("web", 0))
		}
	})
}

func TestDrainTimeoutCuts(t *testing.T) {
	bubble(t, func(m *machine) {
		endless := busy
		endless.drained = 0
		m.will(endless)
		allOK(t, m.start(patient(1)), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(5*time.Minute - time.Second)
		if got := m.procs[0].got(); len(got) != 0 {
			t.Fatalf("the old one got %v too early", got)
		}
		pass(2 * time.Second)
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("the old one got %v", got)
		}
		if e := m.events("web"); !slices.ContainsFunc(e, func(s string) bool { return strings.Contains(s, "10 live streams cut") }) {
			t.Errorf("events %q", e)
		}
	})
}

func TestIdleConnectionsDoNotHoldADrainUp(t *testing.T) {
	bubble(t, func(m *machine) {
		l := busy
		l.idle = 10
		m.will(l)
		allOK(t, m.start(patient(1)), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		if s := m.status("web", 0); s.Draining != 0 {
			t.Errorf("draining %d", s.Draining)
		}
		l.queue = 1 // not accepted yet: it must not be lost
		m.will(l)
		allOK(t, m.act(Reload, "web"), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(30 * time.Second)
		if got := m.procs[2].got(); len(got) != 0 {
			t.Errorf("a process with a connection in its queue got %v", got)
		}
	})
}

// An app that drains itself is told as soon as its queue is empty, and has
// drain_timeout to end, not kill_timeout.
func TestDrainBySignal(t *testing.T) {
	bubble(t, func(m *machine) {
		l := busy
		l.dies = 4 * time.Minute
		m.will(l)
		app := patient(1)
		app.Drain = config.DrainSignal
		allOK(t, m.start(app), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("the old one got %v", got)
		}
		m.successor() // a daemon that dies meanwhile does not make the next one impatient
		pass(4*time.Minute - 2*time.Second)
		if got := m.procs[0].got(); slices.Contains(got, "SIGKILL") || len(m.alive("web", 0)) != 2 {
			t.Errorf("got %v, alive %v", got, m.alive("web", 0))
		}
		pass(2 * time.Second)
		if alive := m.alive("web", 0); !slices.Equal(alive, []int{2}) {
			t.Errorf("alive %v", alive)
		}
	})
}

func TestQueueOfAnAppThatDrainsItself(t *testing.T) {
	bubble(t, func(m *machine) {
		l := busy
		l.queue = 3 // and it never accepts them
		m.will(l)
		app := patient(1)
		app.Drain = config.DrainSignal
		allOK(t, m.start(app), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(emptyTime - 100*time.Millisecond)
		if got := m.procs[0].got(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		pass(200 * time.Millisecond)
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("got %v", got)
		}
	})
}

// A count that began before the process was away may miss its last connection.
func TestStaleCounts(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(1)), 1)
		stale := time.Now()
		pass(time.Second)
		allOK(t, m.act(Reload, "web"), 1)
		pass(0)
		m.procs[0].report(Fact{Kind: Counted, Began: stale})
		synctest.Wait()
		if got := m.procs[0].got(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestUnsteeredProcessesAreNotWaitedFor(t *testing.T) {
	bubble(t, func(m *machine) {
		m.unsteered = "the kernel's hash decides"
		m.will(busy)
		allOK(t, m.start(patient(1)), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		if s := m.status("web", 0); s.Draining != 0 {
			t.Errorf("draining %d", s.Draining)
		}
		if o := failed(t, m.act(Drain, "web"), 1); !strings.Contains(o.Reason, "the kernel's hash decides") {
			t.Errorf("%+v", o)
		}
	})
}

func TestStopWithAndWithoutDrain(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(2)), 2)
		began := time.Now()
		allOK(t, m.act(StopDrained, "web"), 2)
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("took %s", took)
		}
		allOK(t, m.act(Start, "web"), 2)
		began = time.Now()
		drain := m.async(func() []Outcome { return m.act(StopDrained, "web") })
		pass(time.Second)
		if s := m.wantState("web", 0, Stopping); s.Traffic != Away {
			t.Errorf("traffic %q", s.Traffic)
		}
		allOK(t, m.act(Stop, "web"), 2) // changed his mind: now
		allOK(t, drain.now(), 2)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestStopHurriesWhatDrains(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(1)), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		allOK(t, m.act(Restart, "web"), 1) // is not about the old one
		if alive := m.alive("web", 0); !slices.Equal(alive, []int{1, 3}) {
			t.Fatalf("alive %v", alive)
		}
		began := time.Now()
		allOK(t, m.act(Stop, "web"), 1)
		if took := time.Since(began); took > time.Second || len(m.alive("web", 0)) != 0 {
			t.Errorf("took %s, alive %v", took, m.alive("web", 0))
		}
	})
}

func TestScaleDownDrains(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(3)), 3)
		began := time.Now()
		allOK(t, m.scale("web", "1"), 2)
		if took := time.Since(began); took < time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

func TestShutdownHasABudgetOfItsOwn(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(2)), 2)
		allOK(t, m.act(Reload, "web"), 2) // and its drain is cut to that budget
		began := time.Now()
		m.sup().Shutdown(m.t.Context(), true)
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("took %s, want shutdown_timeout", took)
		}
	})
}

func TestDrainsGoOnUnderTheNextDaemon(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(1)), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(30 * time.Second)
		m.successor()
		pass(29 * time.Second)
		if s := m.wantState("web", 0, Online); s.Draining != 1 || len(m.procs[0].got()) != 0 {
			t.Errorf("draining %d, got %v", s.Draining, m.procs[0].got())
		}
		pass(2 * time.Second)
		if alive := m.alive("web", 0); !slices.Equal(alive, []int{2}) {
			t.Errorf("alive %v", alive)
		}
	})
}

func TestDrainVerb(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		allOK(t, m.start(patient(2)), 2)
		allOK(t, m.act(Drain, "web-1"), 1)
		if is, other := m.traffic(1, 1), m.traffic(1, 0); is != Away || other != Serving {
			t.Errorf("traffic %q and %q", is, other)
		}
		if s := m.wantState("web", 1, Online); !s.Away || s.Traffic != Away {
			t.Errorf("%+v", s)
		}
		pass(time.Hour) // it stays, and lives
		allOK(t, m.act(Reload, "web"), 2)
		if is := m.traffic(2, 1); is != Away {
			t.Errorf("the next generation has traffic %q", is)
		}
		m.successor()
		if s := m.status("web", 1); !s.Away {
			t.Error("the next daemon does not know it")
		}
		allOK(t, m.act(Undrain, "web-1"), 1)
		if is := m.traffic(2, 1); is != Serving {
			t.Errorf("traffic %q", is)
		}
	})
}

func TestParallelRollout(t *testing.T) {
	bubble(t, func(m *machine) {
		slow := server
		slow.listens = time.Second
		m.will(slow)
		app := webApp("web", 6)
		app.Rollout = config.Rollout{Parallel: 3, Pause: config.Duration(10 * time.Second)}
		allOK(t, m.start(app), 6)
		feed, _ := m.sup().Subscribe()
		began := time.Now()
		allOK(t, m.act(Reload, "web"), 6)
		if took := time.Since(began); took < 12*time.Second || took > 13*time.Second {
			t.Errorf("took %s, want two batches of a second and a pause", took)
		}
		m.sup().Unsubscribe(feed)
		said := ""
		for e := range feed.C {
			if e.Progress != nil {
				said += e.Message + "\n"
			}
		}
		if !strings.Contains(said, "3/6 ready, waiting: pause") && !strings.Contains(said, "3/6 ready, 0 streams draining in 3 processes, waiting: pause") {
			t.Errorf("said %s", said)
		}
	})
}

func TestMaxDraining(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(busy)
		app := patient(3)
		app.Rollout.MaxDraining = 2
		allOK(t, m.start(app), 3)
		began := time.Now()
		allOK(t, m.act(Reload, "web"), 3)
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("took %s: the third one has to wait for a drain", took)
		}
	})
}

func TestMaxDrainingIsNoWaitForEver(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(life{listens: time.Millisecond, immortal: true})
		app := patient(2)
		app.DrainTimeout = config.Duration(time.Second)
		app.Rollout.MaxDraining = 1
		allOK(t, m.start(app), 2)
		began := time.Now()
		r := m.act(Reload, "web")
		if took := time.Since(began); took > 2*time.Minute || !r[0].OK || r[1].OK || !strings.Contains(r[1].Reason, "have not ended") {
			t.Errorf("after %s: %+v", took, r)
		}
	})
}

func TestAbortKeepsWhatIs(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 4)), 4)
		slow := server
		slow.listens = time.Second
		m.will(slow)
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		pass(1500 * time.Millisecond) // the second one is under way
		r := m.act(Abort, "web")
		var said []string
		for _, o := range r {
			if !o.OK {
				t.Errorf("%+v", o)
			}
			said = append(said, o.Reason)
		}
		if want := []string{"runs the new version", "runs the old version", "runs the old version", "runs the old version"}; !slices.Equal(said, want) {
			t.Errorf("said %q", said)
		}
		got := reload.now()
		if len(got) != 4 || !got[0].OK || got[1].OK || got[2].OK || !strings.Contains(got[2].Reason, "interrupted by its user") {
			t.Errorf("reload: %+v", got)
		}
		pass(time.Second)
		for i, want := range []int{2, 1, 1, 1} {
			if alive := m.alive("web", i); !slices.Equal(alive, []int{want}) {
				t.Errorf("web-%d: %v", i, alive)
			}
		}
		if r := m.act(Abort, "web"); len(r) != 0 {
			t.Errorf("abort of nothing: %+v", r)
		}
		allOK(t, m.act(Reload, "web"), 4)
	})
}

// letGo are the places whose listeners were closed.
func (m *machine) letGo() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.released)
}

// serving is how many processes get new connections.
func (m *machine) serving() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.procs {
		if p.alive && p.traffic == Serving {
			n++
		}
	}
	return n
}

func probedApp(n int) config.App {
	app := patient(n)
	app.Ready = &config.Probe{Kind: config.ProbeHTTP, Path: "/", Interval: config.Duration(500 * time.Millisecond), Timeout: config.Duration(time.Second)}
	app.Health = &config.Probe{Kind: config.ProbeHTTP, Path: "/", Interval: config.Duration(10 * time.Second), Timeout: config.Duration(time.Second), Failures: 3}
	return app
}

func TestReadyProbe(t *testing.T) {
	bubble(t, func(m *machine) {
		l := server
		l.wellFrom = 3 * time.Second
		m.will(l)
		began := time.Now()
		allOK(t, m.start(probedApp(1)), 1)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("ready after %s", took)
		}
		l.wellFrom = time.Hour
		m.will(l)
		o := failed(t, m.act(Reload, "web"), 1)
		if o.Reason != "not ready within listen_timeout (8s): GET / answered 503" {
			t.Errorf("reason %q", o.Reason)
		}
	})
}

func TestSickInstanceIsReplaced(t *testing.T) {
	bubble(t, func(m *machine) {
		m.willBy(func(l Launch) life {
			s := server
			if l.Index == 1 && l.Gen == 1 {
				s.wellTo = time.Minute
			}
			return s
		})
		allOK(t, m.start(probedApp(2)), 2)
		pass(time.Minute + 15*time.Second)
		if got := m.traffic(1, 1); got != Serving {
			t.Errorf("after two failures: %q", got)
		}
		pass(10 * time.Second)
		if got := m.traffic(1, 1); got != Away {
			t.Errorf("after three failures: %q", got)
		}
		pass(time.Second)
		if s := m.wantState("web", 1, Online); s.Gen != 2 || s.Health != "ok" || m.traffic(2, 1) != Serving {
			t.Errorf("%+v", s)
		}
		if s := m.status("web", 0); s.Gen != 1 {
			t.Errorf("the healthy one was replaced, too: %+v", s)
		}
	})
}

// What all of them depend on is down: nobody is worse than the others.
func TestAllSickAllServe(t *testing.T) {
	bubble(t, func(m *machine) {
		l := server
		l.wellTo = time.Minute
		m.will(l)
		allOK(t, m.start(probedApp(2)), 2)
		l.wellFrom = time.Hour // successors are no better
		m.will(l)
		for range 120 {
			pass(5 * time.Second)
			if n := m.serving(); n == 0 {
				t.Fatal("nobody serves")
			}
		}
		if n := m.serving(); n != 2 {
			t.Errorf("%d serve", n)
		}
	})
}

func TestHangingQueue(t *testing.T) {
	bubble(t, func(m *machine) {
		app := patient(2)
		app.HangTimeout = config.Duration(30 * time.Second)
		allOK(t, m.start(app), 2)
		p := m.proc("web", 0)
		p.report(Fact{Kind: Stalled, Stalled: 29 * time.Second, Count: Count{Queue: 5}})
		pass(time.Second)
		if s := m.status("web", 0); s.Gen != 1 {
			t.Fatalf("%+v", s)
		}
		p.report(Fact{Kind: Stalled, Stalled: 30 * time.Second, Count: Count{Queue: 5}})
		pass(time.Second)
		if s := m.wantState("web", 0, Online); s.Gen != 2 {
			t.Errorf("%+v", s)
		}
		if e := m.events("web"); !slices.ContainsFunc(e, func(s string) bool { return strings.Contains(s, "it hangs: 5 connections wait for 30s") }) {
			t.Errorf("events %q", e)
		}
	})
}

// Standbys are of the version that runs: none while another one comes.
func TestStandbysFollowTheVersion(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		app.Standby = 1
		allOK(t, m.start(app), 2)
		allOK(t, m.act(Reload, "web"), 2)
		allOK(t, m.act(Restart, "web"), 2)
		allOK(t, m.act(Stop, "web"), 2)
		synctest.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if want := []string{"web 1", "web 0", "web 1", "web 0", "web 1", "web 0"}; !slices.Equal(m.reserved, want) {
			t.Errorf("reserved %q, want %q", m.reserved, want)
		}
	})
}

func TestQueueTimeout(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.QueueTimeout = config.Duration(30 * time.Second)
		app.RestartDelay = config.Duration(10 * time.Minute)
		allOK(t, m.start(app), 1)
		m.proc("web", 0).kill("SIGSEGV")
		pass(29 * time.Second)
		m.wantState("web", 0, Waiting)
		if got := m.letGo(); len(got) != 0 {
			t.Fatal("refused too early")
		}
		pass(2 * time.Second)
		if got := m.letGo(); !slices.Equal(got, []string{"web-0"}) {
			t.Errorf("released %v", got)
		}
		pass(10 * time.Minute)
		m.wantState("web", 0, Online)
	})
}

// An app that comes to its ports one after the other is ready when it has those
// of its predecessor; a version without one of them is, too, some time later.
func TestASecondPortIsWaitedFor(t *testing.T) {
	bubble(t, func(m *machine) {
		two := server
		two.second = 3 * time.Second
		m.will(two)
		allOK(t, m.start(webApp("web", 1)), 1)
		pass(5 * time.Second)
		allOK(t, m.act(Reload, "web"), 1) // it was online before it had both, so this one need not
		pass(5 * time.Second)
		began := time.Now()
		allOK(t, m.act(Reload, "web"), 1)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %s, want the time of its second port", took)
		}
		m.will(server)
		began = time.Now()
		allOK(t, m.act(Reload, "web"), 1)
		if took := time.Since(began); took != server.listens+4*time.Second { // half of listen_timeout
			t.Errorf("took %s without the second port", took)
		}
	})
}

// What waits in the queue of a process that hangs does not wait for its drain.
func TestDrainOfAHungProcess(t *testing.T) {
	bubble(t, func(m *machine) {
		l := busy
		l.queue = 4
		m.will(l)
		app := patient(1)
		app.HangTimeout = config.Duration(30 * time.Second)
		allOK(t, m.start(app), 1)
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		hung := m.procs[0]
		hung.report(Fact{Kind: Stalled, Stalled: 10 * time.Second, Count: Count{Queue: 4}})
		pass(time.Second)
		if got := hung.got(); len(got) != 0 {
			t.Fatalf("got %v too early", got)
		}
		hung.report(Fact{Kind: Stalled, Stalled: 30 * time.Second, Count: Count{Queue: 4}})
		pass(time.Second)
		if got := hung.got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("got %v", got)
		}
	})
}
