package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gpm/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// life is the script of a process. Durations count from its spawn; zero: never.
type life struct {
	spawn     time.Duration // how long the spawn takes
	spawnErr  string
	hang      bool // the spawn heeds no deadline; without a time of its own it waits for release
	fast      bool // it ends before the news of its spawn
	listens   time.Duration
	tells     time.Duration
	refused   string // at once
	exits     time.Duration
	code      int
	signal    string        // it ends of itself by this signal
	deaf      bool          // it ignores all but SIGKILL
	immortal  bool          // it ignores that, too
	dies      time.Duration // after a signal
	lastWords string
	mumbles   bool // its last lines never come

	second   time.Duration // it listens on another address then
	streams  int           // it has
	idle     int           // of these
	queue    int           // wait to be accepted
	drained  time.Duration // it has none this long after it was taken out of traffic; zero: never
	wellFrom time.Duration // its probes succeed from here on
	wellTo   time.Duration // to here; zero: for ever
}

var (
	server  = life{listens: 50 * time.Millisecond, dies: 20 * time.Millisecond, lastWords: "bye"}
	crasher = life{exits: 10 * time.Millisecond, code: 1, lastWords: "boom"}
	hermit  = life{dies: 20 * time.Millisecond} // never listens, never says anything
)

// machine is everything outside the brain: a keeper and its processes, a disk,
// files that change. It outlives daemons.
type machine struct {
	t *testing.T

	mu       sync.Mutex
	plan     func(Launch) life
	procs    []*fakeProc
	pid      int
	disk     map[string]*Record // committed; as JSON when a daemon or a test reads it
	staged   map[string]*Record // nil: forgotten
	lazyDisk bool               // only Sync commits
	onCommit func()
	frozen   chan struct{} // non-nil: Sync waits for it
	released []string
	settled  []string
	reserved []string // "app n" for each order
	watched  map[string]func([]string)
	builds   int
	build    func(ctx context.Context) error
	release  chan struct{} // lets hanging spawns go
	off      chan struct{}
	daemons  []*fakeDaemon
	flood    int // facts that Attach reports at once

	unsteered string // why no traffic can be kept from anybody
}

// fakeDaemon is one life of a daemon.
type fakeDaemon struct {
	m    *machine
	sup  *Supervisor
	dead bool // killed -9: nothing it does reaches the machine
}

type fakeProc struct {
	m       *machine
	l       Launch
	life    life
	pid     int
	started time.Time

	// guarded by m.mu
	alive   bool
	known   bool // the daemon that lives has taken its end
	signals []string
	report  func(Fact) // to the daemon that lives
	traffic Traffic
	away    time.Time // since when it gets nothing

	sigs     chan string
	inbox    chan Fact
	attached chan struct{} // a token for each new owner
	lost     chan struct{} // closed by a reboot
}

// bubble runs a test on a machine of its own, in fake time. It ends when no
// goroutine is left.
func bubble(t *testing.T, f func(m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{
			t: t, disk: map[string]*Record{}, staged: map[string]*Record{}, watched: map[string]func([]string){},
			release: make(chan struct{}), off: make(chan struct{}), pid: 1000,
		}
		m.will(server)
		m.boot()
		defer m.end()
		f(m)
	})
}

// will makes all processes from now on live like l.
func (m *machine) will(l life) { m.willBy(func(Launch) life { return l }) }

func (m *machine) willBy(plan func(Launch) life) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan = plan
}

func (m *machine) sup() *Supervisor { return m.daemon().sup }

func (m *machine) daemon() *fakeDaemon { return m.daemons[len(m.daemons)-1] }

// boot starts a daemon on what is there.
func (m *machine) boot() {
	d := &fakeDaemon{m: m}
	d.sup = New(d.world())
	m.daemons = append(m.daemons, d)
	m.mu.Lock()
	var records []Record
	for app := range m.disk {
		var r Record
		if err := json.Unmarshal(m.encoded(app), &r); err != nil {
			m.t.Errorf("read record: %v", err)
		}
		records = append(records, r)
	}
	var left []Survivor
	for _, p := range m.procs {
		if p.alive || !p.known {
			left = append(left, Survivor{App: p.l.App.Name, Index: p.l.Index, Gen: p.l.Gen, Dead: !p.alive, Bound: p.life.listens > 0 && time.Since(p.started) >= p.life.listens, Told: len(p.signals) > 0, Attach: p.attach(d)})
		}
	}
	m.mu.Unlock()
	d.sup.Recover(records, left)
	synctest.Wait()
}

