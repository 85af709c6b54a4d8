package daemon

import (
	"maps"
	"os/user"
	"strconv"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/api"
)

// The wire's types are the wire's own: the brain may change without it.

func (d *daemon) instance(s supervisor.Status) api.Instance {
	out, errs := logPaths(s.App, s.ID)
	r := api.Instance{
		ID: s.ID, Name: s.App.Name, Namespace: s.App.Namespace, Instance: s.Index, Mode: s.App.ExecMode,
		User: userOf(s.App), Version: d.versions.of(s.App),
		Status: api.Status(s.State), Reason: s.Reason, PID: s.PID, Generation: s.Gen, Draining: s.Draining,
		Restarts: s.Restarts, Unstable: s.Streak.Unstable, Created: s.Created, Started: s.Started,
		CPU: s.CPU, Memory: s.Memory, Watching: s.Watching, Hold: s.Hold,
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
		r.Listeners = append(r.Listeners, api.Listener{Address: l.Addr.String(), Listening: l.Listening})
	}
	r.LogProblem, r.LogsDropped = d.hands.logProblem(s.App.Name, s.Index)
	return r
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
	return api.Event{
		Seq: e.Seq, At: e.At, Kind: e.Kind, App: e.App, ID: e.ID, Instance: e.Index,
		Status: api.Status(e.State), Message: e.Message,
	}
}

func resultOf(out []supervisor.Outcome) api.Result {
	r := api.Result{Instances: []api.Outcome{}}
	for _, o := range out {
		a := api.Outcome{ID: o.ID, Name: o.Name, Instance: o.Index, Status: api.Status(o.State), PID: o.PID, OK: o.OK, Reason: o.Reason}
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
