package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// addBase begins to watch one of the asked paths. The folder above is watched
// as well, but only for the one name: editors replace files, builds remove
// their folder and make it anew, deployments turn a link elsewhere.
func (w *Watcher) addBase(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		// A linked file changes where the link is, or where it leads.
		for _, p := range []string{path, real} {
			w.bases = append(w.bases, &base{path: p, real: p, file: true})
			if err := w.addDir(nil, filepath.Dir(p)); err != nil {
				return err
			}
		}
		return nil
	}
	b := &base{path: path, real: real}
	w.bases = append(w.bases, b)
	if err := w.walk(b, real, nil); err != nil {
		return err
	}
	err = w.addDir(nil, filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil // then the folder must stay where it is
	}
	return err
}

// comeBack watches a folder again that was replaced under its name.
func (w *Watcher) comeBack(b *base) {
	real, err := filepath.EvalSymlinks(b.path)
	if err != nil {
		return // gone again
	}
	w.forget(b.real)
	b.real = real
	w.addTree(b, real, nil)
	w.touch(b, real)
}

// addTree is walk for a watcher that runs: an error is told, not returned.
func (w *Watcher) addTree(b *base, dir string, found func(path string)) {
	if err := w.walk(b, dir, found); err != nil {
		w.complain(fmt.Errorf("watch %q: %w", b.shown(dir), explain(err)))
	}
}

// walk watches a folder and all below it that is not ignored, and calls found
// for each file it meets (nil: nobody asks). Links to folders are not followed.
func (w *Watcher) walk(b *base, dir string, found func(path string)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && path != b.real {
			return nil // gone again, or not ours to read
		}
		if err != nil {
			return err
		}
		ignored := w.ignore.ignored(b.path, b.shown(path))
		switch {
		case d.IsDir() && ignored:
			return filepath.SkipDir
		case d.IsDir():
			return w.addDir(b, path)
		case !ignored && found != nil:
			found(path)
		}
		return nil
	})
}

// addDir watches one folder for b; b is nil if only names of bases count in it.
func (w *Watcher) addDir(b *base, path string) error {
	if have, ok := w.dirs[path]; ok && (b == nil || have != nil) {
		return nil
	}
	if len(w.dirs) >= maxDirs {
		return fmt.Errorf("more than %d folders: ignore some of them", maxDirs)
	}
	err := w.kernel.Add(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	w.dirs[path] = b
	return nil
}

// forget drops a folder that was removed or moved away, and all below it: a
// moved folder would go on to report under its old name.
func (w *Watcher) forget(path string) {
	for dir := range w.dirs {
		if dir == path || strings.HasPrefix(dir, path+string(filepath.Separator)) {
			w.kernel.Remove(dir) // fails if the kernel did it already
			delete(w.dirs, dir)
		}
	}
}
