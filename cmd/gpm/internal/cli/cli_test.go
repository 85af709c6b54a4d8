package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpm/supervisor/api"
)

// screen is a buffer that the test may read while gpm writes.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{}
}

func newScreen() *screen { return &screen{grew: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.grew <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the screen shows a text.
func (s *screen) await(ctx context.Context, text string) bool {
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.grew:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// world is an Env with a daemon that h plays.
func world(t *testing.T, h http.Handler) (Env, *screen, *screen) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpm") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if h != nil {
		l, err := net.Listen("unix", filepath.Join(home, api.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(l) }()
		t.Cleanup(func() { s.Close(); <-done })
	}
	out, errs := newScreen(), newScreen()
	return Env{
		Stdout: out, Stderr: errs, Getwd: func() (string, error) { return home, nil }, Exe: "/nothing/here/gpm", UID: 1000,
		Environ: []string{"GPM_HOME=" + home, "HOME=" + home, "PATH=" + os.Getenv("PATH")},
	}, out, errs
}

func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestALongReloadTellsWhatItWaitsFor(t *testing.T) {
	ctx := patience(t)
	given := make(chan *screen, 1)
	env, out, errs := world(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case api.Find(api.RouteReload).Path:
			(<-given).await(ctx, "4 streams")
			json.NewEncoder(w).Encode(api.Result{Instances: []api.Outcome{{Name: "web", OK: true, Status: api.Online, PID: 7}}})
		case api.Find(api.RouteList).Path:
			json.NewEncoder(w).Encode(api.List{Instances: []api.Instance{{Name: "web"}}})
		case api.Find(api.RouteEvents).Path:
			api.WriteEvent(w, api.StreamSnapshot, api.List{})
			for r.Context().Err() == nil { // what comes in the first second is not worth a word
				api.WriteEvent(w, api.StreamEvent, api.Event{App: "other", Message: "other people's"})
				api.WriteEvent(w, api.StreamEvent, api.Event{App: "web", Message: "4 streams draining\x1b[2J"})
				http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
	}))
	given <- errs
	env.Environ = append(env.Environ, "COLUMNS=80")
	if code := Run(ctx, []string{"reload", "web"}, env); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if strings.ReplaceAll(errs.String(), "  web-0: 4 streams draining\n", "") != "" || out.String() != "✓ web-0 online (pid 7)\n" {
		t.Errorf("stderr %q, stdout %q", errs, out)
	}
}

func TestFollowingOutlivesADaemonRestart(t *testing.T) {
	followTwice(t, `{"pid": 2}`, "warning: the daemon was restarted")
}

func TestFollowingOutlivesBeingCutOff(t *testing.T) {
	followTwice(t, `{"pid": 1}`, "warning: this reader stood still for too long and was cut off")
}

// followTwice follows logs of the daemon with pid 1; the stream is cut, and
// after that ping answers as given.
func followTwice(t *testing.T, ping, warning string) {
	t.Helper()
	ctx, leave := context.WithCancel(patience(t))
	defer leave()
	var asked []string
	env, out, errs := world(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case api.Find(api.RouteLogs).Path:
			asked = append(asked, r.URL.Query().Get("lines"))
			if len(asked) == 1 {
				api.WriteEvent(w, api.StreamLog, api.LogLine{Name: "web", Text: "before"})
				return // cut
			}
			api.WriteEvent(w, api.StreamLog, api.LogLine{Name: "web", Text: "after\x1b[2J\r"})
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case api.Find(api.RoutePing).Path:
			w.Write([]byte(ping))
		default:
			w.Write([]byte(`{"daemon": {"pid": 1}}`))
		}
	}))
	code := make(chan int)
	go func() { code <- Run(ctx, []string{"logs"}, env) }()
	if !out.await(ctx, "after") {
		t.Fatalf("stdout %q, stderr %q", out, errs)
	}
	leave()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d: %s", c, errs)
	}
	if want := "0|web | before\n0|web | after\n"; out.String() != want {
		t.Errorf("got %q", out)
	}
	if !slices.Equal(asked, []string{"15", "0"}) || !strings.Contains(errs.String(), warning) {
		t.Errorf("asked for %q lines, stderr %q", asked, errs)
	}
}

func TestADaemonThatCannotBeStarted(t *testing.T) {
	env, _, errs := world(t, nil)
	if code := Run(patience(t), []string{"resurrect"}, env); code != 1 || !strings.Contains(errs.String(), "error: start daemon: ") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
	mute, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	env, _, errs = world(t, nil)
	env.Exe = mute // ends at once and says nothing
	if code := Run(patience(t), []string{"resurrect"}, env); code != 1 || !strings.Contains(errs.String(), "the keeper ended: exit status 1") || !strings.Contains(errs.String(), "gpm.log") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}

