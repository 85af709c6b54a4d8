package daemon

import (
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/api"
	"gpm/supervisor/internal/streams"
)

// The wire's types are the wire's own: the brain may change without it.

func (d *daemon) instance(s supervisor.Status) api.Instance {
	out, errs := logPaths(s.App, s.ID)
	r := api.Instance{
		ID: s.ID, Name: s.App.Name, Namespace: s.App.Namespace, Instance: s.Index, Mode: s.App.ExecMode,
		User: userOf(s.App), Version: d.versions.of(s.App),
		Status: api.Status(s.State), Reason: s.Reason, PID: s.PID, Generation: s.Gen, Draining: s.Draining,
		Restarts: s.Restarts, Unstable: s.Streak.Unstable, Created: s.Created, Started: s.Started,
		Standby: d.hands.standbys(s.App.Name),
		Traffic: api.Traffic(s.Traffic), Health: s.Health,
		CPU: s.CPU, Memory: s.Memory, DependsOn: s.App.DependsOn, Watching: s.Watching, Hold: s.Hold,
		OutFile: out, ErrorFile: errs,
	}
	if !s.NextTry.IsZero() {
		r.NextTry = &s.NextTry
	}
	if n := len(s.Exits); n > 0 {
		e := exitOf(s.Exits[n-1], s)
		e.Tail = nil
		r.LastExit = &e
	}
	for _, l := range d.hands.listeners(s.App.Name, s.Index) {
		r.Listeners = append(r.Listeners, api.Listener{Address: l.Addr.String(), Listening: l.Listening, Queue: d.census.queue(l.Inode)})
		if slices.Contains(l.Gens, s.CurGen) {
			r.Steering = d.hands.steering(l.How)
			if r.Traffic == api.Away && strings.HasPrefix(l.How, "hash") {
				r.Traffic = api.Serving // whatever it is to get: the kernel deals to all
			}
		}
	}
	if r.Listeners == nil {
		r.Traffic = ""
	}
	count(&r, s)
	if s.Sick != "" && r.Reason == "" {
		r.Reason = s.Sick
	}
	r.LogProblem, r.LogsDropped = d.hands.logProblem(s.App.Name, s.Index)
	return r
}

// count adds what is known of the instance's connections.
func count(r *api.Instance, s supervisor.Status) {
	for _, c := range s.Counts {
		r.Streams += c.Streams
		if !c.Oldest.IsZero() && (r.Oldest.IsZero() || c.Oldest.Before(r.Oldest)) {
			r.Oldest = c.Oldest
		}
		r.Queue += c.Queue
	}
	if c := s.Counts[s.CurGen]; c.Close {
		r.Idle = c.Streams - c.Queue - c.Live
	}
	for _, p := range s.Procs {
		if p.Role != supervisor.Outgoing {
			continue
		}
		c := s.Counts[p.Gen]
		r.Outgoing = append(r.Outgoing, api.Outgoing{
			PID: p.PID, Generation: p.Gen, Streams: c.Streams, Live: c.Live, Oldest: c.Oldest, Deadline: p.Until, Ending: p.Ending,
		})
	}
}

// ages is the histogram of an instance's streams.
func ages(s supervisor.Status) []api.AgeCount {
	r := make([]api.AgeCount, len(streams.Bounds)+1)
	for i, b := range streams.Bounds {
		r[i].Below = config.Duration(b)
	}
	for _, c := range s.Counts {
		for i, n := range c.Ages {
			r[i].Count += n
		}
	}
	return r
}

// steering says how new connections are dealt.
func (h *hands) steering(how string) string {
	if how == "hash" && h.steerWhy != "" {
		return "hash: " + h.steerWhy
	}
	return how
}

func exitOf(e supervisor.Exit, s supervisor.Status) api.Exit {
	r := api.Exit{
		At: e.At, PID: e.PID, Code: e.Code, Signal: e.Signal, Unknown: e.Unknown,
		Uptime: config.Duration(e.Uptime), Reason: e.Sentence(),
	}
	for _, l := range e.Tail {
		r.Tail = append(r.Tail, lineOf(l, s.ID, s.App.Name, s.Index))
	}
	return r
}

func lineOf(l supervisor.Line, id int, name string, index int) api.LogLine {
	return api.LogLine{ID: id, Name: name, Instance: index, Stream: l.Stream, At: l.At, Text: l.Text}
}

func eventOf(e supervisor.Event) api.Event {
	r := api.Event{
		Seq: e.Seq, At: e.At, Kind: e.Kind, App: e.App, ID: e.ID, Instance: e.Index,
		Status: api.Status(e.State), Message: e.Message,
	}
	if p := e.Progress; p != nil {
		r.Progress = &api.Progress{
			Ready: p.Ready, Total: p.Total, Draining: p.Draining, Streams: p.Streams, Oldest: p.Oldest,
			Deadline: p.Deadline, Waiting: p.Waiting, Done: p.Done,
		}
	}
	return r
}

func resultOf(out []supervisor.Outcome) api.Result {
	r := api.Result{Instances: []api.Outcome{}}
	for _, o := range out {
		a := api.Outcome{ID: o.ID, Name: o.Name, Instance: o.Index, Status: api.Status(o.State), PID: o.PID, OK: o.OK, Reason: o.Reason, Runs: api.Edition(o.Runs), NeededBy: o.NeededBy, UsedBy: o.UsedBy}
		for _, l := range o.Tail {
			a.Tail = append(a.Tail, lineOf(l, o.ID, o.Name, o.Index))
		}
		r.Instances = append(r.Instances, a)
	}
	return r
}

const redacted = "[redacted]"

// shown is the app as describe shows it: values of the environment stay
// hidden unless asked for.
func shown(app config.App, values bool) config.App {
	if values {
		return app
	}
	hide := func(m map[string]string) map[string]string {
		m = maps.Clone(m)
		for k := range m {
			m[k] = redacted
		}
		return m
	}
	app.Env, app.Inherited = hide(app.Env), hide(app.Inherited)
	app.Profiles = maps.Clone(app.Profiles)
	for k, p := range app.Profiles {
		app.Profiles[k] = hide(p)
	}
	return app
}

func userOf(app *config.App) string {
	if app.UID == "" {
		return self()
	}
	if _, err := strconv.Atoi(app.UID); err == nil {
		if u, err := user.LookupId(app.UID); err == nil {
			return u.Username
		}
	}
	return app.UID
}
