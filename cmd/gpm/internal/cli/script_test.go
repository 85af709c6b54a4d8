package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gpm/supervisor/api"
)

// realBinary is the variable that names a built gpm: the scripts then run
// against it and its daemon in place of the fake one.
const realBinary = "GPM_TEST_BINARY"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gpm":    func() { os.Exit(testGPM()) },
		"atonce": func() { os.Exit(atOnce()) },
		"ctrlc":  func() { os.Exit(ctrlC()) },
	})
}

// testGPM is gpm with a fake keeper face.
func testGPM() int {
	if real := os.Getenv(realBinary); real != "" {
		err := syscall.Exec(real, append([]string{"gpm"}, os.Args[1:]...), os.Environ())
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		return fakeKeeper(os.Getenv("GPM_HOME"))
	}
	env, err := RealEnv()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	env.Exe = os.Args[0] // what TestMain goes by
	if !filepath.IsAbs(env.Exe) {
		env.Exe = filepath.Join(binDir(), env.Exe)
	}
	env.UID = 1000
	env.Units = os.Getenv("UNITS")
	env.Monit = func(_ context.Context, c *api.Client, target string) error {
		fmt.Printf("monit of %q in %s\n", target, filepath.Base(c.Home()))
		return nil
	}
	ctx, stop := UntilSignal(context.Background())
	defer stop()
	return Run(ctx, os.Args[1:], env)
}

// binDir is where testscript put the commands.
func binDir() string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "gpm")); err == nil {
			return dir
		}
	}
	return "/"
}

// atOnce runs one gpm command several times at once: atonce <n> <args...>.
func atOnce() int {
	var n int
	fmt.Sscan(os.Args[1], &n)
	var procs []*os.Process
	for range n {
		p, err := os.StartProcess(filepath.Join(binDir(), "gpm"), append([]string{"gpm"}, os.Args[2:]...),
			&os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		procs = append(procs, p)
	}
	code := 0
	for _, p := range procs {
		if st, err := p.Wait(); err != nil || st.ExitCode() != 0 {
			code = 1
		}
	}
	return code
}

// ctrlC presses Ctrl-C when gpm says each of the texts: ctrlc <text>... -- <args...>.
// It shows all that gpm says, and then how it ended.
func ctrlC() int {
	texts, args := os.Args[1:], []string(nil)
	if at := slices.Index(texts, "--"); at >= 0 {
		texts, args = texts[:at], texts[at+1:]
	}
	cmd := exec.Command(filepath.Join(binDir(), "gpm"), args...)
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	w.Close()
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Println(lines.Text())
		if len(texts) > 0 && strings.Contains(lines.Text(), texts[0]) {
			texts = texts[1:]
			cmd.Process.Signal(os.Interrupt)
		}
	}
	cmd.Wait()
	fmt.Println(cmd.ProcessState)
	return len(texts)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "h")
			e.Setenv("GPM_HOME", home)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TERM", "dumb")
			e.Setenv(realBinary, os.Getenv(realBinary))
			e.Defer(func() { killDaemon(t, home) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until": untilFile,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "fake" {
				return os.Getenv(realBinary) == "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// killDaemon ends what a script left running.
func killDaemon(t *testing.T, home string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := api.Dial(home).Kill(ctx)
	if err != nil && !errors.Is(err, api.ErrNoDaemon) && !errors.Is(err, api.ErrBroken) {
		t.Errorf("kill daemon of %s: %v", home, err)
	}
}

// untilFile waits until a file has a text: until <file> <text>.
func untilFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until file text")
	}
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never had %q: %s", args[0], args[1], data)
		}
	}
}
