package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const (
	maxText      = 4 << 20 // bytes of a config file
	maxInstances = 1024
	minLogSize   = 1 << 10
	maxLogFiles  = 100_000
	maxRestarts  = 1_000_000
)

// Options is what a config depends on beside its text. The zero value is the
// current folder, an empty environment and gpm's default home.
type Options struct {
	// Profile chooses env_<Profile> (--env). Empty: none.
	Profile string
	// Only keeps the apps of these names (--only), and what they depend on.
	// Empty: all.
	Only []string
	// Inherited is the environment of whoever starts the apps. It ends up in
	// every App, uncopied: nobody may change it later. Its PATH finds scripts
	// and interpreters, its HOME expands "~/".
	Inherited map[string]string
	// Home is GPM_HOME, where the default logs go. Empty: .gpm in the user's home.
	Home string
	// Dir is the folder that relative paths start from if there is no file.
	// Empty: the current folder.
	Dir string
	// Overrides are flags, by the canonical name of their key. They go through
	// the same checks as the file and win over it, in all of its apps; nil
	// resets a key to its default. A value is text ("100M", "4", "true"), bool,
	// int, int64, uint64, float64, []string, []any, or for env
	// map[string]string, which is put over env and profile.
	Overrides map[string]any
	// Warn is told, after a load without problems, what looks wrong but is not.
	// Nil: nobody is told.
	Warn func(Problem)

	Stat    func(path string) (fs.FileInfo, error) // nil: os.Stat
	Geteuid func() int                             // nil: os.Geteuid
	Cores   int                                    // what "max" instances means; 0: runtime.GOMAXPROCS, which knows container limits
}

// loader is one load: its options, and what was found so far.
type loader struct {
	o         Options
	home      string // of the user, for "~/"; "" if not known
	file      string // absolute path of the config; "" if there is none
	base      string // folder that relative paths start from
	overrides []member
	drafts    []*draft
	report    report
	warnings  report
}

// Load reads the config file at path. The error is a Problems if the file could
// be read but is not valid.
func Load(path string, o Options) ([]App, error) {
	text, err := readFile(path, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("read config %q: %w", path, err)
	}
	return Parse(path, text, o)
}

func readFile(path, dir string) ([]byte, error) {
	if dir != "" && !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	info, err := os.Stat(path) // before opening: to open a pipe blocks until somebody writes
	if err != nil {
		return nil, cause(err)
	}
	if info.IsDir() {
		return nil, errors.New("it is a folder, not a file")
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, cause(err)
	}
	return text, nil
}

// cause is err without the path that the caller names anyway.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// Parse turns the text of a config into apps. The name is used in problems; if
// it is the path of a file, relative paths in the text start at its folder,
// else ("" or "-", standard input) at o.Dir. The error is a Problems.
func Parse(name string, text []byte, o Options) ([]App, error) {
	l, err := newLoader(name, o)
	if err != nil {
		return nil, err
	}
	if root, ok := l.read(name, text); ok {
		for _, n := range l.appNodes(root) {
			l.drafts = append(l.drafts, l.newDraft(n))
		}
	}
	return l.finish()
}

// FromScript is the app of a command line without a config: a script (path,
// name in the PATH, or command line) with its arguments; everything else comes
// from o.Overrides. The error is a Problems.
func FromScript(script string, args []string, o Options) (App, error) {
	o.Only = nil
	l, err := newLoader("", o)
	if err != nil {
		return App{}, err
	}
	if o.Profile != "" {
		l.report.add(Problem{File: "--env", Message: fmt.Sprintf("the profile %q needs a config file with %q", o.Profile, profilePrefix+o.Profile)})
		l.o.Profile = ""
	}
	n := node{kind: kindObject, members: []member{{name: "script", value: node{kind: kindText, text: script, loose: true}}}}
	if len(args) > 0 {
		list, _ := fromGo(args, place{})
		n.members = append(n.members, member{name: "args", value: list})
	}
	l.drafts = []*draft{l.newDraft(n)}
	apps, err := l.finish()
	if err != nil {
		return App{}, err
	}
	return apps[0], nil
}

