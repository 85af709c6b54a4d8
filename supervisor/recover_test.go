package supervisor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"

	"github.com/google/go-cmp/cmp"
)

// picture is what must survive a daemon of an instance.
type picture struct {
	ID, Gen, Restarts, PID, Draining int
	State                            State
	Wanted, Listens                  bool
	Created                          time.Time
	Streak                           streak
	Env                              string
	Exits                            int
}

func (m *machine) pictures() map[string]picture {
	synctest.Wait()
	r := map[string]picture{}
	for _, s := range m.sup().List() {
		r[fmt.Sprintf("%s-%d", s.App.Name, s.Index)] = picture{
			ID: s.ID, Gen: s.Gen, Restarts: s.Restarts, PID: s.PID, Draining: s.Draining, State: s.State,
			Wanted: s.Wanted, Listens: s.Listens, Created: s.Created.Round(0).UTC(), Streak: s.Streak, Env: s.App.Env["V"], Exits: len(s.Exits),
		}
	}
	return r
}

// successor lets the daemon die and another one take over.
func (m *machine) successor() {
	m.crash()
	m.boot()
}

// Snapshot -> record -> Recover gives the same picture, twice in a row.
func TestRecoverGivesTheSamePicture(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("online", 3)), 3)
		app := webApp("reloaded", 1)
		allOK(t, m.start(app), 1)
		app.Env = map[string]string{"V": "2"}
		allOK(t, m.reload(app), 1) // one is draining
		allOK(t, m.start(webApp("stopped", 1)), 1)
		allOK(t, m.act(Stop, "stopped"), 1)
		m.will(crasher)
		bad := webApp("errored", 1)
		bad.MaxRestarts = 1
		m.start(bad)
		job := webApp("job", 1)
		job.Autorestart = false
		m.start(job)
		m.will(steady)
		m.proc("online", 1).kill("SIGSEGV")
		pass(100 * time.Millisecond)
		allOK(t, m.act(Reload, "reloaded"), 1) // two are draining
		before := m.pictures()
		gens := len(m.procs)
		for range 2 {
			m.successor()
			if d := cmp.Diff(before, m.pictures()); d != "" {
				t.Fatalf("after a restart of the daemon (-before +after):\n%s", d)
			}
		}
		if len(m.procs) != gens {
			t.Errorf("%d processes were started", len(m.procs)-gens)
		}
		for _, p := range m.procs { // nobody was told twice
			if got := p.got(); len(got) > 1 {
				t.Errorf("%s-%d got %v", p.l.App.Name, p.l.Index, got)
			}
		}
		pass(10 * time.Second)
		if s := m.status("reloaded", 0); s.Draining != 0 {
			t.Errorf("draining %d", s.Draining)
		}
		// The next ones go on counting.
		r := m.start(webApp("new", 1))
		for name, p := range before {
			if p.ID >= r[0].ID {
				t.Errorf("id %d is not beyond %s's %d", r[0].ID, name, p.ID)
			}
		}
		allOK(t, m.act(Restart, "online"), 3)
	})
}

func TestRecoverDeadSurvivor(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		pass(time.Minute)
		m.crash()
		m.proc("web", 0).kill("SIGSEGV") // between two daemons
		m.boot()
		s := m.wantState("web", 0, Launching)
		if s.Exits[0].Sentence() != "killed by SIGSEGV (not by gpm)" || s.Exits[0].Uptime < time.Minute || s.Gen != 2 {
			t.Errorf("%+v", s.Exits)
		}
		pass(time.Second)
		if s := m.wantState("web", 0, Online); s.Restarts != 1 || len(s.Exits[0].Tail) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRecoverMidStop(t *testing.T) {
	bubble(t, func(m *machine) {
		deaf := server
		deaf.deaf = true
		m.will(deaf)
		allOK(t, m.start(webApp("web", 1)), 1)
		go m.sup().Act(m.t.Context(), Stop, []string{"web"}, nil)
		pass(time.Second)
		m.crash()
		m.boot()
		m.wantState("web", 0, Stopping)
		pass(5 * time.Second)
		m.wantState("web", 0, Stopped)
		if got := m.proc("web", 0).got(); !slices.Equal(got, []string{"SIGINT", "SIGKILL"}) {
			t.Errorf("signals %v: a second SIGINT would cut a drain short", got)
		}
	})
}

func TestRecoverMidRestart(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 1)), 1)
		go m.sup().Act(m.t.Context(), Restart, []string{"web"}, nil)
		pass(time.Second)
		m.successor()
		m.wantState("web", 0, Stopping)
		pass(3 * time.Second)
		if s := m.wantState("web", 0, Online); s.Gen != 2 {
			t.Errorf("gen %d", s.Gen)
		}
	})
}

