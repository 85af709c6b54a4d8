package supervisor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

func watched(name string, n int) config.App {
	app := webApp(name, n)
	app.Watch = []string{"/srv/" + name}
	return app
}

// change reports changed files.
func (m *machine) change(app string, paths ...string) {
	m.t.Helper()
	m.mu.Lock()
	f := m.watched[app]
	m.mu.Unlock()
	if f == nil {
		m.t.Fatalf("%s is not watched", app)
	}
	f(paths)
	synctest.Wait()
}

func (m *machine) isWatched(app string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watched[app] != nil
}

func (m *machine) wantGens(app string, want ...int) {
	m.t.Helper()
	synctest.Wait()
	var got []int
	for _, s := range m.sup().List() {
		if s.App.Name == app {
			got = append(got, s.Gen)
		}
	}
	if !slices.Equal(got, want) {
		m.t.Errorf("generations of %s: %v, want %v", app, got, want)
	}
}

func TestRolloutIsOneByOne(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 3)), 3)
		m.will(life{listens: time.Second, dies: time.Minute})
		c := m.async(func() []Outcome { return m.act(Reload, "web") })
		m.wantGens("web", 2, 1, 1)
		pass(time.Second)
		m.wantGens("web", 2, 2, 1)
		pass(time.Second)
		m.wantGens("web", 2, 2, 2)
		if !c.open() {
			t.Error("answered before the last one is ready")
		}
		pass(time.Second)
		allOK(t, c.now(), 3)
	})
}

// The caller of a long rollout leaves: it goes on, and the app still answers.
func TestRolloutWithoutItsCaller(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 40)), 40)
		m.will(life{listens: time.Second, dies: time.Millisecond})
		ctx, cancel := context.WithTimeout(m.t.Context(), 1500*time.Millisecond)
		defer cancel()
		began := time.Now()
		r, err := m.sup().Act(ctx, Reload, []string{"web"}, nil)
		if took := time.Since(began); err != nil || took != 1500*time.Millisecond {
			t.Fatalf("after %s: %v", took, err)
		}
		if len(r) != 2 || !r[0].OK || r[1].OK || !strings.Contains(r[1].Reason, "goes on in the background") {
			t.Errorf("%+v", r)
		}
		pass(30 * time.Second)
		began = time.Now()
		allOK(t, m.act(Reset, "web-0"), 1)
		if took := time.Since(began); took != 0 {
			t.Errorf("the app was deaf for %s", took)
		}
		pass(10 * time.Second)
		for i := range 40 {
			if s := m.wantState("web", i, Online); s.Gen != 2 {
				t.Errorf("web-%d: generation %d", i, s.Gen)
			}
		}
	})
}

func TestRolloutStopsAtTheFirstFailure(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 3)
		allOK(t, m.start(app), 3)
		m.willBy(func(l Launch) life {
			if l.Index == 1 {
				return crasher
			}
			return server
		})
		app.Env = map[string]string{"V": "2"}
		app.Instances = 5
		r := m.reload(app)
		if len(r) != 3 || !r[0].OK || r[1].OK || r[2].OK || r[2].Reason != "left as it was, because web-1 failed" {
			t.Fatalf("%+v", r)
		}
		m.wantGens("web", 2, 2, 1)
		// What is on record is what was proven: the old spec.
		if strings.Contains(m.record("web"), `"V":"2"`) {
			t.Error("the new spec is on record")
		}
		m.will(server)
		allOK(t, m.act(Reload, "web"), 3) // brings all back to it
		for _, s := range m.sup().List() {
			if s.App.Env["V"] == "2" {
				t.Errorf("web-%d has the spec of the failed rollout", s.Index)
			}
		}
		allOK(t, m.reload(app), 5)
		m.wantGens("web", 4, 4, 3, 1, 1)
		app.Instances = 2
		allOK(t, m.reload(app), 5) // two reloaded, three gone
		pass(time.Second)
		if n := len(m.sup().List()); n != 2 {
			t.Errorf("%d instances, want 2", n)
		}
	})
}

func TestWatchDuringRolloutCausesOneMore(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(watched("web", 2)), 2)
		m.will(life{listens: time.Second, dies: time.Millisecond})
		m.change("web", "a.js")
		m.wantGens("web", 2, 1)
		for range 5 {
			m.change("web", "b.js")
			pass(10 * time.Millisecond)
		}
		pass(10 * time.Second)
		m.wantGens("web", 3, 3)
	})
}

