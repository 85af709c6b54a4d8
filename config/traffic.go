package config

import (
	"cmp"
	"time"

	"github.com/tailscale/hujson"
)

// The headings of the reference.
const (
	groupTraffic = "Traffic"
	groupProbes  = "Probes"
)

const (
	maxStandby = 64
	// maxParallel is "all": as many instances as an app can have.
	maxParallel = maxInstances
	maxDraining = maxInstances
)

// trafficIntro stands below the heading in the reference.
const trafficIntro = "What happens at a reload: gpm replaces the instances one after another (`rollout`). For each it starts the new process beside the old one, with a listening socket of its own that gets no connections yet. When the new process is ready ([Probes](#probes)), new connections go to it, and no more to the old one. The old one finishes what it has: gpm counts its open connections, and when they have ended, or only idle ones are left (`drain_idle`), or after `drain_timeout`, it is sent `kill_signal`, and killed `kill_timeout` later if it is still there. That is the drain. If the new process does not become ready, it is ended, the old ones go on as if nothing had happened, and the reload fails and says why. The app needs to know nothing of all this.\n\n" +
	"`gpm scale` down and `gpm drain` drain in the same way. When gpm itself ends, for a shutdown of the machine say, there is less time: `shutdown_timeout`. When a process dies, its place is filled again, connections that wait to be accepted go to its siblings or wait for its successor (`queue_timeout`), and only what it had accepted is lost.\n\n"

func trafficKeys() []Key {
	return []Key{
		{
			Name: "balance", Group: groupTraffic, Type: "`\"least\"`, `\"random\"` or `\"hash\"`", Default: `"least"`, Origin: FromGPM,
			Doc: "Which instance gets a new connection: the one with the fewest (`least`), any (`random`), or the one that the kernel finds by a hash of the addresses (`hash`). Where the machine does not allow gpm the better one, the next is taken, and `gpm describe` says which and why. Needs `hold`.",
			set: wantChoice([]string{"least", "random", "hash"}, []string{"least", "random", "hash"}, func(a *App) *string { return &a.Balance }),
		},
		{
			Name: "drain", Group: groupTraffic, Type: "`\"wait\"` or `\"signal\"`", Default: `"wait"`, Origin: FromGPM,
			Doc: "How a process that gets no more connections finishes. `wait`: gpm waits for its connections, then sends `kill_signal`; works with any app. `signal`: gpm sends `kill_signal` as soon as no connection waits to be accepted, the app finishes its connections itself and ends (nginx at SIGQUIT, gunicorn at SIGTERM, Go's `http.Server.Shutdown`), and gpm gives it `drain_timeout` for that instead of `kill_timeout`.",
			set: wantChoice([]string{"wait", "signal"}, []string{"wait", "signal"}, func(a *App) *string { return &a.Drain }),
		},
		{
			Name: "drain_timeout", Group: groupTraffic, Type: typeDuration, Default: "30000", Origin: FromGPM,
			Doc: "How long a drain may take; what is still open then is cut. Minutes and hours are fine (`\"2h\"`): the reload does not wait for it, only the old process stays so long.",
			set: wantDuration(time.Millisecond, func(a *App) *Duration { return &a.DrainTimeout }),
		},
		{
			Name: "drain_idle", Group: groupTraffic, Type: typeDuration, Default: "20000", Origin: FromGPM,
			Doc: "A connection that carried no data for so long, in either direction, does not hold up a drain: a browser's idle keep-alive connection, say. A stream has to send something more often than this, a comment as heartbeat every 15 s for example.",
			set: wantDuration(time.Millisecond, func(a *App) *Duration { return &a.DrainIdle }),
		},
		{
			Name: "shutdown_timeout", Group: groupTraffic, Type: typeDuration, Default: "5000", Origin: FromGPM,
			Doc: "How long a drain may take when gpm itself ends, instead of `drain_timeout`. `0` does not drain then.",
			set: wantDuration(0, func(a *App) *Duration { return &a.ShutdownTimeout }),
		},
		{
			Name: "queue_timeout", Group: groupTraffic, Type: typeDuration, Default: "30000", Origin: FromGPM,
			Doc: "How long new connections wait while no instance is up. After that they are refused, until one is up again. `0` refuses them at once.",
			set: wantDuration(0, func(a *App) *Duration { return &a.QueueTimeout }),
		},
		{
			Name: "rollout", Group: groupTraffic, Type: "object", Default: `{"parallel": 1, "pause": 0, "max_draining": 0}`, Origin: FromGPM,
			Doc: "The pace of a reload.", fields: rolloutFields(),
			set: wantFields(`an object like {"parallel": 2, "pause": "10s"}`, rolloutFields()),
		},
		{
			Name: "standby", Group: groupTraffic, Type: typeNumber, Default: "0", Origin: FromGPM,
			Doc: "So many more processes are started up to the moment when they want to listen, and wait there; one of them takes the place of an instance that dies, at once. From 0 to 64. Each needs the memory of a process. Which instance it will be is not known when it is started: its environment has -1 as `NODE_APP_INSTANCE` and `pm_id`, and keeps it; so this is not for an app in which instance 0 does something that the others do not. Needs `hold`.",
			set: wantInt(0, maxStandby, func(a *App) *int { return &a.Standby }),
		},
	}
}

