// Package monit is gpm's live view of all instances: a list, the facts and the
// logs of the selected one, and the few verbs one wants at hand.
//
// Its heart is a pure state machine: model.update takes the time and a message
// and answers with effects as values, model.render answers with text. The shell
// around it turns effects into calls of a Source and the calls' results into
// messages. monit never decides what is true of an instance: it shows what the
// daemon says, and says so when the daemon does not answer.
package monit

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	xterm "golang.org/x/term"

	"gpm/supervisor/api"
)

// Source is what monit needs of a daemon. All methods are called from several
// goroutines at once; each call ends soon after its ctx does.
type Source interface {
	// List is the state of everything now.
	List(ctx context.Context) (api.List, error)
	// Events is a snapshot and everything that happens after it. The sequence
	// ends when ctx does, or with the error that ended the stream.
	Events(ctx context.Context) (api.List, iter.Seq2[api.Event, error], error)
	// Logs is the last lines (at most that many) of the targets' logs, then what
	// they write from now on. It ends as Events does.
	Logs(ctx context.Context, targets []string, lines int) iter.Seq2[api.LogLine, error]

	Restart(ctx context.Context, targets []string) (api.Result, error)
	Reload(ctx context.Context, targets []string) (api.Result, error)
	Stop(ctx context.Context, targets []string) (api.Result, error)
}

// Waits of Run. Those of the streams and of the verbs are in shell.go.
const (
	firstWait = 10 * time.Second // for the list before the screen is taken
	leaveWait = 2 * time.Second  // for our own goroutines after the screen is given back
	frames    = 30               // redraws per second at most
)

// Run shows the view on the terminal in and out until the user leaves it, ctx
// ends, or SIGINT, SIGTERM or SIGHUP arrives; all of these return nil. target
// limits the view to an id, a name, a namespace or a /regex/; "" and "all" mean
// everything. The terminal is left as it was found, after a panic too (which is
// returned as an error with its stack).
//
// Errors are returned before the screen is touched if in or out is not a
// terminal, the daemon does not answer the first list within 10 s, or target
// matches nothing. A daemon that goes away later is not an error: monit says so
// and reconnects. Run neither closes src, in nor out.
func Run(ctx context.Context, src Source, target string, in io.Reader, out io.Writer) error {
	if err := needTerminal(in, out); err != nil {
		return err
	}
	scope, err := parseScope(target)
	if err != nil {
		return err
	}
	list, err := firstList(ctx, src)
	if err != nil {
		return err
	}
	if !scope.matchesAny(list.Instances) {
		return &api.Error{Kind: api.KindNotFound, Message: fmt.Sprintf("find app %q: no such id, name or namespace", target), Hint: "gpm list shows what there is"}
	}
	m := newModel(time.Now(), list, scope, chooseGlyphs(os.Getenv))
	return newShell(ctx, src, m).show(in, out, os.Getenv("NO_COLOR") != "")
}

// needTerminal refuses pipes and files: a view of escape sequences in a file
// helps nobody, and keys could not be read.
func needTerminal(in io.Reader, out io.Writer) error {
	for _, end := range []struct {
		name string
		end  any
	}{{"input", in}, {"output", out}} {
		f, ok := end.end.(interface{ Fd() uintptr })
		if !ok || !xterm.IsTerminal(int(f.Fd())) {
			return &api.Error{
				Kind:    api.KindInvalid,
				Message: "open monit: the " + end.name + " is not a terminal",
				Hint:    "gpm list and gpm logs work in pipes and files",
			}
		}
	}
	return nil
}

func firstList(ctx context.Context, src Source) (api.List, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, firstWait, fmt.Errorf("the daemon did not answer within %s", firstWait))
	defer cancel()
	list, err := src.List(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return list, fmt.Errorf("open monit: %w", err)
	}
	return list, nil
}

// show runs the program. It returns when the screen has been given back.
func (s *shell) show(in io.Reader, out io.Writer, noColour bool) error {
	opts := []tea.ProgramOption{
		tea.WithInput(in), tea.WithOutput(out), tea.WithFPS(frames),
		// Bubble Tea's own handler knows no SIGHUP and makes SIGINT an error.
		tea.WithoutSignalHandler(),
	}
	if noColour {
		// Detect only accepts NO_COLOR=1 and the like; https://no-color.org says any value.
		opts = append(opts, tea.WithColorProfile(colorprofile.ASCII))
	}
	p := tea.NewProgram(s, opts...)
	s.quit = p.Quit

	ctx, stop := signal.NotifyContext(s.ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // leaver: owned by show, ends with it
		defer close(done)
		<-ctx.Done()
		// From here a second signal kills at once: a terminal held by ctrl-s
		// would otherwise keep us for ever.
		stop()
		p.Quit()
	}()
	_, err := p.Run()
	stop()
	<-done
	if crash := s.close(); crash != nil {
		return crash
	}
	if err != nil {
		return fmt.Errorf("run monit: %w", err)
	}
	return nil
}
