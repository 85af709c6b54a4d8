package daemon

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/api"
)

// actTime bounds a verb. Every instance has its own, shorter deadlines: the
// longest is a drain_timeout of a day.
const actTime = 25 * time.Hour

func (d *daemon) handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		api.RoutePing:      func(w http.ResponseWriter, _ *http.Request) { reply(w, d.about()) },
		api.RouteList:      d.list,
		api.RouteDescribe:  d.describe,
		api.RouteStart:     d.start,
		api.RouteStop:      d.act(supervisor.Stop),
		api.RouteDrain:     d.act(supervisor.Drain),
		api.RouteAbort:     d.act(supervisor.Abort),
		api.RouteRestart:   d.act(supervisor.Restart),
		api.RouteReload:    d.act(supervisor.Reload),
		api.RouteDelete:    d.act(supervisor.Delete),
		api.RouteReset:     d.act(supervisor.Reset),
		api.RouteScale:     d.scale,
		api.RouteFlush:     d.flush,
		api.RouteLogs:      d.logs,
		api.RouteEvents:    d.events,
		api.RouteSave:      d.save,
		api.RouteResurrect: d.resurrect,
		api.RouteUpdate:    d.update,
		api.RouteKill:      d.kill,
		api.RouteDoctor:    func(w http.ResponseWriter, _ *http.Request) { reply(w, d.doctor()) },
	}
}

func (d *daemon) about() api.Daemon {
	return api.Daemon{
		Version: api.Version, Protocol: api.Protocol, PID: os.Getpid(), Keeper: d.keeperPID, Started: d.started,
		Home: d.home, Exe: d.exe, Unsaved: d.unsaved(), Warnings: d.warnings(),
	}
}

func (d *daemon) snapshot(list []supervisor.Status) api.List {
	r := api.List{Instances: []api.Instance{}, Host: d.sampler.host(), Daemon: d.about()}
	for _, s := range list {
		r.Instances = append(r.Instances, d.instance(s))
	}
	return r
}

func (d *daemon) list(w http.ResponseWriter, r *http.Request) {
	list, err := d.targets(r)
	if err == nil && slices.ContainsFunc(list, unmeasured) {
		d.sampler.sample(d.hands) // just started: "0 bytes" would be a lie
		list, err = d.targets(r)
	}
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, d.snapshot(list))
}

func unmeasured(s supervisor.Status) bool { return s.PID != 0 && s.Memory == 0 }

// targets are the instances that a GET names with ?target=, or all.
func (d *daemon) targets(r *http.Request) ([]supervisor.Status, error) {
	if t := r.URL.Query()["target"]; len(t) > 0 {
		return d.brain.Match(t)
	}
	return d.brain.List(), nil
}

func (d *daemon) describe(w http.ResponseWriter, r *http.Request) {
	list, err := d.targets(r)
	if err != nil {
		fail(w, err)
		return
	}
	if len(list) > 0 {
		d.census.closely()
		if list, err = d.targets(r); err != nil {
			fail(w, err)
			return
		}
	}
	values := r.URL.Query().Get("env") == "1"
	out := []api.Description{}
	for _, s := range list {
		x := api.Description{Instance: d.instance(s), App: shown(*s.App, values), Exits: []api.Exit{}, Events: []api.Event{}}
		for _, e := range s.Exits {
			x.Exits = append(x.Exits, exitOf(e, s))
		}
		for _, e := range d.brain.History(s.App.Name, s.ID, 20) {
			x.Events = append(x.Events, eventOf(e))
		}
		x.Tree = d.hands.tree(s.App.Name, s.Index)
		x.Ages = ages(s)
		out = append(out, x)
	}
	reply(w, out)
}

func (d *daemon) start(w http.ResponseWriter, r *http.Request) {
	var req api.StartRequest
	if !decode(w, r, &req) {
		return
	}
	err := startable(req.Apps)
	if err == nil {
		err = sound(req.Needs)
	}
	if err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := acting(r)
	defer cancel()
	if req.NoWait {
		d.brain.Begin(ctx, req.Apps, req.Reload, req.Needs...)
		d.done(w)(nil, nil)
		return
	}
	d.done(w)(d.brain.Start(ctx, req.Apps, req.Reload, req.Needs...), nil)
}

// startable checks apps as a whole: nothing is started of what is half good.
func startable(apps []config.App) error {
	if len(apps) == 0 {
		return &api.Error{Kind: api.KindInvalid, Message: "no apps in the request"}
	}
	return sound(apps)
}

// sound checks each app, and that no name is there twice.
func sound(apps []config.App) error {
	names := map[string]bool{}
	for i := range apps {
		app := &apps[i]
		app.Complete() // it may come from an earlier gpm's CLI
		if err := config.Check(app); err != nil {
			return &api.Error{Kind: api.KindInvalid, Message: err.Error()}
		}
		if names[app.Name] {
			return &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("two apps named %q in one request", app.Name)}
		}
		names[app.Name] = true
	}
	return nil
}

