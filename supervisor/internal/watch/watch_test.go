package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// watched starts a watcher over a fresh folder with some files in it.
func watched(t *testing.T, o Options) (root string, w *Watcher) {
	t.Helper()
	root = t.TempDir()
	for _, f := range []string{"app.js", "lib/a.js", "node_modules/x/y.js", ".git/HEAD", "logs/out.log"} {
		write(t, filepath.Join(root, f))
	}
	for i, p := range o.Paths {
		o.Paths[i] = filepath.Join(root, p)
	}
	for i, p := range o.IgnorePaths {
		o.IgnorePaths[i] = filepath.Join(root, p)
	}
	if o.Paths == nil {
		o.Paths = []string{root}
	}
	o.Root = root
	w, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return root, w
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// next is the next change, its paths relative to root.
func next(t *testing.T, root string, w *Watcher) []string {
	t.Helper()
	select {
	case c := <-w.Changes():
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		var out []string
		for _, p := range c.Paths {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, rel)
		}
		slices.Sort(out)
		return out
	case <-time.After(patience):
		t.Fatalf("no change within %s", patience)
		return nil
	}
}

// only writes one more file, the marker, and checks that exactly these changed
// until then. It does not mind in how many changes, as a slow machine may
// split them: TestDebounce looks at that.
func only(t *testing.T, root string, w *Watcher, marker string, want ...string) {
	t.Helper()
	// Moved in, it has one event. Written in place it has two, and the second
	// might come after the change that the first is told in: one too many for
	// whoever looks next.
	outside := filepath.Join(t.TempDir(), "marker")
	write(t, outside)
	must(t, os.Rename(outside, filepath.Join(root, marker)))
	var got []string
	for !slices.Contains(got, marker) {
		got = append(got, next(t, root, w)...)
	}
	slices.Sort(got)
	got = slices.DeleteFunc(slices.Compact(got), func(p string) bool { return p == marker })
	if !slices.Equal(got, want) {
		t.Errorf("changed %q, want %q", got, want)
	}
}

func TestOneChangeForManyFiles(t *testing.T) {
	root, w := watched(t, Options{})
	write(t, filepath.Join(root, "app.js"))
	write(t, filepath.Join(root, "lib/a.js"))
	write(t, filepath.Join(root, "lib/new.js"))
	only(t, root, w, "marker", "app.js", "lib/a.js", "lib/new.js")
}

func TestATouchCounts(t *testing.T) {
	root, w := watched(t, Options{})
	past := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(filepath.Join(root, "app.js"), past, past)) // a backup that restores times
	only(t, root, w, "marker")
	for slow := true; slow; { // not if this was held up: then it is no time of now
		now := time.Now()
		must(t, os.Chtimes(filepath.Join(root, "app.js"), now, now))
		slow = time.Since(now) > 5*time.Millisecond
	}
	only(t, root, w, "marker2", "app.js")
}

func TestRemovedFilesCount(t *testing.T) {
	root, w := watched(t, Options{})
	must(t, os.Remove(filepath.Join(root, "lib/a.js")))
	only(t, root, w, "marker", "lib/a.js")
}

func TestWhatDoesNotCount(t *testing.T) {
	root, w := watched(t, Options{
		Ignore:      []string{"*.tmp", "public/uploads/**", "build", "./data/"},
		IgnorePaths: []string{"logs/out.log", "pids"},
	})
	for _, f := range []string{
		"node_modules/x/y.js", "node_modules/new/z.js", ".git/HEAD", "lib/.env", "lib/a.js~", "a.tmp", "lib/deep/b.tmp",
		"public/uploads/1/2.png", "lib/build/out.js", "data/db", "logs/out.log", "logs/out-2026-01-02T03-04-05.000.log",
		"logs/out-2026-01-02T03-04-05.000.log.gz", "pids/app.pid", "__pycache__/m.pyc", "4913",
	} {
		write(t, filepath.Join(root, f))
	}
	past := time.Now().Add(-time.Minute) // written before, not in this millisecond
	must(t, os.Chtimes(filepath.Join(root, "app.js"), past, past), os.Chmod(filepath.Join(root, "app.js"), 0o600))
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	write(t, filepath.Join(root, "logs/other.log"))
	only(t, root, w, "marker", "logs/other.log")
}

func TestNewFoldersAreWatchedWithWhatIsInThem(t *testing.T) {
	root, w := watched(t, Options{})
	write(t, filepath.Join(root, "new/deep/er/x.js"))
	only(t, root, w, "new/deep/er/later.js", "new/deep/er/x.js")

	outside := t.TempDir()
	write(t, filepath.Join(outside, "moved/in/y.js"))
	must(t, os.Rename(filepath.Join(outside, "moved"), filepath.Join(root, "moved")))
	only(t, root, w, "moved/in/later.js", "moved/in/y.js")

	must(t, os.Rename(filepath.Join(root, "moved"), filepath.Join(outside, "gone")))
	only(t, root, w, "marker1", "moved")
	write(t, filepath.Join(outside, "gone/in/z.js")) // moved away: not ours any more
	only(t, root, w, "marker2")
}

