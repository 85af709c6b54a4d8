package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// absolute is path as an absolute, clean path: "~/" is the user's home, a
// relative path starts at base.
func (l *loader) absolute(base, path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && l.home != "" && (rest == "" || rest[0] == '/') {
		return filepath.Join(l.home, rest)
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

// cwd is the app's working directory.
func (d *draft) cwd() string {
	if d.app.Cwd == "" {
		return d.l.base
	}
	return d.l.absolute(d.l.base, d.app.Cwd)
}

// bases are the folders that a script or interpreter may be relative to: the
// config's, then, as PM2 users are used to, the app's.
func (d *draft) bases() []string {
	return slices.Compact([]string{d.l.base, d.cwd()})
}

// resolve makes paths absolute and checks everything that needs more than one
// key, or the file system. It reports everything it finds.
func (d *draft) resolve() {
	d.resolveScript() // before cwd: its bases start from cwd as written
	d.resolveCwd()
	d.decideMode()
	d.resolveLog("out_file", "-out.log", &d.app.OutFile)
	d.resolveLog("error_file", "-error.log", &d.app.ErrorFile)
	if d.time && d.app.LogDateFormat == "" {
		d.app.LogDateFormat = "YYYY-MM-DDTHH:mm:ss"
	}
	d.resolveWatch()
	d.resolveListen()
	d.resolveTraffic()
	d.checkAccount("uid", d.app.UID, func(s string) error { _, err := user.LookupId(s); return err }, func(s string) error { _, err := user.Lookup(s); return err })
	d.checkAccount("gid", d.app.GID, func(s string) error { _, err := user.LookupGroupId(s); return err }, func(s string) error { _, err := user.LookupGroup(s); return err })
	d.warn()
}

// warn tells of what looks wrong but is not.
func (d *draft) warn() {
	p := d.l.o.Profile
	if _, ok := d.app.Profiles[p]; p != "" && !ok {
		d.l.warnings.addAt(d.at, Problem{App: d.label, Key: profilePrefix + p, Message: "is not there; the app starts without this profile"})
	}
	if m := d.app.MaxMemory; m > 0 && m < 1<<20 {
		given := d.given["max_memory_restart"]
		d.l.warnings.addAt(given.value.at, Problem{App: d.label, Key: given.name, Message: fmt.Sprintf("%d bytes is less than any process needs", m), Hint: `is a unit missing, as in "200M"?`})
	}
}

func (d *draft) resolveCwd() {
	written := d.app.Cwd
	if d.app.Cwd = d.cwd(); written == "" {
		return
	}
	info, err := d.l.o.Stat(d.app.Cwd)
	switch {
	case err != nil:
		d.refuse(d.given["cwd"], fmt.Sprintf("cannot use the folder %q: %v", d.app.Cwd, plainCause(err)), "", "")
	case !info.IsDir():
		d.refuse(d.given["cwd"], fmt.Sprintf("%q is not a folder", d.app.Cwd), "", "")
	}
}

// plainCause is cause in plain words for the usual case.
func plainCause(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it does not exist")
	}
	return cause(err)
}

// locate finds the script.
func (d *draft) locate() location {
	s := d.app.Script
	if s == "" {
		return location{}
	}
	where := location{}
	for _, base := range d.bases() {
		path := d.l.absolute(base, s)
		info, err := d.l.o.Stat(path)
		if err == nil && info.Mode().IsRegular() {
			return location{path: path, info: info}
		}
		if where.why == "" {
			where.why = whyNot(path, info, err)
		}
	}
	if strings.ContainsFunc(s, unicode.IsSpace) && (d.app.Interpreter == "" || d.app.Interpreter == "none") {
		return location{shell: true}
	}
	if !strings.Contains(s, "/") {
		if path, info := d.lookPath(s); path != "" {
			return location{path: path, info: info}
		}
	}
	if where.why == "" {
		where.why, where.hint = fmt.Sprintf("%q does not exist", d.l.absolute(d.l.base, s)), notFoundHint(s)
	}
	return where
}

// whyNot says why path is no script; "" if there is simply nothing.
func whyNot(path string, info fs.FileInfo, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		return fmt.Sprintf("cannot use %q: %v", path, cause(err))
	case info.IsDir():
		return fmt.Sprintf("%q is a folder, not a script", path)
	}
	return fmt.Sprintf("%q is not a regular file", path)
}