func TestWatchReachesWhatCrashed(t *testing.T) {
	bubble(t, func(m *machine) {
		app := watched("web", 1)
		app.MaxRestarts = 1
		m.will(crasher)
		m.start(app)
		m.wantState("web", 0, Errored)
		m.will(server)
		m.change("web", "fixed.js")
		pass(time.Second)
		m.wantState("web", 0, Online)
	})
}

func TestStoppedAppsAreLeftAlone(t *testing.T) {
	bubble(t, func(m *machine) {
		app := watched("web", 2)
		app.CronRestart = "* * * * *"
		allOK(t, m.start(app), 2)
		m.mu.Lock()
		changed := m.watched["web"]
		m.mu.Unlock()
		slow := m.async(func() []Outcome { return m.act(Stop, "web") })
		changed([]string{"late.js"}) // on its way when the stop came
		slow.wait()
		if m.isWatched("web") {
			t.Error("a stopped app is watched")
		}
		pass(time.Hour)
		m.wantGens("web", 1, 1)
		for i := range 2 {
			m.wantState("web", i, Stopped)
		}
		allOK(t, m.act(Start, "web-0"), 1)
		m.change("web", "x.js")
		pass(time.Second)
		m.wantGens("web", 3, 1) // the one that is stopped stays so
		m.act(Delete, "web")
		if m.isWatched("web") {
			t.Error("a deleted app is watched")
		}
	})
}

func TestBuild(t *testing.T) {
	bubble(t, func(m *machine) {
		app := watched("web", 1)
		app.Build = "make"
		result := make(chan error)
		m.build = func(ctx context.Context) error {
			select {
			case err := <-result:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		allOK(t, m.start(app), 1)
		m.change("web", "a.go", "b.go", "c.go", "d.go", "e.go")
		m.wantGens("web", 1)
		if e := m.events("web"); !strings.HasSuffix(e[len(e)-1], "changed: a.go, b.go, c.go and 2 more") {
			t.Errorf("%q", e[len(e)-1])
		}
		result <- errors.New("a.go:1: syntax error")
		m.wantGens("web", 1)
		if e := m.events("web"); !strings.Contains(e[len(e)-1], "the old version stays") || !strings.Contains(e[len(e)-1], "syntax error") {
			t.Errorf("%q", e[len(e)-1])
		}
		// What changes during a build is built again, once, before anything starts.
		m.change("web", "a.go")
		m.change("web", "b.go")
		m.change("web", "c.go")
		result <- nil
		m.wantGens("web", 1)
		result <- nil
		pass(time.Second)
		m.wantGens("web", 2)
		if m.builds != 3 {
			t.Errorf("%d builds, want 3", m.builds)
		}
		// A stop while a build runs: it is not for the stopped.
		m.change("web", "a.go")
		m.act(Stop, "web")
		result <- nil
		pass(time.Second)
		m.wantState("web", 0, Stopped)
		allOK(t, m.act(Start, "web"), 1)
		m.change("web", "a.go") // left running: delete ends it
		allOK(t, m.act(Delete, "web"), 1)
	})
}

func TestCron(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		app.CronRestart = "*/10 * * * *" // the bubble's time begins at midnight
		allOK(t, m.start(app), 2)
		pass(9 * time.Minute)
		m.wantGens("web", 1, 1)
		pass(2 * time.Minute)
		m.wantGens("web", 2, 2)
		for range 5 { // verbs do not move the clock
			pass(9 * time.Minute)
			m.act(Reset, "web")
			pass(time.Minute)
		}
		m.wantGens("web", 7, 7)
		app.CronRestart = ""
		allOK(t, m.reload(app), 2)
		pass(time.Hour)
		m.wantGens("web", 8, 8)
	})
}

func TestMemoryLimit(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		app.MaxMemory = 100
		allOK(t, m.start(app), 2)
		measure := func(mem ...uint64) {
			by := map[int]Usage{}
			for id, n := range mem {
				by[id] = Usage{Memory: n}
			}
			m.sup().Measured(by)
			pass(time.Second)
		}
		pass(memoryPause)
		measure(100, 100)
		m.wantGens("web", 1, 1)
		measure(50, 101)
		m.wantGens("web", 1, 2)
		if s := m.status("web", 1); s.Memory != 101 {
			t.Errorf("memory %d", s.Memory)
		}
		measure(50, 101) // maybe a reading of the one before
		m.wantGens("web", 1, 2)
		pass(memoryPause)
		m.will(crasher) // a failing reload is not tried at every reading
		for range 20 {
			measure(50, 101)
		}
		m.wantGens("web", 1, 3)
		m.wantState("web", 1, Online)
		pass(memoryAgain)
		measure(50, 101)
		m.wantGens("web", 1, 4)
		m.act(Stop, "web")
		pass(memoryPause)
		measure(500, 500)
		m.wantState("web", 0, Stopped)
	})
}

