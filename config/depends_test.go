package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func dependsOf(apps []App) map[string][]string {
	r := map[string][]string{}
	for _, a := range apps {
		r[a.Name] = a.DependsOn
	}
	return r
}

func TestDependsOn(t *testing.T) {
	const text = `[
		{"name": "web", "script": "app.js", "depends_on": ["bus", "db"]},
		{"name": "bus", "script": "run", "dependsOn": "db"},
		{"name": "db", "script": "run", "depends_on": []},
		{"name": "other", "script": "run", "depends_on": null},
	]`
	want := map[string][]string{"web": {"bus", "db"}, "bus": {"db"}, "db": nil, "other": nil}
	if diff := cmp.Diff(want, dependsOf(mustParse(t, text, options()))); diff != "" {
		t.Error(diff)
	}
	// An app's name may be that of its script.
	apps := mustParse(t, `[{"script": "app.js", "depends_on": "run"}, {"script": "run"}]`, options())
	if apps[0].DependsOn[0] != "run" {
		t.Errorf("%+v", apps[0])
	}
}

// What is chosen with --only brings what it depends on, in the order of the file.
func TestOnlyBringsWhatItDependsOn(t *testing.T) {
	const text = `[
		{"name": "web", "script": "app.js", "depends_on": "bus"},
		{"name": "other", "script": "does-not-exist"},
		{"name": "bus", "script": "run", "depends_on": "db"},
		{"name": "db", "script": "run"},
	]`
	o := options()
	o.Only = []string{"web"}
	var names []string
	for _, a := range mustParse(t, text, o) {
		names = append(names, a.Name)
	}
	if !slices.Equal(names, []string{"web", "bus", "db"}) {
		t.Errorf("%v", names)
	}
}

func TestDependsOnProblems(t *testing.T) {
	const text = `{"apps": [
  {"name": "web", "script": "app.js", "depends_on": ["web", "buss", "db", "db", "a/b", 7]},
  {"name": "bus", "script": "run", "depends_on": ["db"]},
  {"name": "db", "script": "run", "depends_on": "cache"},
  {"name": "cache", "script": "run",
    "dependsOn": ["bus"]},
  {"name": "one", "script": "run", "depends_on": {"bus": {"condition": "service_healthy"}}},
  {"name": "two", "script": "run", "depends_on": "nowhere"},
]}`
	want := `
gpm.json:2:54: app "web": key "depends_on": an app cannot depend on itself
gpm.json:2:61: app "web": key "depends_on": there is no app "buss" in this config; expected the name of an app of the same config; did you mean "bus"?
gpm.json:2:75: app "web": key "depends_on": "db" is there twice
gpm.json:2:81: app "web": key "depends_on": "a/b" contains "/"; expected the name of an app of the same config, or a list of names
gpm.json:2:88: app "web": key "depends_on": got the number 7; expected text in the list
gpm.json:3:51: app "bus": key "depends_on": none of them could start first: bus -> db -> cache -> bus
gpm.json:7:50: app "one": key "depends_on": got an object; expected the name of an app of the same config, or a list of names
gpm.json:8:50: app "two": key "depends_on": there is no app "nowhere" in this config; expected the name of an app of the same config; the config has "web", "bus", "db", "cache", "one", "two"`
	if diff := cmp.Diff(strings.TrimSpace(want), problemsOf(t, text, options())); diff != "" {
		t.Error(diff)
	}
	// A script of its own has no others beside it.
	o := options()
	o.Overrides = map[string]any{"depends_on": "bus"}
	if _, err := FromScript("run", nil, o); err == nil || !strings.Contains(err.Error(), `--depends-on: there is no app "bus"`) {
		t.Errorf("%v", err)
	}
}

// However the apps hang together, the search for circles ends soon.
func TestManyDependencies(t *testing.T) {
	const n = 2000
	var apps []string
	for i := range n {
		var on []string
		for j := i + 1; j <= i+20; j++ {
			on = append(on, fmt.Sprintf(`"a%d"`, j%n)) // rings of rings
		}
		apps = append(apps, fmt.Sprintf(`{"name": "a%d", "script": "run", "depends_on": [%s]}`, i, strings.Join(on, ", ")))
	}
	lines := strings.Split(problemsOf(t, "["+strings.Join(apps, ",\n")+"]", options()), "\n")
	if len(lines) != maxProblems {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if len(l) > 700 {
			t.Errorf("a line of %d bytes: %.300s", len(l), l)
		}
	}
	many := make([]string, maxDepends+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"b%d"`, i)
	}
	ps := problemsOf(t, `{"script": "run", "depends_on": [`+strings.Join(many, ",")+`]}`, options())
	if !strings.Contains(ps, "at most 100 apps") {
		t.Error(ps)
	}
}

func TestCircle(t *testing.T) {
	for _, c := range []struct {
		depends map[string][]string
		want    string
	}{
		{map[string][]string{"a": {"b"}, "b": {"c"}, "c": nil}, ""},
		{map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}, ""},
		{map[string][]string{"a": {"b"}, "b": {"a"}}, "a b a"},
		{map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b"}}, "b c b"},
		{map[string][]string{"a": {"a"}}, "a a"},
		{map[string][]string{"a": {"nobody"}}, ""},
	} {
		if got := strings.Join(Circle([]string{"a", "b", "c"}, func(n string) []string { return c.depends[n] }), " "); got != c.want {
			t.Errorf("%v: %q, want %q", c.depends, got, c.want)
		}
	}
}
