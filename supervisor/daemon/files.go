package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/internal/watch"
)

// watch starts a watcher for an app; its own logs do not count as changes.
func (d *daemon) watch(app *config.App, changed func([]string)) (stop func(), err error) {
	w, err := watch.Start(watch.Options{
		Paths: app.Watch, Ignore: app.IgnoreWatch, Root: app.Cwd, Delay: app.WatchDelay.D(),
		IgnorePaths: []string{app.OutFile, app.ErrorFile, d.home},
	})
	if err != nil {
		return nil, err
	}
	go func() { // the watcher's reader; ends with it
		for c := range w.Changes() {
			if c.Err != nil {
				d.warn(fmt.Sprintf("watching %q is incomplete: %v", app.Name, c.Err))
				continue
			}
			changed(c.Paths)
		}
	}()
	return func() {
		if err := w.Close(); err != nil {
			d.log.Error("end watcher", "app", app.Name, "error", err)
		}
	}, nil
}

const buildOutput = 8 << 10 // kept of a failing build

// build runs the build command of an app to its end. Its output is shown only
// if it fails.
func build(ctx context.Context, app *config.App, home string) error {
	env := environ(supervisor.Launch{App: app}, home, nil)
	c := exec.CommandContext(ctx, "/bin/sh", "-c", app.Build)
	c.Dir, c.Env = app.Cwd, flatten(env)
	out := &lastBytes{most: buildOutput}
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // not yet waited for: the group is its own
	c.WaitDelay = 5 * time.Second                                                    // for children that keep its output open
	err := c.Run()
	if ctx.Err() != nil {
		err = errors.New("it took too long")
	}
	if err != nil {
		return fmt.Errorf("%q: %w: %s", app.Build, err, bytes.TrimSpace(out.b))
	}
	return nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	b    []byte
	most int
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.b = append(l.b, p...)
	if n := len(l.b) - l.most; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(p), nil
}

// versions remembers the version of each app, from the nearest package.json
// above its script. It is read again when the app is started again.
type versions struct {
	mu sync.Mutex
	by map[*config.App]string
}

func (v *versions) of(app *config.App) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s, ok := v.by[app]; ok {
		return s
	}
	if len(v.by) > 1000 || v.by == nil {
		v.by = map[*config.App]string{}
	}
	s := packageVersion(app)
	v.by[app] = s
	return s
}

func packageVersion(app *config.App) string {
	dir := app.Cwd
	if !app.Shell && speaksIPC(app) {
		dir = filepath.Dir(app.Script)
	}
	for range 8 {
		if b, err := os.ReadFile(filepath.Join(dir, "package.json")); err == nil {
			var p struct{ Version string }
			if json.Unmarshal(b, &p) == nil {
				return strings.TrimSpace(p.Version)
			}
			return ""
		}
		up := filepath.Dir(dir)
		if up == dir || !speaksIPC(app) {
			return ""
		}
		dir = up
	}
	return ""
}

// self is the name of the user that gpm runs as.
var self = sync.OnceValue(func() string {
	u, err := user.Current()
	if err != nil {
		return fmt.Sprint(os.Geteuid())
	}
	return u.Username
})