func newLoader(name string, o Options) (*loader, error) {
	l := &loader{o: o}
	var err error
	if l.o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("find the current folder: %w", err)
	}
	if l.home = o.Inherited["HOME"]; !filepath.IsAbs(l.home) {
		l.home, _ = os.UserHomeDir() // without one "~/" is not expanded
	}
	switch {
	case o.Home != "":
		l.o.Home = l.absolute(l.o.Dir, o.Home)
	case filepath.IsAbs(l.home):
		l.o.Home = filepath.Join(l.home, ".gpm")
	default:
		return nil, errors.New("find gpm's home: neither GPM_HOME nor HOME is set")
	}
	if l.base = l.o.Dir; name != "" && name != "-" {
		l.file = l.absolute(l.o.Dir, name)
		l.base = filepath.Dir(l.file)
	}
	if o.Stat == nil {
		l.o.Stat = os.Stat
	}
	if o.Geteuid == nil {
		l.o.Geteuid = os.Geteuid
	}
	if o.Cores <= 0 {
		l.o.Cores = runtime.GOMAXPROCS(0)
	}
	if len(o.Inherited) == 0 {
		l.o.Inherited = nil
	}
	l.readOverrides()
	return l, nil
}

// readOverrides turns the flags into members, in a fixed order.
func (l *loader) readOverrides() {
	for _, name := range slices.Sorted(maps.Keys(l.o.Overrides)) {
		key, _ := findKey(name)
		if key == nil || key.Name == profileKey {
			l.report.add(Problem{File: "--" + strings.ReplaceAll(name, "_", "-"), Message: "sets no key of an app"})
			continue
		}
		at := place{flag: key.FlagName()}
		value, ok := fromGo(l.o.Overrides[name], at)
		if !ok {
			l.report.add(Problem{File: at.flag, Message: fmt.Sprintf("cannot take a %T", l.o.Overrides[name])})
			continue
		}
		if value.kind == kindText && value.text == "null" { // as PM2: --node-args=null
			value.kind = kindNull
		}
		l.overrides = append(l.overrides, member{name: key.Name, at: at, value: value})
	}
}

// finish resolves the drafts that are wanted and returns their apps, or all
// problems.
func (l *loader) finish() ([]App, error) {
	l.checkNames()
	l.checkDepends()
	var apps []App
	var wanted []*draft
	for _, d := range l.chosen() {
		d.resolve()
		wanted = append(wanted, d)
		apps = append(apps, d.app)
	}
	if err := l.report.err(); err != nil {
		return nil, err
	}
	l.warnShared(wanted)
	if ps, ok := errors.AsType[Problems](l.warnings.err()); ok && l.o.Warn != nil {
		for _, p := range ps {
			l.o.Warn(p)
		}
	}
	return apps, nil
}

// checkNames names the drafts, and finds names that are there twice or, in
// Only, not at all.
func (l *loader) checkNames() {
	first := map[string]*draft{}
	var names []string
	for _, d := range l.drafts {
		d.decideName()
		name := d.app.Name
		if name == "" {
			continue
		}
		if other := first[name]; other != nil && d.nameMember().at.flag != "" {
			d.refuse(d.nameMember(), fmt.Sprintf("names one app, and the config has %d", len(l.drafts)), "", "")
			continue
		} else if other != nil {
			d.refuse(d.nameMember(), fmt.Sprintf("the name %q is taken by the app in line %d", name, other.at.line()), "", `give one of them another "name"`)
			continue
		}
		first[name] = d
		names = append(names, name)
	}
	for _, name := range l.o.Only {
		if first[name] == nil && len(l.drafts) > 0 {
			l.report.add(Problem{File: "--only", Message: fmt.Sprintf("there is no app %q", name), Hint: "the config has " + quotedList(names)})
		}
	}
}

// warnShared warns of two apps that write one file: "a b" and "a-b" have the
// same default.
func (l *loader) warnShared(drafts []*draft) {
	writer := map[string]string{}
	for _, d := range drafts {
		for _, f := range slices.Compact([]string{d.app.OutFile, d.app.ErrorFile}) {
			if other, taken := writer[f]; taken && f != "" && other != d.app.Name {
				l.warnings.addAt(d.at, Problem{App: d.label, Message: fmt.Sprintf("writes the same log file as app %q: %q", other, f)})
			}
			writer[f] = d.app.Name
		}
	}
}

func quotedList(names []string) string {
	const shown = 10
	if len(names) == 0 {
		return "none with a name"
	}
	list := strings.Join(quoted(names[:min(shown, len(names))]), ", ")
	if len(names) > shown {
		list += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return list
}