// crash is kill -9 of the daemon: its processes live on.
func (m *machine) crash() {
	synctest.Wait()
	d := m.daemon()
	m.mu.Lock()
	d.dead = true
	clear(m.staged)
	clear(m.watched)
	for _, p := range m.procs {
		if p.report != nil { // whatever the old daemon's goroutines wait for
			go p.report(Fact{Kind: Ended, Exit: Exit{At: time.Now(), Drained: true}})
		}
		p.report = nil
	}
	m.mu.Unlock()
	go d.bury()
}

// bury ends the goroutines of a dead daemon, whose hands touch nothing.
func (d *fakeDaemon) bury() {
	d.sup.Shutdown(context.Background(), true)
	d.sup.Close()
}

// reboot is the end of everything but the disk.
func (m *machine) reboot() {
	m.crash()
	m.mu.Lock()
	for _, p := range m.procs {
		if p.alive || !p.known {
			close(p.lost)
		}
		p.alive, p.known = false, true
	}
	m.mu.Unlock()
	m.boot()
}

// end stops all that is left.
func (m *machine) end() {
	m.mu.Lock()
	m.plan = func(Launch) life { return life{} }
	for _, p := range m.procs {
		p.life.immortal, p.life.deaf = false, false
	}
	m.mu.Unlock()
	for _, c := range []chan struct{}{m.release, m.frozen} {
		select {
		case <-c:
		default:
			if c != nil {
				close(c)
			}
		}
	}
	pass(2 * time.Minute) // the next SIGKILL works, the slowest spawn comes back
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Hour)
	defer cancel()
	m.sup().Shutdown(ctx, true)
	m.sup().Close()
	close(m.off)
	synctest.Wait()
}

func (d *fakeDaemon) world() *World {
	m := d.m
	return &World{
		Launch: d.launch,
		Release: func(app string, index int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if !d.dead {
				m.released = append(m.released, fmt.Sprintf("%s-%d", app, index))
				m.checkRelease(app, index)
			}
		},
		Park: func(app string, index int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if !d.dead {
				m.released = append(m.released, fmt.Sprintf("%s-%d", app, index))
			}
		},
		Route:   func(app string, index, gen int, t Traffic) { m.route(app, index, gen, t, d) },
		Probe:   d.probe,
		Reserve: func(app *config.App, n int) { m.reserve(app, n, d) },
		Settled: func(app string, index, gen int) { m.settle(app, index, gen, d) },
		Save: func(r Record) {
			d.stage(r.App.Name, &r)
			m.checkRecord(r, d)
		},
		Forget: func(app string) { d.stage(app, nil) },
		Sync: func() error {
			m.mu.Lock()
			wait := m.frozen
			m.mu.Unlock()
			if wait != nil {
				<-wait
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if !d.dead {
				m.commit()
			}
			return nil
		},
		Watch: func(app *config.App, changed func([]string)) (func(), error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.watched[app.Name] != nil && !d.dead {
				m.t.Errorf("%s is watched twice", app.Name)
			}
			m.watched[app.Name] = changed
			return func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				if !d.dead {
					delete(m.watched, app.Name)
				}
			}, nil
		},
		Build: func(ctx context.Context, _ *config.App) error {
			m.mu.Lock()
			m.builds++
			b := m.build
			m.mu.Unlock()
			return b(ctx)
		},
		Jitter: func() float64 { return 0.5 },
	}
}

// route: while somebody of a place serves, somebody goes on serving; and who is
// away is counted until it ends.
func (m *machine) route(app string, index, gen int, t Traffic, d *fakeDaemon) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.dead {
		return
	}
	for _, p := range m.procs {
		if p.l.App.Name != app || p.l.Index != index || p.l.Gen != gen {
			continue
		}
		if p.traffic = t; t != Away {
			p.away = time.Time{}
		} else if p.away.IsZero() {
			p.away = time.Now()
			go p.counted()
		}
	}
}

// counted is the count of a process that is away, four times a second.
func (p *fakeProc) counted() {
	for {
		select {
		case <-time.After(250 * time.Millisecond):
		case <-p.m.off:
			return
		}
		p.m.mu.Lock()
		alive, away, report := p.alive, p.away, p.report
		c := Count{Streams: p.life.streams, Live: p.life.streams - p.life.idle, Queue: p.life.queue}
		if p.life.drained > 0 && time.Since(away) > p.life.drained {
			c = Count{}
		}
		p.m.mu.Unlock()
		if !alive || away.IsZero() {
			return
		}
		if report != nil {
			report(Fact{Kind: Counted, Count: c, Began: time.Now()})
		}
	}
}

