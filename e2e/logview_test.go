package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestLogsOfTheTargets(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	say := `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo out $i; echo err $i >&2; done; ` + idle
	g.ok("start", g.conf(
		g.app("api", say, keys{"instances": 2, "namespace": "front"}), // 0, 1
		g.app("job", say, keys{"namespace": "back"}),                  // 2
	))
	g.until("all is written", func() bool {
		for _, in := range g.list() {
			if strings.Count(g.read(in.OutFile), "\n") != 20 || strings.Count(g.read(in.ErrorFile), "\n") != 20 {
				return false
			}
		}
		return true
	})
	for _, c := range []struct {
		args  string
		ids   string // whose lines, in this order of first appearance
		lines int
	}{
		{"", "0 1 2", 6 * 15},
		{"--lines 0", "", 0},
		{"--lines 3", "0 1 2", 6 * 3},
		{"--lines 1000", "0 1 2", 6 * 20},
		{"all --lines 3", "0 1 2", 6 * 3},
		{"api --lines 3", "0 1", 4 * 3},
		{"api-1 --lines 3", "1", 2 * 3},
		{"2 --lines 3", "2", 2 * 3},
		{"front --lines 3", "0 1", 4 * 3},
		{"/^j/ --lines 3", "2", 2 * 3},
		{"0 job --lines 3", "0 2", 4 * 3},
		{"job --lines 3 --out", "2", 3},
		{"job --lines 3 --err", "2", 3},
	} {
		out := g.ok(append([]string{"logs", "--nostream"}, strings.Fields(c.args)...)...)
		var ids []string
		n := 0
		for line := range strings.Lines(out) {
			id, rest, ok := strings.Cut(line, "|")
			if !ok || !strings.Contains(rest, " | ") {
				t.Fatalf("logs %s: line %q", c.args, line)
			}
			if n++; !strings.Contains(strings.Join(ids, " "), id) {
				ids = append(ids, id)
			}
		}
		if got := strings.Join(ids, " "); got != c.ids || n != c.lines {
			t.Errorf("logs %s: %d lines of %q, expected were %d of %q\n%s", c.args, n, got, c.lines, c.ids, out)
		}
	}

	o := g.run("logs", "job", "--nostream", "--raw", "--lines", "2")
	if o.code != 0 || o.stdout != "out 19\nout 20\n" || o.stderr != "err 19\nerr 20\n" {
		t.Errorf("raw: %v", o)
	}
	if got := g.ok("logs", "job", "--nostream", "--lines", "1", "--out"); got != "2|job | out 20\n" {
		t.Errorf("one line: %q", got)
	}
	for line := range strings.Lines(g.ok("logs", "api-0", "--nostream", "--json", "--lines", "2")) {
		var o struct {
			Message, Type string
			ID            int    `json:"process_id"`
			Name          string `json:"app_name"`
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil || o.ID != 0 || o.Name != "api" || !strings.HasPrefix(o.Message, o.Type) {
			t.Errorf("JSON %q: %v", line, err)
		}
	}
	// What has stopped can be read, too.
	g.ok("stop", "job")
	contains(t, g.ok("logs", "job", "--nostream", "--lines", "1"), "out 20", "err 20")
}

func TestLogsOfNobody(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	contains(t, g.fails("logs"), "gpm is not running")
	if exists(filepath.Join(g.home, "gpm.sock")) {
		t.Error("asking for logs has started a daemon")
	}
	g.ok("start", g.conf(g.app("app", idle)))
	for _, args := range [][]string{{"nope"}, {"nope", "--nostream"}, {"app", "nope"}, {"99"}, {"/nope/"}, {"app-1"}} {
		contains(t, g.fails(append([]string{"logs"}, args...)...), "error: no app or instance matches", "hint: gpm list")
	}
	contains(t, g.fails("logs", "--lines", "-1"), "--lines cannot be negative")
	contains(t, g.fails("logs", "--lines", "many"), "many")
	contains(t, g.fails("logs", "/(/"), "/(/")
}

// Lines come as they are written, of all that is started meanwhile, too.
func TestLogsFollow(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	k := g.talker("talk")
	k.say("before")
	all, out, errs := g.view("logs"), g.view("logs", "talk", "--out", "--lines", "0"), g.view("logs", "talk", "--err", "--raw")
	all.sees("0|talk | before")
	for _, v := range []*viewer{out, errs} { // until it is known that they follow
		n := 0
		g.until("it follows", func() bool {
			n++
			k.say(fmt.Sprint("ping ", n))
			k.say(fmt.Sprint("!ping ", n))
			return strings.Contains(strings.Join(v.all(), "\n"), "ping")
		})
	}
	k.say("live")
	k.say("!wrong")
	all.sees("0|talk | live")
	all.sees("0|talk | !wrong")
	out.sees("0|talk | live")
	errs.sees("!wrong")
	other := g.write("other.sh", "echo a newcomer\n"+idle+"\n")
	g.ok("start", other, "--name", "other")
	all.sees("1|other | a newcomer")
	// An app that is restarted is followed on, and so is a daemon that dies.
	g.ok("restart", "talk")
	k.say("after the restart")
	out.sees("0|talk | after the restart")
	daemon := g.pid("gpm.pid")
	kill9(t, daemon)
	g.until("a new daemon runs", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 })
	g.until("both follow again", func() bool { // each by itself
		k.say("on and on")
		k.say("!on and on")
		return strings.Contains(strings.Join(out.all(), "\n"), "on and on") && strings.Contains(strings.Join(errs.all(), "\n"), "on and on")
	})
	k.say("!the end")
	errs.sees("!the end")
	for _, v := range []*viewer{all, out, errs} {
		v.leave()
		if code := v.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%v: exit code %d", v.Args, code)
		}
	}
	for v, never := range map[*viewer]string{out: "!wrong", errs: "live"} {
		if strings.Contains(strings.Join(v.all(), "\n"), never) {
			t.Errorf("%v shows %q", v.Args, never)
		}
	}
}