func TestRecoverMidReload(t *testing.T) {
	slow := life{listens: 5 * time.Second, dies: time.Millisecond}
	bubble(t, func(m *machine) {
		pid := m.start(webApp("web", 1))[0].PID
		m.will(slow)
		go m.sup().Act(m.t.Context(), Reload, []string{"web"}, nil)
		pass(time.Second)
		m.successor()
		if s := m.wantState("web", 0, Online); s.PID != pid || s.Draining != 1 {
			t.Errorf("%+v", s)
		}
		pass(time.Second)
		if got := m.alive("web", 0); !slices.Equal(got, []int{1}) {
			t.Errorf("alive %v: the old one stays", got)
		}
		m.will(server)
		allOK(t, m.act(Reload, "web"), 1)
		if s := m.status("web", 0); s.Gen != 3 {
			t.Errorf("gen %d", s.Gen)
		}
	})
	bubble(t, func(m *machine) { // the current one is gone: the candidate takes its place
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(slow)
		go m.sup().Act(m.t.Context(), Reload, []string{"web"}, nil)
		pass(time.Second)
		m.crash()
		m.mu.Lock()
		m.procs[0].alive, m.procs[0].known = false, true
		m.mu.Unlock()
		m.boot()
		if s := m.wantState("web", 0, Launching); s.Gen != 2 || s.PID == 0 {
			t.Errorf("%+v", s)
		}
		pass(5 * time.Second)
		m.wantState("web", 0, Online)
	})
}

// A daemon that dies before it could write anything of a generation.
func TestRecoverUnknownGeneration(t *testing.T) {
	for name, c := range map[string]struct {
		act   func(m *machine)
		check func(m *machine)
	}{
		"of a start": {
			func(m *machine) { m.act(Start, "web") },
			func(m *machine) {
				if s := m.wantState("web", 0, Online); s.Gen != 2 || !s.Wanted {
					m.t.Errorf("%+v", s)
				}
			},
		},
		"of a reload": {
			func(m *machine) {
				m.act(Start, "web")
				synctest.Wait()
				m.mu.Lock()
				m.commit()
				m.mu.Unlock()
				m.will(life{listens: time.Hour})
				go m.sup().Act(m.t.Context(), Reload, []string{"web"}, nil)
				pass(time.Second)
			},
			func(m *machine) {
				if s := m.wantState("web", 0, Online); s.Gen != 3 || !slices.Equal(m.alive("web", 0), []int{2}) {
					m.t.Errorf("%+v, alive %v", s, m.alive("web", 0))
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(m *machine) {
				allOK(t, m.start(webApp("web", 1)), 1)
				m.act(Stop, "web")
				synctest.Wait()
				m.mu.Lock()
				m.lazyDisk = true
				m.mu.Unlock()
				c.act(m)
				m.successor()
				pass(settleTime + 10*time.Second)
				c.check(m)
			})
		})
	}
}

// The takeover of a reload is on record before the old one is told to end, so
// whenever the daemon dies, a process that serves goes on serving.
func TestRecoverAtEveryMomentOfReload(t *testing.T) {
	for moment := range 8 {
		bubble(t, func(m *machine) {
			m.will(steady)
			allOK(t, m.start(webApp("web", 1)), 1)
			synctest.Wait()
			m.mu.Lock()
			m.lazyDisk = true
			m.mu.Unlock()
			go m.sup().Act(m.t.Context(), Reload, []string{"web"}, nil)
			<-time.After(time.Duration(moment) * 10 * time.Millisecond)
			m.successor()
			serving := 0
			for _, p := range m.procs {
				if p.alive && len(p.signals) == 0 {
					serving++
				}
			}
			if s := m.wantState("web", 0, Online); serving != 1 || len(m.proc("web", 0).l.App.Name) == 0 || s.PID == 0 {
				t.Errorf("moment %d: %d processes serve: %+v", moment, serving, s)
			}
			pass(time.Minute)
			if s := m.wantState("web", 0, Online); s.Draining != 0 || len(m.alive("web", 0)) != 1 {
				t.Errorf("moment %d: alive %v", moment, m.alive("web", 0))
			}
		})
	}
}

func TestReboot(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 2)), 2)
		allOK(t, m.start(webApp("off", 1)), 1)
		m.act(Stop, "off")
		m.act(Stop, "web-1")
		m.reboot()
		m.wantState("web", 0, Launching)
		pass(time.Second)
		m.wantState("web", 0, Online)
		m.wantState("web", 1, Stopped)
		m.wantState("off", 0, Stopped)
	})
}

