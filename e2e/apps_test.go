package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// app is the config of an app that is a shell script. The name ends in .sh, so
// that a shell reads it: a program that was written a moment ago cannot be
// executed while another test's fork still has it open.
func (g *gpm) app(name, script string, keys ...map[string]any) map[string]any {
	g.t.Helper()
	app := map[string]any{"name": name, "script": g.write(name+".sh", script+"\n"), "interpreter": "/bin/sh"}
	for _, k := range keys {
		maps.Copy(app, k)
	}
	return app
}

// keys is short for what a test adds to an app.
type keys = map[string]any

// idle is a script that lives until it is stopped.
const idle = "exec sleep 1000"

// home file names.
func (g *gpm) log(name string) string { return filepath.Join(g.home, "logs", name) }

func (g *gpm) path(name string) string { return filepath.Join(g.dir, name) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// talker is an app that says what the test tells it to.
type talker struct {
	g    *gpm
	pipe *os.File
}

// talker starts an app that writes each line it is told to stdout, and to
// stderr those that begin with "!".
func (g *gpm) talker(name string, more ...keys) talker {
	g.t.Helper()
	fifo := g.path(name + ".fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		g.t.Fatal(err)
	}
	script := `exec 3<>` + fifo + `
while read -r line <&3; do
	case $line in
	!*) echo "$line" >&2 ;;
	*) echo "$line" ;;
	esac
done`
	g.ok("start", g.conf(g.app(name, script, more...)))
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { pipe.Close() })
	return talker{g, pipe}
}

func (k talker) say(line string) {
	k.g.t.Helper()
	if _, err := k.pipe.WriteString(line + "\n"); err != nil {
		k.g.t.Fatal(err)
	}
}

// viewer is a gpm that runs on, as gpm logs does.
type viewer struct {
	*exec.Cmd
	g     *gpm
	mu    sync.Mutex
	lines []string
	done  chan struct{} // closed when it has ended and all was read
}

// view starts a gpm command and collects what it prints, stderr too.
func (g *gpm) view(args ...string) *viewer {
	g.t.Helper()
	return g.watch(exec.Command(filepath.Join(bin, "gpm"), args...))
}

func (g *gpm) watch(c *exec.Cmd) *viewer {
	g.t.Helper()
	v := &viewer{Cmd: c, g: g, done: make(chan struct{})}
	out, err := v.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	v.Dir, v.Env, v.Stderr = g.dir, g.env, v.Stdout
	if err := v.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { // ends with the command
		defer close(v.done)
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				v.mu.Lock()
				v.lines = append(v.lines, strings.TrimSuffix(line, "\n"))
				v.mu.Unlock()
			}
			if err != nil {
				return
			}
		}
	}()
	g.t.Cleanup(v.leave)
	return v
}

// leave is Ctrl-C, and the end of the command.
func (v *viewer) leave() {
	v.g.t.Helper()
	if v.ProcessState != nil {
		return
	}
	_ = v.Process.Signal(syscall.SIGCONT)
	_ = v.Process.Signal(syscall.SIGINT)
	v.ends()
}

// ends waits for the end of the command.
func (v *viewer) ends() {
	v.g.t.Helper()
	select {
	case <-v.done:
	case <-time.After(patience):
		_ = v.Process.Kill()
		<-v.done
		v.g.t.Errorf("%v did not end within %s", v.Args, patience)
	}
	_ = v.Wait()
}

func (v *viewer) all() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.lines...)
}

// sees waits until a line contains text.
func (v *viewer) sees(text string) {
	v.g.t.Helper()
	v.g.until("the viewer sees "+text, func() bool { return strings.Contains(strings.Join(v.all(), "\n"), text) })
}

// contains fails the test for each word that text does not have.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
