package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

const (
	// quietFor is how long a verb may take before it tells what it waits for.
	quietFor = time.Second
	// linesEvery is the pause between two lines of progress in a pipe or a file.
	linesEvery = 10 * time.Second
)

// display shows how something goes on, on stderr: on a terminal as one line that
// is written anew, elsewhere as a line now and then.
type display struct {
	out  *term.Output
	last time.Time // of the last line
	said string
}

// show takes what there is to say and the part of it that is news if it changes
// (ages change with every second, which is no news).
func (d *display) show(text, news string, now time.Time) {
	if d.out.CanRewrite() {
		d.out.Status(text)
		return
	}
	if text == "" || news == d.said || !d.last.IsZero() && now.Sub(d.last) < linesEvery {
		return
	}
	d.out.Println(text)
	d.said, d.last = news, now
}

// clear takes the line away, so that something else can be said.
func (d *display) clear() { d.out.Status("") }

// concern is which apps a verb is about.
type concern struct {
	apps  []string // by their names
	words []string // targets, for the daemon to match
	files []string // the config files that the apps are from
}

// targets are all of it as the daemon takes them.
func (c concern) targets() []string { return slices.Concat(c.apps, c.words) }

// narrate shows what happens to apps while a verb waits for them: a drain may
// take minutes. The caller calls the function it returns when the wait is over;
// nothing is printed after that.
func (s *session) narrate(ctx context.Context, about concern) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	n := &narration{s: s, display: display{out: s.err}, about: about, rollouts: map[string]api.Progress{}}
	events := make(chan api.Event)
	var both sync.WaitGroup
	both.Go(func() { n.listen(ctx, events) })
	both.Go(func() { n.run(ctx, events) })
	return func() {
		cancel()
		both.Wait()
	}
}

// narration is what a verb tells while it waits. Its fields belong to run.
type narration struct {
	s *session
	display
	about    concern
	loud     bool                    // it has taken longer than quietFor
	rollouts map[string]api.Progress // the last word on each app
}

// listen passes on the events of the apps concerned until ctx ends. It tells of
// no error: the verb itself will say what is wrong.
func (n *narration) listen(ctx context.Context, to chan<- api.Event) {
	apps := slices.Clone(n.about.apps)
	if len(n.about.words) > 0 {
		l, err := n.s.client.List(ctx, n.about.words...)
		if err != nil {
			return
		}
		for _, i := range l.Instances {
			apps = append(apps, i.Name)
		}
	}
	_, events, err := n.s.client.Events(ctx)
	if err != nil {
		return
	}
	for e, err := range events {
		if err != nil {
			return
		}
		if e.App != "" && !slices.Contains(apps, e.App) {
			continue
		}
		select {
		case to <- e:
		case <-ctx.Done():
			return
		}
	}
}

func (n *narration) run(ctx context.Context, events <-chan api.Event) {
	defer n.clear()
	quiet := time.NewTimer(quietFor)
	defer quiet.Stop()
	second := time.NewTicker(time.Second) // ages and deadlines
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			n.take(e)
		case <-quiet.C:
			n.loud = true
		case <-second.C:
		}
		if n.loud {
			now := time.Now()
			n.show(n.text(now), n.news(), now)
		}
	}
}

// take notes how far a rollout is, and tells of anything else on a terminal.
func (n *narration) take(e api.Event) {
	if e.Progress != nil {
		n.rollouts[e.App] = *e.Progress
		return
	}
	// The line of a rollout says what its steps come to; only trouble is worth more.
	_, rolling := n.rollouts[e.App]
	if !n.loud || n.out.Width() == 0 || rolling && e.Kind != "errored" && e.Kind != "conflict" {
		return
	}
	who := e.App
	if e.Instance >= 0 {
		who = title(e.App, e.Instance)
	}
	if who != "" {
		who += ": "
	}
	n.out.Above(n.out.Paint(term.Faint, "  "+term.Clean(who+e.Message)))
}

// underway is the apps whose rollout or drain is not over, by name.
func (n *narration) underway() []string {
	var apps []string
	for app, p := range n.rollouts {
		if !p.Done || p.Draining > 0 {
			apps = append(apps, app)
		}
	}
	slices.Sort(apps)
	return apps
}

// text is the line: all about one app, or of several as much as fits.
func (n *narration) text(now time.Time) string {
	apps := n.underway()
	if len(apps) == 1 {
		return n.fitted(apps[0], now)
	}
	parts := make([]string, len(apps))
	for i, app := range apps {
		p := n.rollouts[app]
		p.Oldest, p.Deadline = time.Time{}, time.Time{}
		parts[i] = n.s.progressText(app, p, now)
	}
	return strings.Join(parts, "; ")
}

// fitted leaves out what matters least where the terminal is too narrow.
func (n *narration) fitted(app string, now time.Time) string {
	p := n.rollouts[app]
	text := n.s.progressText(app, p, now)
	for _, drop := range []*time.Time{&p.Oldest, &p.Deadline} {
		if !n.out.CanRewrite() || term.Width(text) <= n.out.Room() {
			break
		}
		*drop = time.Time{}
		text = n.s.progressText(app, p, now)
	}
	return text
}

// news is what has to change before another line is worth it.
func (n *narration) news() string {
	var b strings.Builder
	for _, app := range n.underway() {
		p := n.rollouts[app]
		fmt.Fprintln(&b, app, p.Ready, p.Total, p.Draining, p.Streams, p.Waiting)
	}
	return b.String()
}

// progressText is "web: 2/4 ready, 37 streams draining, oldest 4m10s, deadline
// 14:05, waiting: pause 10s".
func (s *session) progressText(app string, p api.Progress, now time.Time) string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, strconv.Itoa(p.Ready)+"/"+strconv.Itoa(p.Total)+" ready")
	}
	switch {
	case p.Streams > 0:
		parts = append(parts, plural(p.Streams, "stream", "streams")+" draining")
	case p.Draining > 0:
		parts = append(parts, plural(p.Draining, "old process", "old processes")+" ending")
	}
	if !p.Oldest.IsZero() {
		parts = append(parts, "oldest "+term.Age(now.Sub(p.Oldest)))
	}
	if !p.Deadline.IsZero() {
		parts = append(parts, "deadline "+s.moment(p.Deadline, now))
	}
	if p.Waiting != "" {
		parts = append(parts, "waiting: "+term.Clean(p.Waiting))
	}
	return term.Clean(app) + ": " + strings.Join(parts, ", ")
}
