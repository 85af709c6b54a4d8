// Package watch tells when the files of an app have changed: recursive inotify
// through fsnotify, globs that do not count, and a debounce that makes one
// change out of a save, a checkout or a build.
package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	defaultDelay = 200 * time.Millisecond
	// longestWait is when a change is told although events go on: a build that
	// writes for minutes, a log in the wrong place.
	longestWait = 2 * time.Second
	// maxDirs bounds the watches of one app; each costs about 1 KiB of kernel memory.
	maxDirs = 20000
)

// Options say what to watch.
type Options struct {
	Paths       []string      // absolute folders (with all below) and files
	Ignore      []string      // globs from Root; a name without a slash matches at any depth
	IgnorePaths []string      // absolute files and folders that never count: own logs (also rotated) and pid files
	Delay       time.Duration // quiet time before a change is told; zero: 200 ms
	Root        string        // the app's cwd; empty: the first path
}

// Change is that something changed.
type Change struct {
	Paths []string // absolute, the first 20, each once
	More  int      // further events beyond those
	Err   error    // watching has become incomplete, and why; then nothing else is set and no reload is due
}

// Watcher watches until it is closed. One goroutine, which owns everything.
type Watcher struct {
	changes chan Change
	close   sync.Once
	stop    chan struct{}
	stopped chan struct{}

	kernel  kernel
	events  <-chan fsnotify.Event
	errors  <-chan error
	ignore  *ignorer
	bases   []*base
	dirs    map[string]*base // watched folder -> what it is part of; nil: only for files or folders named by a base
	settle  settler
	trouble []error // to be told before anything else
}

// kernel is what of fsnotify does things; tests have another one.
type kernel interface {
	Add(path string) error
	Remove(path string) error
	Close() error
}

// base is one of the watched paths.
type base struct {
	path string // as asked for: this is what changes are reported under
	real string // the folder where its symbolic links lead; a file's own path
	file bool
}

// Start begins to watch. What exists already is not reported. It fails if a
// path does not exist or the kernel's limit of watches is reached.
func Start(o Options) (*Watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", explain(err))
	}
	w, err := start(o, n, n.Events, n.Errors)
	if err != nil {
		n.Close()
	}
	return w, err
}

func start(o Options, k kernel, events <-chan fsnotify.Event, errs <-chan error) (*Watcher, error) {
	if len(o.Paths) == 0 {
		return nil, errors.New("watch: no paths")
	}
	if o.Root == "" {
		o.Root = o.Paths[0]
	}
	if o.Delay <= 0 {
		o.Delay = defaultDelay
	}
	ig, err := newIgnorer(o.Root, o.Ignore, o.IgnorePaths)
	if err != nil {
		return nil, err
	}
	w := &Watcher{
		changes: make(chan Change), stop: make(chan struct{}), stopped: make(chan struct{}),
		kernel: k, events: events, errors: errs, ignore: ig, dirs: map[string]*base{},
		settle: settler{quiet: o.Delay, longest: max(longestWait, o.Delay)},
	}
	for _, p := range o.Paths {
		if err := w.addBase(filepath.Clean(p)); err != nil {
			return nil, fmt.Errorf("watch %q: %w", p, explain(err))
		}
	}
	go w.run() // the watcher, until Close
	return w, nil
}

// Changes delivers one Change for each burst of events. While nobody receives,
// further events join the change that waits. It is closed by Close.
func (w *Watcher) Changes() <-chan Change { return w.changes }

// Close ends the watcher and returns when its goroutine has ended.
func (w *Watcher) Close() error {
	w.close.Do(func() { close(w.stop) })
	<-w.stopped
	return nil
}

func (w *Watcher) run() {
	defer close(w.stopped)
	defer close(w.changes)
	defer w.kernel.Close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		out, next := w.offer(timer)
		select {
		case <-w.stop:
			return
		case out <- next:
			if next.Err != nil {
				w.trouble = w.trouble[1:]
			} else {
				w.settle.take()
			}
		case <-timer.C:
		case e, ok := <-w.events:
			if !ok {
				return
			}
			w.event(e)
		case err, ok := <-w.errors:
			if !ok {
				return
			}
			w.lost(err)
		}
	}
}

// offer is what may be told now, and sets the timer to when there will be more.
func (w *Watcher) offer(timer *time.Timer) (chan<- Change, Change) {
	if len(w.trouble) > 0 {
		return w.changes, Change{Err: w.trouble[0]}
	}
	due, pending := w.settle.due()
	if !pending {
		return nil, Change{}
	}
	if wait := time.Until(due); wait > 0 {
		timer.Reset(wait)
		return nil, Change{}
	}
	return w.changes, w.settle.change()
}

// event takes one event of the kernel. Chmod alone does not count: backups and
// readers change attributes. A touch does: people reload by it.
func (w *Watcher) event(e fsnotify.Event) {
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		w.forget(e.Name)
	}
	if e.Op == fsnotify.Chmod && !touched(e.Name) {
		return
	}
	for _, b := range w.bases {
		switch {
		case e.Name != b.path && e.Name != b.real:
		case b.file:
			w.touch(b, e.Name)
			return
		case e.Name == b.path && e.Has(fsnotify.Create):
			w.comeBack(b) // a build that wipes its folder, or a link that leads elsewhere now
			return
		}
	}
	b := w.dirs[filepath.Dir(e.Name)]
	if b == nil || w.ignore.ignored(b.path, b.shown(e.Name)) {
		return
	}
	if e.Has(fsnotify.Create) {
		if fi, err := os.Lstat(e.Name); err == nil && fi.IsDir() {
			// Files that were made in it before the watch was on have no events
			// of their own. An empty folder is no change.
			w.addTree(b, e.Name, func(path string) { w.touch(b, path) })
			return
		}
	}
	w.touch(b, e.Name)
}

func (w *Watcher) touch(b *base, path string) {
	if shown := b.shown(path); !w.ignore.ours(shown) {
		w.settle.add(time.Now(), shown)
	}
}

// shown is a path of the kernel as the user knows it.
func (b *base) shown(path string) string {
	if b.real == b.path {
		return path
	}
	rel, err := filepath.Rel(b.real, path)
	if err != nil {
		return path
	}
	return filepath.Join(b.path, rel)
}

// lost handles an error of inotify. After an overflow nobody knows what
// changed: look for new folders, and tell a change.
func (w *Watcher) lost(err error) {
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.complain(fmt.Errorf("watch: %w", explain(err)))
		return
	}
	for _, b := range w.bases {
		if !b.file {
			w.addTree(b, b.real, nil)
		}
		w.settle.add(time.Now(), b.path)
	}
}

// complain notes that watching is incomplete. A few such sentences tell it all.
func (w *Watcher) complain(err error) {
	if len(w.trouble) < 8 {
		w.trouble = append(w.trouble, err)
	}
}

// explain says what to do about the kernel's limits.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the limit of watched folders is reached: ignore some, or raise fs.inotify.max_user_watches: %w", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("the limit of inotify instances is reached: raise fs.inotify.max_user_instances: %w", err)
	}
	return err
}
