package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// interpreters are chosen by the extension of the script; the first that is in
// the app's PATH is taken. Whether a node strips types (22.18 does) could only
// be learned by running it; one that does not says so itself, in the app's log.
var interpreters = []struct {
	extensions []string
	names      []string
	args       []string // before the script
}{
	{extensions: []string{".js", ".cjs", ".mjs"}, names: []string{"node"}},
	{extensions: []string{".ts", ".tsx"}, names: []string{"bun", "node"}},
	{extensions: []string{".py"}, names: []string{"python3", "python"}},
	{extensions: []string{".sh"}, names: []string{"bash", "sh"}},
	{extensions: []string{".rb"}, names: []string{"ruby"}},
	{extensions: []string{".php"}, names: []string{"php"}},
	{extensions: []string{".pl"}, names: []string{"perl"}},
	{extensions: []string{".jar"}, names: []string{"java"}, args: []string{"-jar"}},
	{extensions: []string{".java"}, names: []string{"java"}},
}

func knownExtension(extension string) bool {
	names, _ := interpretersFor(extension)
	return names != nil
}

func interpretersFor(extension string) (names, args []string) {
	for _, i := range interpreters {
		if slices.Contains(i.extensions, extension) {
			return i.names, i.args
		}
	}
	return nil, nil
}

// resolveInterpreter finds what runs the script, by key or by extension.
func (d *draft) resolveInterpreter() {
	wanted := d.app.Interpreter
	d.app.Interpreter = ""
	names, args := interpretersFor(filepath.Ext(d.app.Script))
	m, own := d.given["interpreter"]
	switch {
	case own && wanted == "": // of the wrong type, which was reported
		return
	case wanted == "none" || !own && names == nil:
		d.needExecutable()
		return
	case own:
		names = alternatives(wanted)
	default:
		m = d.given["script"]
	}
	for _, name := range names {
		if d.app.Interpreter = d.findInterpreter(name); d.app.Interpreter != "" {
			d.finishInterpreter(args)
			return
		}
	}
	d.refuse(m, "cannot find the interpreter "+strings.Join(quoted(names), " or "), "", interpreterHint(wanted))
}

// finishInterpreter adds what an interpreter needs to behave.
func (d *draft) finishInterpreter(args []string) {
	base := filepath.Base(d.app.Interpreter)
	if base == "java" && len(args) > 0 && !slices.Contains(d.app.InterpreterArgs, args[0]) {
		d.app.InterpreterArgs = append(slices.Clip(d.app.InterpreterArgs), args...)
	}
	if !strings.HasPrefix(base, "python") {
		return
	}
	// Without it, output to a pipe arrives in blocks, long after it was written.
	const unbuffered = "PYTHONUNBUFFERED"
	_, set := d.app.Env[unbuffered]
	if _, inherited := d.app.Inherited[unbuffered]; set || inherited {
		return
	}
	if d.app.Env == nil {
		d.app.Env = map[string]string{}
	}
	d.app.Env[unbuffered] = "1"
}

// alternatives are the names that one name of an interpreter may stand for.
func alternatives(name string) []string {
	switch name {
	case "python":
		return []string{"python", "python3"}
	case "python3":
		return []string{"python3", "python"}
	}
	return []string{name}
}

func interpreterHint(wanted string) string {
	switch {
	case strings.Contains(wanted, "@"):
		return "gpm picks no version: write the path of the interpreter"
	case strings.Contains(wanted, " "):
		return `its arguments go into "interpreter_args"`
	case wanted == "":
		return `install it, or set "interpreter" to its path`
	}
	return "install it, or write its path"
}

func (d *draft) findInterpreter(name string) string {
	if !strings.Contains(name, "/") {
		path, _ := d.lookPath(name)
		return path
	}
	for _, base := range d.bases() {
		path := d.l.absolute(base, name)
		if info, err := d.l.o.Stat(path); err == nil && executable(info) {
			return path
		}
	}
	return ""
}

// needExecutable checks a script that is run without interpreter.
func (d *draft) needExecutable() {
	if !executable(d.script.info) {
		d.refuse(d.given["script"], fmt.Sprintf("%q is not executable", d.script.path), "", `set "interpreter", or make it executable (chmod +x)`)
	}
	d.refuseInterpreterArgs()
}

func (d *draft) refuseInterpreterArgs() {
	if m, given := d.given["interpreter_args"]; given && len(d.app.InterpreterArgs) > 0 {
		d.refuseKey(m, "the app has no interpreter to give arguments to", "", `set "interpreter", or use "args"`)
	}
}

// defaultPath is for an environment without PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds a program in the PATH that the app will have. Relative entries
// are left out: they would mean another folder to the app than to its caller.
func (d *draft) lookPath(name string) (string, fs.FileInfo) {
	path, ok := d.app.Env["PATH"]
	if !ok {
		path, ok = d.app.Inherited["PATH"]
	}
	if !ok {
		path = defaultPath
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := d.l.o.Stat(file); err == nil && executable(info) {
			return file, info
		}
	}
	return "", nil
}

func executable(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}
