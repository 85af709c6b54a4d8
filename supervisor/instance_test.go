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

func TestStartReturnsWhenOnline(t *testing.T) {
	bubble(t, func(m *machine) {
		began := time.Now()
		r := m.start(webApp("web", 3))
		allOK(t, r, 3)
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("ready by listen(): took %s, want 50ms", took)
		}
		for i, o := range r {
			if o.Index != i || o.ID != i || o.State != Online || o.PID == 0 || o.Name != "web" {
				t.Errorf("outcome %d: %+v", i, o)
			}
		}
		if s := m.status("web", 2); s.State != Online || s.PID != r[2].PID || s.Gen != 1 || s.Restarts != 0 || s.Hold != "held" {
			t.Errorf("status %+v", s)
		}
		if want := []string{"web-0 1", "web-1 1", "web-2 1"}; !slices.Equal(slices.Sorted(slices.Values(m.settled)), want) {
			t.Errorf("settled %v", m.settled)
		}
	})
}

// Whoever got his answer sees in the list what he was told.
func TestListAfterAnswer(t *testing.T) {
	bubble(t, func(m *machine) {
		for range 20 {
			m.start(webApp("web", 1))
			if l := m.sup().List(); l[0].State != Online {
				t.Fatalf("online, but listed as %q", l[0].State)
			}
			m.act(Stop, "web")
			if l := m.sup().List(); l[0].State != Stopped {
				t.Fatalf("stopped, but listed as %q", l[0].State)
			}
		}
	})
}

func TestReadyWithoutPort(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(hermit)
		app := webApp("worker", 1)
		app.ListenTimeout = config.Duration(300 * time.Millisecond) // of no concern to what need not listen
		began := time.Now()
		allOK(t, m.start(app), 1)
		if took := time.Since(began); took != settleTime {
			t.Errorf("took %s, want %s", took, settleTime)
		}
	})
}

func TestWaitReady(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.WaitReady = true
		m.will(life{listens: time.Millisecond, tells: 5 * time.Second})
		began := time.Now()
		allOK(t, m.start(app), 1)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %s, want 5s", took)
		}
		m.will(life{listens: time.Millisecond})
		c := m.async(func() []Outcome { return m.act(Restart, "web") })
		pass(8 * time.Second)
		m.wantState("web", 0, Launching) // the second try; the first was ended
		if !slices.Equal(m.procs[1].got(), []string{"SIGINT"}) {
			t.Errorf("signals of the one that is not ready: %v", m.procs[1].got())
		}
		if o := failed(t, c.wait(), 1); !strings.Contains(o.Reason, "did not say 'ready' within listen_timeout (8s)") {
			t.Errorf("reason %q", o.Reason)
		}
	})
}

// Once a generation listened, being alive is not enough any more.
func TestNextGenerationHasToListen(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{deaf: true, lastWords: "waiting for the database"})
		began := time.Now()
		o := failed(t, m.act(Restart, "web"), 1)
		// 20 ms to stop, then twice listen_timeout and kill_timeout.
		if took, want := time.Since(began), 20*time.Millisecond+2*(8+5)*time.Second; took != want {
			t.Errorf("took %s, want %s", took, want)
		}
		if o.State != Waiting || !strings.Contains(o.Reason, "it did not listen within listen_timeout") || len(o.Tail) != 1 || o.Tail[0].Text != "waiting for the database" {
			t.Errorf("outcome %+v", o)
		}
		s := m.status("web", 0)
		if s.Streak.Unstable != 2 {
			t.Errorf("it was never ready, so it was unstable: %+v", s.Streak)
		}
		// Another program need not.
		app := webApp("web", 1)
		app.Args = []string{"--worker"}
		m.will(hermit)
		allOK(t, m.start(app), 1)
	})
}

