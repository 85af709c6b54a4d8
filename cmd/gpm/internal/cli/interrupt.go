package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

// ErrInterrupted is the cause of the end of a context that Ctrl-C ended.
var ErrInterrupted = errors.New("interrupted")

// UntilSignal is a context that ends with the first SIGINT (its cause is then
// ErrInterrupted) or SIGTERM. A second signal ends gpm at once: nobody has to wait
// for a daemon that does not answer. The caller calls stop.
func UntilSignal(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with ctx
		defer signal.Stop(signals)
		select {
		case got := <-signals:
			signal.Stop(signals) // first: whoever sees the end of ctx may be sent the second
			if got == os.Interrupt {
				cancel(ErrInterrupted)
			}
			cancel(nil)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

func interrupted(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrInterrupted) }

// abortWait bounds how long Ctrl-C waits for the daemon to take back what it
// has begun: the new process that is not ready yet has to die.
const abortWait = 30 * time.Second

// roll makes a call that may be a rollout. Ctrl-C ends the rollout, and what it
// has come to is told; any other end of the caller leaves the daemon to it.
func (s *session) roll(ctx context.Context, about concern, call func(context.Context) (api.Result, error)) (api.Result, error) {
	done := s.narrate(ctx, about)
	res, err := call(ctx)
	done()
	if err == nil || !interrupted(ctx) {
		return res, err
	}
	return res, s.abort(context.WithoutCancel(ctx), about)
}

// abort ends the rollouts of targets and says how they stand then.
func (s *session) abort(ctx context.Context, about concern) error {
	ctx, cancel := context.WithTimeout(ctx, abortWait)
	defer cancel()
	said := "interrupted: ending the rollout; Ctrl-C again leaves at once"
	if s.err.Status(said); !s.err.CanRewrite() {
		s.err.Println(said)
	}
	res, err := s.client.Abort(ctx, api.ActRequest{Targets: about.targets()})
	s.err.Status("")
	wire := (*api.Error)(nil)
	if errors.As(err, &wire) && wire.Kind == api.KindNotFound { // of these apps none is there yet
		res, err = api.Result{}, nil
	}
	if err != nil {
		s.say.Error(fmt.Sprintf("interrupted, and the rollout could not be ended: %v", err))
		s.say.Hint("see what came of it: gpm list")
		return errLeft
	}
	news := slices.IndexFunc(res.Instances, func(o api.Outcome) bool { return o.Runs != "" })
	if news < 0 {
		s.fail(context.Canceled) // nothing was being replaced
		return errLeft
	}
	s.reportAbort(res, about.files)
	return errLeft
}

// reportAbort says which instances run which version, and how to go on.
func (s *session) reportAbort(res api.Result, files []string) {
	total, renewed := 0, 0
	var behind []string // apps with an instance of the old version
	for _, o := range res.Instances {
		line := title(term.Clean(o.Name), o.Instance)
		switch o.Runs {
		case api.NewVersion:
			renewed++
			line = s.out.Paint(term.Green, "✓ ") + line + " runs the new version"
		case api.OldVersion:
			line = "· " + line + " runs the old version"
			if !slices.Contains(behind, o.Name) {
				behind = append(behind, o.Name)
			}
		default:
			line = "· " + line + " " + string(o.Status)
		}
		total++
		if o.PID > 0 {
			line += fmt.Sprintf(" (pid %d)", o.PID)
		}
		if o.Reason != "" {
			line += ": " + term.Clean(o.Reason)
		}
		s.out.Println(line)
	}
	s.say.Error(fmt.Sprintf("interrupted: %d of %s run the new version", renewed, plural(total, "instance", "instances")))
	if len(behind) > 0 {
		if len(files) > 0 { // a name alone would mean the old config again
			behind = files
		}
		s.say.Hint("go on with the rest: gpm reload " + term.Clean(strings.Join(behind, " ")))
	}
}
