package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

type startupOptions struct {
	user, home string
	print      bool
}

func (s *session) startup() *cobra.Command {
	o := &startupOptions{}
	c := &cobra.Command{
		Use:   "startup [systemd]",
		Short: "Start gpm at boot, by a systemd unit",
		Long: `Write a systemd unit for gpm and enable it. Needs root: for another user it
prints the line to run with sudo. What runs when the machine goes down runs
again when it comes up. A gpm that runs already is not touched.`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlySystemd(args); err != nil {
				return err
			}
			u, err := s.unit(o.user, o.home)
			if err != nil {
				return err
			}
			switch {
			case o.print:
				s.out.Printf("%s", u.text())
				return nil
			case s.env.UID != 0:
				return s.asRoot("startup", u)
			}
			return s.install(cmd.Context(), u)
		},
		ValidArgs: []string{"systemd"},
	}
	o.flags(c)
	c.Flags().BoolVar(&o.print, "print", false, "only print the unit")
	return c
}

func (s *session) unstartup() *cobra.Command {
	o := &startupOptions{}
	c := &cobra.Command{
		Use:   "unstartup [systemd]",
		Short: "Do not start gpm at boot any more",
		Long:  "Disable the systemd unit and remove it. Apps go on.",
		Args:  atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlySystemd(args); err != nil {
				return err
			}
			u, err := s.unit(o.user, o.home)
			if err != nil {
				return err
			}
			if s.env.UID != 0 {
				return s.asRoot("unstartup", u)
			}
			return s.uninstall(cmd.Context(), u)
		},
		ValidArgs: []string{"systemd"},
	}
	o.flags(c)
	return c
}

func (o *startupOptions) flags(c *cobra.Command) {
	c.Flags().StringVarP(&o.user, "user", "u", "", "`user` to run gpm as; default: you")
	c.Flags().StringVar(&o.home, "hp", "", "home `folder` of that user; GPM_HOME wins")
}

func onlySystemd(args []string) error {
	if len(args) == 0 || args[0] == "systemd" {
		return nil
	}
	return withHint("gpm startup systemd", "no support for %q, only for systemd", args[0])
}

// bootUnit is what differs between one user's unit and another's.
type bootUnit struct {
	user, home, exe, path string
}

// unit is the unit of a user; empty is the caller, whoever sudo says that is.
func (s *session) unit(name, folder string) (bootUnit, error) {
	name = cmp.Or(name, s.getenv("SUDO_USER"))
	var who *user.User
	var err error
	if name == "" {
		who, err = user.LookupId(strconv.Itoa(s.env.UID))
	} else {
		who, err = user.Lookup(name)
	}
	if err != nil {
		return bootUnit{}, withHint("gpm startup -u <user>", "find user: %w", err)
	}
	u := bootUnit{user: who.Username, exe: s.env.Exe, path: s.getenv("PATH")}
	u.home = cmp.Or(s.getenv("GPM_HOME"), filepath.Join(cmp.Or(folder, who.HomeDir), ".gpm"))
	if !filepath.IsAbs(u.home) {
		u.home = s.home
	}
	if strings.ContainsAny(u.exe+u.home+u.path+u.user, "\n\r") {
		return bootUnit{}, errors.New("write unit: a path has a line break in it")
	}
	return u, nil
}

func (u bootUnit) name() string { return "gpm-" + u.user + ".service" }

func (s *session) unitPath(u bootUnit) string {
	return filepath.Join(cmp.Or(s.env.Units, "/etc/systemd/system"), u.name())
}

// text is the unit file; every key is known to systemd 232 and newer, except
// that OOMPolicy= came with 243 (older ones warn and go on).
func (u bootUnit) text() string {
	return `[Unit]
Description=gpm process supervisor for ` + escapeUnit(u.user) + `
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User=` + escapeUnit(u.user) + `
Environment=` + quoteUnit("GPM_HOME="+u.home) + `
Environment=` + quoteUnit("PATH="+u.path) + `
ExecStart=` + quoteExec(u.exe) + ` keeper --foreground
Restart=always
RestartSec=100ms
# 75: a gpm that was started by hand holds this GPM_HOME.
RestartPreventExitStatus=75
# Only the keeper is signalled; it ends its apps in their own way. Should it be
# killed, they go on, and the next one takes them over.
KillMode=process
TimeoutStopSec=30min
Delegate=yes
FileDescriptorStoreMax=4096
OOMPolicy=continue
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`
}

// escapeUnit keeps systemd from reading specifiers in text.
func escapeUnit(text string) string { return strings.ReplaceAll(text, "%", "%%") }

// quoteUnit is one word of a list such as Environment=.
func quoteUnit(word string) string {
	word = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word)
	return `"` + escapeUnit(word) + `"`
}

// quoteExec is the program of a command line; there $ is not a variable.
func quoteExec(word string) string {
	if strings.ContainsAny(word, " \t\"'\\;") {
		return quoteUnit(word)
	}
	return escapeUnit(word)
}

// asRoot prints the line to be run as root.
func (s *session) asRoot(verb string, u bootUnit) error {
	s.out.Println(strings.Join([]string{
		"sudo env", shellQuote("PATH=" + u.path), shellQuote("GPM_HOME=" + u.home), shellQuote(u.exe), verb, "systemd -u", shellQuote(u.user),
	}, " "))
	return withHint("run the line above", "%s needs root", verb)
}

func shellQuote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-=:+,@%", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func (s *session) install(ctx context.Context, u bootUnit) error {
	path := s.unitPath(u)
	if err := os.WriteFile(path, []byte(u.text()), 0o644); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	s.out.Println("wrote " + path)
	if err := s.system(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	if err := s.system(ctx, "systemctl", "enable", u.name()); err != nil {
		return err
	}
	s.out.Println("gpm starts at boot, with the apps that run when the machine goes down")
	s.say.Hint("let systemd take over now: gpm save && gpm kill && systemctl start " + u.name() + " && gpm resurrect")
	return nil
}

func (s *session) uninstall(ctx context.Context, u bootUnit) error {
	path := s.unitPath(u)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		s.out.Println("there is no unit " + path)
		return nil
	}
	if err := s.system(ctx, "systemctl", "disable", u.name()); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove unit: %w", err)
	}
	s.out.Println("removed " + path)
	return s.system(ctx, "systemctl", "daemon-reload")
}