// A daemon that dies in the middle of a scale: places that are missing are
// made, those that were to go do.
func TestRecoverMidScale(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 3)), 3)
		go m.sup().Scale(m.t.Context(), "web", "1")
		pass(time.Second)
		m.successor()
		if n := len(m.sup().List()); n != 3 {
			t.Errorf("%d places while two are ending", n)
		}
		pass(3 * time.Second)
		if n := len(m.sup().List()); n != 1 {
			t.Errorf("%d places, want 1", n)
		}
		m.crash()
		m.disk["web"].App.Instances = 3
		m.boot()
		pass(time.Second)
		for i := range 3 {
			m.wantState("web", i, Online)
		}
		if ids := map[int]bool{m.status("web", 0).ID: true, m.status("web", 1).ID: true, m.status("web", 2).ID: true}; len(ids) != 3 {
			t.Errorf("ids %v", slices.Collect(maps.Keys(ids)))
		}
		allOK(t, m.scale("web", "4"), 1)
	})
}

// A delete goes on where the daemon before was.
func TestRecoverMidDelete(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 2)), 2)
		go m.sup().Act(m.t.Context(), Delete, []string{"web"}, nil)
		pass(time.Second)
		m.proc("web", 0).kill("SIGKILL") // one of the two is gone already
		m.successor()
		m.wantState("web", 1, Stopping)
		if o := failed(t, m.start(webApp("web", 1)), 1); !strings.Contains(o.Reason, "is being deleted") {
			t.Errorf("%+v", o)
		}
		pass(3 * time.Second)
		if len(m.sup().List()) != 0 || m.record("web") != "" {
			t.Errorf("left: %+v, %s", m.sup().List(), m.record("web"))
		}
		allOK(t, m.start(webApp("web", 1)), 1)
	})
}

// The first instance that shows itself must not lose the others' records.
func TestRecoverKeepsTheRecordWhole(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 20)), 20)
		m.crash()
		m.mu.Lock()
		short := 0
		m.onCommit = func() {
			if n := len(m.disk["web"].Instances); n != 20 {
				short = n
			}
		}
		m.mu.Unlock()
		m.boot()
		synctest.Wait()
		m.mu.Lock()
		m.onCommit = nil
		m.mu.Unlock()
		if short != 0 {
			t.Errorf("a record with %d of 20 instances was written", short)
		}
		if n := len(m.procs); n != 20 {
			t.Errorf("%d processes", n)
		}
	})
}

// More facts at once than a channel holds.
func TestRecoverManyMissedFacts(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		allOK(t, m.start(app), 1)
		m.flood = 100
		m.successor()
		m.wantState("web", 0, Online)
	})
}

func TestRecoverLaunching(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.WaitReady = true
		m.will(life{tells: 5 * time.Second})
		go m.sup().Start(m.t.Context(), []config.App{app}, false)
		pass(time.Second)
		m.successor()
		m.wantState("web", 0, Launching)
		pass(4 * time.Second)
		if s := m.wantState("web", 0, Online); s.Gen != 1 {
			t.Errorf("gen %d", s.Gen)
		}
	})
}

func TestRecoverWaitingTriesAgain(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(crasher)
		app := webApp("web", 1)
		app.RestartDelay = config.Duration(time.Hour)
		m.start(app)
		m.will(server)
		m.successor()
		pass(time.Second)
		if s := m.wantState("web", 0, Online); s.Streak.Deaths != 1 {
			t.Errorf("streak %+v", s.Streak)
		}
	})
}

// A watched app is watched again, a stopped one is not.
func TestRecoverWatches(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(watched("web", 1)), 1)
		allOK(t, m.start(watched("off", 1)), 1)
		m.act(Stop, "off")
		m.crash()
		clear(m.watched)
		m.boot()
		if !m.isWatched("web") || m.isWatched("off") {
			t.Errorf("watched: %v", slices.Collect(maps.Keys(m.watched)))
		}
		m.change("web", "a.js")
		pass(time.Second)
		m.wantGens("web", 2)
	})
}

// Processes without a record are named and left alone.
func TestRecoverStranger(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.crash()
		clear(m.disk)
		m.boot()
		if e := m.events("web"); len(e) != 1 || !strings.Contains(e[0], "there is no record of it") {
			t.Errorf("%q", e)
		}
		if got := m.alive("web", 0); len(got) != 1 {
			t.Errorf("alive %v", got)
		}
	})
}
