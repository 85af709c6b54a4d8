package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

func rootEnv(t *testing.T, out io.Writer) (Env, *[]string) {
	t.Helper()
	var ran []string
	env := Env{
		Stdout: out, Stderr: io.Discard, Getwd: os.Getwd, UID: 0, Exe: "/opt/my tools/gpm", Units: t.TempDir(),
		Environ: []string{"PATH=/usr/bin:/bin", "GPM_HOME=/srv/100%/gpm", "HOME=/root"},
		System: func(_ context.Context, _ io.Writer, name string, args ...string) error {
			ran = append(ran, strings.Join(append([]string{name}, args...), " "))
			return nil
		},
	}
	return env, &ran
}

func TestStartupInstallsAndUnstartupRemoves(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	env, ran := rootEnv(t, &out)
	unit := filepath.Join(env.Units, "gpm-"+me.Username+".service")
	if code := Run(t.Context(), []string{"startup", "systemd", "-u", me.Username}, env); code != 0 {
		t.Fatalf("startup: exit code %d\n%s", code, out.String())
	}
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`ExecStart="/opt/my tools/gpm" keeper --foreground`, `Environment="GPM_HOME=/srv/100%%/gpm"`, "User=" + me.Username,
		"RestartSec=100ms", "StartLimitIntervalSec=0", "FileDescriptorStoreMax=4096", "Delegate=yes", "OOMPolicy=continue",
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
	if want := "systemctl daemon-reload, systemctl enable gpm-" + me.Username + ".service"; strings.Join(*ran, ", ") != want {
		t.Errorf("ran %q", *ran)
	}
	*ran = nil
	for range 2 {
		if code := Run(t.Context(), []string{"unstartup", "-u", me.Username}, env); code != 0 {
			t.Fatalf("unstartup: exit code %d\n%s", code, out.String())
		}
	}
	if _, err := os.Stat(unit); err == nil {
		t.Error("the unit is still there")
	}
	if want := "systemctl disable gpm-" + me.Username + ".service, systemctl daemon-reload"; strings.Join(*ran, ", ") != want {
		t.Errorf("ran %q", *ran)
	}
}

func TestSystemdAcceptsTheUnit(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	env, _ := rootEnv(t, io.Discard)
	if env.Exe, err = exec.LookPath("true"); err != nil { // verify wants a program that exists
		t.Fatal(err)
	}
	s := newSession(env)
	u, err := s.unit("", "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), u.name())
	if err := os.WriteFile(path, []byte(u.text()), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", path).CombinedOutput()
	if strings.Contains(string(out), u.name()) || err != nil && !strings.Contains(string(out), "Failed to") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"PATH=/a:/b": "PATH=/a:/b", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
