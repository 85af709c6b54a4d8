package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gpm/config"
)

const (
	// maxStdin bounds a config on stdin, and what node makes of one.
	maxStdin = 4 << 20
	// nodeDeadline bounds the evaluation of an ecosystem.config.js.
	nodeDeadline = 30 * time.Second
)

// load is the apps of a config file, or of stdin for "-".
func (s *session) load(ctx context.Context, file string, o *startOptions) ([]config.App, error) {
	opts, err := s.configOptions(o)
	if err != nil {
		return nil, err
	}
	switch {
	case file == "-":
		text, err := readAll(s.env.Stdin)
		if err != nil {
			return nil, fmt.Errorf("read config from stdin: %w", err)
		}
		return config.Parse("-", text, opts)
	case isScriptConfig(file):
		path := file
		if !filepath.IsAbs(path) {
			path = filepath.Join(opts.Dir, path)
		}
		text, err := s.evaluate(ctx, path, file)
		if err != nil {
			return nil, err
		}
		return config.Parse(file, text, opts)
	}
	return config.Load(file, opts)
}

// asked cuts the apps of a config file in those that --only names, or all, and
// those that came with them because they are needed.
func (o *startOptions) asked(all []config.App) (asked, needed []config.App) {
	for _, a := range all {
		if len(o.only) == 0 || slices.Contains(o.only, a.Name) {
			asked = append(asked, a)
		} else {
			needed = append(needed, a)
		}
	}
	return asked, needed
}

// fromScript is the app of a script or command line.
func (s *session) fromScript(_ context.Context, target string, o *startOptions) (config.App, error) {
	opts, err := s.configOptions(o)
	if err != nil {
		return config.App{}, err
	}
	return config.FromScript(target, o.args, opts)
}

func (s *session) configOptions(o *startOptions) (config.Options, error) {
	wd, err := s.env.Getwd()
	if err != nil {
		return config.Options{}, fmt.Errorf("find the current folder: %w", err)
	}
	return config.Options{
		Profile:   o.profile,
		Only:      o.only,
		Inherited: s.environ(),
		Home:      s.home,
		Dir:       wd,
		Overrides: o.overrides(),
		Warn:      func(p config.Problem) { s.say.Warning(p.Error()) },
		Geteuid:   func() int { return s.env.UID },
	}, nil
}

// overrides is the flags that were given, by the key they set.
func (o *startOptions) overrides() map[string]any {
	over := map[string]any{}
	if len(o.args) > 0 {
		over["args"] = o.args
	}
	if o.flags == nil {
		return over
	}
	given := func(name string) *pflag.Flag {
		if f := o.flags.Lookup(name); f != nil && f.Changed {
			return f
		}
		return nil
	}
	for _, f := range appFlags() {
		flag := given(f.name)
		if flag == nil {
			continue
		}
		value := flag.Value.String()
		switch f.kind {
		case text:
			over[f.key] = value
		case toggle:
			over[f.key] = value == "true"
		case negated:
			over[f.key] = value != "true"
		case list:
			over[f.key] = flag.Value.(pflag.SliceValue).GetSlice()
		case optional:
			over[f.key] = value
			if value == "true" || value == "false" {
				over[f.key] = value == "true"
			} else {
				over[f.key] = strings.Split(value, ",")
			}
		}
	}
	if hold := given("hold"); hold != nil {
		over["hold"] = hold.Value.String() == "true"
	}
	if both, ok := over[keyBothLogs]; ok {
		delete(over, keyBothLogs)
		over["out_file"], over["error_file"] = both, both
	}
	return over
}

func isScriptConfig(file string) bool {
	return strings.HasSuffix(file, "js")
}

// printConfig is what node runs: it loads the file as node would load any
// module and prints what it exports. A default export, a function and a
// promise are taken for what they give.
const printConfig = `
const {pathToFileURL} = require('url');
(async () => {
	const m = await import(pathToFileURL(process.argv[1]).href);
	let c = 'default' in m ? m.default : {...m};
	if (typeof c === 'function') c = c();
	process.stdout.write('\n\u0000' + JSON.stringify(await c));
})().catch(e => { console.error(e && e.stack || String(e)); process.exit(1); });
`

// evaluate has the user's own node turn a config in JavaScript into JSON. What
// the file prints goes to stderr, it is not the config.
func (s *session) evaluate(ctx context.Context, path, name string) ([]byte, error) {
	if !s.isFile(path) {
		return nil, fmt.Errorf("read config %q: no such file", name)
	}
	ctx, cancel := context.WithTimeout(ctx, nodeDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "-e", printConfig, path)
	cmd.Env = s.env.Environ
	cmd.WaitDelay = time.Second
	out, said := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	before, text, found := strings.Cut(out.String(), "\n\x00")
	io.WriteString(s.err, before)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, withHint("write the config as JSON, or install node", "read config %q: there is no node to evaluate it", name)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("read config %q: node did not end within %s", name, nodeDeadline)
	case err != nil:
		return nil, fmt.Errorf("read config %q: node: %w\n%s", name, err, strings.TrimSpace(said.String()))
	case !found || text == "undefined":
		return nil, withHint("module.exports = { apps: [ ... ] }", "read config %q: it exports nothing", name)
	}
	io.WriteString(s.err, said.String())
	return []byte(text), nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	b.Builder.Write(p[:min(len(p), max(0, 2*maxStdin-b.Len()))])
	return len(p), nil
}

func readAll(r io.Reader) ([]byte, error) {
	if r == nil {
		r = strings.NewReader("")
	}
	text, err := io.ReadAll(io.LimitReader(r, maxStdin+1))
	if err == nil && len(text) > maxStdin {
		err = fmt.Errorf("more than %d bytes", maxStdin)
	}
	return text, err
}
