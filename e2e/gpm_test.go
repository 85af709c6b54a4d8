// Package e2e drives the real gpm with real processes: what a user sees is
// what is tested. Every test has a gpm of its own in a home of its own.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gpm/supervisor/api"
)

// patience is how long a condition may take on a slow machine. No test waits
// for it to pass; every one waits for something to become true.
var patience = 40 * time.Second

var bin string // folder with gpm, sse-app, sse-bus, gosrv and ears

var (
	soak       = flag.Bool("soak", false, "run the long versions")
	soakRate   = flag.Float64("rate", 0, "connections per `second`; 0: 100, and in the long versions what each server can")
	everywhere = flag.Bool("everywhere", false, "run them with every server in every mode")
)

func TestMain(m *testing.M) {
	flag.DurationVar(&patience, "patience", patience, "how long a condition may take")
	flag.StringVar(&bin, "bin", "", "`folder` with the programs, built already, and a gpm-next of version 99.1.0; for machines without Go")
	flag.Parse()
	if given := flag.Lookup("test.parallel"); given.Value.String() == given.DefValue {
		// They wait for processes, and for streams to end, far more than they compute.
		_ = given.Value.Set(strconv.Itoa(max(4, runtime.GOMAXPROCS(0))))
	}
	if bin != "" {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "gpm-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		for name, pkg := range map[string]string{"gpm": "gpm/cmd/gpm", "sse-app": "gpm/examples/sse-app", "sse-bus": "gpm/examples/sse-app/bus", "gosrv": "./testdata/gosrv", "ears": "./testdata/ears"} {
			c := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
			c.Env = append(os.Environ(), "CGO_ENABLED=0")
			if raced && name == "gpm" { // what is tested with the race detector runs with it
				c.Args = slices.Insert(c.Args, 2, "-race")
				c.Env = append(os.Environ(), "CGO_ENABLED=1")
			}
			if out, err := c.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
				return 1
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// gpm is one gpm: a home, and whatever runs in it.
type gpm struct {
	t    *testing.T
	home string
	dir  string // working folder of its commands
	env  []string
	as   *syscall.Credential // who runs its commands; nil: the test's own user
}

// newGPM makes a home. Homes have short paths: a unix socket's may have 107
// bytes. At the end everything is stopped, and nothing may be left.
func newGPM(t *testing.T) *gpm {
	t.Helper()
	home, err := os.MkdirTemp("", "g")
	if err != nil {
		t.Fatal(err)
	}
	g := &gpm{t: t, home: home, dir: t.TempDir()}
	g.env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GPM_") }), "GPM_HOME="+home, "NO_COLOR=1",
		"GORACE=atexit_sleep_ms=0") // a raced gpm would sleep for a second at each exit
	t.Cleanup(func() {
		g.dir = home // the test's own folder may be gone
		g.end()
		if left := g.left(); len(left) > 0 {
			t.Errorf("after gpm kill these are left: %q", left)
		}
		b, _ := os.ReadFile(filepath.Join(home, "gpm.log"))
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if bytes.Contains(b, []byte(bad)) {
				t.Errorf("gpm.log speaks of a %s", bad)
			}
		}
		if t.Failed() {
			t.Logf("gpm.log:\n%s", b[max(0, len(b)-8000):])
		}
		os.RemoveAll(home)
	})
	return g
}

// end is gpm kill, and the end of keeper and daemon, which comes a moment after
// their last sign. The test may have said gpm kill itself: then no file has the
// keeper's pid any more.
func (g *gpm) end() {
	g.t.Helper()
	g.run("kill")
	g.until("keeper and daemon end", func() bool {
		return !slices.ContainsFunc(g.left(), func(s string) bool {
			return strings.HasSuffix(s, "gpm keeper ") || strings.HasSuffix(s, "gpm daemon ")
		})
	})
}

