package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpm/config"
	"gpm/supervisor"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func testStore(t *testing.T) *store {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "state"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { s.run(stop); close(ended) }()
	t.Cleanup(func() { close(stop); <-ended })
	return s
}

func record(name string, n int) supervisor.Record {
	return supervisor.Record{Version: supervisor.RecordVersion, App: config.App{Name: name, Instances: n}}
}

func TestRecordsComeBackAsTheyWereSavedLast(t *testing.T) {
	s := testStore(t)
	for i := range 50 {
		s.Save(record("web", i))
		s.Save(record("a/b ü", i))
	}
	s.Save(record("gone", 1))
	s.Forget("gone")
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	got, problems := s.Load()
	if len(problems) > 0 || len(got) != 2 {
		t.Fatalf("%d records, problems %v", len(got), problems)
	}
	for _, r := range got {
		if r.App.Instances != 49 {
			t.Errorf("%s has %d instances", r.App.Name, r.App.Instances)
		}
	}
	files, _ := os.ReadDir(s.dir)
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v: records hold secrets", f.Name(), info.Mode())
		}
		if strings.HasSuffix(f.Name(), ".tmp") {
			t.Errorf("%s is left behind", f.Name())
		}
	}
}

func TestADamagedRecordIsSetAsideAndHoldsUpNobody(t *testing.T) {
	s := testStore(t)
	s.Save(record("good", 1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"torn.json":      `{"version":1,"app":{"name":"to`,
		"newer.json":     `{"version":999,"app":{"name":"newer"}}`,
		"empty.json":     ``,
		"noname.json":    `{"version":1}`,
		"x.json.123.tmp": `half`,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, problems := s.Load()
	if len(got) != 1 || got[0].App.Name != "good" {
		t.Fatalf("records %v", got)
	}
	if len(problems) != 4 {
		t.Fatalf("problems %q", problems)
	}
	for _, name := range []string{"torn", "newer", "empty", "noname"} {
		if _, err := os.Stat(filepath.Join(s.dir, name+".json.corrupt")); err != nil {
			t.Errorf("%s was not kept for its owner: %v", name, err)
		}
	}
	if got, problems = s.Load(); len(got) != 1 || len(problems) != 0 {
		t.Errorf("second look: %v, %q", got, problems)
	}
}

// A disk that refuses is said by Sync, and the record is written with the next
// change that comes when the disk is back.
func TestADiskThatRefusesIsSaid(t *testing.T) {
	s := testStore(t)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	s.Save(record("web", 1))
	if err := s.Sync(); err == nil {
		t.Fatal("no error though the folder is gone")
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Save(record("web", 2))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Load(); len(got) != 1 || got[0].App.Instances != 2 {
		t.Fatalf("records %v", got)
	}
}

func TestPlacesSurviveTheirTag(t *testing.T) {
	for _, app := range []string{"web", "a/b", "ü name", "%2F", "..", "a b/0/1"} {
		p := place{app, 3, 17}
		got, err := parsePlace(p.String())
		if err != nil || got != p {
			t.Errorf("%q: %v, %v", p, got, err)
		}
	}
	for _, bad := range []string{"", "a", "a/1", "a/b/1", "a/1/b", "a/1/2/3", "%zz/1/2"} {
		if p, err := parsePlace(bad); err == nil {
			t.Errorf("%q was parsed to %v", bad, p)
		}
	}
}

func TestLogPathsHaveThePM2Suffix(t *testing.T) {
	app := &config.App{OutFile: "/x/out.log", ErrorFile: "/x/err"}
	if out, errs := logPaths(app, 3); out != "/x/out-3.log" || errs != "/x/err-3" {
		t.Error(out, errs)
	}
	app.MergeLogs = true
	if out, _ := logPaths(app, 3); out != "/x/out.log" {
		t.Error(out)
	}
	app.MergeLogs, app.OutFile = false, ""
	if out, _ := logPaths(app, 3); out != "" {
		t.Error(out)
	}
}

func TestEnvironment(t *testing.T) {
	app := &config.App{
		Name: "web", Namespace: "default", Instances: 4, ExecMode: "cluster", Cwd: "/srv", Port: 8080,
		Inherited: map[string]string{"PATH": "/bin", "LISTEN_FDS": "3", "NOTIFY_SOCKET": "/x", "GPM_TREE": "other", "A": "inherited", "name": "shell"},
		Env:       map[string]string{"A": "own", "instances": "mine", "PORT": "1"},
	}
	env := environ(supervisor.Launch{App: app, ID: 7, Index: 2, Gen: 5}, "/home/gpm", nil)
	for k, want := range map[string]string{
		"PATH": "/bin", "A": "own", "name": "web", "instances": "mine", "PORT": "8080", "NODE_APP_INSTANCE": "2", "pm_id": "7",
		"exec_mode": "cluster_mode", "PWD": "/srv", "GPM_GENERATION": "5", "PM2_HOME": "/home/gpm",
		"LISTEN_FDS": "", "NOTIFY_SOCKET": "", "GPM_TREE": "",
	} {
		if env[k] != want {
			t.Errorf("%s=%q, want %q", k, env[k], want)
		}
	}
	if got := flatten(map[string]string{"B": "2", "A": "1", "X=Y": "bad", "Z": "a\x00b"}); fmt.Sprint(got) != "[A=1 B=2]" {
		t.Error(got)
	}
	if app.Inherited["LISTEN_FDS"] != "3" {
		t.Error("the app itself was changed")
	}
}

func TestDescribeHidesValues(t *testing.T) {
	app := config.App{
		Env: map[string]string{"KEY": "secret"}, Inherited: map[string]string{"TOKEN": "secret"},
		Profiles: map[string]map[string]string{"prod": {"KEY": "secret"}},
	}
	if s := fmt.Sprint(shown(app, false)); strings.Contains(s, "secret") {
		t.Error(s)
	}
	if app.Env["KEY"] != "secret" || app.Profiles["prod"]["KEY"] != "secret" {
		t.Error("the app itself was changed")
	}
	if s := fmt.Sprint(shown(app, true)); !strings.Contains(s, "secret") {
		t.Error(s)
	}
}

// The daemon's last word comes after its goroutines have ended.
func TestSyncWritesAfterTheEnd(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "state"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	close(stop)
	s.run(stop)
	s.Save(record("web", 1))
	s.Save(record("api", 1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Load(); len(got) != 2 {
		t.Fatalf("records %v", got)
	}
}

func TestTheOwnLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gpm.log")
	if err := cutLog(path, 100, 10); err != nil {
		t.Fatal("no log is no problem:", err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cutLog(path, 100, 10); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); len(b) != 100 {
		t.Errorf("a log of the allowed size was cut to %d", len(b))
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 100)+"the end..."), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cutLog(path, 100, 10); err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(path)
	old, _ := os.ReadFile(path + ".1")
	if len(now) != 0 || string(old) != "the end..." {
		t.Errorf("log %q, kept %q", now, old)
	}
}