// Between what is in the file and what comes next there is no gap and nothing
// twice.
func TestLogsFollowWithoutAGap(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.ok("start", g.conf(g.app("count", `i=0
while [ ! -e end ]; do
	for x in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo $i; done
	sleep 0.001
done
`+idle)))
	for range 5 { // at different moments
		v := g.view("logs", "count", "--lines", "5", "--raw")
		g.until("the viewer sees many lines", func() bool { return len(v.all()) > 500 })
		v.leave()
		all := v.all()
		first, err := strconv.Atoi(all[0])
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range all {
			if line != fmt.Sprint(first+i) {
				t.Fatalf("line %d after %d is %q", i, first, line)
			}
		}
	}
	g.write("end", "")
}

// A reader that has enough ends, and harms nobody.
func TestLogsIntoHead(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	k := g.talker("talk")
	k.say("one")
	k.say("two")
	g.until("it is written", func() bool { return g.read(g.log("talk-out.log")) == "one\ntwo\n" })
	v := g.watch(exec.Command("/bin/sh", "-c", filepath.Join(bin, "gpm")+" logs talk --raw | head -n 1"))
	v.sees("one")
	g.until("it ends with the next line", func() bool {
		k.say("three")
		select {
		case <-v.done:
			return true
		default:
			return false
		}
	})
	if v.ends(); v.ProcessState.ExitCode() != 0 || len(v.all()) != 1 {
		t.Errorf("head: %v %q", v.ProcessState, v.all())
	}
	k.say("three")
	g.until("it goes on", func() bool { return strings.HasSuffix(g.read(g.log("talk-out.log")), "three\n") })
}

func TestFlush(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	contains(t, g.fails("flush"), "gpm is not running")
	k := g.talker("talk")
	k.say("old")
	k.say("!old")
	g.ok("start", g.write("other.sh", hello+"\n"), "--name", "other", "-i", "2")
	other := g.log("other-out-2.log")
	g.until("they have written", func() bool {
		return g.read(g.log("talk-out.log"))+g.read(g.log("talk-error.log"))+g.read(other) == "old\n!old\nhello\n"
	})
	contains(t, g.ok("flush", "talk"), "emptied "+g.log("talk-out.log"), "emptied "+g.log("talk-error.log"))
	if s := g.read(g.log("talk-out.log")) + g.read(g.log("talk-error.log")); s != "" || g.read(other) != "hello\n" {
		t.Errorf("after the flush of one: %q, %q", s, g.read(other))
	}
	k.say("new")
	g.until("it writes on, at the beginning", func() bool { return g.read(g.log("talk-out.log")) == "new\n" })
	g.ok("flush")
	if s := g.read(g.log("talk-out.log")) + g.read(other); s != "" {
		t.Errorf("after the flush of all: %q", s)
	}
	contains(t, g.fails("flush", "nope"), `no app or instance matches "nope"`, "hint:")
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	g.ok("flush", "other")
}

// A terminal that was stopped costs the app nothing and the daemon little; when
// it goes on it is told how much it has missed.
func TestAReaderThatStandsStill(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	const line, lines = "a line of a flood, as long as lines are on average", 6_000_000
	flood := fmt.Sprintf("await() { until [ -e $1 ]; do sleep 0.05; done; }\necho ready; await begin; yes %q | head -n %d; echo DONE >&2; await end; echo LAST; %s", line, lines, idle)
	g.ok("start", g.conf(g.app("flood", flood, keys{"log_max_files": 1, "log_compress": false})))
	v := g.view("logs", "flood", "--out")
	v.sees("ready")
	if err := v.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.until("the reader stands still", func() bool { return state(v.Process.Pid) == 'T' })
	daemon := g.pid("gpm.pid")
	g.write("begin", "")
	peak, last := 0, ""
	for over := false; !over; { // however long it takes, as long as it goes on
		g.until("the flood goes on", func() bool {
			peak = max(peak, rss(t, daemon))
			over = g.read(g.log("flood-error.log")) == "DONE\n"
			before := last
			if info, err := os.Stat(g.log("flood-out.log")); err == nil {
				last = info.ModTime().String()
			}
			return over || last != before
		})
	}
	limit := 100 << 20 // a third of the flood
	if raced {
		limit *= 2 // the detector has a shadow of everything
	}
	if peak > limit {
		t.Errorf("the daemon has grown to %d MiB", peak>>20)
	}
	if err := v.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	v.sees("skipped (this reader is slow)")
	g.write("end", "")
	v.sees("LAST")
	seen, missed := 0, 0
	skipped := regexp.MustCompile(`\.\.\. (\d+) lines? skipped`)
	for _, text := range v.all() {
		if strings.HasSuffix(text, " | "+line) {
			seen++
		} else if m := skipped.FindStringSubmatch(text); m != nil {
			n, _ := strconv.Atoi(m[1])
			missed += n
		}
	}
	if seen+missed != lines || missed == 0 {
		t.Errorf("of %d lines %d were seen and %d skipped; the end: %q", lines, seen, missed, v.all()[max(0, len(v.all())-4):])
	}
	if d := g.pid("gpm.pid"); d != daemon {
		t.Errorf("the daemon was %d and is %d", daemon, d)
	}
}

// rss is the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatalf("no VmRSS of %d", pid)
	return 0
}