// left are the processes that run with this home in their environment.
func (g *gpm) left() (r []string) {
	want := []byte("\x00GPM_HOME=" + g.home + "\x00")
	procs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range procs {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(append([]byte{0}, b...), want) {
			cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			r = append(r, path+" "+string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return r
}

type output struct {
	stdout, stderr string
	code           int
}

func (o output) String() string {
	return fmt.Sprintf("exit %d\n--- stdout\n%s--- stderr\n%s", o.code, o.stdout, o.stderr)
}

// run runs gpm to its end.
func (g *gpm) run(args ...string) output {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return g.finish(exec.CommandContext(ctx, filepath.Join(bin, "gpm"), args...))
}

func (g *gpm) finish(c *exec.Cmd) output {
	g.t.Helper()
	var out, errs bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = g.dir, g.env, &out, &errs
	if g.as != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: g.as}
	}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatalf("gpm %v: %v", c.Args[1:], err)
	}
	return output{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// ok runs gpm and fails the test if it fails.
func (g *gpm) ok(args ...string) string {
	g.t.Helper()
	o := g.run(args...)
	if o.code != 0 {
		g.t.Fatalf("gpm %v: %v", args, o)
	}
	return o.stdout
}

// fails runs gpm, which has to fail, and returns what it says.
func (g *gpm) fails(args ...string) string {
	g.t.Helper()
	o := g.run(args...)
	if o.code != 1 {
		g.t.Fatalf("gpm %v: exit code 1 is expected: %v", args, o)
	}
	return o.stdout + o.stderr
}

func (g *gpm) list() []api.Instance {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := api.Dial(g.home).List(ctx) // not by the CLI: conditions are asked for often
	if err != nil && !errors.Is(err, api.ErrNoDaemon) {
		g.t.Fatal(err)
	}
	return l.Instances
}

// answers tells whether a daemon does.
func (g *gpm) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := api.Dial(g.home).Ping(ctx)
	return err == nil
}

// instance is one row of the list.
func (g *gpm) instance(name string, index int) api.Instance {
	g.t.Helper()
	for _, in := range g.list() {
		if in.Name == name && in.Instance == index {
			return in
		}
	}
	return api.Instance{}
}

// online waits until an app has n online instances and returns them.
func (g *gpm) online(name string, n int) (r []api.Instance) {
	g.t.Helper()
	g.until(fmt.Sprintf("%s has %d online instances", name, n), func() bool {
		r = slices.DeleteFunc(g.list(), func(in api.Instance) bool { return in.Name != name || in.Status != api.Online })
		return len(r) == n
	})
	return r
}

// until waits for a condition that nobody announces.
func (g *gpm) until(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			g.t.Fatalf("after %s this is not true: %s\n%v", patience, what, g.run("list"))
		case <-tick.C:
		}
	}
}

func (g *gpm) pid(file string) int {
	b, err := os.ReadFile(filepath.Join(g.home, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// write puts a file into the working folder and returns its path.
func (g *gpm) write(name, text string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	// No other test forks meanwhile: its child would have the file open until it
	// executes something, and nobody could execute the file ("text file busy").
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(text), mode)
	syscall.ForkLock.RUnlock()
	if err != nil {
		g.t.Fatal(err)
	}
	return path
}

// conf writes a config file with these apps.
func (g *gpm) conf(apps ...map[string]any) string {
	g.t.Helper()
	b, err := json.MarshalIndent(map[string]any{"apps": apps}, "", "  ")
	if err != nil {
		g.t.Fatal(err)
	}
	return g.write("gpm.conf.json", string(b))
}

func (g *gpm) read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// alive tells whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("kill pid %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// killBoth kills keeper and daemon at once, and waits until they are dead. The
// keeper stands still first: else it may start the next daemon before it dies,
// and that one the next keeper.
func (g *gpm) killBoth() {
	g.t.Helper()
	keeper, daemon := g.pid("keeper.pid"), g.pid("gpm.pid")
	signal(g.t, []int{keeper}, syscall.SIGSTOP)
	g.until("the keeper stands still", func() bool { return !moves(keeper) })
	kill9(g.t, daemon)
	kill9(g.t, keeper)
	g.until("both are dead", func() bool { return !alive(keeper) && !alive(daemon) })
}

// nextPort starts at another place in each test process.
var nextPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(int64(10000 + os.Getpid()*37%20000))
	return n
}()

// freePort is a port that nobody has now, and that no outgoing connection gets
// by chance: it is below the kernel's range of those.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := int(10000 + (nextPort.Add(1)-10000)%22000)
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// get asks once on a connection of its own.
func get(url string) (string, error) {
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		err = fmt.Errorf("status %d: %s", res.StatusCode, b)
	}
	return strings.TrimSpace(string(b)), err
}

// spread asks n times and counts who answered.
func (g *gpm) spread(url string, n int) map[string]int {
	g.t.Helper()
	by := map[string]int{}
	for range n {
		who, err := get(url)
		if err != nil {
			g.t.Fatal(err)
		}
		by[who]++
	}
	return by
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}
