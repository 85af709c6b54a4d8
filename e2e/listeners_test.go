package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpm/bench/load"
)

// ears starts two instances of a server that listens in these places.
func (g *gpm) ears(env keys, places ...string) {
	g.t.Helper()
	g.ok("start", g.conf(keys{
		"name": "ears", "script": filepath.Join(bin, "ears"), "args": places, "instances": 2, "cwd": g.dir, "env": env, "drain_timeout": "5s",
	}))
	g.online("ears", 2)
	g.heard()
}

// heard waits until both have said where they listen, and returns it by pid.
func (g *gpm) heard() map[int][]string {
	g.t.Helper()
	said := map[int][]string{}
	for _, pid := range pids(g.online("ears", 2)) {
		g.until("it has said where it listens", func() bool {
			said[pid] = strings.Split(strings.TrimSpace(g.read(g.path(fmt.Sprintf("ears-%d", pid)))), "\n")
			return said[pid][0] != ""
		})
	}
	return said
}

// voices asks an address until n different processes have answered; that it
// never happens fails the test.
func (g *gpm) voices(address string, n int) map[int]int {
	g.t.Helper()
	by := map[int]int{}
	g.until(fmt.Sprintf("%d processes answer at %s", n, address), func() bool {
		who, err := get("http://" + address + "/")
		if err != nil {
			g.t.Fatal(err)
		}
		by[pidIn(g.t, who)]++
		return len(by) >= n
	})
	return by
}

func haveIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6")
	}
	l.Close()
}

// Wherever a server listens: both instances are asked there, and a reload under
// load refuses nobody.
func TestListeners(t *testing.T) {
	t.Parallel()
	haveIPv6(t)
	for name, c := range map[string]struct {
		places []string // P is a port, Q another
		ask    []string
		env    keys
	}{
		"IPv4":             {places: []string{"tcp4=0.0.0.0:P"}, ask: []string{"127.0.0.1:P"}},
		"IPv6":             {places: []string{"tcp6=[::]:P"}, ask: []string{"[::1]:P"}},
		"dual stack":       {places: []string{"tcp=:P"}, ask: []string{"127.0.0.1:P", "[::1]:P"}},
		"both apart":       {places: []string{"tcp4=0.0.0.0:P", "tcp6=[::]:P"}, ask: []string{"127.0.0.1:P", "[::1]:P"}},
		"two ports":        {places: []string{"tcp=127.0.0.1:P", "tcp=127.0.0.1:Q"}, ask: []string{"127.0.0.1:P", "127.0.0.1:Q"}},
		"two addresses":    {places: []string{"tcp=127.0.0.1:P", "tcp=127.0.0.2:P"}, ask: []string{"127.0.0.1:P", "127.0.0.2:P"}},
		"IPv6 loopback":    {places: []string{"tcp=[::1]:P"}, ask: []string{"[::1]:P"}},
		"late":             {places: []string{"tcp=:P"}, ask: []string{"127.0.0.1:P"}, env: keys{"LATE": "1200"}},
		"tries it first":   {places: []string{"tcp=:P", "tcp=:Q"}, ask: []string{"127.0.0.1:P", "127.0.0.1:Q"}, env: keys{"PROBE": "1"}},
		"a unix socket by": {places: []string{"unix=s{i}.sock", "tcp=127.0.0.1:P"}, ask: []string{"127.0.0.1:P"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			ports := strings.NewReplacer("P", strconv.Itoa(freePort(t)), "Q", strconv.Itoa(freePort(t)))
			for i, p := range c.places {
				c.places[i] = ports.Replace(p)
			}
			env := keys{"GODEBUG": ""}
			maps.Copy(env, c.env)
			g.ears(env, c.places...)
			for pid, said := range g.heard() {
				for i, line := range said {
					if strings.Contains(line, "in use") || len(said) != len(c.places) {
						t.Errorf("pid %d at %s: %s", pid, c.places[i], line)
					}
				}
			}
			was := pids(g.online("ears", 2))
			for _, at := range c.ask {
				g.voices(ports.Replace(at), 2)
			}
			o := requests(0, "/", 80)
			o.Addr = ports.Replace(c.ask[len(c.ask)-1])
			var w wound
			l := g.underLoad(o, func() {
				g.ok("reload", "ears")
				g.drained()
				w = behead(t, g.instance("ears", 1).PID)
				g.until("it is back", func() bool { return g.instance("ears", 1).Restarts == 2 })
				g.heard()
			})
			if others := unexplained(l, []wound{w}); len(others) > 0 || l.Count(load.Request, load.Complete) == 0 {
				t.Errorf("the dead process had accepted %d; others broke:\n%s%v", len(w.peers), firstLosses(others), l)
			}
			for _, at := range c.ask {
				by := g.voices(ports.Replace(at), 2)
				for pid := range by {
					if slices.Contains(was, pid) {
						t.Errorf("%s: pid %d answers after the reload", at, pid)
					}
				}
			}
		})
	}
}

