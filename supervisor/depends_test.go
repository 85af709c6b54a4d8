package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

// needs is an app that depends on others.
func needs(name string, n int, on ...string) config.App {
	app := webApp(name, n)
	app.DependsOn = on
	return app
}

// lives makes each app live by its own script; the others are servers.
func (m *machine) lives(by map[string]life) {
	m.willBy(func(l Launch) life {
		if l, ok := by[l.App.Name]; ok {
			return l
		}
		return server
	})
}

func (m *machine) startAll(apps ...config.App) []Outcome {
	return m.sup().Start(m.t.Context(), apps, false)
}

func (m *machine) launched(app string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.procs {
		if p.l.App.Name == app {
			n++
		}
	}
	return n
}

// standbys are the orders for some.
func (m *machine) standbys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.reserved)
}

// watchEnds returns a look at the apps whose processes were told to end, in that
// order as far as it was looked at.
func (m *machine) watchEnds() func() []string {
	var order []string
	told := map[*fakeProc]bool{}
	look := func() []string {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range m.procs {
			if len(p.signals) > 0 && !told[p] {
				told[p] = true
				order = append(order, p.l.App.Name)
			}
		}
		return order
	}
	return look
}

func (m *machine) wantReason(app string, index int, state State, reason string) Status {
	m.t.Helper()
	s := m.wantState(app, index, state)
	if s.Reason != reason {
		m.t.Errorf("%s-%d is %s: %q, want %q", app, index, state, s.Reason, reason)
	}
	return s
}

func slow(d time.Duration) life {
	return life{listens: d, dies: 20 * time.Millisecond, lastWords: "bye"}
}

// probedBus is ready when it says so.
func probedBus(n int) config.App {
	app := webApp("bus", n)
	app.WaitReady = true
	return app
}

func TestStartWaitsForWhatItDependsOn(t *testing.T) {
	bubble(t, func(m *machine) {
		m.willBy(func(l Launch) life {
			if l.App.Name != "bus" {
				return server
			}
			return life{tells: time.Duration(2+2*l.Index) * time.Second, dies: time.Millisecond}
		})
		web := needs("web", 2, "bus")
		web.Standby = 1
		c := m.async(func() []Outcome { return m.startAll(web, probedBus(2)) })
		for range 2 {
			for i := range 2 {
				m.wantReason("web", i, Pending, "waits for bus to be online")
			}
			pass(1900 * time.Millisecond)
		}
		if m.launched("web") != 0 || len(m.standbys()) != 0 || !c.open() {
			t.Fatalf("%d processes, standbys %v", m.launched("web"), m.standbys())
		}
		pass(300 * time.Millisecond)
		allOK(t, c.now(), 4)
		if m.launched("web") != 2 || !slices.Equal(m.standbys(), []string{"web 1"}) {
			t.Errorf("%d processes, standbys %v", m.launched("web"), m.standbys())
		}
		if e := m.events("web"); !slices.Contains(e, "wait: waits for bus to be online") {
			t.Errorf("%q", e)
		}
	})
}

func TestStartAlongAChain(t *testing.T) {
	bubble(t, func(m *machine) {
		var order []string
		m.willBy(func(l Launch) life { order = append(order, l.App.Name); return slow(time.Second) })
		apps := []config.App{needs("a", 1, "b", "c"), needs("b", 1, "c", "d"), needs("c", 1, "d"), webApp("d", 1)}
		allOK(t, m.startAll(apps...), 4)
		if !slices.Equal(order, []string{"d", "c", "b", "a"}) {
			t.Errorf("%v", order)
		}
	})
}

