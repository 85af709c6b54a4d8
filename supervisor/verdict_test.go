package supervisor

import (
	"strings"
	"testing"
	"time"

	"gpm/config"
)

func crash(code int) Exit { return Exit{Code: code} }

func TestFirstRestartIsImmediateThenItBacksOff(t *testing.T) {
	app := webApp("web", 1)
	app.MaxRestarts = 0
	var s streak
	want := 100 * time.Millisecond
	for n := 1; n <= 30; n++ {
		v := judgeDeath(&app, s, crash(1), 0, 0.5)
		s = v.Streak
		if n == 1 {
			if v.To != Launching || v.Delay != 0 {
				t.Fatalf("first death: %+v", v)
			}
			continue
		}
		if v.To != Waiting || v.Delay.Round(time.Microsecond) != want.Round(time.Microsecond) {
			t.Fatalf("death %d: %s after %s, want %s", n, v.To, v.Delay, want)
		}
		if low := judgeDeath(&app, v.Streak, crash(1), 0, 0); low.Delay > 15*time.Second {
			t.Fatalf("delay %s", low.Delay)
		}
		want = min(time.Duration(float64(want)*1.5), 15*time.Second)
	}
	if s.Delay != 15*time.Second {
		t.Errorf("it ends at %s, want 15s", s.Delay)
	}
}

func TestJitterIsATenthEachWay(t *testing.T) {
	app := webApp("web", 1)
	s := streak{Deaths: 1}
	if d := judgeDeath(&app, s, crash(1), 0, 0).Delay; d != 90*time.Millisecond {
		t.Errorf("least %s, want 90ms", d)
	}
	if d := judgeDeath(&app, s, crash(1), 0, 0.9999999).Delay.Round(time.Millisecond); d != 110*time.Millisecond {
		t.Errorf("most %s, want 110ms", d)
	}
}

func TestUserDelays(t *testing.T) {
	app := webApp("web", 1)
	app.RestartDelay = config.Duration(3 * time.Second)
	var s streak
	for range 3 {
		v := judgeDeath(&app, s, crash(1), 0, 0.5)
		if s = v.Streak; v.To != Waiting || v.Delay != 3*time.Second {
			t.Fatalf("restart_delay: %+v", v)
		}
	}
	app.Backoff, s = config.Duration(200*time.Millisecond), streak{}
	for _, want := range []time.Duration{200 * time.Millisecond, 300 * time.Millisecond, 450 * time.Millisecond} {
		v := judgeDeath(&app, s, crash(1), 0, 0.5)
		if s = v.Streak; v.Delay != want {
			t.Fatalf("exp_backoff: %s, want %s", v.Delay, want)
		}
	}
	app.Backoff, s = config.Duration(time.Minute), streak{}
	for range 3 { // beyond the limit: never shorter than asked for
		v := judgeDeath(&app, s, crash(1), 0, 0.5)
		if s = v.Streak; v.Delay != time.Minute {
			t.Fatalf("exp_backoff of a minute: %s", v.Delay)
		}
	}
}

func TestUnstableDeathsEndInErrored(t *testing.T) {
	app := webApp("web", 1)
	app.MaxRestarts = 3
	var s streak
	for n, want := range []State{Launching, Waiting, Errored} {
		v := judgeDeath(&app, s, crash(1), time.Millisecond, 0.5)
		if s = v.Streak; v.To != want {
			t.Fatalf("death %d: %+v", n+1, v)
		}
	}
	s = streak{Deaths: 2, Unstable: 2}
	if v := judgeDeath(&app, s, crash(1), 2*time.Second, 0.5); v.To != Waiting || v.Streak.Unstable != 2 {
		t.Errorf("a death after min_uptime is not unstable: %+v", v)
	}
	if v := judgeDeath(&app, s, crash(1), 31*time.Second, 0.5); v.To != Launching || v.Streak.Deaths != 1 || v.Streak.Unstable != 0 {
		t.Errorf("30 s alive forget: %+v", v)
	}
}

func TestWhatStaysStopped(t *testing.T) {
	app := webApp("job", 1)
	app.StopExitCodes = []int{0, 3}
	for _, c := range []struct {
		name        string
		exit        Exit
		autorestart bool
		to          State
		fine        bool
	}{
		{"a stop code", Exit{Code: 3}, true, Stopped, true},
		{"another code", Exit{Code: 4}, true, Launching, false},
		{"a signal has no code", Exit{Signal: "SIGSEGV"}, true, Launching, false},
		{"nobody saw the code", Exit{Unknown: true}, true, Launching, false},
		{"it never ran", Exit{Spawnless: true, Cause: "no such file"}, true, Launching, false},
		{"gpm made it say so", Exit{Code: 0, ByUs: true}, true, Launching, false},
		{"a job that is done", Exit{Code: 0}, false, Stopped, true},
		{"a job that failed", Exit{Code: 1}, false, Stopped, false},
		{"a job that never ran", Exit{Spawnless: true, Cause: "no such file"}, false, Stopped, false},
	} {
		app.Autorestart = c.autorestart
		if !c.autorestart {
			app.StopExitCodes = nil
		}
		v := judgeDeath(&app, streak{}, c.exit, 0, 0.5)
		if v.To != c.to || v.Fine != c.fine || v.Reason == "" {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

func TestReadiness(t *testing.T) {
	plain, waits := webApp("web", 1), webApp("web", 1)
	waits.WaitReady = true
	for _, c := range []struct {
		name string
		app  *config.App
		r    readiness
		want bool
	}{
		{"nothing known", &plain, readiness{}, false},
		{"listens", &plain, readiness{Listening: true}, true},
		{"lived for a moment", &plain, readiness{Settled: true}, true},
		{"lived, but the one before listened", &plain, readiness{Settled: true, Expected: true}, false},
		{"listens as the one before", &plain, readiness{Listening: true, Expected: true}, true},
		{"wait_ready: listens only", &waits, readiness{Listening: true, Settled: true}, false},
		{"wait_ready: told", &waits, readiness{Told: true}, true},
	} {
		if got := c.r.ready(c.app); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestExitSentences(t *testing.T) {
	for want, e := range map[string]Exit{
		"exited with code 0":                     {},
		"killed by SIGKILL (not by gpm)":         {Signal: "SIGKILL"},
		"ended by SIGINT":                        {Signal: "SIGINT", ByUs: true},
		"ended while nobody could see how":       {Unknown: true},
		"no such file":                           {Spawnless: true, Cause: "no such file"},
		"port 80 is taken; exited with code 1":   {Code: 1, Cause: "port 80 is taken"},
		"out of memory; killed by SIGKILL (not ": {Signal: "SIGKILL", Cause: "out of memory"},
	} {
		if got := e.Sentence(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNextTick(t *testing.T) {
	at, err := nextTick("0 4 * * *", time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC))
	if want := time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC); err != nil || !at.Equal(want) {
		t.Errorf("%v, %v; want %v", at, err, want)
	}
	if _, err := nextTick("every now and then", time.Now()); err == nil {
		t.Error("nonsense has a next time")
	}
}
