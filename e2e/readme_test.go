package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gpm/supervisor/api"
)

// nodeServer is the Node example of the README, word for word.
const nodeServer = `{
  "apps": {
    "name": "node-server",
    "script": "app.js",
    "watch": true,
    "ignore_watch": ["node_modules", "logs"],
    "error_file": "logs/error.log",
    "out_file": "logs/custom.log",
    "log_date_format": "yyyy-MM-dd HH:mm:ss",
    "instances": 4
  }
}
`

const nodeApp = `
const http = require('http');
console.error('instance', process.env.NODE_APP_INSTANCE, 'starts');
http.createServer((req, res) => {
  console.log('asked for', req.url);
  res.end(process.pid + '\n');
}).listen(%d);
`

func TestTheNodeExampleOfTheReadme(t *testing.T) {
	t.Parallel()
	tool(t, "node")
	g, port := newGPM(t), freePort(t)
	g.write("app.js", fmt.Sprintf(nodeApp, port))
	g.write("node_modules/thing/index.js", "module.exports = 1\n")
	g.write("gpm.conf.json", nodeServer)
	g.ok("start", "gpm.conf.json")
	g.online("node-server", 4)
	g.listeners("node-server", port, 4, 1)

	by := answers(t, visit(t, port, "/hello", 200))
	if len(by) != 4 {
		t.Fatalf("four processes on one port are expected, %v answered", by)
	}
	g.datedLogs(200)

	for round := 1; round <= 3; round++ {
		// None of these counts; should one, it is in an event below, and the
		// generations run ahead of the rounds.
		g.write("logs/other.log", fmt.Sprintln("round", round))
		g.write("node_modules/thing/index.js", fmt.Sprintf("module.exports = %d\n", round))
		touch(t, filepath.Join(g.dir, "app.js"))
		g.until("every instance has been replaced", func() bool {
			return !slices.ContainsFunc(g.list(), func(in api.Instance) bool {
				return in.Restarts != round || in.Status != api.Online || in.Draining > 0
			})
		})
		if err := reachable(port); err != nil {
			t.Fatalf("after round %d: %v", round, err)
		}
	}
	var changes []string
	for _, d := range g.describe("node-server") {
		if d.Restarts != 3 || d.Generation != 4 {
			t.Errorf("instance %d was replaced %d times in 3 rounds, generation %d", d.Instance.Instance, d.Restarts, d.Generation)
		}
		for _, e := range d.Events {
			if e.Kind == "watch" && !slices.Contains(changes, e.Message) {
				changes = append(changes, e.Message)
			}
		}
	}
	if want := []string{"changed: " + filepath.Join(g.dir, "app.js")}; !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
}

// datedLogs waits for n dated lines in the logs of the instances.
func (g *gpm) datedLogs(n int) {
	g.t.Helper()
	out := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: asked for /hello$`)
	errs := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: instance \d starts$`)
	g.until(fmt.Sprintf("%d lines are in the logs, and an error of each", n), func() bool {
		have := 0
		for _, in := range g.list() {
			have += strings.Count(g.read(filepath.Join(g.dir, "logs", fmt.Sprintf("custom-%d.log", in.ID))), "\n")
			if g.read(filepath.Join(g.dir, "logs", fmt.Sprintf("error-%d.log", in.ID))) == "" {
				return false
			}
		}
		return have >= n
	})
	for _, in := range g.list() {
		for file, want := range map[string]*regexp.Regexp{"custom": out, "error": errs} {
			path := filepath.Join(g.dir, "logs", fmt.Sprintf("%s-%d.log", file, in.ID))
			if got := map[string]string{"custom": in.OutFile, "error": in.ErrorFile}[file]; got != path {
				g.t.Errorf("the list says %q, want %q", got, path)
			}
			lines := strings.Split(strings.TrimSuffix(g.read(path), "\n"), "\n")
			for _, l := range lines {
				if !want.MatchString(l) {
					g.t.Errorf("%s: line %q, want %s", path, l, want)
				}
			}
			stamp, _, _ := strings.Cut(lines[0], ": ")
			at, err := time.ParseInLocation(time.DateTime, stamp, time.Local)
			if age := time.Since(at); err != nil || age < 0 || age > time.Hour {
				g.t.Errorf("%s: line %q is dated %s ago (%v)", path, lines[0], age, err)
			}
		}
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
}

// reachable asks once.
func reachable(port int) error {
	v, err := visitOnce(port, "/")
	if err != nil {
		return err
	}
	_, err = v.answer()
	return err
}