// The dependency fails: so does the start, and it says why. When the
// dependency comes up later, the app goes on by itself.
func TestDependencyFails(t *testing.T) {
	bubble(t, func(m *machine) {
		m.lives(map[string]life{"bus": crasher})
		bus := webApp("bus", 1)
		bus.MaxRestarts = 2
		r := m.startAll(needs("web", 2, "mid"), needs("mid", 1, "bus"), bus)
		failed(t, r, 4)
		if r[0].Name != "bus" || r[0].State != Errored || len(r[0].Tail) == 0 {
			t.Errorf("%+v", r[0])
		}
		const why = "waits for bus, which is errored; gpm start bus lets it go on"
		m.wantReason("mid", 0, Pending, why)
		if s := m.wantReason("web", 1, Pending, "waits for mid, which "+why); !s.Wanted {
			t.Error("it is not wanted")
		}
		if o := r[3]; o.Name != "web" || o.Reason != "waits for mid, which "+why || o.Tail != nil {
			t.Errorf("%+v", o)
		}
		pass(time.Hour)
		if m.launched("web")+m.launched("mid") != 0 {
			t.Error("started all the same")
		}
		m.will(server)
		allOK(t, m.act(Start, "bus"), 1)
		pass(time.Second)
		m.wantState("mid", 0, Online)
		m.wantState("web", 1, Online)
	})
}

// A dependency that fails and is tried again: the caller hears of the failure
// as he does of the dependency's own, and the app starts with a later try.
func TestDependencyIsTriedAgain(t *testing.T) {
	bubble(t, func(m *machine) {
		tries := 0
		m.willBy(func(l Launch) life {
			if l.App.Name == "bus" {
				if tries++; tries < 6 {
					return crasher
				}
			}
			return server
		})
		r := m.startAll(webApp("bus", 1), needs("web", 1, "bus"))
		failed(t, r, 2)
		m.wantReason("web", 0, Pending, "waits for bus, which waits for its restart")
		pass(10 * time.Second)
		m.wantState("bus", 0, Online)
		m.wantState("web", 0, Online)
	})
}

func TestDependencyIsStoppedMeanwhile(t *testing.T) {
	bubble(t, func(m *machine) {
		m.lives(map[string]life{"bus": hermit})
		c := m.async(func() []Outcome { return m.startAll(probedBus(1), needs("web", 1, "bus")) })
		pass(time.Second)
		allOK(t, m.act(Stop, "bus"), 1)
		failed(t, c.now(), 2)
		m.wantReason("web", 0, Pending, "waits for bus, which is stopped; gpm start bus lets it go on")
		allOK(t, m.act(Delete, "bus"), 1)
		m.wantReason("web", 0, Pending, "waits for bus, which is not in the list; start it from its config file")
		m.will(server)
		failed(t, m.act(Restart, "web"), 1)
		failed(t, m.scale("web", "2"), 1)
		allOK(t, m.start(webApp("bus", 1)), 1)
		pass(time.Second)
		m.wantState("web", 0, Online)
		m.wantState("web", 1, Online)
		allOK(t, m.act(Delete, "bus"), 1)
		allOK(t, m.act(Stop, "web"), 2)
		failed(t, m.act(Start, "web"), 2)
		allOK(t, m.act(Stop, "web"), 2) // a stop ends the waiting
		m.wantState("web", 0, Stopped)
		allOK(t, m.start(webApp("bus", 1)), 1)
		pass(time.Second)
		m.wantState("web", 0, Stopped)
	})
}

// A part of a dependency is not enough, until nobody wants the other part.
func TestAllInstancesOfADependency(t *testing.T) {
	bubble(t, func(m *machine) {
		m.willBy(func(l Launch) life {
			if l.App.Name == "bus" && l.Index == 1 {
				return crasher
			}
			return server
		})
		bus := webApp("bus", 2)
		bus.MaxRestarts = 2
		m.startAll(bus, needs("web", 1, "bus"))
		m.wantReason("web", 0, Pending, "waits for bus-1, which is errored; gpm start bus-1 lets it go on")
		allOK(t, m.scale("bus", "1"), 1)
		pass(time.Second)
		m.wantState("web", 0, Online)
	})
}

