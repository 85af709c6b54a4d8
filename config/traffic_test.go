package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func zeroCases(c cases) cases {
	c.good = append(c.good, good{`0`, time.Duration(0)})
	return c
}

// spoiled is a good probe by http, spoiled.
func spoiled(health bool, spoil func(*Probe)) *Probe {
	p := newProbe(ProbeHTTP, health)
	p.Path = "/"
	spoil(p)
	return p
}

// probeCases are those of ready, or of health.
func probeCases(get func(App) any, health bool) cases {
	want := func(kind ProbeKind, change func(*Probe)) *Probe {
		p := newProbe(kind, health)
		change(p)
		return p
	}
	statuses := func(first, last int) (list []int) {
		for s := first; s <= last; s++ {
			list = append(list, s)
		}
		return list
	}
	c := cases{get: get}
	c.good = []good{
		{`"/readyz?x=%20&y"`, want(ProbeHTTP, func(p *Probe) { p.Path = "/readyz?x=%20&y" })},
		{`{"http": "/é", "timeout": 1, "interval": "10ms", "delay": "1m"}`, want(ProbeHTTP, func(p *Probe) {
			p.Path, p.Timeout, p.Interval, p.Delay = "/é", Duration(time.Millisecond), Duration(10*time.Millisecond), Duration(time.Minute)
		})},
		{`{"tcp": null, "http": "/", "port": 80, "headers": {"Host": "example.org", "X-A": "a\tb ", "B": null}}`, want(ProbeHTTP, func(p *Probe) {
			p.Path, p.Port, p.Headers = "/", 80, map[string]string{"Host": "example.org", "X-A": "a\tb "}
		})},
		{`{"http": "/", "status": 204}`, want(ProbeHTTP, func(p *Probe) { p.Path, p.Status = "/", []int{204} })},
		{`{"http": "/", "status": "200-299"}`, want(ProbeHTTP, func(p *Probe) { p.Path, p.Status = "/", statuses(200, 299) })},
		{`{"http": "/", "status": [404, "200-202", "201", 404], "headers": {}}`, want(ProbeHTTP, func(p *Probe) { p.Path, p.Status = "/", []int{200, 201, 202, 404} })},
		{`{"http": "/", "status": []}`, want(ProbeHTTP, func(p *Probe) { p.Path = "/" })},
		{`{"http": "/", "tls": true}`, want(ProbeHTTP, func(p *Probe) { p.Path, p.TLS = "/", true })},
		{`{"sse": "/", "tls": false}`, want(ProbeSSE, func(p *Probe) { p.Path = "/" })},
		{`{"tcp": true}`, want(ProbeTCP, func(*Probe) {})},
		{`{"tcp": 6379}`, want(ProbeTCP, func(p *Probe) { p.Port = 6379 })},
		{`{"tcp": true, "port": 6379}`, want(ProbeTCP, func(p *Probe) { p.Port = 6379 })},
		{`{"exec": "./check.sh && true"}`, want(ProbeExec, func(p *Probe) { p.Command = "./check.sh && true" })},
		{`{"sse": "/events", "event": "tick"}`, want(ProbeSSE, func(p *Probe) { p.Path, p.Event = "/events", "tick" })},
		{`null`, (*Probe)(nil)},
	}
	c.bad = []string{
		`""`, `"readyz"`, `"/a b"`, `"/a#b"`, `"/%zz"`, `"/\r\nX: y"`, `"/\u0000"`, `"/\u2028"`, `"/` + strings.Repeat("x", maxHeader) + `"`, `1`, `true`, `false`, `[]`, `{}`,
		`{"http": null}`, `{"http": "x"}`, `{"http": 1}`, `{"sse": ""}`, `{"tcp": false}`, `{"tcp": 0}`, `{"tcp": 65536}`, `{"tcp": "80"}`, `{"exec": ""}`, `{"exec": "a\u0000"}`, `{"exec": ["a"]}`,
		`{"http": "/", "tcp": true}`, `{"interval": 100}`, `{"http": "/", "interval": 9}`, `{"http": "/", "timeout": 0}`, `{"http": "/", "timeout": "x"}`, `{"http": "/", "delay": -1}`,
		`{"http": "/", "failures": 0}`, `{"http": "/", "port": 0}`, `{"http": "/", "port": "80"}`, `{"tcp": 80, "port": 80}`, `{"exec": "a", "port": 80}`,
		`{"http": "/", "event": "x"}`, `{"sse": "/", "event": ""}`, `{"tcp": true, "tls": true}`, `{"http": "/", "tls": "yes"}`, `{"sse": "/", "event": "a\nb"}`, `{"sse": "/", "status": 200}`, `{"tcp": true, "headers": {}}`,
		`{"http": "/", "status": 199}`, `{"http": "/", "status": "200-600"}`, `{"http": "/", "status": "299-200"}`, `{"http": "/", "status": [200, true]}`, `{"http": "/", "status": "2xx"}`,
		`{"http": "/", "status": {}}`, `{"http": "/", "headers": []}`, `{"http": "/", "headers": {"A": 1}}`, `{"http": "/", "headers": {"A": "a\r\nB: c"}}`, `{"http": "/", "headers": {"A B": "c"}}`,
		`{"http": "/", "headers": {"": "c"}}`, `{"http": "/", "headers": {"A\r\n": "c"}}`, `{"http": "/", "headers": {"a": "1", "A": "1"}}`, `{"http": "/", "headers": {"Connection": "keep-alive"}}`,
		`{"http": "/", "headers": {"A": "1", "A": "2"}}`, `{"http": "/", "headers": {"host": "a/b"}}`, `{"http": "/", "htpp": 1}`, `{"http": "/", "http": "/"}`,
	}
	if health {
		c.good = append(c.good, good{`{"tcp": true, "failures": 1}`, want(ProbeTCP, func(p *Probe) { p.Failures = 1 })})
	} else {
		c.bad = append(c.bad, `{"http": "/", "failures": 3}`)
	}
	return c
}