func (d *daemon) act(v supervisor.Verb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req api.ActRequest
		if !decode(w, r, &req) {
			return
		}
		if len(req.Targets) == 0 {
			fail(w, &api.Error{
				Kind: api.KindInvalid, Message: fmt.Sprintf("%s: no target given", v),
				Hint: "name an app, an id, a namespace, /regex/ or all",
			})
			return
		}
		v := variant(v, req)
		var respec func(config.App) config.App
		if req.UpdateEnv != nil {
			respec = func(app config.App) config.App { app.Inherited = req.UpdateEnv; return app }
		}
		ctx, cancel := acting(r)
		defer cancel()
		d.done(w)(d.brain.Act(ctx, v, req.Targets, respec))
	}
}

// variant is the verb that a request's flags make of the route's.
func variant(v supervisor.Verb, req api.ActRequest) supervisor.Verb {
	switch {
	case v == supervisor.Stop && req.Drain:
		return supervisor.StopDrained
	case v == supervisor.Delete && req.Drain:
		return supervisor.DeleteDrained
	case v == supervisor.Drain && req.Undo:
		return supervisor.Undrain
	}
	return v
}

func (d *daemon) scale(w http.ResponseWriter, r *http.Request) {
	var req api.ActRequest
	if !decode(w, r, &req) {
		return
	}
	if len(req.Targets) != 1 {
		fail(w, &api.Error{Kind: api.KindInvalid, Message: "scale: one app and a number are expected", Hint: "gpm scale <app> 4"})
		return
	}
	ctx, cancel := acting(r)
	defer cancel()
	d.done(w)(d.brain.Scale(ctx, req.Targets[0], req.Instances))
}

// done answers a verb, once what it changed is on disk.
func (d *daemon) done(w http.ResponseWriter) func([]supervisor.Outcome, error) {
	return func(out []supervisor.Outcome, err error) {
		if err != nil {
			fail(w, err)
			return
		}
		if err := d.synced(); err != nil {
			fail(w, &api.Error{
				Kind: api.KindFailed, Message: "it was done, but could not be recorded: " + err.Error(),
				Hint: "make room on the disk of GPM_HOME and say it again; a restart of gpm would forget it",
			})
			return
		}
		reply(w, resultOf(out))
	}
}

// acting is the context of a verb: it outlives a client that leaves, because a
// half-done verb helps nobody, and it ends with its deadline.
func acting(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), actTime)
}

// synced waits for the records: what gpm says is done survives a power cut.
func (d *daemon) synced() error {
	err := d.store.Sync()
	if err != nil {
		d.warn("records cannot be written, a restart of gpm would forget changes: " + err.Error())
	}
	return err
}

func (d *daemon) flush(w http.ResponseWriter, r *http.Request) {
	var req api.ActRequest
	if !decode(w, r, &req) {
		return
	}
	list := d.brain.List()
	if len(req.Targets) > 0 {
		var err error
		if list, err = d.brain.Match(req.Targets); err != nil {
			fail(w, err)
			return
		}
	}
	res := api.FlushResult{Files: []string{}}
	for _, s := range list {
		out, errs := logPaths(s.App, s.ID)
		for _, p := range []string{out, errs} {
			if p == "" || slices.Contains(res.Files, p) {
				continue
			}
			if err := d.hands.book.Flush(p); err != nil {
				fail(w, &api.Error{Kind: api.KindFailed, Message: fmt.Sprintf("flush %q: %v", p, err)})
				return
			}
			res.Files = append(res.Files, p)
		}
	}
	reply(w, res)
}

func (d *daemon) save(w http.ResponseWriter, _ *http.Request) {
	path, n, err := d.dump()
	if err != nil {
		fail(w, &api.Error{Kind: api.KindFailed, Message: err.Error()})
		return
	}
	reply(w, api.SaveResult{Path: path, Apps: n})
}

func (d *daemon) resurrect(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := acting(r)
	defer cancel()
	d.done(w)(d.revive(ctx))
}

// update: the keeper starts the next daemon, from the new binary, as it would
// after a crash of this one.
func (d *daemon) update(w http.ResponseWriter, r *http.Request) {
	var req api.UpdateRequest
	if !decode(w, r, &req) {
		return
	}
	if !filepath.IsAbs(req.Exe) {
		fail(w, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("update to %q: an absolute path is expected", req.Exe)})
		return
	}
	if err := d.link.Next(req.Exe); err != nil {
		fail(w, &api.Error{Kind: api.KindFailed, Message: fmt.Sprintf("update to %q: %v", req.Exe, err)})
		return
	}
	reply(w, d.about())
	d.leave("replaced by " + req.Exe)
}

// kill stops all apps, forgets them, and ends daemon and keeper.
func (d *daemon) kill(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := acting(r)
	defer cancel()
	out := d.brain.Shutdown(ctx, false)
	d.hands.rest()
	_ = d.synced() // warned about; gpm ends all the same
	if err := d.link.Quit(); err != nil {
		d.log.Error("tell the keeper to end", "error", err)
	}
	reply(w, resultOf(out))
	d.farewell("gpm kill")
}