func TestEditorsSaveOnce(t *testing.T) {
	for name, save := range map[string]func(t *testing.T, file string){
		"vim": func(t *testing.T, file string) {
			write(t, filepath.Join(filepath.Dir(file), "4913"))
			must(t, os.Remove(filepath.Join(filepath.Dir(file), "4913")), os.Rename(file, file+"~"))
			write(t, file)
			must(t, os.Chmod(file, 0o644), os.Remove(file+"~"))
			write(t, filepath.Join(filepath.Dir(file), ".app.js.swp"))
		},
		"rename over": func(t *testing.T, file string) {
			tmp := filepath.Join(filepath.Dir(file), ".app.js.x7")
			write(t, tmp)
			must(t, os.Rename(tmp, file))
		},
		"in place": write,
	} {
		t.Run(name, func(t *testing.T) {
			for _, paths := range [][]string{nil, {"app.js"}} {
				root, w := watched(t, Options{Paths: paths})
				save(t, filepath.Join(root, "app.js"))
				if got := next(t, root, w); !slices.Equal(got, []string{"app.js"}) {
					t.Errorf("changed %v, want app.js", got)
				}
				save(t, filepath.Join(root, "app.js"))
				if got := next(t, root, w); !slices.Equal(got, []string{"app.js"}) {
					t.Errorf("second save: changed %v, want app.js", got)
				}
			}
		})
	}
}

func TestASingleFile(t *testing.T) {
	root, w := watched(t, Options{Paths: []string{"app.js"}})
	write(t, filepath.Join(root, "other.js"))
	write(t, filepath.Join(root, "lib/a.js"))
	write(t, filepath.Join(root, "app.js"))
	if got := next(t, root, w); !slices.Equal(got, []string{"app.js"}) {
		t.Errorf("changed %v, want app.js", got)
	}
}

func TestALinkedFileChangesWhereItLeads(t *testing.T) {
	target := filepath.Join(t.TempDir(), "real.js")
	write(t, target)
	link := filepath.Join(t.TempDir(), "link.js")
	must(t, os.Symlink(target, link))
	w, err := Start(Options{Paths: []string{link}})
	must(t, err)
	defer w.Close()
	write(t, target)
	if got := next(t, "/", w); len(got) != 1 || filepath.Base(got[0]) != "real.js" {
		t.Errorf("changed %v, want real.js", got)
	}
}

func TestAFolderThatIsReplaced(t *testing.T) {
	root, w := watched(t, Options{Paths: []string{"lib"}})
	lib := filepath.Join(root, "lib")
	must(t, os.RemoveAll(lib))
	write(t, filepath.Join(lib, "sub/b.js"))
	for !slices.Contains(next(t, root, w), "lib") { // what was removed may come first
	}
	write(t, filepath.Join(lib, "sub/c.js"))
	for !slices.Contains(next(t, root, w), "lib/sub/c.js") {
	}
}