// What is started by its name brings what it needs and what does not run.
func TestStartBringsWhatItNeeds(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("db", 1), needs("bus", 2, "db"), needs("web", 1, "bus")), 4)
		allOK(t, m.act(Stop, "all"), 4)
		allOK(t, m.act(Start, "bus-0"), 2)
		m.lives(map[string]life{"bus": slow(time.Second)})
		for _, v := range []Verb{Start, Restart, Reload} {
			allOK(t, m.act(Stop, "web", "bus-1"), 2)
			r := m.act(v, "web")
			allOK(t, r, 2)
			if r[0].Name != "bus" || r[0].Index != 1 || r[0].NeededBy != "web" || r[1].Name != "web" || r[1].NeededBy != "" {
				t.Errorf("%s: %+v", v, r)
			}
		}
		if m.launched("db") != 2 {
			t.Errorf("db was started %d times", m.launched("db"))
		}
		// What is up is left alone, whatever runs it.
		allOK(t, m.act(Restart, "web"), 1)
	})
}

// An offer is for what is not there or does not run.
func TestOffers(t *testing.T) {
	bubble(t, func(m *machine) {
		bus := webApp("bus", 1)
		start := func() []Outcome {
			return m.sup().Start(m.t.Context(), []config.App{needs("web", 1, "bus")}, false, bus, webApp("other", 1))
		}
		r := start()
		allOK(t, r, 2)
		if r[0].Name != "bus" || r[0].NeededBy != "web" {
			t.Errorf("%+v", r)
		}
		bus.Env = map[string]string{"V": "2"}
		allOK(t, start(), 1)
		if s := m.wantState("bus", 0, Online); s.Gen != 1 || s.App.Env != nil {
			t.Errorf("it was touched: %+v", s)
		}
		allOK(t, m.act(Stop, "bus"), 1)
		allOK(t, start(), 2)
		if s := m.wantState("bus", 0, Online); s.Gen != 2 || s.App.Env["V"] != "2" {
			t.Errorf("generation %d with %v", s.Gen, s.App.Env)
		}
	})
}

// Down goes first who needs, then what is needed.
func TestStopInOrder(t *testing.T) {
	for what, end := range map[string]func(m *machine) []Outcome{
		"stop":     func(m *machine) []Outcome { return m.act(Stop, "all") },
		"delete":   func(m *machine) []Outcome { return m.act(Delete, "db", "bus", "web") },
		"shutdown": func(m *machine) []Outcome { return m.sup().Shutdown(m.t.Context(), true) },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(m *machine) {
				m.will(life{listens: time.Millisecond, dies: 2 * time.Second})
				allOK(t, m.startAll(webApp("db", 1), needs("bus", 1, "db"), needs("web", 2, "bus", "db"), needs("deaf", 1, "db")), 5)
				m.mu.Lock()
				for _, p := range m.procs {
					if p.l.App.Name == "deaf" {
						p.life.immortal = true // it cannot be ended, which keeps nobody else
					}
				}
				m.mu.Unlock()
				ends := m.watchEnds()
				c := m.async(func() []Outcome { return end(m) })
				for range 60 {
					ends()
					pass(time.Second)
				}
				got := ends()
				got = slices.DeleteFunc(got, func(s string) bool { return s == "deaf" })
				if !slices.Equal(got, []string{"web", "web", "bus", "db"}) {
					t.Errorf("told to end: %v", got)
				}
				for _, o := range c.now() {
					if o.OK == (o.Name == "deaf") {
						t.Errorf("%+v", o)
					}
				}
			})
		})
	}
}

