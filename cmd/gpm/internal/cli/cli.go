// Package cli is gpm's command line: each verb parses its arguments, makes one
// call to the daemon and prints what came of it. It decides nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gpm/cmd/gpm/internal/term"
	"gpm/config"
	"gpm/supervisor/api"
)

// Env is all that a command line touches of the world.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string               // as os.Environ; GPM_HOME, HOME, NO_COLOR, COLUMNS, ...
	Getwd          func() (string, error) // of the caller
	Exe            string                 // absolute path of this binary: the keeper is started from it
	UID            int                    // effective, of the caller

	// Monit is the full-screen view. It returns when the user leaves it or ctx ends.
	Monit func(ctx context.Context, c *api.Client, target string) error
	// Units is the folder of systemd's unit files; empty: /etc/systemd/system.
	Units string
	// System runs a command of the system (systemctl); nil: the real one.
	System func(ctx context.Context, out io.Writer, name string, args ...string) error
}

// Run is one call of gpm: args are what follows the program's name. It returns
// the exit code: 0, 1, or 130 for a rollout or a drain that Ctrl-C ended. ctx is
// best made by UntilSignal.
func Run(ctx context.Context, args []string, env Env) int {
	s := newSession(env)
	root := s.root()
	root.SetArgs(dashNumbers(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	s.fail(err)
	if code := said(0); errors.As(err, &code) {
		return int(code)
	}
	return 1
}

// session is one call of gpm.
type session struct {
	env    Env
	home   string
	out    *term.Output
	err    *term.Output
	say    term.Voices
	client *api.Client
	zone   *time.Location // of the times it prints
}

func newSession(env Env) *session {
	s := &session{env: env, zone: time.Local}
	s.out = term.NewOutput(env.Stdout, s.getenv)
	s.err = term.NewOutput(env.Stderr, s.getenv)
	s.say = term.Voices{Out: s.err}
	s.home = s.findHome()
	s.client = api.Dial(s.home)
	s.client.Warn = s.say.Warning
	return s
}

// findHome is GPM_HOME, or .gpm in the user's home.
func (s *session) findHome() string {
	home := s.getenv("GPM_HOME")
	if home == "" {
		user := s.getenv("HOME")
		if user == "" {
			user = "/root" // a service without HOME; only root's are started so
		}
		home = filepath.Join(user, ".gpm")
	}
	if filepath.IsAbs(home) {
		return filepath.Clean(home)
	}
	if wd, err := s.env.Getwd(); err == nil {
		return filepath.Join(wd, home)
	}
	return home
}

// getenv is the last value of a variable, as a process would see it.
func (s *session) getenv(key string) string {
	for i := len(s.env.Environ) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(s.env.Environ[i], "="); k == key {
			return v
		}
	}
	return ""
}

func (s *session) environ() map[string]string {
	m := make(map[string]string, len(s.env.Environ))
	for _, kv := range s.env.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			m[k] = v
		}
	}
	return m
}

func (s *session) system(ctx context.Context, name string, args ...string) error {
	if s.env.System != nil {
		return s.env.System(ctx, s.err, name, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = s.err, s.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %q: %w", strings.Join(append([]string{name}, args...), " "), err)
	}
	return nil
}

// said ends a command that has already said why, with this exit code.
type said int

const (
	errSaid said = 1
	errLeft said = 128 + 2 // what a shell makes of SIGINT
)

func (said) Error() string { return "failed" }

// aboutApps are the verbs that need to know how the apps are.
var aboutApps = []string{
	"list", "describe", "jlist", "logs", "monit", "stop", "restart", "reload", "delete", "scale", "drain", "reset", "flush", "save", "resurrect", "update",
}

// hinted is an error with a proposal.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func withHint(hint, format string, args ...any) error {
	return hinted{fmt.Errorf(format, args...), hint}
}

