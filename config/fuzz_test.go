package config

import (
	"encoding/json"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// fuzzStat has every file that is asked for, unless its path tells otherwise:
// a random text would hardly ever name one that is there.
func fuzzStat(path string) (fs.FileInfo, error) {
	switch base := filepath.Base(path); base {
	case "missing":
		return nil, fs.ErrNotExist
	case "src", "sub", "bin", "u":
		return worldStat("/srv")
	case "plain", "pipe":
		return worldStat("/srv/" + base)
	}
	return worldStat("/srv/run")
}

// Parse never panics; what it returns passes Check and keeps everything on its
// way through JSON; what it complains about lies inside the text.
func FuzzParse(f *testing.F) {
	for name, c := range keyCases {
		for _, g := range c.good {
			f.Add([]byte(appText(name, g.value, c.with)), "p", "")
		}
		for _, bad := range c.bad {
			f.Add([]byte(appText(name, bad, c.with)), "", name)
		}
	}
	for _, text := range []string{
		``, `{}`, `[`, `{"apps": [{"script": "a b"}, {"script": "missing"}], "deploy": 1}`, "\xef\xbb\xbf// c\n{\"script\": 'x'}", `{"pm2": {"env_p": {}, "env_p": 1}}`,
		`[{"cmd": "x", "name": "é"}, 1, null, "x", [[]]]`, "{\"\u2028\": 1 // \u2028", `{"script": "x.js", "treekill": false, "watch": ["a", "a"]} /*`,
	} {
		f.Add([]byte(text), "production", "1")
	}
	f.Fuzz(func(t *testing.T, text []byte, profile, flag string) {
		o := options()
		o.Stat, o.Profile = fuzzStat, profile
		if flag != "" {
			o.Overrides = map[string]any{"instances": flag, "args": flag, "listen": flag, "stop_exit_codes": flag, "log_max_age": flag}
		}
		apps, err := Parse("gpm.json", text, o)
		if err != nil {
			checkPlaces(t, text, err)
			return
		}
		for i := range apps {
			if err := Check(&apps[i]); err != nil {
				t.Errorf("Check: %v", err)
			}
			checkJSON(t, apps[i])
		}
	})
}

func checkPlaces(t *testing.T, text []byte, err error) {
	t.Helper()
	ps, ok := err.(Problems)
	if !ok || len(ps) == 0 || len(ps) > maxProblems+1 {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	lines := strings.Split(strings.TrimPrefix(string(text), "\xef\xbb\xbf"), "\n")
	for _, p := range ps {
		if p.Message == "" || !utf8.ValidString(p.Error()) || strings.ContainsAny(p.Error(), "\n\x00\x1b") {
			t.Errorf("a problem that is no line of text: %q", p.Error())
		}
		if p.Line == 0 {
			continue
		}
		if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
			t.Errorf("%v lies outside of the text", p)
		}
	}
}

func checkJSON(t interface {
	Helper()
	Fatalf(string, ...any)
}, a App) {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var back App
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatalf("%v", err)
	}
	if diff := cmp.Diff(a, back); diff != "" {
		t.Fatalf("lost in JSON: %s", diff)
	}
}

// An app with any selection of good values loads, passes Check, keeps
// everything on its way through JSON, and does not depend on the order of its keys.
func TestAnyGoodApp(t *testing.T) {
	var names []string
	for _, key := range Keys() {
		if _, ok := keyCases[key.Name]; ok && key.Name != "script" {
			names = append(names, key.Name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		members := []string{`"script": "app.js"`}
		drawn := rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "keys")
		for _, name := range drawn {
			if name == "listen" || name == "hold" && (slices.Contains(drawn, "balance") || slices.Contains(drawn, "standby")) {
				continue // needs a port beside it; "hold": false may not be beside them
			}
			value := rapid.SampledFrom(keyCases[name].good).Draw(t, name).value
			members = append(members, `"`+strings.Replace(name, "*", "p", 1)+`": `+value)
		}
		o := options()
		o.Stat = fuzzStat // a path may start anywhere, once there is a cwd
		o.Profile = rapid.SampledFrom([]string{"", "p"}).Draw(t, "profile")
		var first App
		for i := range 2 {
			text := "{" + strings.Join(rapid.Permutation(members).Draw(t, "order"), ", ") + "}"
			apps, err := Parse("gpm.json", []byte(text), o)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if err := Check(&apps[0]); err != nil {
				t.Fatalf("%s: Check: %v", text, err)
			}
			checkJSON(t, apps[0])
			if i == 0 {
				first = apps[0]
			} else if diff := cmp.Diff(first, apps[0]); diff != "" {
				t.Fatalf("%s: the order matters: %s", text, diff)
			}
		}
	})
}