// Port 0, unix sockets and UDP are the app's own: each process has a port of its
// own, and gpm holds none of them.
func TestWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	udp := freePort(t)
	g.ears(nil, "tcp=127.0.0.1:0", "unix=s{i}.sock", fmt.Sprintf("udp=127.0.0.1:%d{i}", udp/10)) // 1234{i}
	said := g.heard()
	ports := map[string]bool{}
	for pid, lines := range said {
		if len(lines) != 3 || strings.Contains(strings.Join(lines, " "), "in use") {
			t.Fatalf("pid %d: %q", pid, lines)
		}
		at := strings.TrimPrefix(lines[0], "tcp ")
		ports[at] = true
		if by := g.voices(at, 1); by[pid] == 0 {
			t.Errorf("%s is pid %d's own, %v answered", at, pid, by)
		}
		if who := askUnix(t, strings.TrimPrefix(lines[1], "unix "), g.dir); who != pid {
			t.Errorf("unix socket of pid %d: pid %d answered", pid, who)
		}
		if who := askUDP(t, strings.TrimPrefix(lines[2], "udp ")); who != pid {
			t.Errorf("UDP port of pid %d: pid %d answered", pid, who)
		}
	}
	if len(ports) != 2 {
		t.Errorf("port 0 gave both the same: %v", ports)
	}
	for _, d := range g.describe("ears") {
		if len(d.Listeners) != 0 {
			t.Errorf("instance %d: gpm holds %v", d.Instance.Instance, d.Listeners)
		}
	}
	for pid := range said { // its own sockets go with it, and come back with its successor
		kill9(t, pid)
	}
	g.until("both are back", func() bool {
		now := pids(g.list())
		return len(now) == 2 && said[now[0]] == nil && said[now[1]] == nil && now[0] > 0 && now[1] > 0
	})
	for pid, lines := range g.heard() {
		if strings.Contains(strings.Join(lines, " "), "in use") {
			t.Errorf("pid %d: %q", pid, lines)
		}
	}
}

// Two servers in one app on one port: the second is told so, as without gpm, by
// whichever process it is started.
func TestTwoServersOfOneAppOnOnePort(t *testing.T) {
	t.Parallel()
	g, port := newGPM(t), freePort(t)
	g.ears(nil, fmt.Sprintf("tcp=127.0.0.1:%d", port), fmt.Sprintf("tcp=127.0.0.1:%d", port))
	for pid, lines := range g.heard() {
		if len(lines) != 2 || !strings.HasSuffix(lines[0], fmt.Sprint(port)) || !strings.Contains(lines[1], "address already in use") {
			t.Errorf("pid %d: %q", pid, lines)
		}
	}
	g.voices(addr(port), 2)
	// A second process of the same instance.
	other := freePort(t)
	script := fmt.Sprintf("%[1]s/ears tcp=127.0.0.1:%[2]d & until [ -e ears-$! ]; do sleep 0.02; done; %[1]s/ears tcp=127.0.0.1:%[2]d & wait", bin, other)
	g.ok("start", g.conf(g.app("pair", script)))
	g.until("the second one has been refused", func() bool {
		return strings.Contains(g.read(g.log("pair-out.log")), "address already in use")
	})
	g.voices(addr(other), 1)
}

func askUnix(t *testing.T, path, dir string) int {
	t.Helper()
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(dir, path))
		}}}
	res, err := c.Get("http://unix/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var pid int
	if _, err := fmt.Fscan(res.Body, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func askUDP(t *testing.T, at string) int {
	t.Helper()
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return pidIn(t, string(buf[:n]))
}
