package supervisor

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gpm/config"
)

// The drawing in the comment of transitions is what people read; it has to be
// the table.
func TestDrawingIsTheTable(t *testing.T) {
	src, err := os.ReadFile("state.go")
	if err != nil {
		t.Fatal(err)
	}
	_, drawing, ok := strings.Cut(string(src), "// transitions is the whole life")
	if !ok {
		t.Fatal("no drawing in state.go")
	}
	lines := strings.Split(drawing, "\n")[2:]
	var head []int // column of each trigger
	for _, tr := range triggers {
		i := strings.Index(lines[0], " "+string(tr))
		if i < 0 {
			t.Fatalf("trigger %q is not drawn", tr)
		}
		head = append(head, i+1)
	}
	for i, s := range states {
		line := lines[i+1] + strings.Repeat(" ", 80)
		name := strings.TrimSpace(strings.TrimPrefix(line[:head[0]], "//"))
		if !strings.HasPrefix(string(s), name) || name == "" {
			t.Fatalf("row %d is of %q, want %q", i, name, s)
		}
		for j, tr := range triggers {
			end := len(line)
			if j+1 < len(head) {
				end = head[j+1]
			}
			if drawn := action(strings.TrimSpace(line[head[j]:end])); drawn != transitions[s][tr] {
				t.Errorf("%s, %s: drawn %q, table %q", s, tr, drawn, transitions[s][tr])
			}
		}
	}
	if len(transitions) != len(states) {
		t.Errorf("%d rows for %d states", len(transitions), len(states))
	}
}

// still is an instance whose loop does not run: the test takes its steps.
type still struct {
	*instance
	t       *testing.T
	signals []string
	last    Snapshot
	lacks   hold
}

func newStill(t *testing.T) *still {
	s := &still{t: t}
	pid := 0
	w := &World{
		Launch: func(_ context.Context, _ Launch) (*Process, error) {
			pid++
			return &Process{
				PID: pid, Started: time.Now(), Hold: "held",
				Signal: func(name string) error { s.signals = append(s.signals, name); return nil },
				Kill:   func() error { s.signals = append(s.signals, "SIGKILL"); return nil },
			}, nil
		},
		Release: func(string, int) {},
		Park:    func(string, int) {},
		Route:   func(string, int, int, Traffic) {},
		Settled: func(string, int, int) {},
		Jitter:  func() float64 { return 0.5 },
	}
	app := webApp("web", 1)
	app.WaitReady = true
	s.instance = newInstance(w, &app, 7, 0, func(snap Snapshot, _ []Event) { s.last = snap }, func() {}, func() bool { return false }, func(*config.App) hold { return s.lacks })
	t.Cleanup(func() { close(s.done) })
	return s
}

func (s *still) command(do trigger) chan Outcome {
	c := make(chan Outcome, 1)
	s.obey(command{do: do, reason: "test", reply: c})
	s.turn()
	return c
}

func (s *still) turn() { s.show(); s.answer() }

func (s *still) spawnDone() { s.arrive(<-s.spawned); s.turn() }

func (s *still) tell() { s.learn(genFact{s.gen, Fact{Kind: Told}}); s.turn() }

func (s *still) die(p *process) {
	s.bury(p, Exit{At: time.Now(), Code: 1, Drained: true})
	s.turn()
}

// reach drives the instance to a state by what really leads there.
func (s *still) reach(want State) {
	switch want {
	case Stopped:
	case Launching:
		s.command(onStart)
		s.spawnDone()
	case Online:
		s.reach(Launching)
		s.tell()
	case Stopping:
		s.reach(Online)
		s.command(onStop)
	case Pending:
		s.lacks = hold{why: "waits for bus to be online"}
		s.command(onStart)
		s.lacks = hold{}
	case Waiting:
		s.reach(Launching)
		s.die(s.cur)
		s.spawnDone()
		s.die(s.cur)
	case Errored:
		app := *s.app
		app.MaxRestarts = 1
		s.app = &app
		s.reach(Launching)
		s.die(s.cur)
	}
	if s.state != want {
		s.t.Fatalf("reached %q, want %q", s.state, want)
	}
}

