package supervisor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

// steady is a server that takes its time to end.
var steady = life{listens: 50 * time.Millisecond, dies: 3 * time.Second, lastWords: "bye"}

func TestReloadReplacesWhenReady(t *testing.T) {
	bubble(t, func(m *machine) {
		m.will(steady)
		old := m.start(webApp("web", 1))[0].PID
		began := time.Now()
		r := m.act(Reload, "web")
		allOK(t, r, 1)
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("took %s: the old one's drain is nobody's wait", took)
		}
		s := m.wantState("web", 0, Online)
		if s.PID == old || s.Draining != 1 || s.Restarts != 1 || s.Gen != 2 {
			t.Errorf("status %+v", s)
		}
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("the old one got %v", got)
		}
		pass(3 * time.Second)
		if s := m.status("web", 0); s.Draining != 0 || !slices.Equal(m.alive("web", 0), []int{2}) {
			t.Errorf("draining %d, alive %v", s.Draining, m.alive("web", 0))
		}
		if slices.Contains(m.released, "web-0") {
			t.Error("the listeners were let go")
		}
	})
}

// The record that names the new process is on disk before the old one is told
// to end: see promote.
func TestOldIsToldWhenTheRecordIsWritten(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		synctest.Wait()
		m.lazyDisk = true
		m.frozen = make(chan struct{})
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		if got := m.procs[0].got(); len(got) != 0 {
			t.Fatalf("the old one got %v, and the record says %s", got, m.record("web"))
		}
		close(m.frozen)
		pass(0)
		var r Record
		if err := json.Unmarshal([]byte(m.record("web")), &r); err != nil {
			t.Fatal(err)
		}
		if p := r.Instances[0].Procs; len(p) < 1 || p[0].Gen != 2 || p[0].Role != Current {
			t.Errorf("on record: %+v", p)
		}
		if got := m.procs[0].got(); !slices.Equal(got, []string{"SIGINT"}) {
			t.Errorf("the old one got %v", got)
		}
	})
}

// A disk that hangs holds a drain up for a moment, not for ever, and gathers
// no goroutines.
func TestReloadWithHangingDisk(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		synctest.Wait()
		m.frozen = make(chan struct{})
		before := len(goroutines())
		for n := range 5 {
			allOK(t, m.act(Reload, "web"), 1)
			pass(retireTime)
			if got := m.procs[n].got(); !slices.Equal(got, []string{"SIGINT"}) {
				t.Fatalf("the old one got %v", got)
			}
		}
		pass(time.Second)
		if n := len(goroutines()); n != before+1 { // one waits for the disk, in World.Sync
			t.Errorf("%d goroutines more", n-before)
		}
		close(m.frozen)
	})
}

func TestReloadThatCrashes(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 3)), 3)
		before := m.sup().List()
		bad := crasher
		bad.lastWords = "syntax error"
		m.will(bad)
		r := m.act(Reload, "web")
		failed(t, r, 3)
		if o := r[0]; o.Reason != "the new process exited with code 1" || len(o.Tail) != 1 || o.Tail[0].Text != "syntax error" || o.State != Online {
			t.Errorf("outcome %+v", o)
		}
		if o := r[2]; o.Reason != "left as it was, because web-0 failed" {
			t.Errorf("outcome %+v", o)
		}
		for i, s := range m.sup().List() {
			if s.State != Online || s.PID != before[i].PID || len(m.procs[i].got()) != 0 || s.Restarts != 0 {
				t.Errorf("the old one was touched: %+v", s)
			}
		}
		if s := m.status("web", 0); s.Reason != "the last reload failed: the new process exited with code 1" {
			t.Errorf("reason %q", s.Reason)
		}
		if n := len(m.procs); n != 4 {
			t.Errorf("%d processes were made; the first failure ends a rollout", n-3)
		}
	})
}

func TestReloadThatIsNeverReady(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{deaf: true, lastWords: "waiting for the database"})
		began := time.Now()
		o := failed(t, m.act(Reload, "web"), 1)
		if took := time.Since(began); took != 13*time.Second {
			t.Errorf("took %s, want listen_timeout and kill_timeout", took)
		}
		if !strings.HasPrefix(o.Reason, "not ready: it did not listen within listen_timeout (8s)") || len(o.Tail) != 1 || o.Tail[0].Text != "waiting for the database" {
			t.Errorf("outcome %+v", o)
		}
		if s := m.wantState("web", 0, Online); s.Gen != 2 || !slices.Equal(m.alive("web", 0), []int{1}) {
			t.Errorf("alive %v", m.alive("web", 0))
		}
	})
}

