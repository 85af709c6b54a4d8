package supervisor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

// TestModel lets chance command and kill for hours. What must hold at every
// moment the machine checks (checkRecord, checkPlace, checkRelease) or step
// does; what must hold in the end rest does.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(m *machine) {
				g := &game{machine: m, rand: rand.New(rand.NewPCG(seed, 1))}
				m.build = func(ctx context.Context) error {
					select {
					case <-time.After(time.Minute):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				m.willBy(func(l Launch) life { // of its own chance: launches may be simultaneous
					return anyLife(rand.New(rand.NewPCG(seed, uint64(l.ID)<<32+uint64(l.Index)<<24+uint64(l.Gen))))
				})
				for range 250 {
					g.step()
				}
				g.rest()
			})
		})
	}
}

type game struct {
	*machine
	rand  *rand.Rand
	calls []call
}

type call struct {
	pending
	what  string
	since time.Time
}

var names = []string{"a", "b", "c"}

func anyLife(r *rand.Rand) life {
	ms := func(most int) time.Duration { return time.Duration(1+r.IntN(most)) * time.Millisecond }
	l := life{listens: ms(3000), dies: ms(4000)}
	switch r.IntN(16) {
	case 0:
		l = crasher
	case 1:
		l.exits, l.code = ms(60000), r.IntN(3)
	case 2:
		l.deaf = true
	case 3:
		l.listens = 0
	case 4:
		l.tells = ms(9000)
	case 5:
		l.spawn = ms(30000)
	case 6:
		l.spawnErr = "no such file"
	case 7:
		l = life{fast: true, code: 1}
	case 8:
		l.mumbles = true
	case 9:
		if r.IntN(3) == 0 {
			l.immortal = true
		}
	case 10:
		if r.IntN(3) == 0 {
			l.hang, l.spawn = true, 90*time.Second
		}
	case 11:
		l.wellFrom = ms(20000)
	case 12:
		l.wellTo = ms(300000)
	}
	if r.IntN(2) == 0 {
		l.streams, l.drained = 1+r.IntN(9), ms(200000)
	}
	if r.IntN(20) == 0 {
		l.queue = 1
	}
	return l
}

func (g *game) anyApp() config.App {
	app := webApp(names[g.rand.IntN(len(names))], 1+g.rand.IntN(4))
	app.MaxRestarts = g.rand.IntN(6)
	app.WaitReady = g.rand.IntN(6) == 0
	app.Autorestart = g.rand.IntN(8) != 0
	if g.rand.IntN(4) == 0 {
		app.StopExitCodes = []int{0}
	}
	if g.rand.IntN(3) == 0 {
		app.Watch = []string{"/srv"}
	}
	if g.rand.IntN(3) == 0 {
		app.Build = "make"
	}
	if g.rand.IntN(4) == 0 {
		app.CronRestart = "*/7 * * * *"
	}
	app.MaxMemory = 100
	for _, other := range names { // circles are refused
		if other != app.Name && g.rand.IntN(3) == 0 {
			app.DependsOn = append(app.DependsOn, other)
		}
	}
	g.anyTraffic(&app)
	return app
}

// anyTraffic is how an app drains, is probed and replaced.
func (g *game) anyTraffic(app *config.App) {
	app.Drain = []string{config.DrainWait, config.DrainSignal}[g.rand.IntN(2)]
	if g.rand.IntN(3) != 0 {
		app.DrainTimeout = config.Duration(g.rand.IntN(180)) * config.Duration(time.Second)
	}
	app.ShutdownTimeout = config.Duration(g.rand.IntN(10)) * config.Duration(time.Second)
	app.Rollout = config.Rollout{Parallel: g.rand.IntN(4), MaxDraining: g.rand.IntN(5), Pause: config.Duration(g.rand.IntN(3)) * config.Duration(time.Second)}
	if g.rand.IntN(3) == 0 {
		app.QueueTimeout = config.Duration(30 * time.Second)
	}
	if g.rand.IntN(4) == 0 {
		app.Ready = probedApp(1).Ready
	}
	if g.rand.IntN(4) == 0 {
		app.Health = probedApp(1).Health
	}
}

func (g *game) anyTarget() string {
	name := names[g.rand.IntN(len(names))]
	switch g.rand.IntN(5) {
	case 0:
		return "all"
	case 1:
		return fmt.Sprintf("%s-%d", name, g.rand.IntN(4))
	}
	return name
}

// call gives a verb in the background; sometimes the caller leaves early.
func (g *game) call(what string, f func(context.Context)) {
	ctx, cancel := g.t.Context(), context.CancelFunc(func() {})
	if g.rand.IntN(5) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(g.rand.IntN(5000))*time.Millisecond)
	}
	c := call{pending{g.machine, make(chan []Outcome, 1)}, what, time.Now()}
	go func() {
		defer cancel()
		f(ctx)
		c.c <- nil
	}()
	g.calls = append(g.calls, c)
}