// pull does what a trigger stands for.
func (s *still) pull(tr trigger) {
	switch {
	case tr == onStart || tr == onStop || tr == onRestart || tr == onReload:
		s.command(tr)
	case tr == onReady && s.cur != nil:
		s.tell()
	case tr == onNotReady && s.cur != nil:
		s.ring(alarm{kind: alarmLimit, gen: s.cur.gen})
	case tr == onDeath && s.cur != nil:
		s.die(s.cur)
	case tr == onDue:
		s.ring(alarm{kind: alarmDue})
	default:
		s.fire(tr, "test")
	}
	s.turn()
}

// Every cell: what is done is what the table says, and it leads where leadsTo
// says.
func TestEveryTransition(t *testing.T) {
	for _, from := range states {
		for _, tr := range triggers {
			t.Run(string(from)+" "+string(tr), func(t *testing.T) {
				s := newStill(t)
				s.reach(from)
				gen, sent := s.gen, len(s.signals)
				do := transitions[from][tr]
				s.pull(tr)
				s.checkLanding(from, do)
				spawned := do == launch || do == again || do == replace || do == judge
				if spawned && s.gen != gen+1 || !spawned && s.gen != gen {
					t.Errorf("%s: generation %d after %d", do, s.gen, gen)
				}
				ends := do == end || do == endLaunch || do == endJudge
				if ends != (len(s.signals) > sent) {
					t.Errorf("%s: signals %v", do, s.signals[sent:])
				}
				if s.last.State != s.state {
					t.Errorf("shown as %q, is %q", s.last.State, s.state)
				}
			})
		}
	}
}

func (s *still) checkLanding(from State, do action) {
	s.t.Helper()
	to := leadsTo[do]
	if to == nil {
		to = []State{from}
	}
	if !slices.Contains(to, s.state) {
		s.t.Errorf("%s leads from %q to %q, allowed is %q", do, from, s.state, to)
	}
}

// The same with an outgoing process of a reload still alive: whatever leads to
// stopped leads to stopping, and there is no state it cannot be left from.
func TestEveryTransitionWhileDraining(t *testing.T) {
	for _, from := range []State{Launching, Online, Stopping, Pending, Waiting, Errored} {
		for _, tr := range triggers {
			t.Run(string(from)+" "+string(tr), func(t *testing.T) {
				s := newStill(t)
				s.drainThenReach(from)
				do := transitions[from][tr]
				s.pull(tr)
				s.checkLanding(from, do)
				if s.state == Stopped {
					t.Fatalf("stopped with %d processes alive", len(s.old))
				}
				for _, p := range slices.Clone(s.old) {
					s.die(p)
				}
				if s.state == Stopping && s.cur == nil {
					t.Errorf("stopping, but nothing is alive")
				}
				s.command(onStop)
				for s.state != Stopped {
					switch {
					case s.cur != nil && s.cur.p == nil || s.next != nil && s.next.p == nil || len(s.old) > 0 && s.old[0].p == nil:
						s.spawnDone()
					case s.cur != nil:
						s.die(s.cur)
					case len(s.old) > 0:
						s.die(s.old[0])
					default:
						t.Fatalf("stuck in %q", s.state)
					}
				}
			})
		}
	}
}

// drainThenReach is reach with an outgoing process.
func (s *still) drainThenReach(want State) {
	s.reach(Online)
	s.command(onReload)
	s.spawnDone()
	s.tell()
	s.retire(s.old[0].gen)
	switch want {
	case Launching:
		s.die(s.cur)
		s.spawnDone()
	case Stopping:
		s.command(onStop)
	case Pending:
		s.lacks = hold{why: "waits for bus to be online"}
		s.command(onRestart)
		s.die(s.cur)
		s.lacks = hold{}
	case Waiting:
		for range 2 {
			s.die(s.cur)
			if s.state == Launching {
				s.spawnDone()
			}
		}
	case Errored:
		app := *s.app
		app.MaxRestarts, app.MinUptime = 1, config.Duration(time.Hour)
		s.app = &app
		s.die(s.cur)
	}
	if s.state != want || len(s.old) != 1 {
		s.t.Fatalf("reached %q with %d outgoing, want %q with one", s.state, len(s.old), want)
	}
}