func TestStartFailsAtTheFirstWait(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(crasher)
		began := time.Now()
		o := failed(t, m.start(webApp("web", 1)), 1)
		if took := time.Since(began); took != 20*time.Millisecond {
			t.Errorf("took %s, want two lives", took)
		}
		if o.State != Waiting || !strings.HasPrefix(o.Reason, "exited with code 1, try 3") || len(o.Tail) != 1 || o.Tail[0].Text != "boom" {
			t.Errorf("outcome %+v", o)
		}
		s := m.wantState("web", 0, Waiting)
		if d := time.Until(s.NextTry); d != 100*time.Millisecond {
			t.Errorf("next try in %s, want 100ms", d)
		}
		m.will(server)
		pass(100*time.Millisecond + 50*time.Millisecond)
		m.wantState("web", 0, Online)
	})
}

// A grandchild may hold the pipes open: the answer waits for the last lines,
// but not for ever, and it is the answer of that moment.
func TestAnswerWithoutLastLines(t *testing.T) {
	bubble(t, func(m *machine) {
		quiet := crasher
		quiet.mumbles = true
		m.will(quiet)
		began := time.Now()
		o := failed(t, m.start(webApp("web", 1)), 1)
		if took := time.Since(began); took != 20*time.Millisecond+tailTime {
			t.Errorf("took %s", took)
		}
		if o.State != Waiting || !strings.Contains(o.Reason, "try 3") {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestSpawnError(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(life{spawn: 40 * time.Second, spawnErr: `start "/srv/web": no such file or directory`})
		o := failed(t, m.start(webApp("web", 1)), 1)
		if !strings.HasPrefix(o.Reason, `start "/srv/web": no such file or directory, try 3`) {
			t.Errorf("reason %q", o.Reason)
		}
		s := m.status("web", 0)
		if s.Streak.Unstable != 2 || s.Exits[0].Uptime != 0 {
			t.Errorf("a slow failure to spawn is no life: %+v", s.Streak)
		}
	})
}

func TestCrashLoopEndsInErrored(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(crasher)
		m.start(webApp("web", 1))
		pass(10 * time.Minute)
		s := m.wantState("web", 0, Errored)
		if s.Gen != 16 || s.Restarts != 15 || len(s.Exits) != exitsKept {
			t.Errorf("gen %d, restarts %d, %d exits", s.Gen, s.Restarts, len(s.Exits))
		}
		if !slices.Contains(m.released, "web-0") {
			t.Error("its listeners were not released")
		}
		// A command gives it as many tries again.
		failed(t, m.act(Restart, "web"), 1)
		pass(10 * time.Minute)
		if s := m.wantState("web", 0, Errored); s.Gen != 32 {
			t.Errorf("gen %d", s.Gen)
		}
		m.will(server)
		allOK(t, m.act(Reload, "web"), 1)
		if s := m.status("web", 0); s.Streak.Deaths != 0 {
			t.Errorf("streak %+v", s.Streak)
		}
	})
}

// While others of its app serve, an instance that will be down for long holds
// up nobody: its listeners go. Alone it keeps them, so that clients can wait.
func TestALongWaitHoldsUpNobody(t *testing.T) {
	for _, n := range []int{1, 2} {
		bubble(t, func(m *machine) {
			m.willBy(func(l Launch) life {
				if l.Index == n-1 && l.Gen > 1 {
					return crasher
				}
				return server
			})
			allOK(t, m.start(webApp("web", n)), n)
			m.proc("web", n-1).kill("SIGSEGV")
			parked := func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return slices.Contains(m.released, fmt.Sprintf("web-%d", n-1))
			}
			for m.status("web", n-1).Streak.Delay <= parkAfter {
				if parked() {
					t.Fatalf("of %d: parked for a wait of %s", n, m.status("web", n-1).Streak.Delay)
				}
				pass(20 * time.Millisecond)
			}
			pass(time.Second)
			if parked() != (n == 2) {
				t.Errorf("of %d: parked %v", n, parked())
			}
		})
	}
}