func (g *game) step() {
	s := g.sup()
	switch n := g.rand.IntN(28); n {
	case 24, 25, 26, 27:
		v := []Verb{Drain, Undrain, Abort, StopDrained}[n-24]
		target := g.anyTarget()
		g.call(string(v)+" "+target, func(ctx context.Context) { _, _ = s.Act(ctx, v, []string{target}, nil) })
	case 0, 1, 2:
		app, reload := g.anyApp(), g.rand.IntN(2) == 0
		g.call("start "+app.Name, func(ctx context.Context) { s.Start(ctx, []config.App{app}, reload) })
	case 3, 4, 5, 6, 7, 8, 9, 10:
		v := []Verb{Stop, Start, Restart, Reload, Reload, Reload, Reset, Stop}[n-3]
		target := g.anyTarget()
		g.call(string(v)+" "+target, func(ctx context.Context) { _, _ = s.Act(ctx, v, []string{target}, nil) })
	case 11, 12:
		target, count := names[g.rand.IntN(len(names))], []string{"1", "2", "4", "+1", "-1"}[g.rand.IntN(5)]
		g.call("scale "+target+" "+count, func(ctx context.Context) { _, _ = s.Scale(ctx, target, count) })
	case 13:
		if g.rand.IntN(4) == 0 {
			target := names[g.rand.IntN(len(names))]
			g.call("delete "+target, func(ctx context.Context) { _, _ = s.Act(ctx, Delete, []string{target}, nil) })
		}
	case 14, 15, 16:
		g.killOne()
	case 17:
		g.mu.Lock()
		f := g.watched[names[g.rand.IntN(len(names))]]
		g.mu.Unlock()
		if f != nil {
			f([]string{"x"})
		}
	case 18:
		s.Measured(map[int]Usage{g.rand.IntN(8): {Memory: 200}})
	case 19:
		if g.rand.IntN(5) == 0 {
			g.succeed()
		}
	case 20:
		if g.rand.IntN(20) == 0 {
			g.reboot()
		}
	}
	<-time.After(time.Duration(g.rand.ExpFloat64() * float64(20*time.Second)))
	synctest.Wait()
	g.check()
}

// succeed lets another daemon take over: what was settled is as it was.
func (g *game) succeed() {
	before, lives := g.pictures(), map[string]bool{}
	for _, s := range g.sup().List() {
		lives[fmt.Sprintf("%s-%d", s.App.Name, s.Index)] = len(g.alive(s.App.Name, s.Index)) > 0
	}
	g.successor()
	after := g.pictures()
	for name, is := range after {
		if _, ok := before[name]; !ok {
			g.t.Fatalf("%s is new: %+v", name, is)
		}
	}
	for name, was := range before {
		is, ok := after[name]
		if !ok && was.State == Stopping && !lives[name] {
			continue // it was leaving, and its spawns ended with the daemon
		}
		if is.ID != was.ID || is.Created != was.Created || is.Gen < was.Gen || is.Restarts < was.Restarts || is.Env != was.Env {
			g.t.Fatalf("%s was %+v, is %+v", name, was, is)
		}
		settled := was.State == Online || was.State == Stopped || was.State == Errored
		if settled && (is.Wanted != was.Wanted || is.State != was.State || is.PID != was.PID) {
			g.t.Fatalf("%s was %s with pid %d, is %s with pid %d", name, was.State, was.PID, is.State, is.PID)
		}
	}
}

func (g *game) killOne() {
	g.mu.Lock()
	var live []*fakeProc
	for _, p := range g.procs {
		if p.alive && !p.life.fast {
			live = append(live, p)
		}
	}
	g.mu.Unlock()
	if len(live) > 0 {
		select {
		case live[g.rand.IntN(len(live))].sigs <- "SIGKILL":
		default:
		}
	}
}

// check: everybody is answered in time, and what is shown is what is.
func (g *game) check() {
	g.t.Helper()
	left := g.calls[:0]
	for _, c := range g.calls {
		if !c.open() {
			continue
		}
		if age := time.Since(c.since); age > 30*time.Minute {
			g.t.Fatalf("%s: no answer for %s\n%s", c.what, age, g.report())
		}
		left = append(left, c)
	}
	g.calls = left
	for _, s := range g.sup().List() {
		gens := g.alive(s.App.Name, s.Index)
		if s.State == Stopped && len(gens) > 0 {
			g.t.Fatalf("%s-%d is called stopped, but generations %v live", s.App.Name, s.Index, gens)
		}
		current := 0
		for _, p := range s.Procs {
			if p.Role == Current {
				current++
			}
		}
		if current > 1 || s.State == Online && current != 1 || (s.State == Pending || s.State == Waiting || s.State == Stopped || s.State == Errored) && current != 0 {
			g.t.Fatalf("%s-%d is %s with processes %+v", s.App.Name, s.Index, s.State, s.Procs)
		}
		g.checkTraffic(s)
		g.checkWaiting(s)
		if s.State == Waiting && time.Until(s.NextTry) < 0 {
			g.t.Fatalf("%s-%d waits for a time that has passed", s.App.Name, s.Index)
		}
	}
}