func TestAKeeperThatNeverSpeaks(t *testing.T) {
	env, _, _ := world(t, nil)
	env.Exe = filepath.Join(env.Environ[0][len("GPM_HOME="):], "mute")
	if err := os.WriteFile(env.Exe, []byte("#!/bin/sh\nexec sleep 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := newSession(env).spawnKeeper(ctx) // its deadline alone: before it nothing may be late
	if err == nil || !strings.Contains(err.Error(), "did not say that it is ready") {
		t.Errorf("got %v", err)
	}
}

func TestReadingStartsNothing(t *testing.T) {
	for _, args := range []string{"list", "jlist", "ping", "logs", "describe x", "monit", "flush", "stop x", "scale x 2", "save", "__complete stop x"} {
		env, _, _ := world(t, nil)
		env.Exe = filepath.Join(env.Environ[0][len("GPM_HOME="):], "spy")
		mark := env.Exe + ".ran"
		if err := os.WriteFile(env.Exe, []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		Run(patience(t), strings.Fields(args), env)
		if _, err := os.Stat(mark); err == nil {
			t.Errorf("gpm %s started a daemon", args)
		}
	}
}

func TestConfigInJavaScript(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not on this machine")
	}
	env, _, errs := world(t, nil)
	dir, _ := env.Getwd()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("app.sh", "#!/bin/sh\n")
	write("a.config.js", `console.log("noise"); module.exports = {apps: [{name: "a", script: "app.sh"}]}`)
	write("b.config.mjs", `export default async () => ({apps: [{name: "a", script: "app.sh"}]})`)
	write("c.config.mjs", `export const apps = [{name: "a", script: "app.sh"}]`)
	write("d.config.cjs", `exports.apps = [{name: "a", script: "app.sh"}]`)
	s := newSession(env)
	for _, file := range []string{"a.config.js", "b.config.mjs", "c.config.mjs", "d.config.cjs"} {
		apps, err := s.load(patience(t), file, &startOptions{})
		if err != nil || len(apps) != 1 || apps[0].Name != "a" || apps[0].Script != filepath.Join(dir, "app.sh") {
			t.Errorf("%s: %v, %v", file, apps, err)
		}
	}
	if !strings.Contains(errs.String(), "noise") {
		t.Error("what the config prints is lost")
	}
	write("bad.config.js", "module.exports = {\n  apps: [oops]\n}")
	_, err := s.load(patience(t), "bad.config.js", &startOptions{})
	if err == nil || !strings.Contains(err.Error(), "oops") || !strings.Contains(err.Error(), "bad.config.js:2") {
		t.Errorf("got %v", err)
	}
	if _, err := s.load(patience(t), "none.config.js", &startOptions{}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestUpdateEnvSendsTheEnvironment(t *testing.T) {
	var got api.ActRequest
	env, _, errs := world(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			json.NewDecoder(r.Body).Decode(&got)
		}
		w.Write([]byte("{}"))
	}))
	env.Environ = append(env.Environ, "MODE=old", "MODE=new")
	if code := Run(patience(t), []string{"restart", "web", "--update-env"}, env); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if got.UpdateEnv["MODE"] != "new" || !slices.Equal(got.Targets, []string{"web"}) {
		t.Errorf("sent %+v", got)
	}
	got = api.ActRequest{}
	Run(patience(t), []string{"restart", "web"}, env)
	if got.UpdateEnv != nil {
		t.Errorf("sent the environment unasked: %+v", got)
	}
}

func TestOldDaemonIsPointedOut(t *testing.T) {
	env, _, errs := world(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.ProtocolHeader, "0")
		json.NewEncoder(w).Encode(api.List{Daemon: api.Daemon{Version: "0.0.1", Warnings: []string{"disk full"}}})
	}))
	Run(patience(t), []string{"list"}, env)
	for _, want := range []string{"protocol 0", "the daemon is gpm 0.0.1", "warning: disk full", "gpm update"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("stderr has no %q: %s", want, errs)
		}
	}
}

func TestScaleTakesNegativeNumbers(t *testing.T) {
	for args, want := range map[string]string{
		"scale web -2":            "scale web -- -2",
		"scale web -2 --no-color": "scale web --no-color -- -2",
		"scale web +2":            "scale web +2",
		"logs -2":                 "logs -2",
		"scale --help":            "scale --help",
	} {
		if got := strings.Join(dashNumbers(strings.Fields(args)), " "); got != want {
			t.Errorf("%s: got %s", args, got)
		}
	}
}

func TestEveryErrorIsSaid(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errSaid, ""},
		{context.Canceled, "error: interrupted; what the daemon has begun goes on\nhint: see what came of it: gpm list\n"},
		{withHint("do this", "find %q: %w", "x", os.ErrNotExist), "error: find \"x\": file does not exist\nhint: do this\n"},
		{&api.Error{Message: "m"}, "error: m\n"},
		{errors.New("plain"), "error: plain\n"},
	} {
		env, _, errs := world(t, nil)
		newSession(env).fail(c.err)
		if errs.String() != c.want {
			t.Errorf("%v: said %q", c.err, errs)
		}
	}
}