func TestScale(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 2)), 2)
		allOK(t, m.scale("web", "+2"), 2)
		if s := m.wantState("web", 3, Online); s.ID != 3 {
			t.Errorf("id %d", s.ID)
		}
		down := m.async(func() []Outcome { return m.scale("web", "1") })
		pass(time.Second)
		m.wantState("web", 3, Stopping)
		allOK(t, down.wait(), 3)
		if l := m.sup().List(); len(l) != 1 || l[0].State != Online {
			t.Errorf("%+v", l)
		}
		if !slices.Contains(m.released, "web-3") {
			t.Errorf("released %v", m.released)
		}
		allOK(t, m.scale("web", "2"), 1)
		if s := m.wantState("web", 1, Online); s.ID != 4 {
			t.Errorf("id %d: ids are not used twice", s.ID)
		}
		for _, s := range m.sup().List() { // also of those that were there before: it is in their environment, and saved
			if s.App.Instances != 2 {
				t.Errorf("web-%d is one of %d", s.Index, s.App.Instances)
			}
		}
		for target, count := range map[string]string{"web": "0", "web-1": "3", "nobody": "3", "web ": "x"} {
			if _, err := m.sup().Scale(m.t.Context(), target, count); err == nil {
				t.Errorf("scale %q %q: no error", target, count)
			}
		}
		if _, err := m.sup().Scale(m.t.Context(), "web", "many"); err == nil {
			t.Error("scale to many")
		}
	})
}

// Scaled down and up again at once: a place has one instance, and its
// listeners are not closed under the new one.
func TestScaleUpBeforeDownIsDone(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 2)), 2)
		down := m.async(func() []Outcome { return m.scale("web", "1") })
		pass(time.Second)
		up := m.async(func() []Outcome { return m.scale("web", "2") })
		m.wantState("web", 1, Stopping)
		failed(t, down.now(), 1)
		allOK(t, up.wait(), 1)
		pass(time.Minute)
		if s := m.wantState("web", 1, Online); s.ID != 1 || s.Gen != 2 {
			t.Errorf("%+v", s)
		}
		if slices.Contains(m.released, "web-1") {
			t.Errorf("released %v", m.released)
		}
		m.act(Delete, "web")
		if len(m.sup().List()) != 0 || len(m.alive("web", 1)) != 0 {
			t.Error("something is left")
		}
	})
}

func TestScaleDuringRollout(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		allOK(t, m.start(app), 2)
		m.will(life{listens: time.Second, dies: time.Millisecond})
		app.Env = map[string]string{"V": "2"}
		roll := m.async(func() []Outcome { return m.reload(app) })
		up := m.async(func() []Outcome { return m.scale("web", "4") })
		allOK(t, up.wait(), 2)
		allOK(t, roll.wait(), 4)
		for i := range 4 {
			if s := m.wantState("web", i, Online); s.App.Env["V"] != "2" {
				t.Errorf("web-%d has the old spec", i)
			}
		}
		if s := m.status("web", 0); s.App.Instances != 4 && !strings.Contains(m.record("web"), `"instances":4`) {
			t.Error("the rollout undid the scale")
		}
		roll = m.async(func() []Outcome { return m.act(Reload, "web") })
		allOK(t, m.scale("web", "1"), 3)
		allOK(t, roll.wait(), 1)
		if n := len(m.sup().List()); n != 1 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestDelete(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		allOK(t, m.start(webApp("web", 2)), 2)
		if _, err := m.sup().Act(m.t.Context(), Delete, []string{"web-1"}, nil); err == nil {
			t.Error("one of two was deleted alone")
		}
		del := m.async(func() []Outcome { return m.act(Delete, "web") })
		// Until it is gone nobody gets its name, its places, or an empty answer.
		for _, r := range [][]Outcome{m.start(webApp("web", 1)), m.act(Restart, "web"), m.act(Delete, "web")} {
			if o := failed(t, r, 1); !strings.Contains(o.Reason, "is being deleted") {
				t.Errorf("%+v", o)
			}
		}
		if m.record("web") == "" {
			t.Error("forgotten while its processes live")
		}
		allOK(t, del.wait(), 2)
		if len(m.sup().List()) != 0 || m.record("web") != "" {
			t.Errorf("left: %v, %s", m.sup().List(), m.record("web"))
		}
		r := m.start(webApp("web", 1))
		allOK(t, r, 1)
		if r[0].ID != 0 {
			t.Errorf("id %d: an empty list counts from 0", r[0].ID)
		}
		allOK(t, m.act(Delete, "web-0"), 1) // the only instance is the app
	})
}

