package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

type logOptions struct {
	query     api.LogsQuery
	noStream  bool
	raw       bool
	asJSON    bool
	timestamp bool
}

func (s *session) logs() *cobra.Command {
	o := &logOptions{}
	c := &cobra.Command{
		Use:     "logs [target...]",
		Aliases: []string{"log"},
		Short:   "Show the last lines of apps and follow them",
		Long: `Show the last lines of apps, then each new line as it is written, as
"id|name | line"; stdout in green, stderr in red. A reader that is too slow
misses lines and is told how many; the app is never slowed down.`,
		RunE: func(cmd *cobra.Command, targets []string) error {
			if o.query.Lines < 0 {
				return withHint("gpm logs --lines 100", "--lines cannot be negative")
			}
			o.query.Targets, o.query.Follow = targets, !o.noStream
			err := s.showLogs(cmd.Context(), o)
			if errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how one leaves
			}
			return err
		},
		ValidArgsFunction: s.completeTargets(false),
	}
	c.Flags().IntVar(&o.query.Lines, "lines", api.DefaultLogLines, "how many of the last lines to show first")
	c.Flags().BoolVar(&o.raw, "raw", false, "only the lines; those of stderr on stderr")
	c.Flags().BoolVar(&o.query.Out, "out", false, "only stdout")
	c.Flags().BoolVar(&o.query.Err, "err", false, "only stderr")
	c.Flags().BoolVar(&o.noStream, "nostream", false, "do not follow")
	c.Flags().BoolVar(&o.timestamp, "timestamp", false, "put the time before each line")
	c.Flags().BoolVar(&o.asJSON, "json", false, "one JSON object per line: message, timestamp, type, process_id, app_name")
	return c
}

// showLogs prints lines until the user leaves. It follows through a restart of
// the daemon: apps write on meanwhile, and the files have all of it.
func (s *session) showLogs(ctx context.Context, o *logOptions) error {
	l, err := s.client.List(ctx, o.query.Targets...) // says which target is unknown
	if err != nil {
		return err
	}
	p := &logPrinter{s: s, o: o}
	for _, i := range l.Instances {
		p.widen(i.ID, i.Name)
	}
	query, pid := o.query, l.Daemon.PID
	for {
		err := p.stream(ctx, query)
		if !errors.Is(err, api.ErrBroken) || !query.Follow {
			return err
		}
		d, err := s.client.Ping(ctx)
		if err != nil {
			return err
		}
		why := "the daemon was restarted"
		if d.PID == pid {
			why = "this reader stood still for too long and was cut off"
		}
		s.say.Warning(why + "; lines written meanwhile are in the log files")
		query.Lines, pid = 0, d.PID
	}
}

// logPrinter prints log lines in columns as wide as the widest seen so far.
type logPrinter struct {
	s        *session
	o        *logOptions
	id, name int
}

func (p *logPrinter) widen(id int, name string) {
	p.id = max(p.id, len(strconv.Itoa(id)))
	p.name = max(p.name, term.Width(name))
}

func (p *logPrinter) stream(ctx context.Context, q api.LogsQuery) error {
	for line, err := range p.s.client.Logs(ctx, q) {
		if err != nil {
			return err
		}
		if err := p.print(line); err != nil {
			return nil // whoever read us has left, as head does
		}
	}
	return nil
}

func (p *logPrinter) print(l api.LogLine) error {
	switch {
	case p.o.asJSON:
		return p.printJSON(l)
	case p.o.raw:
		return p.printRaw(l)
	}
	s := p.s
	if l.Skipped > 0 { // of whatever app
		_, err := s.out.Write([]byte(s.out.Paint(term.Yellow, skipped(l.Skipped)) + "\n"))
		return err
	}
	p.widen(l.ID, l.Name)
	text := term.Clean(l.Text)
	if p.o.timestamp {
		at := l.At
		if at.IsZero() {
			at = time.Now()
		}
		text = at.In(s.zone).Format("2006-01-02T15:04:05") + " " + text
	}
	who := term.Pad(strconv.Itoa(l.ID), p.id) + "|" + term.Pad(term.Clean(l.Name), p.name) + " | "
	_, err := s.out.Write([]byte(s.out.Paint(streamColour(l.Stream), who) + text + "\n"))
	return err
}

func (p *logPrinter) printRaw(l api.LogLine) error {
	s := p.s
	if l.Skipped > 0 {
		s.say.Warning(skipped(l.Skipped))
		return nil
	}
	to := s.out
	if l.Stream == "err" {
		to = s.err
	}
	_, err := to.Write([]byte(l.Text + "\n"))
	return err
}

// printJSON writes PM2's shape; lines that were skipped are one object too.
func (p *logPrinter) printJSON(l api.LogLine) error {
	at := l.At
	if at.IsZero() {
		at = time.Now()
	}
	data, err := json.Marshal(struct {
		Message string    `json:"message"`
		At      time.Time `json:"timestamp"`
		Type    string    `json:"type"`
		ID      int       `json:"process_id"`
		Name    string    `json:"app_name"`
		Skipped int       `json:"skipped,omitempty"`
	}{l.Text, at, l.Stream, l.ID, l.Name, l.Skipped})
	if err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	_, err = p.s.out.Write(append(data, '\n'))
	return err
}

func skipped(n int) string {
	return "... " + plural(n, "line", "lines") + " skipped (this reader is slow)"
}

func streamColour(stream string) term.Colour {
	switch stream {
	case "err":
		return term.Red
	case "gpm":
		return term.Blue
	}
	return term.Green
}