// A candidate that does not even go away after SIGKILL: the caller hears it.
func TestReloadThatCannotBeEnded(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{immortal: true})
		o := failed(t, m.act(Reload, "web"), 1)
		if !strings.Contains(o.Reason, "not ready") || !strings.Contains(o.Reason, "still alive") {
			t.Errorf("reason %q", o.Reason)
		}
		if s := m.wantState("web", 0, Online); !strings.HasPrefix(s.Reason, "the last reload failed: not ready") {
			t.Errorf("reason %q", s.Reason)
		}
		// It is nobody else's trouble.
		m.will(server)
		allOK(t, m.act(Restart, "web"), 1)
		allOK(t, m.act(Start, "web"), 1)
		failed(t, m.act(Stop, "web"), 1)
		m.wantState("web", 0, Stopping)
	})
}

func TestReloadSpawnThatHangs(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{hang: true})
		o := failed(t, m.act(Reload, "web"), 1)
		if !strings.Contains(o.Reason, "neither be started nor be given up") {
			t.Errorf("reason %q", o.Reason)
		}
		m.wantState("web", 0, Online)
	})
}

func TestReloadWithNewSpec(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		allOK(t, m.start(app), 1)
		// A program that listens is replaced by a worker, which never does.
		app.Script, app.Env = "/srv/worker", map[string]string{"V": "2"}
		m.will(crasher)
		failed(t, m.reload(app), 1)
		if s := m.status("web", 0); s.App.Env["V"] == "2" {
			t.Error("the spec of a failed reload was taken over")
		}
		// The failed attempt did not make the old program forget that it listens.
		m.will(hermit)
		if o := failed(t, m.act(Reload, "web"), 1); !strings.Contains(o.Reason, "did not listen") {
			t.Errorf("reason %q", o.Reason)
		}
		allOK(t, m.reload(app), 1)
		if s := m.status("web", 0); s.App.Env["V"] != "2" || m.proc("web", 0).l.App.Env["V"] != "2" {
			t.Errorf("env %v", s.App.Env)
		}
		// Crash: the new spec is what is started again.
		m.proc("web", 0).kill("SIGSEGV")
		pass(time.Second)
		if m.proc("web", 0).l.App.Env["V"] != "2" || !strings.Contains(m.record("web"), `"/srv/worker"`) {
			t.Error("the new spec was forgotten")
		}
	})
}

// A worker is replaced by a server: from then on it has to listen.
func TestReloadLearnsThatItListens(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		m.will(hermit)
		allOK(t, m.start(app), 1)
		app.Script = "/srv/server"
		m.will(server)
		allOK(t, m.reload(app), 1)
		if !m.status("web", 0).Listens {
			t.Error("not known to listen")
		}
		m.will(hermit)
		failed(t, m.act(Reload, "web"), 1)
	})
}

func TestReloadOfStopped(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 2)), 2)
		m.act(Stop, "web")
		app := webApp("web", 2)
		app.Env = map[string]string{"V": "2"}
		allOK(t, m.reload(app), 2)
		if s := m.wantState("web", 1, Online); s.App.Env["V"] != "2" || !s.Wanted {
			t.Errorf("%+v", s)
		}
		m.act(Stop, "web-1")
		allOK(t, m.act(Reload, "web"), 2)
		m.wantState("web", 1, Online)
	})
}

func TestSecondReloadIsRefused(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 2)
		app.WaitReady = true
		m.will(life{tells: 2 * time.Second, dies: time.Millisecond})
		allOK(t, m.start(app), 2)
		first := m.async(func() []Outcome { return m.act(Reload, "web") })
		began := time.Now()
		r := m.act(Reload, "web")
		if o := failed(t, r, 2); !strings.Contains(o.Reason, "a rollout of this app is running already") || time.Since(began) != 0 {
			t.Errorf("after %s: %+v", time.Since(began), o)
		}
		allOK(t, first.wait(), 2)
		if s := m.status("web", 1); s.Gen != 2 {
			t.Errorf("gen %d", s.Gen)
		}
	})
}