func (m *machine) reserve(app *config.App, n int, d *fakeDaemon) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !d.dead {
		m.reserved = append(m.reserved, fmt.Sprintf("%s %d", app.Name, n))
	}
}

// probe: a process is well from some time of its life to another.
func (d *fakeDaemon) probe(_ context.Context, app *config.App, index, gen int, _ *config.Probe) error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	for _, p := range d.m.procs {
		if p.l.App.Name == app.Name && p.l.Index == index && p.l.Gen == gen {
			if age := time.Since(p.started); !p.alive || age < p.life.wellFrom || p.life.wellTo > 0 && age >= p.life.wellTo {
				return errors.New("GET / answered 503")
			}
			return nil
		}
	}
	return errors.New("no such process")
}

func (d *fakeDaemon) stage(app string, r *Record) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.dead {
		return
	}
	d.m.staged[app] = r
	if !d.m.lazyDisk {
		d.m.commit()
	}
}

func (m *machine) commit() {
	for app, r := range m.staged {
		if m.disk[app] = r; r == nil {
			delete(m.disk, app)
		}
	}
	clear(m.staged)
	if m.onCommit != nil {
		m.onCommit()
	}
}

// checkRecord: what is called stopped is dead, up to the generation that the
// record knows.
func (m *machine) checkRecord(r Record, d *fakeDaemon) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.dead {
		return
	}
	for _, in := range r.Instances {
		for _, p := range m.procs {
			if in.State == Stopped && p.alive && p.l.App.Name == r.App.Name && p.l.Index == in.Index && p.l.Gen <= in.Gen {
				m.t.Errorf("%s-%d is called stopped, but pid %d (generation %d) lives", r.App.Name, in.Index, p.pid, p.l.Gen)
			}
		}
	}
}