// checkWaiting: who waits for others does so because of them, as they are now.
func (g *game) checkWaiting(s Status) {
	g.t.Helper()
	if s.State != Pending {
		return
	}
	switch h := g.sup().held(s.App); {
	case h.why == "":
		g.t.Fatalf("%s-%d %s, but does not have to\n%s", s.App.Name, s.Index, s.Reason, g.report())
	case h.why != s.Reason:
		g.t.Fatalf("%s-%d %s, but in truth it %s\n%s", s.App.Name, s.Index, s.Reason, h.why, g.report())
	case !s.Wanted:
		g.t.Fatalf("%s-%d waits, and nobody wants it", s.App.Name, s.Index)
	}
}

// checkTraffic: of the processes of a place one serves at most, and that is the
// current one, if it may.
func (g *game) checkTraffic(s Status) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.procs {
		if !p.alive || p.l.App.Name != s.App.Name || p.l.Index != s.Index {
			continue
		}
		current := s.State == Online && p.l.Gen == s.CurGen
		if p.traffic == Serving && !current && !p.known && len(p.signals) == 0 && s.State == Online {
			g.t.Fatalf("%s-%d: generation %d serves, the current one is %d", s.App.Name, s.Index, p.l.Gen, s.CurGen)
		}
		if current && p.traffic != Serving && !s.Away && s.Sick == "" {
			g.t.Fatalf("%s-%d: its traffic is %q", s.App.Name, s.Index, p.traffic)
		}
	}
}

// report is what to look at when a game is lost.
func (g *game) report() (r string) {
	for _, s := range g.sup().List() {
		r += fmt.Sprintf("%s-%d %s (%s) gen %d alive %v\n", s.App.Name, s.Index, s.State, s.Reason, s.Gen, g.alive(s.App.Name, s.Index))
	}
	for _, name := range names {
		e := g.events(name)
		for _, line := range e[max(0, len(e)-15):] {
			r += name + " " + line + "\n"
		}
	}
	return r
}

// goroutines are the brain's own, without the machine's.
func goroutines() (r []string) {
	buf := make([]byte, 4<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		_, by, _ := strings.Cut(g, "created by gpm/supervisor.")
		if by != "" && !strings.HasPrefix(by, "(*fake") && !strings.HasPrefix(by, "(*machine") && !strings.HasPrefix(by, "(*game") {
			r = append(r, g)
		}
	}
	return r
}

// rest: when the world behaves again, everything can be had again, and nothing
// is left over.
func (g *game) rest() {
	g.will(server)
	g.mu.Lock()
	for _, p := range g.procs {
		p.life.immortal, p.life.deaf = false, false
	}
	g.mu.Unlock()
	pass(time.Hour)
	g.check()
	if len(g.calls) > 0 {
		g.t.Fatalf("%s: no answer", g.calls[0].what)
	}
	if len(g.sup().List()) == 0 {
		g.start(webApp("a", 1))
	}
	all := g.sup().List()
	for _, s := range all {
		app := webApp(s.App.Name, s.App.Instances)
		allOK(g.t, g.start(app), s.App.Instances)
	}
	pass(time.Minute)
	for _, s := range g.sup().List() {
		if gens := g.alive(s.App.Name, s.Index); s.State != Online || len(gens) != 1 || gens[0] != s.Gen {
			g.t.Fatalf("%s-%d is %s, generation %d; %v live", s.App.Name, s.Index, s.State, s.Gen, gens)
		}
	}
	g.act(Stop, "all")
	pass(time.Minute)
	apps, places := map[string]bool{}, 0
	for _, s := range g.sup().List() {
		apps[s.App.Name] = true
		places++
	}
	if all, want := goroutines(), 1+len(apps)+places; len(all) != want {
		g.t.Errorf("%d goroutines, want %d\n%s", len(all), want, strings.Join(all, "\n\n"))
	}
	for _, s := range g.sup().List() {
		if s.State == Stopped {
			continue
		}
		g.t.Errorf("%s-%d is %s after stop all", s.App.Name, s.Index, s.State)
	}
	g.act(Delete, "all")
	synctest.Wait()
	if len(g.disk) != 0 || len(g.sup().List()) != 0 {
		g.t.Errorf("left: %v on disk, %v", len(g.disk), g.sup().List())
	}
}
