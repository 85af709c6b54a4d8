package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gpm/supervisor/api"
)

// debianPython is the interpreter that Debian's Python packages are for; the
// python3 on PATH may be another one.
const debianPython = "/usr/bin/python3"

// server is a program of the world outside. It listens on the port in PORT,
// as if it were alone, and answers with its pid.
type server struct {
	name    string
	app     func(t *testing.T, g *gpm, port int) map[string]any
	path    string // default "/"
	sockets int    // per instance; default 1
}

var servers = []server{
	{name: "go", app: func(t *testing.T, _ *gpm, port int) map[string]any {
		return map[string]any{"script": filepath.Join(bin, "gosrv"), "env": map[string]string{"ADDR": fmt.Sprintf(":%d", port)}}
	}},
	{name: "sse-app", path: "/healthz", app: func(t *testing.T, _ *gpm, _ int) map[string]any { // sets SO_REUSEPORT itself
		return map[string]any{"script": filepath.Join(bin, "sse-app")}
	}},
	{name: "node", app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		tool(t, "node")
		return map[string]any{"script": testdata(t, "node/server.js")}
	}},
	{name: "node cluster", app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		tool(t, "node")
		return map[string]any{"script": testdata(t, "node/cluster.js")}
	}},
	{name: "npm start", app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		tool(t, "node")
		return map[string]any{"script": testdata(t, "node/start.sh")}
	}},
	{name: "shell line", app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		tool(t, "node")
		return map[string]any{"script": "cd .. && node " + testdata(t, "node/server.js") + "; echo ended"}
	}},
	{name: "python http.server", app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		return map[string]any{"script": testdata(t, "python/httpd.py"), "interpreter": tool(t, "python3")}
	}},
	{name: "python asyncio", sockets: 2, app: func(t *testing.T, _ *gpm, _ int) map[string]any {
		return map[string]any{"script": testdata(t, "python/aio.py"), "interpreter": tool(t, "python3")}
	}},
	{name: "gunicorn", app: func(t *testing.T, _ *gpm, port int) map[string]any {
		return map[string]any{
			"script": tool(t, "gunicorn"), "interpreter": "none", "cwd": testdata(t, "python"),
			"args": []string{"--workers", "2", "--bind", fmt.Sprintf("0.0.0.0:%d", port), "wsgi:app"},
		}
	}},
	{name: "uvicorn", app: uvicorn},
	{name: "uvicorn with workers", app: func(t *testing.T, g *gpm, port int) map[string]any {
		app := uvicorn(t, g, port)
		app["args"] = append(app["args"].([]string), "--workers", "2")
		return app
	}},
	{name: "nginx", app: func(t *testing.T, g *gpm, port int) map[string]any {
		return map[string]any{"script": tool(t, "nginx"), "interpreter": "none", "args": []string{"-c", g.write("nginx.conf", nginxConf(g.dir, port))}}
	}},
	{name: "java", app: func(t *testing.T, g *gpm, _ int) map[string]any {
		if out, err := exec.Command(tool(t, "javac"), "-d", g.dir, testdata(t, "java/Srv.java")).CombinedOutput(); err != nil {
			t.Fatalf("javac: %v\n%s", err, out)
		}
		return map[string]any{
			"script": tool(t, "java"), "interpreter": "none",
			"args": []string{"-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", g.dir, "Srv"},
		}
	}},
}

func uvicorn(t *testing.T, _ *gpm, port int) map[string]any {
	if err := exec.Command(debianPython, "-c", "import uvicorn").Run(); err != nil {
		t.Skip("python3-uvicorn is not installed")
	}
	return map[string]any{
		"script": debianPython, "interpreter": "none", "cwd": testdata(t, "python"),
		"args": []string{"-m", "uvicorn", "--host", "0.0.0.0", "--port", strconv.Itoa(port), "asgi:app"},
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func nginxConf(dir string, port int) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the folder is the test's alone
	}
	return fmt.Sprintf(`daemon off; %[1]s worker_processes 2; pid %[2]s/nginx.pid; error_log stderr notice;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fcgi;
  uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  server { listen %[3]d; location / { return 200 "$pid\n"; } }
}
`, user, dir, port)
}

