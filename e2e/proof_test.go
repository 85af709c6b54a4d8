package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"gpm/bench/load"
)

// bare starts one streaming server without gpm, and returns its pid.
func (g *gpm) bare(s streamer, port int) int {
	g.t.Helper()
	app := g.streamer(s, port, 1)
	argv := []string{app["script"].(string)}
	if with, ok := app["interpreter"].(string); ok && with != "none" {
		argv = []string{with, argv[0]}
	}
	if args, ok := app["args"].([]string); ok {
		argv = append(argv, args...)
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir, c.Env = g.dir, append(os.Environ(), "GODEBUG=multipathtcp=0") // the kernel's tables show other inodes for MPTCP
	for k, v := range app["env"].(keys) {
		c.Env = append(c.Env, fmt.Sprintf("%s=%v", k, v))
	}
	log, err := os.Create(filepath.Join(g.dir, s.name+".log"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }() // ends with the server; how it ends is the test's doing
	g.t.Cleanup(func() {
		signal(g.t, tree(c.Process.Pid), syscall.SIGKILL)
		<-ended
		if g.t.Failed() {
			g.t.Logf("%s said:\n%s", s.name, g.read(log.Name()))
		}
	})
	wait(g.t, s.name+" answers", func() bool { return reachable(port) == nil })
	return c.Process.Pid
}

// The proof itself, without gpm: a server that runs on breaks nothing, and of one
// that is killed every loss is either explained by the kernel's own table or is
// what gpm is there to prevent.
func TestTheProofItself(t *testing.T) {
	for _, s := range streamers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			g, port := &gpm{t: t, dir: t.TempDir()}, freePort(t)
			pid := g.bare(s, port)
			o := s.load(port, 100)
			o.Duration = 1500 * time.Millisecond
			l, err := load.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			nothingBroken(t, o, l, s.name+" alone")
			if by := l.Kinds[load.Stream].Classes[load.Complete]; by != l.Sent(load.Stream) || l.Sent(load.Stream) < len(lengths()) {
				t.Errorf("%d of %d streams are complete", by, l.Sent(load.Stream))
			}

			var w wound
			o = s.load(port, 300)
			l = g.underLoad(o, func() {
				wait(t, "it has a few connections", func() bool { return len(accepted(t, tree(pid))) > s.held+3 })
				w = behead(t, pid)
				wait(t, "it is dead", func() bool { return !alive(pid) })
			})
			t.Logf("killed with %d connections:\n%v", len(w.peers), l)
			others := unexplained(l, []wound{w})
			for _, loss := range others {
				if loss.Class != load.Refused && loss.Class != load.Reset { // what came later, or waited in the queue
					t.Errorf("nobody explains %s", loss)
				}
			}
			if explained := l.Bad() - len(others); explained == 0 || len(w.peers) == 0 || explained > len(w.peers) {
				t.Errorf("%d losses are explained by %d connections", explained, len(w.peers))
			}
		})
	}
}

// The connections of a process are those that it has accepted, not those that
// wait for it.
func TestAcceptedIsNotQueued(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::]"} {
		ln, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		at := "127.0.0.1:" + strconv.Itoa(ln.Addr().(*net.TCPAddr).Port) // also of the dual-stack one
		var all, got, have []string
		for range 6 {
			c, err := net.Dial("tcp4", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all = append(all, c.LocalAddr().String())
		}
		for range 3 {
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got = append(got, c.RemoteAddr().String())
		}
		for _, peer := range accepted(t, []int{os.Getpid()}) {
			have = append(have, peer.String())
		}
		for _, peer := range all {
			if was, is := slices.Contains(got, peer), slices.Contains(have, peer); was != is {
				t.Errorf("%s: connection from %s: accepted %v, in the table %v", host, peer, was, is)
			}
		}
	}
}
