package daemon

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/api"
)

const (
	followQueue = 1 << 20 // bytes kept for one reader of gpm logs before lines are skipped
	mostLines   = 100_000 // that one request may ask for
)

// logs answers with the last lines of the files, then, with follow, with each
// new line. Between the two nothing is lost and nothing comes twice.
func (d *daemon) logs(w http.ResponseWriter, r *http.Request) {
	list, err := d.targets(r)
	if err != nil {
		fail(w, err)
		return
	}
	q := r.URL.Query()
	lines, err := strconv.Atoi(q.Get("lines"))
	if q.Get("lines") != "" && (err != nil || lines < 0 || lines > mostLines) {
		fail(w, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("lines=%q: a number from 0 to %d is expected", q.Get("lines"), mostLines)})
		return
	}
	v := view{lines: lines, streams: chosenStreams(q.Get("out") == "1", q.Get("err") == "1"), all: len(q["target"]) == 0, apps: map[string]bool{}}
	for _, s := range list {
		v.ids = append(v.ids, s.ID)
		v.apps[s.App.Name] = true
	}
	tails, follower, err := d.hands.book.TailAndFollow(v.wants, v.paths(list), lines, followQueue)
	if err != nil {
		fail(w, &api.Error{Kind: api.KindFailed, Message: fmt.Sprintf("read logs: %v", err)})
		return
	}
	defer follower.Close()
	s, err := d.newStream(w, logsPatience)
	if err != nil {
		return
	}
	for _, l := range v.tail(tails, list) {
		if s.queue(api.StreamLog, l) != nil {
			return
		}
	}
	if s.flush() != nil || q.Get("follow") != "1" {
		return
	}
	d.follow(r.Context(), s, follower)
}

func chosenStreams(out, errs bool) []string {
	switch {
	case out && !errs:
		return []string{"out"}
	case errs && !out:
		return []string{"err"}
	}
	return outputs
}

// view is what one reader of gpm logs wants to see.
type view struct {
	lines   int
	streams []string
	ids     []int
	all     bool            // no target given: also what is started later
	apps    map[string]bool // of the targets
}

func (v *view) wants(s logs.Source) bool {
	return slices.Contains(v.streams, s.Stream) && (v.all || slices.Contains(v.ids, s.ID))
}

// paths are the files of the chosen instances, whether or not they run.
func (v *view) paths(list []supervisor.Status) (paths []string) {
	for _, s := range list {
		for _, stream := range v.streams {
			if p := pathOf(s, stream); p != "" && !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	return paths
}

func pathOf(s supervisor.Status, stream string) string {
	out, errs := logPaths(s.App, s.ID)
	if stream == "err" {
		return errs
	}
	return out
}

// tail are the last lines of each file, under the first instance that writes it.
func (v *view) tail(tails []logs.Tailed, list []supervisor.Status) (r []api.LogLine) {
	for _, t := range tails {
		l := api.LogLine{ID: -1, Instance: -1, Stream: "out"}
		for _, s := range list {
			i := slices.IndexFunc(v.streams, func(stream string) bool { return pathOf(s, stream) == t.Path })
			if i >= 0 {
				l = api.LogLine{ID: s.ID, Name: s.App.Name, Instance: s.Index, Stream: v.streams[i]}
				break
			}
		}
		if t.Err != nil {
			l.Text = fmt.Sprintf("(cannot read %s: %v)", t.Path, t.Err)
			r = append(r, l)
		}
		for _, text := range t.Lines {
			l.Text = text
			r = append(r, l)
		}
	}
	return r
}

// follow passes lines on until the reader leaves or the daemon ends.
func (d *daemon) follow(ctx context.Context, s *stream, f *logs.Follower) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with this request
		select {
		case <-d.ending:
			s.arm() // a write may stand still already
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		turn, done := context.WithTimeout(ctx, heartbeat)
		lines, err := f.Next(turn)
		done()
		switch {
		case ctx.Err() != nil:
			return
		case turn.Err() != nil && len(lines) == 0:
			if s.beat() != nil {
				return
			}
			continue
		case err != nil:
			return
		}
		for _, l := range lines {
			if s.queue(api.StreamLog, logLine(l)) != nil {
				return
			}
		}
		if s.flush() != nil {
			return
		}
	}
}

func logLine(l logs.Line) api.LogLine {
	if l.Skipped > 0 { // of whatever instance
		return api.LogLine{ID: -1, Instance: -1, At: l.At, Skipped: l.Skipped}
	}
	return api.LogLine{
		ID: l.Source.ID, Name: l.Source.Name, Instance: l.Source.Instance, Stream: l.Source.Stream,
		At: l.At, Text: l.Text,
	}
}

// logTrouble is told when lines cannot be written, and when they can again.
func (h *hands) logTrouble(s logs.Source, problem string) {
	if problem == "" {
		problem = "logs are written again"
	}
	h.emit(supervisor.Event{At: time.Now(), Kind: "log", App: s.Name, ID: s.ID, Index: s.Instance, Message: s.Stream + ": " + problem})
}
