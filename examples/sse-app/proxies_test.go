package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// proxy is a program between the clients and the app, with the configuration
// that stands beside this file, or with as little as the program takes.
type proxy struct {
	name string
	tool string
	conf func(t *testing.T, dir, addr, upstream, more string) string
	args func(dir string) []string
}

var (
	ourNginx  = proxy{"nginx.conf", "nginx", documentedNginx, nginxArgs}
	bareNginx = proxy{"nginx as it is", "nginx", plainNginx, nginxArgs}
	ourCaddy  = proxy{"Caddyfile", "caddy", documentedCaddy, caddyArgs}
	bareCaddy = proxy{"Caddy as it is", "caddy", plainCaddy, caddyArgs}
	proxies   = []proxy{ourNginx, bareNginx, ourCaddy} // bare Caddy may cut a short answer
)

// replaced is a file beside this one with other words in it, each found once.
func replaced(t *testing.T, file string, oldnew ...string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(oldnew); i += 2 {
		if strings.Count(text, oldnew[i]) != 1 {
			t.Fatalf("%s does not have %q once", file, oldnew[i])
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

// nginxHere is what keeps an nginx inside its folder.
func nginxHere(dir string) (global, http string) {
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		http += fmt.Sprintf("%s_temp_path %s/%s; ", name, dir, name)
	}
	global = fmt.Sprintf("daemon off; pid %s/pid; error_log stderr warn; ", dir)
	if os.Geteuid() == 0 {
		global += "user root; " // the folder is the test's alone
	}
	return global, http + "access_log off; "
}

func nginxArgs(dir string) []string { return []string{"-c", dir + "/conf"} }

func documentedNginx(t *testing.T, dir, addr, upstream, more string) string {
	global, http := nginxHere(dir)
	return global + replaced(t, "nginx.conf",
		"listen 80;", "listen "+addr+"; "+more,
		"server 127.0.0.1:8080;", "server "+upstream+";",
		"worker_rlimit_nofile 40000;", "",
		"worker_connections 20000;", "worker_connections 256;",
		"http {", "http { "+http)
}

func plainNginx(t *testing.T, dir, addr, upstream, more string) string {
	global, http := nginxHere(dir)
	return global + fmt.Sprintf("events {} http { %s server { listen %s; location / { %s proxy_pass http://%s; } } }", http, addr, more, upstream)
}

func documentedCaddy(t *testing.T, dir, addr, upstream, more string) string {
	buffers := "request_buffers 1MiB"
	if !caddyIs(t, 2, 7, 0) {
		buffers = "buffer_requests" // its name before
	}
	return "{\n\tadmin off\n}\n\n" + replaced(t, "Caddyfile",
		"\n:80 {", "\nhttp://"+addr+" {",
		"127.0.0.1:8080", upstream,
		"request_buffers 1MiB", buffers)
}

// caddyIs tells whether the Caddy here has this version, or a later one.
func caddyIs(t *testing.T, version ...int) bool {
	t.Helper()
	out, err := exec.Command("caddy", "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	has := make([]int, 3)
	fmt.Sscanf(strings.TrimPrefix(string(out), "v"), "%d.%d.%d", &has[0], &has[1], &has[2])
	return slices.Compare(has, version) >= 0
}

func plainCaddy(t *testing.T, dir, addr, upstream, more string) string {
	return fmt.Sprintf("{\n\tadmin off\n}\n\nhttp://%s {\n\treverse_proxy %s\n}\n", addr, upstream)
}

func caddyArgs(dir string) []string {
	return []string{"run", "--config", dir + "/conf", "--adapter", "caddyfile"}
}

// before puts the proxy in front of upstream, a URL, and gives the URL of the
// proxy. more are further directives for nginx.
func (p proxy) before(t *testing.T, upstream, more string) string {
	t.Helper()
	path, err := exec.LookPath(p.tool)
	if err != nil {
		t.Skipf("there is no %s; packaging/test-tools.sh installs it", p.tool)
	}
	dir := t.TempDir()
	addr := freeAddr(t)
	conf := p.conf(t, dir, addr, strings.TrimPrefix(upstream, "http://"), more)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, p.args(dir)...)
	cmd.Stderr, cmd.Env = &stderr, append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() // until the proxy ends, at the latest with the test
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // nginx ends its workers with it
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, &stderr)
		}
	})
	until(t, p.name+" answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", p.name, &stderr)
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "http://" + addr
}

// freeAddr is below the ports that the system gives to those who connect.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(20000)))
		if err == nil {
			ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// What is not for the world does not get through.
func TestProxiesKeepTheInsideInside(t *testing.T) {
	for _, p := range []proxy{ourNginx, ourCaddy} {
		t.Run(p.name, func(t *testing.T) {
			r := start(t, func(a *app) { a.exit = func(int) { t.Error("a stranger ended the process") } })
			front := p.before(t, r.url, "")
			for path, want := range map[string]int{"/metrics": 404, "/error": 404, "/healthz": 200} {
				if resp := do(t, "GET", front+path, ""); resp.StatusCode != want {
					t.Errorf("%s: %s, want %d", path, resp.Status, want)
				}
			}
		})
	}
}

// Through each proxy: an event is seen when it comes, although the stream has
// no end, and the app learns that the client left.
func TestProxiesPassEventsOn(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			r := start(t, func(a *app) { a.interval, a.heartbeat = time.Hour, 50*time.Millisecond })
			url := p.before(t, r.url, "")
			resp := do(t, "GET", url+"/stream", "")
			br := bufio.NewReader(resp.Body)
			nextLine(t, br, "event: hello")
			nextLine(t, br, ":")
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") || resp.Header.Get("X-Instance") != "3" {
				t.Errorf("headers %v", resp.Header)
			}
			resp.Body.Close()
			until(t, "the app learns that the client left", func() bool { return r.streams.Load() == 0 })

			chunks, rest := chunksOf(t, read(t, do(t, "POST", url+"/v1/chat/completions", `{"prompt":"x","stream":true}`).Body))
			if len(chunks) != len(answer("x"))+2 || len(rest) != 1 {
				t.Errorf("chat: %d chunks, end %q", len(chunks), rest)
			}
		})
	}
}

