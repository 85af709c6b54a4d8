package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

// disk is a small file system of its own.
type disk struct {
	t   *testing.T
	dir string
}

// smallDisk mounts a tmpfs of a size ("64k") on a folder until the test ends.
func smallDisk(t *testing.T, dir, size string) disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	d := disk{t, dir}
	d.mount("-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	t.Cleanup(func() {
		// A process that has just ended gives up its memory, by which it is found,
		// before its files, and they keep the disk busy.
		wait(t, "the disk is unmounted", func() bool { return exec.Command("umount", dir).Run() == nil })
	})
	return d
}

func (d disk) mount(args ...string) {
	d.t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		d.t.Fatalf("mount %v: %v\n%s", args, err, out)
	}
}

// grow gives the disk more room.
func (d disk) grow(size string) { d.t.Helper(); d.mount("-o", "remount,size="+size, d.dir) }

// The disk under the logs is full: the app goes on, what is lost is counted and
// shown, and when there is room again lines are written again.
func TestFullDiskDrop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	full := smallDisk(t, dir, "64k")
	g := newGPM(t)
	out := filepath.Join(dir, "out.log")
	const lines = 100_000
	k := g.talker("app", keys{"out_file": out, "error_file": "/dev/null"})
	for i := range lines {
		k.say(fmt.Sprint("line ", i))
	}
	g.until("it has said all, and some of it is lost", func() bool {
		return g.instance("app", 0).LogsDropped+uint64(strings.Count(g.read(out), "\n")) == lines
	})
	in := g.instance("app", 0)
	if in.Status != api.Online || in.Restarts != 0 || in.LogsDropped == 0 {
		t.Errorf("it is %+v", in)
	}
	for _, o := range []output{g.run("list"), g.run("describe", "app")} {
		contains(t, o.stdout, "no space left on device", fmt.Sprintf("%d lines dropped", in.LogsDropped))
	}
	for line := range strings.Lines(g.read(out)) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d\n", &n); err != nil {
			t.Fatalf("a torn line: %q", line)
		}
	}
	full.grow("10m")
	k.say("room again")
	g.until("it is written again", func() bool { return strings.HasSuffix(g.read(out), "\nroom again\n") })
	g.until("nothing is wrong any more", func() bool { return g.instance("app", 0).LogProblem == "" })
	if now := g.instance("app", 0); now.LogsDropped != in.LogsDropped || now.PID != in.PID {
		t.Errorf("before %+v, after %+v", in, now)
	}
	contains(t, g.ok("describe", "app"), "logs are written again")
}

// With "block" the app waits, and nothing is lost.
func TestFullDiskBlock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	full := smallDisk(t, dir, "64k")
	g := newGPM(t)
	const lines = 1_000_000 // more than pipe and journal hold
	app := func(name string) map[string]any {
		return g.app(name, fmt.Sprintf("seq 1 %d; echo > %s.done; %s", lines, name, idle),
			keys{"out_file": filepath.Join(dir, name+".log"), "log_full": "block", "log_max_size": "100M", "error_file": "/dev/null"})
	}
	g.ok("start", g.conf(app("waits")))
	g.until("the disk is full", func() bool { return strings.Contains(g.instance("waits", 0).LogProblem, "no space left") })
	contains(t, g.ok("list"), "no space left on device")
	if exists(g.path("waits.done")) {
		t.Error("it did not wait")
	}
	full.grow("100m")
	g.until("it has said all", func() bool { return exists(g.path("waits.done")) })
	out := filepath.Join(dir, "waits.log")
	g.until("all is written", func() bool { return strings.HasSuffix(g.read(out), fmt.Sprintf("\n%d\n", lines)) })
	n := 0
	for line := range strings.Lines(g.read(out)) {
		if n++; line != fmt.Sprintln(n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if in := g.instance("waits", 0); n != lines || in.LogProblem != "" || in.LogsDropped != 0 {
		t.Errorf("%d lines of %d, %+v", n, lines, in)
	}
}

// Waiting for a disk must not keep anybody from stopping the app.
func TestStopWhileTheDiskIsFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smallDisk(t, dir, "64k")
	g := newGPM(t)
	g.ok("start", g.conf(g.app("waits", "seq 1 1000000; "+idle, keys{"out_file": filepath.Join(dir, "out.log"), "log_full": "block"})))
	g.until("the disk is full", func() bool { return strings.Contains(g.instance("waits", 0).LogProblem, "no space left") })
	g.ok("restart", "waits")
	g.online("waits", 1)
	g.ok("stop", "waits")
	if in := g.instance("waits", 0); in.Status != api.Stopped {
		t.Errorf("it is %+v", in)
	}
}

// The disk with gpm's own home is full: apps are started all the same, and
// whoever starts them or looks is told that the list would not survive.
func TestFullDiskUnderTheHome(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	smallDisk(t, g.home, "256k")
	t.Cleanup(g.end) // while the socket is there; who lives keeps the disk busy
	script := g.write("app.sh", idle+"\n")
	g.ok("start", script)
	filler := filepath.Join(g.home, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not small")
	}
	contains(t, g.fails("start", script, "--name", "second"), "it was done, but could not be recorded", "no space left on device", "hint: ")
	g.online("second", 1)
	o := g.run("list")
	contains(t, o.stdout+o.stderr, "warning: ", "records cannot be written", "no space left on device")
	contains(t, g.fails("save"), "no space left on device")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	g.until("the record is written", func() bool { return exists(filepath.Join(g.home, "state", "second.json")) })
	daemon := g.pid("gpm.pid")
	kill9(t, daemon)
	g.until("a new daemon runs", func() bool { p := g.pid("gpm.pid"); return p != daemon && p != 0 })
	g.online("second", 1)
	g.online("app", 1)
	g.ok("save")
}