func TestStabilityForgets(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		for range 3 {
			m.proc("web", 0).kill("SIGSEGV")
			pass(200 * time.Millisecond)
		}
		if s := m.wantState("web", 0, Online); s.Streak.Deaths != 3 || s.Restarts != 3 {
			t.Fatalf("streak %+v, restarts %d", s.Streak, s.Restarts)
		}
		pass(stableAfter)
		if s := m.status("web", 0); s.Streak != (streak{}) || s.Restarts != 3 {
			t.Errorf("streak %+v, restarts %d", s.Streak, s.Restarts)
		}
		m.proc("web", 0).kill("SIGSEGV")
		m.wantState("web", 0, Launching) // at once again
		if e := m.status("web", 0).Exits; e[len(e)-1].Sentence() != "killed by SIGSEGV (not by gpm)" {
			t.Errorf("%q", e[len(e)-1].Sentence())
		}
	})
}

func TestJobsEnd(t *testing.T) {
	bubble(t, func(m *machine) {
		job := webApp("job", 1)
		job.Autorestart = false
		m.will(life{exits: 100 * time.Millisecond, code: 0})
		r := m.start(job)
		allOK(t, r, 1) // it did what it was to do
		if r[0].State != Stopped || !strings.Contains(r[0].Reason, "autorestart is off") {
			t.Errorf("outcome %+v", r[0])
		}
		m.will(crasher)
		if o := failed(t, m.act(Start, "job"), 1); len(o.Tail) == 0 {
			t.Errorf("outcome %+v", o)
		}
		svc := webApp("svc", 1)
		svc.StopExitCodes = []int{7}
		m.will(life{listens: time.Millisecond, exits: time.Minute, code: 7})
		allOK(t, m.start(svc), 1)
		pass(time.Minute)
		if s := m.wantState("svc", 0, Stopped); s.Wanted {
			t.Error("wanted after a stop code")
		}
	})
}

func TestStopLadder(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		r := m.act(Stop, "web")
		allOK(t, r, 1)
		if got := m.proc("web", 0).got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("polite app got %v", got)
		}
		deaf := server
		deaf.deaf = true
		m.will(deaf)
		allOK(t, m.act(Start, "web"), 1)
		began := time.Now()
		allOK(t, m.act(Stop, "web"), 1)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %s, want kill_timeout", took)
		}
		if got := m.proc("web", 0).got(); !slices.Equal(got, []string{"SIGINT", "SIGKILL"}) {
			t.Errorf("deaf app got %v", got)
		}
		if s := m.status("web", 0); s.Exits[len(s.Exits)-1].Sentence() != "ended by SIGKILL" || s.Wanted || s.PID != 0 {
			t.Errorf("status %+v", s)
		}
		allOK(t, m.act(Stop, "web"), 1) // again: nothing to do
	})
}

// "stopped" is said of the dead only.
func TestStillAliveAfterSIGKILL(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(life{listens: time.Millisecond, immortal: true})
		allOK(t, m.start(webApp("web", 1)), 1)
		began := time.Now()
		o := failed(t, m.act(Stop, "web"), 1)
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("took %s, want kill_timeout and 10s", took)
		}
		if o.State != Stopping || !strings.Contains(o.Reason, "is still alive 10s after SIGKILL") {
			t.Errorf("outcome %+v", o)
		}
		// Whoever comes later gets an answer, too.
		for _, v := range []Verb{Stop, Restart, Start, Reload} {
			began = time.Now()
			failed(t, m.act(v, "web"), 1)
			if took := time.Since(began); took > killDeadline {
				t.Errorf("%s took %s", v, took)
			}
		}
		failed(t, m.act(Stop, "web"), 1)
		pass(24 * time.Hour)
		said := 0
		for _, e := range m.events("web") {
			if strings.HasPrefix(e, "stop: ") && strings.Contains(e, "still alive") {
				said++
			}
		}
		if said != 1 {
			t.Errorf("said %d times in a day", said)
		}
		if s := m.wantState("web", 0, Stopping); !strings.Contains(s.Reason, "still alive") {
			t.Errorf("reason %q", s.Reason)
		}
		m.proc("web", 0).kill("SIGKILL")
		if s := m.wantState("web", 0, Stopped); strings.Contains(s.Reason, "alive") {
			t.Errorf("reason %q", s.Reason)
		}
	})
}