func TestStopWhileCandidateLaunches(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 2)), 2)
		m.will(hermit)
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		pass(time.Second)
		if s := m.status("web", 0); s.State != Online || len(s.Procs) != 2 || s.Procs[1].Role != Candidate {
			t.Fatalf("%+v", s)
		}
		stop := m.async(func() []Outcome { return m.act(Stop, "web") })
		allOK(t, stop.wait(), 2)
		r := reload.now()
		if o := failed(t, r, 2); !strings.Contains(o.Reason, "the rollout was interrupted: the app was stopped") {
			t.Errorf("%+v", o)
		}
		pass(time.Hour)
		for i := range 2 {
			if m.wantState("web", i, Stopped); len(m.alive("web", i)) != 0 {
				t.Errorf("alive: %v", m.alive("web", i))
			}
		}
		m.will(server)
		allOK(t, m.act(Start, "web"), 2) // the next one finds no rollout in its way
		allOK(t, m.act(Reload, "web"), 2)
	})
}

// Stopping one instance fails its own turn, and with it the rollout.
func TestStopOneInstanceWhileItsCandidateLaunches(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 2)), 2)
		m.will(hermit)
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		allOK(t, m.act(Stop, "web-0"), 1)
		r := reload.wait()
		if o := failed(t, r, 2); o.Reason != "stopped by its user" {
			t.Errorf("%+v", o)
		}
		m.wantState("web", 0, Stopped)
		m.wantState("web", 1, Online)
	})
}

func TestCurrentDiesWhileCandidateLaunches(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{listens: 4 * time.Second})
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		pass(time.Second)
		m.procs[0].kill("SIGSEGV")
		s := m.wantState("web", 0, Launching)
		if s.Gen != 2 || len(s.Procs) != 1 || s.Procs[0].Role != Current {
			t.Fatalf("the candidate is the current one now: %+v", s)
		}
		pass(3 * time.Second)
		allOK(t, reload.now(), 1)
		if s := m.wantState("web", 0, Online); s.Restarts != 1 || s.Gen != 2 {
			t.Errorf("restarts %d, gen %d", s.Restarts, s.Gen)
		}
	})
}

func TestBothDieDuringReload(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{exits: 2 * time.Second, code: 9})
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		pass(time.Second)
		m.procs[0].kill("SIGSEGV")
		m.will(server)
		pass(time.Second)
		m.wantState("web", 0, Launching) // judged, and the first restart is immediate
		allOK(t, reload.wait(), 1)
		if s := m.wantState("web", 0, Online); s.Gen != 3 {
			t.Errorf("gen %d", s.Gen)
		}
	})
}

func TestRestartWhileCandidateLaunches(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.will(life{deaf: true})
		reload := m.async(func() []Outcome { return m.act(Reload, "web") })
		m.will(server)
		allOK(t, m.act(Restart, "web"), 1) // not held up by the candidate that ignores its signal
		failed(t, reload.wait(), 1)
		pass(5 * time.Second)
		if got := m.alive("web", 0); !slices.Equal(got, []int{3}) {
			t.Errorf("alive %v", got)
		}
	})
}

func TestOutgoingProcessesAreBounded(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.KillTimeout = config.Duration(time.Hour)
		app.Rollout.MaxDraining = 100
		m.will(life{listens: time.Millisecond, deaf: true})
		allOK(t, m.start(app), 1)
		for range outgoingMost {
			allOK(t, m.act(Reload, "web"), 1)
		}
		if o := failed(t, m.act(Reload, "web"), 1); !strings.Contains(o.Reason, "10 earlier processes of this instance have not ended yet") {
			t.Errorf("%+v", o)
		}
		if s := m.wantState("web", 0, Online); s.Draining != outgoingMost {
			t.Errorf("draining %d", s.Draining)
		}
		stop := m.async(func() []Outcome { return m.act(Stop, "web") })
		m.wantState("web", 0, Stopping)
		allOK(t, stop.wait(), 1)
		if n := len(m.alive("web", 0)); n != 0 {
			t.Errorf("%d alive after stop", n)
		}
	})
}

// The verdict "stays stopped" waits for the outgoing process, too.
func TestNotStoppedWhileDraining(t *testing.T) {
	bubble(t, func(m *machine) {
		app := webApp("web", 1)
		app.StopExitCodes = []int{0}
		m.will(steady)
		allOK(t, m.start(app), 1)
		m.will(life{listens: time.Millisecond, exits: time.Second, code: 0})
		allOK(t, m.act(Reload, "web"), 1)
		pass(time.Second)
		if s := m.wantState("web", 0, Stopping); s.Draining != 1 || !strings.Contains(s.Reason, "stop_exit_codes") {
			t.Errorf("%+v", s)
		}
		m.will(server)
		began := time.Now()
		allOK(t, m.act(Start, "web"), 1)
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("took %s: a start need not wait for it", took)
		}
		pass(3 * time.Second)
		m.wantState("web", 0, Online)
	})
}