func rolloutFields() []field {
	return []field{
		{name: "parallel", typ: "number, or `\"all\"`", def: "`1`", doc: "Instances that are replaced at the same time.", set: setParallel},
		{name: "pause", typ: typeDuration, def: "`0`", doc: "To wait after a batch is ready, before the next.",
			set: wantDuration(0, func(a *App) *Duration { return &a.Rollout.Pause })},
		{name: "max_draining", typ: typeNumber, def: "`0`", doc: "With more draining processes than this the rollout waits. `0` is three times the number of instances, so that several rollouts may drain at once.",
			set: wantInt(0, maxDraining, func(a *App) *int { return &a.Rollout.MaxDraining })},
	}
}

func setParallel(d *draft, m member) {
	v, ok := m.value.number()
	switch {
	case m.value.kind == kindText && m.value.text == "all":
		v = maxParallel
	case !ok || v < 1 || v > maxParallel:
		d.wrong(m, `a whole number, at least 1, or "all"`)
		return
	}
	d.app.Rollout.Parallel = int(v)
}

// resolveTraffic refuses what only works on listeners that gpm holds. The
// defaults of these keys are fine without.
func (d *draft) resolveTraffic() {
	if d.app.Hold {
		return
	}
	if m, given := d.given["balance"]; given {
		d.refuseKey(m, `gpm deals only those connections whose listener it holds, and "hold" is false`, "", `remove it, or set "hold" to true`)
	}
	if m, given := d.given["standby"]; given && d.app.Standby > 0 {
		d.refuseKey(m, `a standby waits until gpm hands it a listener, and "hold" is false`, "", `remove it, or set "hold" to true`)
	}
	if m, given := d.given["drain"]; given && d.app.Drain == "wait" {
		d.l.warnings.addAt(m.at, Problem{App: d.label, Key: m.name,
			Message: `"hold" is false, so new connections keep coming while gpm waits for the old ones`, Hint: `set "hold" to true, or use "signal"`})
	}
}

// Complete fills in what an App lacks that an older gpm wrote, to disk or to
// the wire, before these keys existed: their defaults. Whoever loads Apps calls
// it before Check. An App of this gpm is not changed.
func (a *App) Complete() {
	d := trafficDefaults()
	if a.Balance == "" {
		// No key of traffic existed: a zero is not one that somebody chose, and
		// a queue_timeout of zero would refuse connections that used to wait.
		a.ShutdownTimeout, a.QueueTimeout, a.HangTimeout = d.ShutdownTimeout, d.QueueTimeout, d.HangTimeout
	}
	a.Balance = cmp.Or(a.Balance, d.Balance)
	a.Drain = cmp.Or(a.Drain, d.Drain)
	a.DrainTimeout = cmp.Or(a.DrainTimeout, d.DrainTimeout)
	a.DrainIdle = cmp.Or(a.DrainIdle, d.DrainIdle)
	a.Rollout.Parallel = cmp.Or(a.Rollout.Parallel, d.Rollout.Parallel)
}

// trafficDefaults is an App with nothing but the defaults that Complete knows.
func trafficDefaults() App {
	d := &draft{l: &loader{}}
	for _, key := range append(trafficKeys(), probeKeys()...) {
		d.setDefault(&key)
	}
	return d.app
}

// setDefault runs the default of key, if it has a fixed one, through its setter.
func (d *draft) setDefault(key *Key) {
	if key.Default == "" {
		return
	}
	v, err := hujson.Parse([]byte(key.Default))
	if err != nil {
		panic("default of " + key.Name + ": " + err.Error()) // a bug in the table, which every test walks
	}
	key.set(d, member{name: key.Name, value: fromJSON(v, nil)})
}