// Alone a dependency may be stopped; who stops it hears who uses it.
func TestStopOfWhatIsUsed(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus"), needs("api", 1, "bus"), needs("idle", 1, "bus")), 4)
		allOK(t, m.act(Stop, "idle"), 1)
		r := m.act(Stop, "bus")
		allOK(t, r, 1)
		if !slices.Equal(r[0].UsedBy, []string{"api", "web"}) {
			t.Errorf("%+v", r[0])
		}
		m.wantState("web", 0, Online)
		allOK(t, m.act(Start, "bus"), 1)
		if r = m.act(Stop, "bus", "api"); !slices.Equal(r[1].UsedBy, []string{"web"}) || r[0].UsedBy != nil {
			t.Errorf("%+v", r)
		}
		// A crash waits for nobody: web has done without bus.
		m.proc("web", 0).kill("SIGSEGV")
		pass(time.Second)
		if s := m.wantState("web", 0, Online); s.Gen != 2 {
			t.Errorf("generation %d", s.Gen)
		}
		m.will(crasher)
		m.proc("web", 0).kill("SIGSEGV")
		pass(200 * time.Millisecond)
		m.wantState("web", 0, Waiting)
		m.will(server)
		pass(time.Minute)
		m.wantState("web", 0, Online)
	})
}

func TestCrashOfWhatIsUsed(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus")), 2)
		m.proc("bus", 0).kill("SIGKILL")
		pass(time.Second)
		allOK(t, m.act(Restart, "bus"), 1)
		allOK(t, m.act(Reload, "bus"), 1)
		m.lives(map[string]life{"bus": crasher})
		m.proc("bus", 0).kill("SIGKILL")
		pass(time.Hour)
		m.wantState("bus", 0, Errored)
		if s := m.wantState("web", 0, Online); s.Gen != 1 || len(m.proc("web", 0).got()) != 0 {
			t.Errorf("it was touched: %+v", s)
		}
	})
}

// Of several, who needs has his turn when what he needs is online again; if
// that fails, he is left as he was.
func TestRestartInOrder(t *testing.T) {
	for _, v := range []Verb{Restart, Reload} {
		t.Run(string(v), func(t *testing.T) {
			bubble(t, func(m *machine) {
				m.lives(map[string]life{"bus": {tells: time.Second, dies: time.Second}})
				allOK(t, m.startAll(needs("web", 2, "bus"), probedBus(1), webApp("other", 1)), 4)
				m.lives(map[string]life{"bus": {tells: 5 * time.Second, dies: time.Second}})
				c := m.async(func() []Outcome { return m.act(v, "all") })
				pass(4 * time.Second)
				m.wantGens("web", 1, 1)
				m.wantGens("other", 2)
				m.wantGens("bus", 2)
				for i := range 2 {
					m.wantState("web", i, Online)
				}
				allOK(t, c.wait(), 4)
				m.wantGens("web", 2, 2)
				m.lives(map[string]life{"bus": crasher})
				r := m.act(v, "all")
				if len(r) != 4 || r[0].Name != "bus" || r[0].OK {
					t.Fatalf("%+v", r)
				}
				for _, o := range r[2:] {
					if o.OK || o.Name != "web" || o.ID < 0 || o.Reason != "left as it was, because bus failed" {
						t.Errorf("%+v", o)
					}
				}
				m.wantGens("web", 2, 2)
				m.wantState("web", 0, Online)
			})
		})
	}
}

// The same with a config that says something new.
func TestStartOfWhatRunsInOrder(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus")), 2)
		m.lives(map[string]life{"bus": {tells: 2 * time.Second, dies: time.Second}})
		c := m.async(func() []Outcome { return m.startAll(needs("web", 1, "bus"), needs("new", 1, "bus"), probedBus(1)) })
		m.wantGens("web", 1)
		m.wantReason("new", 0, Pending, "waits for bus to be online") // a new one shows that it waits
		pass(2 * time.Second)
		m.wantGens("web", 1)
		allOK(t, c.wait(), 3)
		m.wantGens("web", 2)
		m.wantGens("new", 1)
	})
}