func TestProbeDefaults(t *testing.T) {
	for text, want := range map[string]Probe{
		`"ready": "/r"`:            {Kind: ProbeHTTP, Path: "/r", Interval: Duration(500 * time.Millisecond), Timeout: Duration(2 * time.Second)},
		`"ready": {"sse": "/r"}`:   {Kind: ProbeSSE, Path: "/r", Interval: Duration(500 * time.Millisecond), Timeout: Duration(5 * time.Second)},
		`"health": {"exec": "r"}`:  {Kind: ProbeExec, Command: "r", Interval: Duration(10 * time.Second), Timeout: Duration(5 * time.Second), Failures: 3},
		`"health": {"sse": "/r"}`:  {Kind: ProbeSSE, Path: "/r", Interval: Duration(10 * time.Second), Timeout: Duration(10 * time.Second), Failures: 3},
		`"health": {"http": "/r"}`: {Kind: ProbeHTTP, Path: "/r", Interval: Duration(10 * time.Second), Timeout: Duration(5 * time.Second), Failures: 3},
	} {
		a := mustParseOne(t, `{"script": "app.js", `+text+`}`, options())
		got := a.Ready
		if strings.HasPrefix(text, `"health"`) {
			got = a.Health
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

// Every problem inside an object has its place and the key with its object. The
// value of a header is not shown.
func TestNestedProblems(t *testing.T) {
	const text = `{
  "script": "app.js", "name": "web",
  "rollout": {"paralel": 2, "pause": "soon",
    "maxDraining": 1, "max_draining": 2},
  "ready": {
    "http": "/a b", "tcp": 80,
    "intervall": 5, "interval": 5, "timeout": 0,
    "headers": {"Authorization": "Bearer\nsecret", "X": ["secret"], "x y": "", "a": "", "A": "", "Host": "a", "Host": "b"},
    "status": [200, "secret"], "event": "x", "failures": 2, "zzzzzzzzzz": 1,
  },
  "health": {"timeout": "1s", "port": 1, "port": 70000},
  "drain": "signl", "standby": "2", "hang_timeout": -1,
}`
	want := `
gpm.json:3:15: app "web": key "rollout.paralel": unknown key; did you mean "parallel"?
gpm.json:3:38: app "web": key "rollout.pause": got the text "soon"; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d"
gpm.json:4:23: app "web": key "rollout.max_draining": the same key as "rollout.maxDraining" in line 4; keep one of them
gpm.json:6:13: app "web": key "ready.http": "/a b" contains a blank or a control character; expected a path like "/readyz"
gpm.json:6:21: app "web": key "ready.tcp": "ready.http" is there, too; keep one of them
gpm.json:7:5: app "web": key "ready.intervall": unknown key; did you mean "interval"?
gpm.json:7:33: app "web": key "ready.interval": got the number 5; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d", at least 10ms
gpm.json:7:47: app "web": key "ready.timeout": got the number 0; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d", at least 1ms
gpm.json:8:34: app "web": key "ready.headers": the value of "Authorization" contains a control character
gpm.json:8:57: app "web": key "ready.headers": the value of "X" is a list; expected text
gpm.json:8:69: app "web": key "ready.headers": the header "x y" is not a name of a header
gpm.json:8:89: app "web": key "ready.headers": the header "A" is the same as "a"; keep one of them
gpm.json:8:111: app "web": key "ready.headers.Host": the key is there twice, first in line 8
gpm.json:9:21: app "web": key "ready.status": got the text "secret"; expected a status from 200 to 599, a range like "200-299", or a list of these
gpm.json:9:32: app "web": key "ready.event": means nothing to a probe of kind "http"; remove it
gpm.json:9:46: app "web": key "ready.failures": a ready probe does not count failures, it is tried until "listen_timeout" is over; remove it
gpm.json:9:61: app "web": key "ready.zzzzzzzzzz": unknown key
gpm.json:11:13: app "web": key "health": does not say what to check; expected an object with one of "http", "tcp", "exec", "sse", or a path like "/readyz"
gpm.json:11:42: app "web": key "health.port": the key is there twice, first in line 11
gpm.json:12:12: app "web": key "drain": got the text "signl"; expected "wait" or "signal"; did you mean "signal"?
gpm.json:12:32: app "web": key "standby": got the text "2"; expected a whole number from 0 to 64; write 2 without quotes
gpm.json:12:53: app "web": key "hang_timeout": got the number -1; expected milliseconds as a number, or text like "5s", "1m", "2h", "7d"`
	if diff := cmp.Diff(strings.TrimSpace(want), problemsOf(t, text, options())); diff != "" {
		t.Error(diff)
	}
}

// What needs held listeners is refused without them, but not its default.
func TestTrafficWithoutHold(t *testing.T) {
	got := problemsOf(t, `{"script": "app.js", "hold": false, "balance": "least", "standby": 1}`, options())
	want := `gpm.json:1:37: app "app": key "balance": gpm deals only those connections whose listener it holds, and "hold" is false; remove it, or set "hold" to true
gpm.json:1:57: app "app": key "standby": a standby waits until gpm hands it a listener, and "hold" is false; remove it, or set "hold" to true`
	if got != want {
		t.Error(got)
	}
	var warned []string
	o := options()
	o.Warn = func(p Problem) { warned = append(warned, p.Error()) }
	mustParse(t, `[{"script": "app.js", "hold": false, "standby": 0}, {"script": "run", "hold": false, "drain": "wait"}, {"script": "run", "name": "r", "hold": false, "drain": "signal"}]`, o)
	if want := []string{`gpm.json:1:86: app "run": key "drain": "hold" is false, so new connections keep coming while gpm waits for the old ones; set "hold" to true, or use "signal"`}; !slices.Equal(warned, want) {
		t.Errorf("warnings: %q", warned)
	}
	o.Overrides = map[string]any{"hold": false, "standby": "1", "ready": "readyz", "drain_timeout": "2h"}
	want = `--standby: a standby waits until gpm hands it a listener, and "hold" is false; remove it, or set "hold" to true
--ready: got the text "readyz"; expected an object with one of "http", "tcp", "exec", "sse", or a path like "/readyz"`
	for line := range strings.SplitSeq(problemsOf(t, `{"script": "app.js"}`, o), "\n") {
		if !strings.Contains(want, line) {
			t.Error(line)
		}
	}
}

// A record of an older gpm has none of the keys of traffic: it gets their
// defaults, and is then what Check takes. One of this gpm stays as it is, also
// where it says 0.
func TestComplete(t *testing.T) {
	whole := mustParseOne(t, `{"script": "app.js"}`, options())
	b, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"balance", "drain", "drain_timeout", "drain_idle", "shutdown_timeout", "queue_timeout", "hang_timeout", "rollout"} {
		if _, ok := record[key]; !ok {
			t.Errorf("the record has no %q", key)
		}
		delete(record, key)
	}
	if b, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	var old App
	if err := json.Unmarshal(b, &old); err != nil {
		t.Fatal(err)
	}
	if Check(&old) == nil {
		t.Error("Check takes an App without keys of traffic")
	}
	old.Complete()
	if diff := cmp.Diff(whole, old); diff != "" {
		t.Error(diff)
	}
	if err := Check(&old); err != nil {
		t.Error(err)
	}

	chosen := mustParseOne(t, `{"script": "app.js", "shutdown_timeout": 0, "queue_timeout": 0, "hang_timeout": 0, "balance": "hash", "drain": "signal", "rollout": {"parallel": 2}}`, options())
	same := chosen
	same.Complete()
	if diff := cmp.Diff(chosen, same); diff != "" {
		t.Error(diff)
	}
	whole.DrainTimeout, whole.DrainIdle, whole.Drain, whole.Rollout.Parallel, whole.QueueTimeout = 0, 0, "", 0, 0
	whole.Complete()
	if whole.DrainTimeout.D() != 30*time.Second || whole.DrainIdle.D() != 20*time.Second || whole.Drain != "wait" || whole.Rollout.Parallel != 1 || whole.QueueTimeout != 0 {
		t.Errorf("completed: %+v", whole)
	}
}

// A long name in front of many objects is told, in bounded time and space.
func TestLongNestedKeys(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, `{"script": "app.js", "ready": {"http": "/", %q: {`, strings.Repeat("k", 1<<20))
	for i := range 100_000 {
		fmt.Fprintf(&b, `"%d": {}, `, i)
	}
	b.WriteString(`"x": 1, "x": 2}}}`)
	ps := problemsOf(t, b.String(), options())
	if lines := strings.Split(ps, "\n"); len(lines) != 2 || len(ps) > 1000 {
		t.Errorf("%d lines of %d bytes", len(lines), len(ps))
	}
	ranges := strings.TrimSuffix(strings.Repeat(`"200-599", `, 200_000), ", ")
	a := mustParseOne(t, `{"script": "app.js", "ready": {"http": "/", "status": [`+ranges+`]}}`, options())
	if len(a.Ready.Status) != 400 {
		t.Errorf("%d statuses", len(a.Ready.Status))
	}
}
