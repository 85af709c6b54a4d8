package watch

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// always is ignored whatever the options say. A folder that is ignored is not
// watched at all, so node_modules costs no inotify watches. Dotfiles (.git and
// vim's .swp among them) and node_modules are what PM2 ignores by default; 4913
// is the file by which vim tests whether it may write; python writes
// __pycache__ when the app starts, which would restart it again.
var always = []string{"node_modules", ".*", "*~", "4913", "#*#", "__pycache__"}

// ignorer tells which paths do not count.
type ignorer struct {
	root  string
	names []string // patterns without a slash: match any part of a path
	globs []string // the others: match the path from root
	paths []string // absolute files and folders
}

func newIgnorer(root string, patterns, paths []string) (*ignorer, error) {
	ig := &ignorer{root: filepath.Clean(root)}
	for _, p := range append(append([]string{}, always...), patterns...) {
		glob := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(p), "./"), "/")
		if filepath.IsAbs(glob) {
			if rel, err := filepath.Rel(ig.root, glob); err == nil {
				glob = "./" + rel // with a slash, so that it is tied to its place
			}
		}
		if glob == "" || !doublestar.ValidatePattern(glob) {
			return nil, fmt.Errorf("ignore %q: bad pattern", p)
		}
		if !strings.Contains(glob, "/") {
			ig.names = append(ig.names, glob)
			continue
		}
		ig.globs = append(ig.globs, strings.TrimPrefix(glob, "./"))
	}
	for _, p := range paths {
		ig.paths = append(ig.paths, filepath.Clean(p))
	}
	return ig, nil
}

// ignored tells whether an absolute path does not count. What is above base,
// the watched folder, is not looked at: an app may well live in ~/.local.
func (ig *ignorer) ignored(base, path string) bool {
	if ig.ours(path) {
		return true
	}
	rel, err := filepath.Rel(base, path)
	if err != nil || rel == "." {
		return false
	}
	for part := range strings.SplitSeq(filepath.ToSlash(rel), "/") {
		if matchAny(ig.names, part) {
			return true
		}
	}
	fromRoot, err := filepath.Rel(ig.root, path)
	if err != nil {
		return false
	}
	// A pattern that matches a folder ignores what is below it, too.
	for p := filepath.ToSlash(fromRoot); p != "." && p != "/" && p != ".."; p = filepath.ToSlash(filepath.Dir(p)) {
		if matchAny(ig.globs, p) {
			return true
		}
	}
	return false
}

// ours tells whether path is one of the ignored files, below one of the ignored
// folders, or a rotated log: "out.log" becomes "out-<time>.log" or "...log.gz".
func (ig *ignorer) ours(path string) bool {
	for _, p := range ig.paths {
		if path == p || strings.HasPrefix(path, p+string(filepath.Separator)) {
			return true
		}
		ext := filepath.Ext(p)
		if ext != "" && strings.HasPrefix(path, strings.TrimSuffix(p, ext)+"-") &&
			strings.HasSuffix(strings.TrimSuffix(path, ".gz"), ext) {
			return true
		}
	}
	return false
}

func matchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if doublestar.MatchUnvalidated(p, s) {
			return true
		}
	}
	return false
}
