package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs what a person types: testdata/script/*.txtar, each with a
// home and a folder of its own. Beside the usual commands there are
//
//	until <regexp> gpm <verb...>   again and again until its stdout matches
//	until <regexp> cat <file>      until the file does
//	slay <app>                     SIGKILL to the process of its first instance
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home, err := os.MkdirTemp("", "g")
			if err != nil {
				return err
			}
			e.Setenv("GPM_HOME", home)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NO_COLOR", "1")
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			e.Setenv("ADDR", addr(freePort(t)))
			g := &gpm{t: t, home: home, dir: e.WorkDir, env: append(os.Environ(), e.Vars...)}
			e.Values["gpm"] = g
			e.Defer(func() {
				keeper := g.pid("keeper.pid")
				g.run("kill")
				if keeper > 0 {
					g.until("the keeper ends", func() bool { return !alive(keeper) })
				}
				if err := os.RemoveAll(home); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until, "slay": slayApp},
		Condition: func(cond string) (bool, error) {
			_, err := exec.LookPath(strings.TrimPrefix(cond, "has:"))
			return err == nil, nil
		},
	})
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "gpm" && args[1] != "cat" {
		ts.Fatalf("usage: until regexp gpm verb..., until regexp cat file")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	g := ts.Value("gpm").(*gpm)
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		var o output
		if args[1] == "gpm" {
			o = g.run(args[2:]...) // its exit code is not the question
		} else {
			o.stdout = g.read(ts.MkAbs(args[2]))
		}
		if want.MatchString(o.stdout) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %s %q is not in what %v says: %v", patience, args[0], args[1:], o)
		}
	}
}

func slayApp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: slay app")
	}
	ts.Check(ts.Exec("gpm", "describe", args[0]))
	m := regexp.MustCompile(`(?m)^  pid +(\d+)$`).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("%s has no pid", args[0])
	}
	pid, _ := strconv.Atoi(m[1])
	if pid <= 1 {
		ts.Fatalf("%s does not run", args[0])
	}
	p, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(p.Kill())
}
