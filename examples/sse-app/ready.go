package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"time"
)

// moment is something that happens at most once, however often and by whomever
// it is called. Done is closed then.
type moment struct {
	context.Context
	come func()
}

func newMoment() moment {
	ctx, cancel := context.WithCancel(context.Background())
	return moment{ctx, cancel}
}

func (m moment) over() bool { return m.Err() != nil }

// warmUp makes the app ready. A real one loads its model here. Who has come in
// before is answered also if the process is asked to leave meanwhile.
func (a *app) warmUp() {
	select {
	case <-time.After(a.warmup):
		if a.warm.come(); !a.leaving.over() {
			a.tell("READY=1")
		}
	case <-a.cutoff.Done():
	}
}

// tell sends state to the one who started this process and wants to hear it
// (systemd's Type=notify, gpm's wait_ready).
func (a *app) tell(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.Dial("unixgram", path)
	if err == nil {
		_, err = c.Write([]byte(state))
		c.Close()
	}
	if err != nil {
		a.err.Printf("tell the supervisor %s: %v", state, err)
	}
}

// whenWarm lets requests that come too early wait: an error would be the end of
// an EventSource, and without a supervisor that steers nobody keeps them away.
func (a *app) whenWarm(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.warm.Done():
		case <-a.cutoff.Done(): // next says so in its own way
		case <-r.Context().Done():
			return
		}
		next(w, r)
	}
}

// healthz says that the process works. It does while it warms up or drains, too:
// whoever killed it for a 503 here would cut the streams that it finishes.
func (a *app) healthz(w http.ResponseWriter, _ *http.Request) {
	a.report(w, http.StatusOK, "alive")
}

// readyz says whether new connections are welcome. A 503 is right here and only
// here: on /stream it would close an EventSource for good.
func (a *app) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.leaving.over():
		a.report(w, http.StatusServiceUnavailable, "draining")
	case !a.warm.over():
		a.report(w, http.StatusServiceUnavailable, "starting")
	default:
		a.report(w, http.StatusOK, "ready")
	}
}

func (a *app) report(w http.ResponseWriter, status int, state string) {
	writeJSON(w, status, map[string]any{
		"status": state, "instance": a.instance, "pid": os.Getpid(), "streams": a.streams.Load(),
	})
}