// Who does not wait for the answer gets the same order.
func TestBeginInOrder(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus")), 2)
		m.lives(map[string]life{"bus": {tells: 2 * time.Second, dies: time.Second}})
		ctx, leave := context.WithCancel(m.t.Context())
		m.sup().Begin(ctx, []config.App{needs("web", 1, "bus"), needs("new", 1, "bus"), probedBus(1)}, false)
		leave()
		m.wantReason("new", 0, Pending, "waits for bus to be online")
		m.wantGens("web", 1)
		pass(time.Minute)
		m.wantGens("web", 2)
		m.wantState("new", 0, Online)
	})
}

// A verb that still waits for its turn is overruled by a later command.
func TestLaterCommandOverrules(t *testing.T) {
	for _, v := range []Verb{Stop, Abort, Restart, Delete} {
		t.Run(string(v), func(t *testing.T) {
			bubble(t, func(m *machine) {
				allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus")), 2)
				m.lives(map[string]life{"bus": slow(5 * time.Second)})
				c := m.async(func() []Outcome { return m.act(Reload, "all") })
				m.act(v, "web")
				gens := m.launched("web")
				r := c.wait()
				if len(r) != 2 || !r[0].OK || r[1].OK || r[1].Reason != "left as it was, because of a later command" {
					t.Errorf("%+v", r)
				}
				pass(time.Minute)
				if m.launched("web") != gens {
					t.Error("it was reloaded all the same")
				}
			})
		})
	}
}

// An abort of all ends what runs and what has not had its turn.
func TestAbortOfSeveral(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("bus", 1), needs("web", 1, "bus")), 2)
		m.lives(map[string]life{"bus": slow(5 * time.Second)})
		c := m.async(func() []Outcome { return m.act(Reload, "all") })
		m.act(Abort, "all")
		failed(t, c.now(), 2)
		pass(time.Minute)
		m.wantGens("web", 1)
	})
}

// What prepares something and has ended well counts as online, also for the
// next daemon and after a reboot.
func TestDependsOnAJob(t *testing.T) {
	bubble(t, func(m *machine) {
		m.lives(map[string]life{"migrate": {exits: 3 * time.Second}})
		job := webApp("migrate", 1)
		job.Autorestart, job.WaitReady = false, true
		c := m.async(func() []Outcome { return m.startAll(job, needs("web", 1, "migrate")) })
		pass(2 * time.Second)
		m.wantReason("web", 0, Pending, "waits for migrate to be online")
		allOK(t, c.wait(), 2)
		m.successor()
		allOK(t, m.act(Restart, "web"), 1)
		m.reboot()
		pass(time.Second)
		m.wantState("web", 0, Online)
		if n := m.launched("migrate"); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		m.lives(map[string]life{"migrate": {exits: time.Second, code: 3}})
		allOK(t, m.act(Stop, "web"), 1)
		failed(t, m.act(Restart, "migrate"), 1)
		r := m.act(Start, "web")
		failed(t, r, 2)
		m.wantReason("web", 0, Pending, "waits for migrate, which is stopped; gpm start migrate lets it go on")
	})
}

// Between the end of a process and the start of the next one the dependency
// fails: who waits in the queue is not left there for ever.
func TestQueueOfWhatWaits(t *testing.T) {
	bubble(t, func(m *machine) {
		web := needs("web", 1, "bus")
		web.QueueTimeout = config.Duration(30 * time.Second)
		bus := webApp("bus", 1)
		bus.MaxRestarts = 1
		m.lives(map[string]life{"web": {listens: time.Millisecond, dies: 2 * time.Second}})
		allOK(t, m.startAll(bus, web), 2)
		c := m.async(func() []Outcome { return m.act(Restart, "web") })
		m.will(crasher)
		m.proc("bus", 0).kill("SIGKILL")
		pass(3 * time.Second)
		failed(t, c.now(), 1)
		m.wantReason("web", 0, Pending, "waits for bus, which is errored; gpm start bus lets it go on")
		released := func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return slices.Contains(m.released, "web-0")
		}
		if released() {
			t.Error("released at once")
		}
		if pass(30 * time.Second); !released() {
			t.Error("never released")
		}
	})
}