func TestStopWhileLaunching(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.WaitReady = true
		m.will(hermit)
		start := m.async(func() []Outcome { return m.start(app) })
		pass(time.Second)
		allOK(t, m.act(Stop, "web"), 1)
		if o := failed(t, start.now(), 1); o.Reason != "stopped by its user" || o.State != Stopped {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestStopWhileSpawning(t *testing.T) {
	bubble(t, func(m *machine) {
		slow := server
		slow.spawn = 20 * time.Second
		m.will(slow)
		start := m.async(func() []Outcome { return m.start(webApp("web", 1)) })
		stop := m.async(func() []Outcome { return m.act(Stop, "web") })
		pass(time.Second)
		if !stop.open() {
			t.Fatal("stopped, but the spawn is in flight")
		}
		m.wantState("web", 0, Stopping)
		pass(20 * time.Second)
		allOK(t, stop.now(), 1)
		failed(t, start.now(), 1)
		if got := m.proc("web", 0).got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("signals %v", got)
		}
	})
}

// A spawn that neither works nor fails: everybody is told, and when it comes
// back after all, its process is ended.
func TestSpawnThatHangs(t *testing.T) {
	bubble(t, func(m *machine) {
		stuck := server
		stuck.hang = true
		m.will(stuck)
		began := time.Now()
		o := failed(t, m.start(webApp("web", 1)), 1)
		if took := time.Since(began); took != spawnDeadline || !strings.Contains(o.Reason, "neither be started nor be given up") {
			t.Errorf("after %s: %+v", took, o)
		}
		failed(t, m.act(Stop, "web"), 1)
		m.wantState("web", 0, Stopping)
		close(m.release)
		pass(time.Second)
		m.wantState("web", 0, Stopped)
		if got := m.proc("web", 0).got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("signals %v", got)
		}
	})
}

func TestStopWhileWaiting(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(crasher)
		app := webApp("web", 1)
		app.RestartDelay = config.Duration(time.Minute)
		m.start(app)
		m.wantState("web", 0, Waiting)
		allOK(t, m.act(Stop, "web"), 1)
		pass(time.Hour)
		if s := m.wantState("web", 0, Stopped); s.Gen != 1 || !s.NextTry.IsZero() {
			t.Errorf("status %+v", s)
		}
	})
}

// The end may be told before the start is: it is still said after it.
func TestEndFasterThanNewsOfStart(t *testing.T) {
	bubble(t, func(m *machine) {
		quick := life{fast: true, code: 3, lastWords: "boom"}
		m.willBy(func(l Launch) life {
			if l.Gen == 1 {
				return quick
			}
			return server
		})
		allOK(t, m.start(webApp("web", 1)), 1)
		ev := m.events("web")
		if len(ev) < 2 || !strings.HasPrefix(ev[0], "start: ") || ev[1] != "exit: exited with code 3" {
			t.Errorf("events %q", ev)
		}
		e := m.status("web", 0).Exits[0]
		if !e.Drained || len(e.Tail) != 1 || e.Tail[0].Text != "boom" {
			t.Errorf("its last words are lost: %+v", e)
		}
	})
}