// The promise of the README: any server, unchanged, four times on one port, and
// no connection that waits or comes while it is dead is lost.
func TestUnmodifiedServers(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			g, port := newGPM(t), freePort(t)
			app := s.app(t, g, port)
			app["name"], app["instances"] = "srv", 4
			if app["env"] == nil {
				app["env"] = map[string]string{"PORT": strconv.Itoa(port)}
			}
			if s.path == "" {
				s.path = "/"
			}
			g.ok("start", g.conf(app))
			g.online("srv", 4)
			g.listeners("srv", port, 4, max(s.sockets, 1))
			g.shared(s, port)
			g.ok("scale", "srv", "1")
			g.until("one instance is left", func() bool { return len(g.list()) == 1 })
			g.queued(s, port)
		})
	}
}

// listeners waits until gpm says that it holds so many sockets per instance, all
// on port, all listening. A process may be online before: with its first socket.
func (g *gpm) listeners(name string, port, instances, each int) {
	g.t.Helper()
	g.until(fmt.Sprintf("%d instances hold %d listeners each on port %d", instances, each, port), func() bool {
		all := g.describe(name)
		return len(all) == instances && !slices.ContainsFunc(all, func(d api.Description) bool {
			return d.Hold != "held" || len(d.Listeners) != each || slices.ContainsFunc(d.Listeners, func(l api.Listener) bool {
				return !strings.HasSuffix(l.Address, fmt.Sprintf(":%d", port)) || !l.Listening
			})
		})
	})
}

// shared checks that new connections reach every instance.
func (g *gpm) shared(s server, port int) {
	g.t.Helper()
	answered := answers(g.t, visit(g.t, port, s.path, 240))
	by, owner := map[int]int{}, g.owners("srv") // after: workers may have been forked meanwhile
	for pid, n := range answered {
		i, ok := owner[pid]
		if !ok {
			g.t.Fatalf("pid %d answered and is in no instance's tree: %v", pid, owner)
		}
		by[i] += n
	}
	if len(by) != 4 {
		g.t.Fatalf("of 240 connections the instances got %v", by)
	}
}

// queued checks that connections that wait in a process's queue when it is
// killed, and those that come while it is down, are answered by its successor.
func (g *gpm) queued(s server, port int) {
	g.t.Helper()
	old := g.freeze("srv")
	waiting := visit(g.t, port, s.path, 100)
	resume := g.pauseDaemon() // so that it is certainly down for a while
	slay(g.t, old)
	g.until("all its processes are dead", func() bool {
		for pid := range old {
			if alive(pid) {
				return false
			}
		}
		return true
	})
	waiting = append(waiting, visit(g.t, port, s.path, 100)...)
	resume()
	by := answers(g.t, waiting)
	successors := g.owners("srv")
	for pid := range by {
		if _, ok := successors[pid]; !ok {
			g.t.Errorf("pid %d answered, the successor is %v, the dead are %v", pid, successors, old)
		}
	}
	if n := sum(by); n != 200 {
		g.t.Errorf("%d of 200 connections were answered", n)
	}
	if e := g.instance("srv", 0).LastExit; e == nil || e.Signal != "SIGKILL" {
		g.t.Errorf("last exit %+v, SIGKILL is expected", e)
	}
}

// pauseDaemon makes the daemon stand still: nothing is started until resume.
func (g *gpm) pauseDaemon() (resume func()) {
	g.t.Helper()
	daemon := g.pid("gpm.pid")
	if daemon <= 1 {
		g.t.Fatalf("daemon has pid %d", daemon)
	}
	if err := syscall.Kill(daemon, syscall.SIGSTOP); err != nil {
		g.t.Fatalf("pause the daemon: %v", err)
	}
	g.t.Cleanup(func() { syscall.Kill(daemon, syscall.SIGCONT) }) // it is alive: nobody ended it
	g.until("the daemon stands still", func() bool { return state(daemon) == 'T' })
	return func() {
		if err := syscall.Kill(daemon, syscall.SIGCONT); err != nil {
			g.t.Fatalf("resume the daemon: %v", err)
		}
	}
}

func sum(by map[int]int) (n int) {
	for v := range maps.Values(by) {
		n += v
	}
	return n
}
