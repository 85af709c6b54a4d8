package supervisor

// State is what is true of an instance. Typed text, because it reaches disk,
// the wire and the terminal; the names are PM2's.
type State string

const (
	// Stopped: no process is alive, none is wanted. Left by start, restart and
	// reload.
	Stopped State = "stopped"
	// Launching: a process is being spawned or is not ready yet. Becomes Online
	// when it is ready, Stopping when it is told to end or is not ready in
	// time; its death goes to judge.
	Launching State = "launching"
	// Online: the current process is ready. Its death goes to judge.
	Online State = "online"
	// Stopping: the stop ladder runs, or outgoing processes of a reload are still
	// alive. What comes after it is the instance's field "then"; only deaths
	// lead out of it.
	Stopping State = "stopping"
	// Pending: a process is wanted as soon as what the app depends on is online
	// (gate.go).
	Pending State = "waiting"
	// Waiting: a restart is due at a known time.
	Waiting State = "waiting restart"
	// Errored: too many unstable deaths in a row; only a command leaves it.
	Errored State = "errored"
)

var states = []State{Stopped, Launching, Online, Stopping, Pending, Waiting, Errored}

// trigger is what can happen to an instance: a command, a fact about its
// current process, or its timer.
type trigger string

const (
	onStart    trigger = "start"
	onStop     trigger = "stop"
	onRestart  trigger = "restart"
	onReload   trigger = "reload"
	onReady    trigger = "ready"     // the current process is ready
	onNotReady trigger = "not ready" // it is not, and its time is over
	onDeath    trigger = "death"     // it ended, or could not be spawned
	onDue      trigger = "due"       // the restart timer fired; while Pending: what it waits for has changed
)

var triggers = []trigger{onStart, onStop, onRestart, onReload, onReady, onNotReady, onDeath, onDue}

// action is what the instance does about a trigger. Each is one method of
// instance (perform in instance.go).
type action string

const (
	ignore     action = "-"       // cannot happen, or changes nothing
	await      action = "await"   // already on the way there: the caller waits with the others
	launch     action = "launch"  // spawn the next generation, or wait for what the app depends on
	again      action = "again"   // spawn it after a death, whatever the app depends on
	end        action = "end"     // stop ladder, then stay stopped
	endLaunch  action = "end+"    // stop ladder, then launch
	endJudge   action = "end?"    // stop ladder, then judge: it was not ready
	thenStop   action = "then -"  // the ladder already runs: stay stopped after it
	thenLaunch action = "then +"  // the ladder already runs: launch after it, at once if only outgoing ones are left
	replace    action = "replace" // spawn the next generation beside this one; end+ where its sockets are not held
	goOnline   action = "online"  // the process is ready
	judge      action = "judge"   // a candidate takes over, or the verdict on the death decides
	settle     action = "settle"  // the ladder is done: do what "then" says
	rest       action = "rest"    // stay stopped, once the outgoing processes are gone, too
)

// transitions is the whole life of an instance; nothing else changes its state.
//
//	            start    stop     restart  reload   ready    not ready  death    due
//	stopped     launch   rest     launch   launch   -        -          -        -
//	launching   await    end      end+     end+     online   end?       judge    -
//	online      await    end      end+     replace  -        -          judge    -
//	stopping    then +   then -   then +   then +   -        -          settle   -
//	waiting     launch   rest     launch   launch   -        -          -        launch
//	waiting re  launch   rest     launch   launch   -        -          -        again
//	errored     launch   rest     launch   launch   -        -          -        -
//
// launch leads to launching, or to waiting (for what the app depends on); judge
// to launching, waiting restart, stopped or errored; settle to stopped, through
// launch, or through judge. Whatever would lead to stopped leads to
// stopping while an outgoing process is alive. A reload during launching starts
// over: what is launching may have read the old program or config, and serves
// nobody yet. During a reload of an online instance a second process (the
// candidate) lives beside the current one; when it is ready it becomes the
// current one and the old one is ended, when it fails it is killed and nothing
// else changes (candidate.go).
var transitions = map[State]map[trigger]action{
	Stopped:   row(launch, rest, launch, launch, ignore, ignore, ignore, ignore),
	Launching: row(await, end, endLaunch, endLaunch, goOnline, endJudge, judge, ignore),
	Online:    row(await, end, endLaunch, replace, ignore, ignore, judge, ignore),
	Stopping:  row(thenLaunch, thenStop, thenLaunch, thenLaunch, ignore, ignore, settle, ignore),
	Pending:   row(launch, rest, launch, launch, ignore, ignore, ignore, launch),
	Waiting:   row(launch, rest, launch, launch, ignore, ignore, ignore, again),
	Errored:   row(launch, rest, launch, launch, ignore, ignore, ignore, ignore),
}

// leadsTo is where an action may leave an instance; empty: where it was.
var leadsTo = map[action][]State{
	ignore: nil, await: nil, replace: nil, thenStop: nil,
	launch:     {Launching, Pending},
	again:      {Launching},
	end:        {Stopping},
	endLaunch:  {Stopping},
	endJudge:   {Stopping},
	thenLaunch: {Stopping, Launching, Pending},
	goOnline:   {Online},
	judge:      {Launching, Waiting, Stopped, Errored, Stopping},
	settle:     {Stopped, Launching, Pending, Waiting, Errored, Stopping},
	rest:       {Stopped, Stopping},
}

func row(do ...action) map[trigger]action {
	r := make(map[trigger]action, len(do))
	for i, a := range do {
		r[triggers[i]] = a
	}
	return r
}
