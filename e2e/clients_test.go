package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpm/bench/load"
	"gpm/supervisor/api"
)

// describe is gpm describe of all instances of an app.
func (g *gpm) describe(target string) []api.Description {
	g.t.Helper()
	var all []api.Description
	if err := json.Unmarshal([]byte(g.ok("describe", "--json", target)), &all); err != nil {
		g.t.Fatal(err)
	}
	return all
}

// owners tells for each process of an app which instance it belongs to.
func (g *gpm) owners(app string) map[int]int {
	g.t.Helper()
	by := map[int]int{}
	for _, d := range g.describe(app) {
		for _, p := range d.Tree {
			by[p.PID] = d.Instance.Instance
		}
	}
	return by
}

// pidIn reads an answer: a pid alone, or JSON with one.
func pidIn(t *testing.T, answer string) int {
	t.Helper()
	var v struct{ PID int }
	if strings.HasPrefix(answer, "{") && json.Unmarshal([]byte(answer), &v) == nil {
		return v.PID
	}
	pid, err := strconv.Atoi(strings.TrimSpace(answer))
	if err != nil {
		t.Fatalf("answer %q is no pid", answer)
	}
	return pid
}

// visitor is a connection with a request in it.
type visitor struct{ net.Conn }

// visit opens n connections, one after another, and sends a request on each.
// It does not wait for answers; a connection that is refused ends the test.
func visit(t *testing.T, port int, path string, n int) []visitor {
	t.Helper()
	r := make([]visitor, 0, n)
	for i := range n {
		v, err := visitOnce(port, path)
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i+1, n, err)
		}
		t.Cleanup(func() { v.Close() })
		r = append(r, v)
	}
	return r
}

func visitOnce(port int, path string) (visitor, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return visitor{}, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		c.Close()
		return visitor{}, err
	}
	return visitor{c}, nil
}

// answer reads the answer to its end.
func (v visitor) answer() (string, error) {
	defer v.Close()
	res, err := http.ReadResponse(bufio.NewReader(v), nil)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		err = fmt.Errorf("status %s: %s", res.Status, b)
	}
	return string(b), err
}

// answers waits until all have been answered, and counts by pid.
func answers(t *testing.T, all []visitor) map[int]int {
	t.Helper()
	by := map[int]int{}
	for i, v := range all {
		text, err := v.answer()
		if err != nil {
			t.Fatalf("connection %d of %d was accepted and not answered: %v", i+1, len(all), err)
		}
		by[pidIn(t, text)]++
	}
	return by
}

// freeze stops all processes of an app where they are, and returns them when
// they stand still. A process that was being forked meanwhile is found in the
// next round: its parent cannot fork any more.
func (g *gpm) freeze(app string) map[int]int {
	g.t.Helper()
	for {
		frozen := g.owners(app)
		for pid := range frozen {
			if pid <= 1 {
				g.t.Fatalf("freeze pid %d", pid)
			}
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && err != syscall.ESRCH {
				g.t.Fatalf("freeze %d: %v", pid, err)
			}
		}
		g.until("the processes are frozen", func() bool {
			for pid := range frozen {
				if s := state(pid); s != 'T' && s != 0 {
					return false
				}
			}
			return true
		})
		if maps.Equal(frozen, g.owners(app)) {
			return frozen
		}
	}
}

// state is a process's state as /proc shows it; zero: it is gone.
func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	if i := strings.LastIndexByte(string(b), ')'); i > 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
}

// slay kills processes with SIGKILL. Those that went with the others are fine.
func slay(t *testing.T, pids map[int]int) {
	t.Helper()
	for pid := range pids {
		if pid <= 1 {
			t.Fatalf("kill pid %d", pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatalf("kill %d: %v", pid, err)
		}
	}
}

// requests is a load of short requests.
func requests(port int, path string, rate float64) load.Options {
	return load.Options{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), Request: load.Call{Path: path}, RequestRate: rate, Timeout: patience, Grace: patience,
	}
}

// underLoad runs f while a load is sent, and returns the account of the load.
func (g *gpm) underLoad(o load.Options, f func()) *load.Ledger {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	type outcome struct {
		l   *load.Ledger
		err error
	}
	done := make(chan outcome, 1)
	go func() { // the load; ends after cancel and the units under way
		l, err := load.Run(ctx, o)
		done <- outcome{l, err}
	}()
	func() {
		defer cancel() // also when f ends the test
		f()
	}()
	r := <-done
	if r.err != nil {
		g.t.Fatal(r.err)
	}
	return r.l
}

// onlyAccepted fails if more was lost than what so many processes had accepted
// when they ended without a farewell: a few requests each, none of them refused
// and none left waiting.
func (g *gpm) onlyAccepted(l *load.Ledger, ends int) {
	g.t.Helper()
	broken := 0
	for _, c := range []load.Class{load.Reset, load.Cut, load.Empty} {
		broken += l.Count(load.Request, c)
	}
	if l.Bad() > broken || broken > 10*ends || l.Count(load.Request, load.Complete) == 0 {
		g.t.Errorf("%d processes ended; %d requests broken\n%v", ends, broken, l)
	}
}
