package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"gpm/config"
)

// job is a verb for one app, in a call that may be about several. What comes up
// has its turn after what it depends on, what goes down before.
type job struct {
	app    *app
	name   string
	order  order
	spec   *config.App // as it will be: says what the app depends on
	places []Snapshot  // it is about
	runs   bool        // one of them has a process: that is not touched before the job's turn
	need   string      // the app that needs it; empty: its caller named it
	users  []string    // apps that depend on it and run on
	number int         // of the call on the board; zero: nothing overrules it
	first  []*job      // whose turn comes before
	refuse string      // why it is not even tried

	seen   bool          // somebody wants to know when it has begun
	prompt bool          // it begins without waiting for the end of others
	begun  chan struct{} // closed when it was obeyed, and that can be seen on the board
	done   chan struct{} // closed when it is over
	out    []Outcome
}

func (j *job) goesDown() bool { return j.order.do == onStop || j.order.do == doLeave }

func (j *job) comesUp() bool {
	return j.order.do == onStart || j.order.do == onRestart || j.order.do == onReload
}

// sorted is names with each after what it depends on; otherwise they stay as
// they are. In a circle somebody is first.
func sorted(names []string, depends func(string) []string) (r []string) {
	left := map[string]bool{}
	for _, name := range names {
		left[name] = true
	}
	var visit func(string)
	visit = func(name string) {
		if !left[name] {
			return
		}
		left[name] = false
		for _, on := range depends(name) {
			visit(on)
		}
		r = append(r, name)
	}
	for _, name := range names {
		visit(name)
	}
	return r
}

// arrange puts jobs in their order and tells each whom it has to wait for. That
// is only ever one before it, so they cannot wait in a circle.
func arrange(jobs []*job) []*job {
	by, names := map[string]*job{}, []string(nil)
	for _, j := range jobs {
		by[j.name], names = j, append(names, j.name)
	}
	jobs = nil
	placed := map[string]bool{}
	for _, name := range sorted(names, func(name string) []string { return by[name].spec.DependsOn }) {
		j := by[name]
		for _, on := range j.spec.DependsOn {
			switch k := by[on]; {
			case !placed[on]:
			case j.comesUp():
				j.first = append(j.first, k)
			case j.goesDown():
				k.first = append(k.first, j)
			}
		}
		jobs, placed[name] = append(jobs, j), true
	}
	if len(jobs) > 0 && jobs[0].goesDown() {
		slices.Reverse(jobs)
	}
	return jobs
}

// inTurn carries jobs out, each in a goroutine that ends with it, and waits for
// the outcomes. What they tell of has been given to the world's Save and Forget
// then, so that a Sync after it is about them, too.
func (s *Supervisor) inTurn(ctx context.Context, jobs []*job) (r []Outcome) {
	s.setOff(ctx, jobs)
	for _, j := range jobs {
		<-j.done
		r = append(r, j.out...)
	}
	s.do(func(*board) {})
	return r
}

func (s *Supervisor) setOff(ctx context.Context, jobs []*job) {
	for _, j := range jobs {
		j.begun, j.done = make(chan struct{}), make(chan struct{})
		j.prompt = len(j.first) == 0 || !j.runs
		for _, k := range j.first {
			k.seen, j.prompt = true, j.prompt && k.prompt
		}
	}
	for _, j := range jobs {
		go s.carryOut(ctx, j)
	}
}

func (s *Supervisor) carryOut(ctx context.Context, j *job) {
	defer close(j.done)
	if why := s.await(ctx, j); why != "" {
		j.out = j.untouched(why)
		close(j.begun)
		return
	}
	wait := s.order(ctx, j.app, j.order)
	if j.seen {
		s.order(ctx, j.app, order{do: doSeen, indices: j.order.indices})()
	}
	close(j.begun)
	j.out = wait()
	for i := range j.out {
		j.out[i].NeededBy, j.out[i].UsedBy = j.need, j.users
	}
}

// await waits for a job's turn; it returns why there is none. What does not run
// yet need only see that the others have begun: it waits for them by itself
// (instance.launch), also if gpm should end meanwhile.
func (s *Supervisor) await(ctx context.Context, j *job) string {
	for _, k := range j.first {
		c := k.done
		if j.comesUp() && !j.runs {
			c = k.begun
		}
		select {
		case <-c:
		case <-ctx.Done():
			return "no time was left to begin"
		}
		if j.comesUp() && j.runs && slices.ContainsFunc(k.out, func(o Outcome) bool { return !o.OK }) {
			return fmt.Sprintf("left as it was, because %s failed", k.name)
		}
	}
	if j.refuse == "" && j.number != 0 && len(j.first) > 0 {
		s.do(func(b *board) {
			if e := b.entries[j.name]; e == nil || e.app != j.app || e.number != j.number {
				j.refuse = "left as it was, because of a later command"
			}
		})
	}
	return j.refuse
}