// fail says why a command failed.
func (s *session) fail(err error) {
	var wire *api.Error
	var tip hinted
	var problems config.Problems
	switch {
	case errors.As(err, new(said)):
	case errors.Is(err, context.Canceled):
		s.say.Error("interrupted; what the daemon has begun goes on")
		s.say.Hint("see what came of it: gpm list")
	case errors.As(err, &tip):
		s.say.Error(tip.Error())
		s.say.Hint(tip.hint)
	case errors.As(err, &wire):
		s.say.Error(err.Error())
		if wire.Hint != "" {
			s.say.Hint(wire.Hint)
		}
	case errors.Is(err, api.ErrNoDaemon):
		s.say.Error(err.Error())
		s.say.Hint("start an app: gpm start <file>, or what was saved: gpm resurrect")
	case errors.As(err, &problems):
		for _, p := range problems {
			s.say.Error(p.Error())
		}
	default:
		s.say.Error(err.Error())
	}
}

// root is the whole command tree.
func (s *session) root() *cobra.Command {
	var plain bool
	root := &cobra.Command{
		Use:           "gpm",
		Short:         "gpm keeps streaming services running: a restart refuses no connection and loses no log line",
		Version:       api.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if plain {
				s.out.Plain()
				s.err.Plain()
			}
			if slices.Contains(aboutApps, cmd.Name()) {
				return s.comeBack(cmd.Context())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownVerb(cmd, args[0])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(s.env.Stdin)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.Flags().BoolP("version", "v", false, "print the version of gpm")
	root.PersistentFlags().BoolVar(&plain, "no-color", false, "no colours, also with NO_COLOR=1")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(cmd.CommandPath()+" --help", "%w", err)
	})
	groups := s.verbs()
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, c := range g.verbs {
			c.GroupID = g.title
			c.DisableFlagsInUseLine = true
			c.Flags().SortFlags = false
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID(groups[len(groups)-1].title)
	return root
}

type verbGroup struct {
	title string
	verbs []*cobra.Command
}

// verbs is every verb, in the order of the help text.
func (s *session) verbs() []verbGroup {
	return []verbGroup{
		{"Apps", []*cobra.Command{
			s.start(), s.stop(), s.restart(), s.reload(), s.scale(), s.drain(), s.delete(), s.reset(), s.validate(),
		}},
		{"Watching", []*cobra.Command{
			s.list(), s.describe(), s.logs(), s.monit(), s.flush(), s.jlist(),
		}},
		{"gpm itself", []*cobra.Command{
			s.save(), s.resurrect(), s.startup(), s.unstartup(), s.update(), s.kill(), s.ping(), s.doctor(),
			s.completion(), s.version(),
		}},
	}
}

func unknownVerb(root *cobra.Command, word string) error {
	root.SuggestionsMinimumDistance = 2
	near := root.SuggestionsFor(word)
	if len(near) == 0 {
		return withHint("gpm --help", "unknown command %q", word)
	}
	return withHint("did you mean: gpm "+strings.Join(near, ", gpm "), "unknown command %q", word)
}

// dashNumbers lets "gpm scale web -2" through, which reads like a flag.
func dashNumbers(args []string) []string {
	if len(args) == 0 || args[0] != "scale" {
		return args
	}
	var flags, numbers []string
	for _, a := range args {
		if len(a) > 1 && a[0] == '-' && a[1] >= '0' && a[1] <= '9' {
			numbers = append(numbers, a)
		} else {
			flags = append(flags, a)
		}
	}
	if len(numbers) == 0 {
		return args
	}
	return append(append(flags, "--"), numbers...)
}

// needArgs is cobra.MinimumNArgs with our voice.
func needArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return withHint(cmd.CommandPath()+" --help", "%s needs %s", cmd.CommandPath(), what)
	}
}

// atMost is cobra.MaximumNArgs with our voice.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return withHint(cmd.CommandPath()+" --help", "%s: unexpected argument %q", cmd.CommandPath(), args[n])
	}
}

// RealEnv is the Env of this process.
func RealEnv() (Env, error) {
	exe, err := os.Executable()
	if err != nil {
		return Env{}, fmt.Errorf("find my own binary: %w", err)
	}
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Environ: os.Environ(), Getwd: os.Getwd, Exe: exe, UID: os.Geteuid(),
	}, nil
}