func TestRestart(t *testing.T) {
	bubble(t, func(m *machine) {
		was := m.start(webApp("web", 1))[0].PID
		r := m.act(Restart, "web")
		allOK(t, r, 1)
		s := m.status("web", 0)
		if r[0].PID == was || s.Restarts != 1 || s.Gen != 2 {
			t.Errorf("%+v, restarts %d", r[0], s.Restarts)
		}
		if slices.Contains(m.released, "web-0") {
			t.Error("its listeners were let go between the two")
		}
		allOK(t, m.act(Reset, "web"), 1)
		if s := m.status("web", 0); s.Restarts != 0 {
			t.Errorf("restarts %d after reset", s.Restarts)
		}
	})
}

func TestCommandsWhileStopping(t *testing.T) {
	slow := server
	slow.dies = 2 * time.Second
	for _, v := range []Verb{Start, Restart, Reload} {
		bubble(t, func(m *machine) {
			m.will(slow)
			allOK(t, m.start(webApp("web", 1)), 1)
			stop := m.async(func() []Outcome { return m.act(Stop, "web") })
			again := m.async(func() []Outcome { return m.act(v, "web") })
			pass(time.Second)
			if len(m.alive("web", 0)) != 1 || !again.open() {
				t.Fatalf("%s while stopping: %v live", v, m.alive("web", 0))
			}
			allOK(t, again.wait(), 1)
			failed(t, stop.now(), 1) // somebody wanted something else
			if s := m.wantState("web", 0, Online); s.Gen != 2 {
				t.Errorf("gen %d", s.Gen)
			}
			// And the other way round: the last word counts.
			restart := m.async(func() []Outcome { return m.act(Restart, "web") })
			allOK(t, m.act(Stop, "web"), 1)
			failed(t, restart.now(), 1)
			m.wantState("web", 0, Stopped)
		})
	}
}

func TestReloadWhileLaunchingStartsOver(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		m.will(hermit)
		first := m.async(func() []Outcome { return m.start(app) })
		m.will(server)
		app.Env = map[string]string{"V": "2"}
		allOK(t, m.reload(app), 1)
		allOK(t, first.now(), 1)
		if s := m.status("web", 0); s.Gen != 2 || m.proc("web", 0).l.App.Env["V"] != "2" {
			t.Errorf("gen %d with %v", s.Gen, m.proc("web", 0).l.App.Env)
		}
	})
}

// The caller is gone; the app goes on, and nobody waits for him.
func TestCallerWhoLeaves(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 40) // more than any buffer on the way
		app.WaitReady = true
		m.will(life{tells: time.Minute})
		app.ListenTimeout = config.Duration(2 * time.Minute)
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		r := m.sup().Start(ctx, []config.App{app}, false)
		if took := time.Since(began); took != time.Second || len(r) != 40 {
			t.Errorf("%d answers after %s", len(r), took)
		}
		failed(t, r, 40)
		// Meanwhile the app takes other orders at once.
		began = time.Now()
		m.act(Reset, "web-39")
		if time.Since(began) != 0 {
			t.Errorf("reset took %s", time.Since(began))
		}
		pass(time.Minute)
		for i := range 40 {
			m.wantState("web", i, Online)
		}
		gone, cancel2 := context.WithCancel(m.t.Context())
		cancel2()
		m.sup().Act(gone, Stop, []string{"web-0"}, nil)
		synctest.Wait()
		m.wantState("web", 1, Online)
	})
}

func TestCauseOfDeath(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(life{refused: "port 8080 is taken by pid 77 (nginx)", exits: 5 * time.Millisecond, code: 1})
		o := failed(t, m.start(webApp("web", 1)), 1)
		if !strings.HasPrefix(o.Reason, "port 8080 is taken by pid 77 (nginx); exited with code 1") {
			t.Errorf("reason %q", o.Reason)
		}
		// One that went on to another port did not die of it.
		m.will(life{refused: "port 8080 is taken", listens: time.Second, exits: time.Hour, code: 2})
		allOK(t, m.act(Restart, "web"), 1)
		pass(time.Hour)
		e := m.status("web", 0).Exits
		if got := e[len(e)-1].Sentence(); got != "exited with code 2" {
			t.Errorf("%q", got)
		}
	})
}
