package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

const (
	// lookEvery is the pause between two looks at what drains.
	lookEvery = 500 * time.Millisecond
	// drainGrace is added to what a config allows for the end of a process: the
	// daemon has more to do than to look at the clock.
	drainGrace = 10 * time.Second
)

func (s *session) drain() *cobra.Command {
	o := &startOptions{}
	c := &cobra.Command{
		Use:   "drain <target...>",
		Short: "Take instances out of traffic, and back",
		Long: `Take instances out of traffic: new connections go to the other instances, the
process stays and its streams go on. Then wait until they are gone, or until
drain_timeout of the app has passed (exit code 1); connections that are idle for
drain_idle do not count. Ctrl-C ends only the waiting. --undo brings instances
back into traffic; until then they stay out of it, also over a reload or restart.
While none of an app's instances is in traffic, new connections are refused.`,
		Example: "  gpm drain web-1\n  gpm drain web-1 --undo",
		Args:    needArgs(1, "a target: an id, a name, a namespace, a /regex/, a config file or all"),
		RunE: func(cmd *cobra.Command, targets []string) error {
			return s.drainTargets(cmd.Context(), targets, o)
		},
		ValidArgsFunction: s.completeTargets(true),
	}
	c.Flags().BoolVar(&o.undo, "undo", false, "bring them back into traffic")
	c.Flags().BoolVar(&o.noWait, "no-wait", false, "do not wait until their streams are gone")
	o.onlyFlag(c)
	return c
}

func (s *session) drainTargets(ctx context.Context, targets []string, o *startOptions) error {
	v := verb{name: "drain", call: s.client.Drain, done: "is out of traffic"}
	if o.undo {
		v.done = "is in traffic"
	}
	res, err := s.carryOut(ctx, v, targets, o)
	if err == nil {
		err = s.report(ctx, res, v)
	}
	if err != nil || o.undo || o.noWait {
		return err
	}
	undo := "gpm drain " + term.Clean(strings.Join(targets, " ")) + " --undo"
	return s.awaitStreams(ctx, res, undo)
}

// awaitStreams waits until the instances of res have no streams that hold
// their drain up. undo is the command that brings them back.
func (s *session) awaitStreams(ctx context.Context, res api.Result, undo string) error {
	names, ids := appsOf(res), map[int]bool{}
	for _, o := range res.Instances {
		ids[o.ID] = true
	}
	limit, err := s.drainLimits(ctx, names)
	if err != nil {
		return err
	}
	begun, d := time.Now(), display{out: s.err}
	defer d.clear()
	return s.watch(ctx, names, func(l api.List, now time.Time) (bool, error) {
		var left []api.Instance
		for _, i := range l.Instances {
			if !ids[i.ID] {
				continue
			}
			ended := !away(i)
			if !ended && holding(i) > 0 {
				left = append(left, i)
				continue
			}
			delete(ids, i.ID)
			d.clear()
			s.out.Println(s.out.Paint(term.Green, "✓ ") + drainedText(i, ended))
		}
		last := latest(left, limit)
		switch {
		case len(left) == 0:
			return true, nil
		case now.Sub(begun) >= last:
			d.clear()
			return true, withHint("wait longer: gpm drain ..., back into traffic: "+undo, "drain: after %s (drain_timeout) there is still %s", last, streamsLeft(left, now))
		}
		d.show(streamsLeft(left, now), streamsLeft(left, time.Time{}), now)
		return false, nil
	}, func() {
		d.clear()
		s.say.Error("interrupted: what drains goes on draining")
		s.say.Hint("back into traffic: " + undo)
	})
}

func drainedText(i api.Instance, ended bool) string {
	text := title(term.Clean(i.Name), i.Instance)
	switch {
	case ended && i.Traffic == api.Away, ended && i.Status != api.Online:
		return text + " is " + string(i.Status)
	case ended:
		return text + " is in traffic"
	case i.Idle > 0:
		return text + " is drained, " + plural(i.Idle, "idle connection", "idle connections")
	}
	return text + " is drained"
}

// streamsLeft is "web-1: 12 streams, oldest 4m10s", or the sum of several. The
// zero time leaves the age out.
func streamsLeft(left []api.Instance, now time.Time) string {
	n, oldest := 0, time.Time{}
	for _, i := range left {
		n += holding(i)
		oldest = earlier(oldest, i.Oldest)
		for _, o := range i.Outgoing {
			oldest = earlier(oldest, o.Oldest)
		}
	}
	text := plural(len(left), "instance", "instances")
	if len(left) == 1 {
		text = title(term.Clean(left[0].Name), left[0].Instance)
	}
	text += ": " + plural(n, "stream", "streams")
	if !oldest.IsZero() && !now.IsZero() {
		text += ", oldest " + term.Age(now.Sub(oldest))
	}
	return text
}