func TestALinkThatLeadsToTheNextRelease(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "releases/1/app.js"))
	write(t, filepath.Join(root, "releases/2/app.js"))
	current := filepath.Join(root, "current")
	must(t, os.Symlink("releases/1", current))
	w, err := Start(Options{Paths: []string{current}, Root: current, Ignore: []string{"tmp/*"}})
	must(t, err)
	defer w.Close()
	only(t, root, w, "current/first")
	write(t, filepath.Join(root, "releases/1/app.js"))
	only(t, root, w, "current/marker1", "current/app.js")
	must(t, os.Symlink("releases/2", current+".new"), os.Rename(current+".new", current))
	if got := next(t, root, w); !slices.Equal(got, []string{"current"}) {
		t.Errorf("changed %v, want the link", got)
	}
	write(t, filepath.Join(root, "releases/1/app.js"))
	write(t, filepath.Join(root, "releases/2/tmp/x"))
	write(t, filepath.Join(root, "releases/2/app.js"))
	only(t, root, w, "current/marker2", "current/app.js")
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"nothing":     {},
		"missing":     {Paths: []string{filepath.Join(dir, "none")}},
		"bad pattern": {Paths: []string{dir}, Ignore: []string{"a["}},
	} {
		if w, err := Start(o); err == nil {
			w.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// fake is a kernel that says what the test wants.
type fake struct {
	events chan fsnotify.Event
	errors chan error
	add    func(path string) error
	added  []string
}

func (f *fake) Add(path string) error {
	f.added = append(f.added, path)
	if f.add != nil {
		return f.add(path)
	}
	return nil
}
func (f *fake) Remove(string) error { return nil }
func (f *fake) Close() error        { return nil }

func faked(t *testing.T, f *fake, o Options) *Watcher {
	t.Helper()
	f.events, f.errors = make(chan fsnotify.Event), make(chan error)
	w, err := start(o, f, f.events, f.errors)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// received waits for a change and tells when it came.
func received(t *testing.T, w *Watcher) (Change, time.Time) {
	t.Helper()
	select {
	case c := <-w.Changes():
		return c, time.Now()
	case <-time.After(time.Minute):
		t.Fatal("no change within a minute")
		return Change{}, time.Time{}
	}
}

func TestDebounce(t *testing.T) {
	for _, c := range []struct {
		name   string
		delay  time.Duration
		every  time.Duration
		events int
		want   time.Duration // from the first event to the change
	}{
		{"one event", 0, 0, 1, 200 * time.Millisecond},
		{"a burst", 0, 50 * time.Millisecond, 5, 400 * time.Millisecond},
		{"without end", 0, 50 * time.Millisecond, 200, 2 * time.Second},
		{"own delay", time.Second, 100 * time.Millisecond, 3, 1200 * time.Millisecond},
		{"delay beyond the longest wait", 5 * time.Second, 0, 1, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				w := faked(t, f, Options{Paths: []string{dir}, Delay: c.delay})
				defer w.Close()
				begin := time.Now()
				end := make(chan struct{})
				go func() { // the kernel of this test
					defer close(end)
					for i := range c.events {
						f.events <- fsnotify.Event{Name: filepath.Join(dir, fmt.Sprint("file", i)), Op: fsnotify.Write}
						<-time.After(c.every)
					}
				}()
				change, at := received(t, w)
				if got := at.Sub(begin); got != c.want {
					t.Errorf("told after %s, want %s", got, c.want)
				}
				if n := len(change.Paths); n == 0 || n > maxPaths {
					t.Errorf("%d paths", n)
				}
				go func() { // takes the changes of an endless burst
					for range w.Changes() {
					}
				}()
				<-end
			})
		})
	}
}

func TestChangesJoinWhileNobodyReceives(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := faked(t, f, Options{Paths: []string{dir}})
		defer w.Close()
		for i := range 50 {
			f.events <- fsnotify.Event{Name: filepath.Join(dir, fmt.Sprint("file", i)), Op: fsnotify.Write}
			f.events <- fsnotify.Event{Name: filepath.Join(dir, "file0"), Op: fsnotify.Write}
			<-time.After(time.Second)
		}
		c, _ := received(t, w)
		if len(c.Paths) != maxPaths || c.More != 30 {
			t.Errorf("%d paths and %d more, want %d and 30", len(c.Paths), c.More, maxPaths)
		}
		select {
		case c := <-w.Changes():
			t.Errorf("a second change: %+v", c)
		case <-time.After(time.Minute):
		}
	})
}

func TestAnOverflowIsAChangeAndLooksAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := faked(t, f, Options{Paths: []string{dir}})
		defer w.Close()
		must(t, os.Mkdir(filepath.Join(dir, "missed"), 0o755))
		f.errors <- fsnotify.ErrEventOverflow
		c, _ := received(t, w)
		if c.Err != nil || !slices.Equal(c.Paths, []string{dir}) {
			t.Errorf("change %+v", c)
		}
		synctest.Wait()
		if !slices.Contains(f.added, filepath.Join(dir, "missed")) {
			t.Errorf("watched %v: the folder that was missed is not among them", f.added)
		}
	})
}

func TestTheKernelsLimitIsExplained(t *testing.T) {
	dir := t.TempDir()
	full := func(string) error { return os.NewSyscallError("inotify_add_watch", syscall.ENOSPC) }
	if _, err := start(Options{Paths: []string{dir}}, &fake{add: full}, nil, nil); err == nil || !strings.Contains(err.Error(), "max_user_watches") {
		t.Errorf("start: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		w := faked(t, f, Options{Paths: []string{dir}})
		defer w.Close()
		synctest.Wait()
		f.add = full
		must(t, os.Mkdir(filepath.Join(dir, "new"), 0o755))
		f.events <- fsnotify.Event{Name: filepath.Join(dir, "new"), Op: fsnotify.Create}
		c, _ := received(t, w)
		if c.Err == nil || !strings.Contains(c.Err.Error(), "max_user_watches") || !errors.Is(c.Err, syscall.ENOSPC) {
			t.Errorf("change %+v", c)
		}
		f.events <- fsnotify.Event{Name: filepath.Join(dir, "app.js"), Op: fsnotify.Write}
		if c, _ := received(t, w); c.Err != nil || len(c.Paths) != 1 {
			t.Errorf("afterwards %+v", c)
		}
	})
}