func (d *draft) resolveScript() {
	m, given := d.given["script"]
	switch {
	case !given && d.isObject:
		d.refuseKey(member{at: d.at}, `there is no "script"`, "the program to run", "")
	case d.app.Script == "": // of the wrong type, which was reported
	case d.script.shell:
		d.app.Shell, d.app.Interpreter = true, ""
		d.refuseInterpreterArgs()
	case d.script.path == "":
		d.refuse(m, d.script.why, "", d.script.hint)
	default:
		d.app.Script = d.script.path
		d.resolveInterpreter()
	}
}

func notFoundHint(s string) string {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return `with an "interpreter" the script is one file; its arguments go into "args"`
	}
	if !strings.Contains(s, "/") {
		return "it is not in the PATH either"
	}
	return ""
}

// decideMode fills in what depends on the interpreter and on whether instances
// was given.
func (d *draft) decideMode() {
	_, many := d.given["instances"]
	if d.app.ExecMode == "" {
		d.app.ExecMode = "fork"
		if base := filepath.Base(d.app.Interpreter); many && (base == "node" || base == "bun") {
			d.app.ExecMode = "cluster"
		}
	}
	if _, given := d.given["merge_logs"]; !given {
		d.app.MergeLogs = d.app.ExecMode == "fork" && !many
	}
}

func (d *draft) resolveLog(key, suffix string, file *string) {
	switch {
	case *file == "":
		*file = filepath.Join(d.l.o.Home, "logs", logBase(d.app.Name)+suffix)
		return
	case *file == "NULL" || *file == "/dev/null":
		*file = ""
		return
	}
	folder := strings.HasSuffix(*file, "/")
	*file = d.l.absolute(d.app.Cwd, *file)
	if info, err := d.l.o.Stat(*file); folder || err == nil && info.IsDir() {
		d.refuse(d.given[key], fmt.Sprintf("%q is a folder", *file), "the path of a file", "")
	}
}

func (d *draft) resolveWatch() {
	if d.watchAll {
		d.app.Watch = []string{d.app.Cwd}
	}
	for _, n := range d.watch {
		path := d.l.absolute(d.app.Cwd, n.text)
		if _, err := d.l.o.Stat(path); err != nil {
			hint := ""
			if strings.ContainsAny(n.text, "*?{") {
				hint = `watch a folder, and name in "ignore_watch" what does not matter`
			}
			d.refuse(d.given["watch"].with(n), fmt.Sprintf("cannot watch %q: %v", path, plainCause(err)), "a file or folder", hint)
			continue
		}
		if !slices.Contains(d.app.Watch, path) {
			d.app.Watch = append(d.app.Watch, path)
		}
	}
}

func (d *draft) resolveListen() {
	if !d.listenPort {
		return
	}
	if _, given := d.given["port"]; !given {
		d.refuse(d.given["listen"], `true is the port of the key "port", which is not there`, "", `write the port itself, as in "listen": 8080`)
		return
	}
	if d.app.Port != 0 {
		d.app.Listen = []string{":" + strconv.Itoa(d.app.Port)}
	}
}

// checkAccount checks that a user or group exists, and that gpm may use it.
func (d *draft) checkAccount(key, account string, byID, byName func(string) error) {
	if account == "" {
		return
	}
	if d.l.o.Geteuid() != 0 {
		d.refuse(d.given[key], "only root may run an app as somebody else", "", "remove it, or run gpm as root")
		return
	}
	lookup := byName
	if isDigits(account) {
		lookup = byID
	}
	if lookup(account) != nil {
		d.refuse(d.given[key], excerpt(account)+" does not exist on this machine", "", "")
	}
}