// latest is the longest drain_timeout of the instances that are left.
func latest(left []api.Instance, limit map[string]drainLimit) time.Duration {
	var most time.Duration
	for _, i := range left {
		most = max(most, limit[i.Name].drain)
	}
	return most
}

// drainLimit is how long the end of a process may take.
type drainLimit struct{ drain, kill time.Duration }

// drainLimits is what the configs of the apps say.
func (s *session) drainLimits(ctx context.Context, names []string) (map[string]drainLimit, error) {
	all, err := s.client.Describe(ctx, false, names...)
	if err != nil {
		return nil, err
	}
	limits := map[string]drainLimit{}
	for i := range all {
		limits[all[i].Name] = drainLimit{all[i].App.DrainTimeout.D(), all[i].App.KillTimeout.D()}
	}
	return limits, nil
}

// watch looks at the list of apps again and again until look says that it is
// done. left says what it means that the user has not waited for that.
func (s *session) watch(ctx context.Context, names []string, look func(api.List, time.Time) (done bool, err error), left func()) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		l, err := s.client.List(ctx, names...)
		if wire := (*api.Error)(nil); errors.As(err, &wire) && wire.Kind == api.KindNotFound {
			l, err = api.List{}, nil // deleted meanwhile
		}
		if err == nil {
			done, err := look(l, time.Now())
			if done || err != nil {
				return err
			}
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil {
			return err
		}
		left()
		if interrupted(ctx) {
			return errLeft
		}
		return errSaid
	}
}

// appsOf is the names of the apps of a result.
func appsOf(res api.Result) []string {
	var names []string
	for _, o := range res.Instances {
		if o.ID >= 0 && !slices.Contains(names, o.Name) {
			names = append(names, o.Name)
		}
	}
	return names
}

// sayWhatDrains tells that a verb is done and its old processes are not.
func (s *session) sayWhatDrains(ctx context.Context, res api.Result) {
	names := appsOf(res)
	if len(names) == 0 {
		return
	}
	l, err := s.client.List(ctx, names...)
	if err != nil {
		return // it is only a remark
	}
	left := remains(l, names, nil)
	if left.streams == 0 {
		return
	}
	text := left.sentence()
	if now := time.Now(); !left.deadline.IsZero() {
		text += ", until " + s.moment(left.deadline, now) + " at the latest"
	}
	s.out.Println(text + "; gpm list shows them")
}

// remains sums up the old processes of apps; of those in only, if it is not nil.
func remains(l api.List, names []string, only map[int]bool) leftover {
	var left leftover
	for _, i := range l.Instances {
		if !slices.Contains(names, i.Name) { // a name may be another app's namespace or id
			continue
		}
		for _, o := range outgoing(i) {
			if only == nil || only[o.PID] {
				left.add(o)
			}
		}
	}
	return left
}

// awaitOld waits until the old processes that a reload has left are gone.
func (s *session) awaitOld(ctx context.Context, res api.Result) error {
	names := appsOf(res)
	if len(names) == 0 {
		return nil
	}
	limits, err := s.drainLimits(ctx, names)
	if err != nil {
		return err
	}
	most := drainGrace
	for _, l := range limits {
		most = max(most, l.drain+l.kill+drainGrace)
	}
	begun, d := time.Now(), display{out: s.err}
	defer d.clear()
	var old map[int]bool // not those of a reload that comes after this one
	return s.watch(ctx, names, func(l api.List, now time.Time) (bool, error) {
		if old == nil {
			old = map[int]bool{}
			for _, i := range l.Instances {
				for _, o := range outgoing(i) {
					old[o.PID] = true
				}
			}
		}
		left := remains(l, names, old)
		switch {
		case left.processes == 0:
			return true, nil
		case now.Sub(begun) >= most:
			return true, withHint("gpm list", "reload: after %s there is still %s", most, plural(left.processes, "old process", "old processes"))
		}
		d.show(left.line(s, now), fmt.Sprint(left.processes, left.streams), now)
		return false, nil
	}, func() {
		d.clear()
		s.say.Error("interrupted: the reload is done, old processes go on draining")
		s.say.Hint("gpm list shows them")
	})
}