func TestDeleteOfWhatDoesNotDie(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(life{listens: time.Millisecond, immortal: true})
		allOK(t, m.start(webApp("web", 1)), 1)
		o := failed(t, m.act(Delete, "web"), 1)
		if !strings.Contains(o.Reason, "still alive") || m.record("web") == "" {
			t.Errorf("%+v", o)
		}
		m.wantState("web", 0, Stopping)
		m.proc("web", 0).kill("SIGKILL")
		if len(m.sup().List()) != 0 || m.record("web") != "" {
			t.Error("not forgotten after its end")
		}
	})
}

func TestDeleteWhileReloading(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 3)), 3)
		m.will(hermit)
		roll := m.async(func() []Outcome { return m.act(Reload, "web") })
		allOK(t, m.act(Delete, "web"), 3)
		failed(t, roll.now(), 3)
		for i := range 3 {
			if len(m.alive("web", i)) != 0 {
				t.Errorf("alive: %v", m.alive("web", i))
			}
		}
	})
}

func TestStartWithNewSpecRestarts(t *testing.T) {
	bubble(t, func(m *machine) {
		app := watched("web", 3)
		allOK(t, m.start(app), 3)
		app.Instances, app.Env = 2, map[string]string{"V": "2"}
		allOK(t, m.start(app), 2)
		pass(time.Second)
		m.wantGens("web", 2, 2)
		app.Instances = 4
		allOK(t, m.start(app), 4)
		m.wantGens("web", 3, 3, 1, 1)
		r, err := m.sup().Act(m.t.Context(), Restart, []string{"web"}, func(a config.App) config.App {
			a.Inherited = map[string]string{"TOKEN": "x"}
			return a
		})
		if err != nil {
			t.Fatal(err)
		}
		allOK(t, r, 4)
		if m.proc("web", 3).l.App.Inherited["TOKEN"] != "x" || !strings.Contains(m.record("web"), "TOKEN") {
			t.Error("the new environment was not taken over")
		}
	})
}

// A restart with another config overrules a rollout; the rollout's spec must
// not come back after it.
func TestRestartOverrulesRollout(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		allOK(t, m.start(app), 2)
		m.will(life{listens: time.Second, dies: time.Millisecond})
		a, b := app, app
		a.Env, b.Env = map[string]string{"V": "a"}, map[string]string{"V": "b"}
		roll := m.async(func() []Outcome { return m.reload(a) })
		allOK(t, m.start(b), 2)
		failed(t, roll.now(), 2)
		pass(time.Minute)
		for i := range 2 {
			if s := m.wantState("web", i, Online); s.App.Env["V"] != "b" {
				t.Errorf("web-%d has %v", i, s.App.Env)
			}
		}
		if strings.Contains(m.record("web"), `"V":"a"`) {
			t.Error("the rollout's spec is on record")
		}
	})
}

func TestShutdown(t *testing.T) {
	for _, keep := range []bool{true, false} {
		bubble(t, func(m *machine) {
			m.will(steady)
			allOK(t, m.start(webApp("web", 2)), 2)
			allOK(t, m.start(webApp("api", 1)), 1)
			m.act(Stop, "api")
			down := m.async(func() []Outcome { return m.sup().Shutdown(m.t.Context(), keep) })
			if o := failed(t, m.start(webApp("late", 1)), 1); o.Reason != "gpm is ending" {
				t.Errorf("%+v", o)
			}
			allOK(t, down.wait(), 3)
			for _, p := range m.procs {
				if p.alive {
					t.Errorf("pid %d lives", p.pid)
				}
			}
			if !keep {
				if len(m.disk) != 0 {
					t.Errorf("on record: %v", slices.Collect(maps.Keys(m.disk)))
				}
				return
			}
			for name := range m.disk {
				if strings.Contains(m.record(name), "processes") {
					t.Errorf("processes are on record: %s", m.record(name))
				}
			}
			m.sup().Close()
			m.boot() // what was wanted is started, what was not is not
			pass(time.Second)
			m.wantState("web", 0, Online)
			m.wantState("web", 1, Online)
			m.wantState("api", 0, Stopped)
		})
	}
}

func TestRegister(t *testing.T) {
	bubble(t, func(m *machine) {
		m.sup().Register([]config.App{webApp("web", 2), webApp("api", 1)})
		m.sup().Register([]config.App{webApp("web", 7)}) // the name is taken
		if l := m.sup().List(); len(l) != 3 || l[0].State != Stopped || len(m.procs) != 0 {
			t.Errorf("%+v", l)
		}
		allOK(t, m.act(Start, "all"), 3)
	})
}