// nginx cuts an upstream that is silent for longer than proxy_read_timeout. The
// heartbeat is what keeps a stream alive that has nothing to say.
func TestHeartbeatKeepsStreamsOpenBehindNginx(t *testing.T) {
	t.Parallel()
	const limit = "proxy_read_timeout 5s;"
	t.Run("with it", func(t *testing.T) {
		t.Parallel()
		r := start(t, func(a *app) { a.interval, a.heartbeat = time.Hour, time.Second/2 })
		br := bufio.NewReader(do(t, "GET", bareNginx.before(t, r.url, limit)+"/stream", "").Body)
		nextLine(t, br, "event: hello")
		for began := time.Now(); time.Since(began) < 6*time.Second; {
			nextLine(t, br, ":")
		}
	})
	t.Run("without it", func(t *testing.T) {
		t.Parallel()
		r := start(t, func(a *app) { a.interval, a.heartbeat = time.Hour, time.Hour })
		resp := do(t, "GET", bareNginx.before(t, r.url, limit)+"/stream", "")
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the stream ended with %v", err)
		}
		until(t, "the app learns that the client is cut", func() bool { return r.streams.Load() == 0 })
	})
}

// A process that is killed in the middle of an answer must not look as if the
// answer was whole.
func TestKilledProcessIsSeenBehindAProxy(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			app := launch(t, "-delay", "20ms")
			url := p.before(t, app.url, "")
			resp, err := http.Post(url+"/v1/chat/completions", "", strings.NewReader(`{"prompt":"x","stream":true}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			br := bufio.NewReader(resp.Body)
			nextLine(t, br, "data: ")
			app.signal(syscall.SIGKILL)
			_, err = io.Copy(io.Discard, br)
			t.Logf("the client's error: %v", err)
			if err == nil && p.tellsOfCuts(t) {
				t.Error("the client sees a clean end of half an answer")
			}
		})
	}
}

// tellsOfCuts: nginx needs our configuration for it, or version 1.29.7; Caddy
// needs version 2.7.6, and nothing that is configured replaces that.
func (p proxy) tellsOfCuts(t *testing.T) bool {
	if p.tool == "nginx" {
		return p.name == ourNginx.name
	}
	return caddyIs(t, 2, 7, 6)
}

// While nobody is there, an EventSource must not be told 502: it would never
// come back. Our nginx says nothing at all, and the client tries again.
func TestEventSourceOutlivesAGapBehindNginx(t *testing.T) {
	t.Parallel()
	first := launch(t, "-interval", "5ms", "-addr", "127.0.0.1:"+reserved(t))
	source := eventSourceOn(t, ourNginx.before(t, first.url, "")+"/stream")
	source.upTo(5)
	first.signal(syscall.SIGKILL)
	first.cmd.Wait()
	for source.errors < 2 { // the cut, and the attempt to come back
		source.step()
	}
	launch(t, "-interval", "5ms", "-addr", strings.TrimPrefix(first.url, "http://"))
	source.upTo(source.last + 5)
}

// Our Caddy lets clients wait until somebody is there.
func TestClientsWaitForTheAppBehindCaddy(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	get := func(url string) int {
		resp, err := http.Get(url + "/stream?n=1")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := get(bareCaddy.before(t, "http://"+addr, "")); status != 502 {
		t.Errorf("Caddy as it is answers %d while nobody is there", status)
	}
	url := ourCaddy.before(t, "http://"+addr, "")
	status := make(chan int, 1)
	go func() { status <- get(url) }() // until Caddy gives up, at the latest
	select {
	case s := <-status:
		t.Fatalf("answered with %d while nobody is there", s)
	case <-time.After(500 * time.Millisecond): // it waits
	}
	launch(t, "-interval", "5ms", "-addr", addr)
	if s := <-status; s != 200 {
		t.Errorf("status %d when the app was there", s)
	}
}

// WebSockets pass, and the app sees whom the browser speaks to, and how.
func TestProxiesPassWebSocketsAndNamesOn(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil) // refuses an Origin that is not the Host
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, text, err := c.Read(r.Context())
		if err == nil {
			c.Write(r.Context(), kind, append(text, "--返回数据"...))
			c.Close(websocket.StatusServiceRestart, "")
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Host, r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-For"))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for _, p := range []proxy{ourNginx, ourCaddy} {
		t.Run(p.name, func(t *testing.T) {
			url := p.before(t, srv.URL, "")
			host := strings.TrimPrefix(url, "http://")
			if got := read(t, do(t, "GET", url+"/", "").Body); got != host+" http 127.0.0.1" {
				t.Errorf("the app sees %q", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, _, err := websocket.Dial(ctx, url+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {url}}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, text, err := c.Read(ctx); err != nil || string(text) != "hello--返回数据" {
				t.Errorf("got %q, %v", text, err)
			}
			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