func (d *fakeDaemon) launch(ctx context.Context, l Launch) (*Process, error) {
	m := d.m
	m.mu.Lock()
	script := m.plan(l)
	m.mu.Unlock()
	switch {
	case script.hang && script.spawn == 0:
		<-m.release
	case script.hang:
		<-time.After(script.spawn)
	case script.spawn > 0:
		select {
		case <-time.After(script.spawn):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	if d.dead {
		m.mu.Unlock()
		return nil, errors.New("the daemon is dead")
	}
	if script.spawnErr != "" {
		m.mu.Unlock()
		return nil, errors.New(script.spawnErr)
	}
	m.checkPlace(l)
	m.checkDepends(l)
	m.pid++
	p := &fakeProc{
		m: m, l: l, life: script, pid: m.pid, started: time.Now(), alive: true, report: l.Report,
		sigs: make(chan string, 64), inbox: make(chan Fact, 1024), attached: make(chan struct{}, 1), lost: make(chan struct{}),
	}
	m.procs = append(m.procs, p)
	m.mu.Unlock()
	go p.pump()
	if script.fast {
		p.end(script.code, "")
		<-time.After(time.Millisecond) // its end is told before this returns
	} else {
		go p.live()
	}
	return p.handle(d, l.Report), nil
}

// checkPlace: besides the new process there are in a place at most the current
// one and one that is about to be told to end, apart from those that drain, and
// no generation comes twice.
func (m *machine) checkPlace(l Launch) {
	others := 0
	for _, p := range m.procs {
		if p.l.App.Name != l.App.Name || p.l.Index != l.Index || p.l.ID != l.ID {
			if p.alive && p.l.App.Name == l.App.Name && p.l.Index == l.Index {
				m.t.Errorf("%s-%d has two ids, %d and %d", l.App.Name, l.Index, p.l.ID, l.ID)
			}
			continue
		}
		if p.alive && p.l.Gen == l.Gen {
			m.t.Errorf("%s-%d: generation %d twice", l.App.Name, l.Index, l.Gen)
		}
		if p.alive && len(p.signals) == 0 && p.away.IsZero() {
			others++
		}
	}
	if others > 2 {
		m.t.Errorf("%s-%d: generation %d is launched beside %d others", l.App.Name, l.Index, l.Gen, others)
	}
}

// checkDepends: before the first process of an app all that it depends on has
// had one.
func (m *machine) checkDepends(l Launch) {
	for _, name := range l.App.DependsOn {
		if l.Gen == 1 && !slices.ContainsFunc(m.procs, func(p *fakeProc) bool { return p.l.App.Name == name }) {
			m.t.Errorf("%s-%d is launched, but there never was a process of %s", l.App.Name, l.Index, name)
		}
	}
}

func (p *fakeProc) handle(d *fakeDaemon, report func(Fact)) *Process {
	send := func(sig string) error {
		p.m.mu.Lock()
		defer p.m.mu.Unlock()
		if d.dead { // the old daemon's goroutines have to end some time
			go report(Fact{Kind: Ended, Exit: Exit{At: time.Now(), Drained: true}})
			return nil
		}
		p.signals = append(p.signals, sig)
		if p.alive {
			p.sigs <- sig
		}
		return nil
	}
	return &Process{
		PID: p.pid, Start: uint64(p.pid), Started: p.started, Hold: "held", Unsteered: p.m.unsteered,
		Signal: send, Kill: func() error { return send("SIGKILL") },
	}
}

func (p *fakeProc) attach(d *fakeDaemon) func(*config.App, func(Fact)) *Process {
	return func(_ *config.App, report func(Fact)) *Process {
		for i := range p.m.flood {
			report(Fact{Kind: Listening, Text: fmt.Sprint("port ", i)})
		}
		p.m.mu.Lock()
		p.report = report
		p.m.mu.Unlock()
		select {
		case p.attached <- struct{}{}:
		default:
		}
		return p.handle(d, report)
	}
}

// live is the process.
func (p *fakeProc) live() {
	after := func(d time.Duration) <-chan time.Time {
		if d == 0 {
			return nil
		}
		return time.After(d)
	}
	second := after(p.life.second)
	listens, tells, exits, dies := after(p.life.listens), after(p.life.tells), after(p.life.exits), (<-chan time.Time)(nil)
	if p.life.refused != "" {
		p.say(Fact{Kind: Refused, Text: p.life.refused})
	}
	by := ""
	for {
		select {
		case <-listens:
			p.say(Fact{Kind: Listening, Text: "127.0.0.1:8080"})
		case <-second:
			p.say(Fact{Kind: Listening, Text: "127.0.0.1:8081"})
		case <-tells:
			p.say(Fact{Kind: Told})
		case <-exits:
			p.end(p.life.code, p.life.signal)
			return
		case sig := <-p.sigs:
			p.m.mu.Lock()
			ignores := p.life.immortal || p.life.deaf && sig != "SIGKILL"
			p.m.mu.Unlock()
			if ignores {
				continue
			}
			if sig == "SIGKILL" || p.life.dies == 0 {
				p.end(0, sig)
				return
			}
			by, dies = sig, time.After(p.life.dies)
		case <-dies:
			p.end(0, by)
			return
		case <-p.lost:
			return
		case <-p.m.off:
			return
		}
	}
}

func (p *fakeProc) end(code int, signal string) {
	p.m.mu.Lock()
	p.alive = false
	p.m.mu.Unlock()
	p.say(Fact{Kind: Ended, Exit: Exit{At: time.Now(), PID: p.pid, Code: code, Signal: signal}})
	if !p.life.mumbles {
		p.say(Fact{Kind: Tail, Tail: []Line{{Stream: "err", Text: p.life.lastWords}}})
	}
}

func (p *fakeProc) say(f Fact) { p.inbox <- f }

// pump brings what is said to the daemon that lives, until the last words.
func (p *fakeProc) pump() {
	for {
		select {
		case f := <-p.inbox:
			p.deliver(f)
			if f.Kind == Tail || f.Kind == Ended && p.life.mumbles {
				return
			}
		case <-p.lost:
			return
		case <-p.m.off:
			return
		}
	}
}

func (p *fakeProc) deliver(f Fact) {
	for {
		p.m.mu.Lock()
		report := p.report
		if report != nil && f.Kind == Ended {
			p.known = true
		}
		p.m.mu.Unlock()
		if report != nil {
			report(f)
			return
		}
		select {
		case <-p.attached:
		case <-p.lost:
			return
		case <-p.m.off:
			return
		}
	}
}

// checkRelease: nobody's listeners are closed under the newest process.
func (m *machine) checkRelease(app string, index int) {
	for _, p := range slices.Backward(m.procs) {
		if p.l.App.Name == app && p.l.Index == index {
			if p.alive && len(p.signals) == 0 {
				m.t.Errorf("the listeners of %s-%d are closed, but pid %d serves", app, index, p.pid)
			}
			return
		}
	}
}

// pass lets fake time go by, and everything come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// proc is the newest process of a place.
func (m *machine) proc(app string, index int) *fakeProc {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range slices.Backward(m.procs) {
		if p.l.App.Name == app && p.l.Index == index {
			return p
		}
	}
	m.t.Fatalf("%s-%d never had a process", app, index)
	return nil
}

// alive are the generations of a place that live.
func (m *machine) alive(app string, index int) (gens []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.procs {
		if p.alive && p.l.App.Name == app && p.l.Index == index {
			gens = append(gens, p.l.Gen)
		}
	}
	return gens
}

func (p *fakeProc) got() []string {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return slices.Clone(p.signals)
}

// kill ends a process from outside.
func (p *fakeProc) kill(signal string) {
	p.m.mu.Lock()
	p.life.immortal, p.life.deaf, p.life.dies = false, false, 0
	p.m.mu.Unlock()
	p.sigs <- signal
	synctest.Wait()
}

// wait for the answer to a verb that was given in the background.
type pending struct {
	m *machine
	c chan []Outcome
}

func (m *machine) async(f func() []Outcome) pending {
	p := pending{m, make(chan []Outcome, 1)}
	go func() { p.c <- f() }()
	synctest.Wait()
	return p
}

func (p pending) open() bool { return len(p.c) == 0 }

// now is the answer, which has to be there.
func (p pending) now() []Outcome {
	p.m.t.Helper()
	synctest.Wait()
	select {
	case r := <-p.c:
		return r
	default:
		p.m.t.Fatal("no answer yet")
		return nil
	}
}

func (p pending) wait() []Outcome { return <-p.c }

func (m *machine) start(app config.App) []Outcome {
	return m.sup().Start(m.t.Context(), []config.App{app}, false)
}

func (m *machine) reload(app config.App) []Outcome {
	return m.sup().Start(m.t.Context(), []config.App{app}, true)
}

func (m *machine) act(v Verb, targets ...string) []Outcome {
	m.t.Helper()
	r, err := m.sup().Act(m.t.Context(), v, targets, nil)
	if err != nil {
		m.t.Fatalf("%s %v: %v", v, targets, err)
	}
	return r
}

func (m *machine) scale(app, n string) []Outcome {
	m.t.Helper()
	r, err := m.sup().Scale(m.t.Context(), app, n)
	if err != nil {
		m.t.Fatalf("scale %s %s: %v", app, n, err)
	}
	return r
}

// status is one instance as List shows it.
func (m *machine) status(app string, index int) Status {
	m.t.Helper()
	synctest.Wait()
	for _, s := range m.sup().List() {
		if s.App.Name == app && s.Index == index {
			return s
		}
	}
	m.t.Fatalf("%s-%d is not listed", app, index)
	return Status{}
}

func (m *machine) wantState(app string, index int, want State) Status {
	m.t.Helper()
	s := m.status(app, index)
	if s.State != want {
		m.t.Fatalf("%s-%d is %q (%s), want %q", app, index, s.State, s.Reason, want)
	}
	return s
}

// events of an app so far, as "kind: message".
func (m *machine) events(app string) (r []string) {
	synctest.Wait()
	m.sup().do(func(b *board) {
		for _, e := range b.feeds.past {
			if e.App == app {
				r = append(r, e.Kind+": "+e.Message)
			}
		}
	})
	return r
}

func webApp(name string, instances int) config.App {
	return config.App{
		Name: name, Namespace: "default", Script: "/srv/" + name, Instances: instances, Autorestart: true,
		MaxRestarts: 16, MinUptime: config.Duration(time.Second), KillSignal: "SIGINT",
		KillTimeout: config.Duration(5 * time.Second), ListenTimeout: config.Duration(8 * time.Second),
		QueueTimeout: config.Duration(time.Hour),
	}
}

func allOK(t *testing.T, r []Outcome, n int) {
	t.Helper()
	if len(r) != n {
		t.Fatalf("%d outcomes, want %d: %+v", len(r), n, r)
	}
	for _, o := range r {
		if !o.OK {
			t.Fatalf("%s-%d failed: %s", o.Name, o.Index, o.Reason)
		}
	}
}

func failed(t *testing.T, r []Outcome, n int) Outcome {
	t.Helper()
	if len(r) != n {
		t.Fatalf("%d outcomes, want %d: %+v", len(r), n, r)
	}
	for _, o := range r {
		if o.OK || o.Reason == "" {
			t.Fatalf("%s-%d: want a failure with a reason, got %+v", o.Name, o.Index, o)
		}
	}
	return r[0]
}

// settle: what is said to be online is alive, or its death is news under way.
func (m *machine) settle(app string, index, gen int, d *fakeDaemon) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !d.dead {
		m.settled = append(m.settled, fmt.Sprintf("%s-%d %d", app, index, gen))
	}
}

// record is what is on disk of an app; "" if nothing is.
func (m *machine) record(app string) string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.encoded(app))
}

func (m *machine) encoded(app string) []byte {
	if m.disk[app] == nil {
		return nil
	}
	b, err := json.Marshal(m.disk[app])
	if err != nil {
		m.t.Errorf("write record: %v", err)
	}
	return b
}