// untouched are the outcomes of a job that had no turn.
func (j *job) untouched(why string) (r []Outcome) {
	for _, p := range j.places {
		r = append(r, Outcome{ID: p.ID, Name: j.name, Index: p.Index, Reason: why})
	}
	if r == nil {
		r = refused(j.name, why)()
	}
	return r
}

// plan makes the jobs of a verb.
func (b *board) plan(v Verb, chosen []choice) (jobs []*job) {
	for _, c := range chosen {
		o := verbs[v]
		o.indices = c.indices
		j := &job{app: c.app, name: c.app.name, order: o, spec: c.spec}
		j.about(b.entries[j.name])
		jobs = append(jobs, j)
	}
	if v != Reset && v != Drain && v != Undrain {
		b.claim(jobs)
	}
	for _, j := range jobs {
		if j.goesDown() && j.order.indices == nil {
			j.users = slices.DeleteFunc(b.users(j.name), func(name string) bool {
				return slices.ContainsFunc(jobs, func(k *job) bool { return k.name == name })
			})
		}
	}
	return jobs
}

// claim makes jobs overrule the earlier ones of their apps that wait for their
// turn.
func (b *board) claim(jobs []*job) {
	b.number++
	for _, j := range jobs {
		if e := b.entries[j.name]; e != nil && j.app == e.app {
			j.number, e.number = b.number, b.number
		}
	}
}

// jobs are those of apps that are started, or that get a new config if they are
// on the board already. offers are apps that are only to be started if one of
// the others needs them.
func (s *Supervisor) jobs(specs, offers []config.App, reload bool) (jobs []*job) {
	again := order{do: onRestart, reason: "restarted with a new config"}
	if reload {
		again = order{do: onReload, reason: "reloaded with a new config"}
	}
	circle := s.circle(specs)
	for i := range specs {
		if circle != "" {
			jobs = append(jobs, &job{name: specs[i].Name, spec: &specs[i], refuse: circle})
			continue
		}
		jobs = append(jobs, s.job(&specs[i], again))
	}
	s.do(func(b *board) { b.claim(jobs) })
	return arrange(s.withNeeds(jobs, offers))
}

// circle tells whether apps would wait for each other.
func (s *Supervisor) circle(specs []config.App) string {
	depends, names := map[string][]string{}, []string(nil)
	s.do(func(b *board) {
		for name, e := range b.entries {
			depends[name] = e.spec.DependsOn
		}
	})
	for _, spec := range specs {
		depends[spec.Name], names = spec.DependsOn, append(names, spec.Name)
	}
	way := config.Circle(names, func(name string) []string { return depends[name] })
	if way == nil {
		return ""
	}
	return "none of them could start first: " + config.Way(way)
}

// job is the job of an app with a spec: the order again, or if it is new its start.
func (s *Supervisor) job(spec *config.App, again order) (j *job) {
	a, isNew := s.enter(spec)
	if a == nil {
		return &job{name: spec.Name, spec: spec, refuse: "gpm is ending"}
	}
	if isNew && again.do != onStart {
		again = order{do: onStart, reason: "started by its user"}
	}
	again.spec = spec
	j = &job{app: a, name: spec.Name, order: again, spec: spec}
	s.do(func(b *board) { j.about(b.entries[a.name]) })
	return j
}

// about notes what a job is about. The app may be gone by now.
func (j *job) about(e *entry) {
	if e == nil {
		return
	}
	j.runs = e.runs(j.order.indices)
	for _, i := range slices.Sorted(maps.Keys(e.places)) {
		if j.order.indices == nil || slices.Contains(j.order.indices, i) {
			j.places = append(j.places, e.places[i])
		}
	}
}

// withNeeds adds what jobs need and what is not up.
func (s *Supervisor) withNeeds(jobs []*job, offers []config.App) []*job {
	have := map[string]bool{}
	for _, j := range jobs {
		have[j.name] = true
	}
	for i := 0; i < len(jobs); i++ { // it grows meanwhile
		if !jobs[i].comesUp() || jobs[i].refuse != "" {
			continue
		}
		for _, name := range jobs[i].spec.DependsOn {
			if have[name] {
				continue
			}
			have[name] = true
			o := order{do: onStart, reason: "started because " + jobs[i].name + " depends on it"}
			if j := s.needed(name, offers, o); j != nil {
				j.need = jobs[i].name
				jobs = append(jobs, j)
			}
		}
	}
	return jobs
}

// needed is the job that starts an app because another one needs it; nil: it is
// up, or nobody knows it. An offer counts only if nothing of the app runs.
func (s *Supervisor) needed(name string, offers []config.App, o order) (j *job) {
	offered := slices.IndexFunc(offers, func(a config.App) bool { return a.Name == name })
	s.do(func(b *board) {
		e := b.entries[name]
		if e == nil || e.leaving {
			return
		}
		if o.indices = e.down(); o.indices == nil || e.runs(nil) {
			offered = -1
		}
		if o.indices != nil {
			j = &job{app: e.app, name: name, order: o, spec: e.spec}
			j.about(e)
		}
	})
	if offered < 0 {
		return j
	}
	o.indices = nil
	return s.job(&offers[offered], o)
}