func TestCircleIsRefused(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.startAll(webApp("a", 1), needs("b", 1, "a")), 2)
		o := failed(t, m.startAll(needs("a", 1, "b"), webApp("c", 1)), 2)
		if o.Reason != "none of them could start first: a -> b -> a" {
			t.Errorf("%+v", o)
		}
		m.wantGens("a", 1)
		if len(m.sup().List()) != 2 {
			t.Error("a part was started")
		}
		// One that comes about by a rollout under way waits for nobody in vain for ever.
		m.lives(map[string]life{"a": slow(5 * time.Second)})
		roll := m.async(func() []Outcome { return m.reload(needs("a", 1, "c")) })
		late := m.async(func() []Outcome { return m.startAll(needs("c", 1, "a")) })
		allOK(t, roll.wait(), 1)
		late.wait()
		allOK(t, m.act(Stop, "all"), 3)
		c := m.async(func() []Outcome { return m.act(Start, "all") })
		for _, o := range c.now() {
			if o.OK {
				t.Errorf("%+v", o)
			}
		}
		m.wantReason("a", 0, Pending, "waits for c, which waits for a, and so it would wait for itself")
	})
}

// A daemon dies while an app waits: the next one lets it wait on, and start.
func TestNextDaemonKeepsTheOrder(t *testing.T) {
	bubble(t, func(m *machine) {
		m.lives(map[string]life{"bus": {tells: 5 * time.Second, dies: time.Millisecond}})
		m.async(func() []Outcome { return m.startAll(probedBus(1), needs("web", 2, "bus")) })
		pass(time.Second)
		m.successor()
		m.wantReason("web", 1, Pending, "waits for bus to be online")
		pass(10 * time.Second)
		m.wantState("web", 1, Online)
		m.wantGens("bus", 1)
		m.wantGens("web", 1, 1)

		// What runs is adopted, whatever became of what it depends on.
		allOK(t, m.act(Stop, "bus"), 1)
		m.successor()
		for i := range 2 {
			if s := m.wantState("web", i, Online); s.Gen != 1 {
				t.Errorf("generation %d", s.Gen)
			}
		}
		allOK(t, m.act(Start, "bus"), 1)
		m.reboot()
		m.wantReason("web", 0, Pending, "waits for bus to be online")
		for _, e := range m.events("web") {
			if strings.Contains(e, "not in the list") {
				t.Errorf("%q: all are on record", e)
			}
		}
		pass(4 * time.Second)
		if len(m.alive("web", 0)) != 0 {
			t.Error("started before bus was online")
		}
		pass(2 * time.Second)
		m.wantState("web", 0, Online)
	})
}

// Whatever hangs together how: each has its turn after what it depends on.
func TestSorted(t *testing.T) {
	depends := map[string][]string{"a": {"c"}, "b": nil, "c": {"d", "x"}, "d": nil, "e": {"f"}, "f": {"e"}}
	got := fmt.Sprint(sorted([]string{"a", "b", "c", "d", "e", "f"}, func(n string) []string { return depends[n] }))
	if got != "[d c a b f e]" {
		t.Error(got)
	}
}

// Many that wait for each other across many are told in a moment.
func TestLatticeOfWaiting(t *testing.T) {
	bubble(t, func(m *machine) {
		m.lives(map[string]life{"base": crasher})
		base := webApp("base", 1)
		base.MaxRestarts = 1
		apps := []config.App{base}
		below := []string{"base"}
		for i := range 40 {
			l, r := fmt.Sprint("l", i), fmt.Sprint("r", i)
			apps = append(apps, needs(l, 1, below...), needs(r, 1, below...))
			below = []string{l, r}
		}
		failed(t, m.startAll(apps...), 81)
		m.will(server)
		allOK(t, m.act(Start, "base"), 1)
		synctest.Wait()
		pass(time.Minute)
		m.wantState("l39", 0, Online)
	})
}
