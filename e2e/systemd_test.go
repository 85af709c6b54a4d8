//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/api"
)

const unit = "gpm-root.service"

// machine is a systemd of our own, PID 1 of its namespaces. Its gpm is driven
// from outside: gpm.sock is reached through /proc/<pid>/root.
type machine struct {
	*gpm
	pid int // of its PID 1, as we see it
}

// boot starts a machine; it is turned off at the end of the test.
func boot(t *testing.T) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can boot a systemd in namespaces")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed")
	}
	group, folder := cgroupFolder(t)
	script, err := filepath.Abs("testdata/systemd/boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	c := exec.Command("/bin/sh", script, t.TempDir(), bin)
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		UseCgroupFD: true, CgroupFD: int(group.Fd()), Setsid: true,
		Pdeathsig: syscall.SIGKILL,
	}
	started, ended := make(chan error), make(chan struct{})
	go func() { // ends with the machine; its thread has to live as long (Pdeathsig)
		runtime.LockOSThread()
		defer close(ended)
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	home := fmt.Sprintf("/proc/%d/root/root/g", c.Process.Pid)
	m := &machine{pid: c.Process.Pid, gpm: &gpm{t: t, home: home, dir: t.TempDir(), env: append(os.Environ(), "GPM_HOME="+home, "NO_COLOR=1")}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("systemd said %s\njournal:\n%s", said.String(), m.try("journalctl", "-b", "--no-pager", "-n", "200"))
		}
		m.try("systemctl", "poweroff", "--no-block")
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("the machine does not turn off within %v", patience)
			_ = c.Process.Kill() // PID 1: all others end with it
			<-ended
		}
		removeCgroup(t, folder)
	})
	m.until("systemd runs", func() bool {
		select {
		case <-ended:
			t.Fatalf("systemd did not start: %s", said.String())
		default:
		}
		s := m.try("systemctl", "is-system-running")
		return strings.HasPrefix(s, "running") || strings.HasPrefix(s, "degraded")
	})
	return m
}

// cgroupFolder makes the folder that is the machine's root of cgroups.
func cgroupFolder(t *testing.T) (*os.File, string) {
	t.Helper()
	root := "/sys/fs/cgroup/unified" // beside v1
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		root = "/sys/fs/cgroup"
	}
	folder := fmt.Sprintf("%s/gpm-test-%d", root, os.Getpid())
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		t.Skip("this machine has no cgroup v2")
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, folder
}

// removeCgroup removes the folder with all below it, the deepest first.
func removeCgroup(t *testing.T, folder string) {
	var all []string
	_ = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for _, path := range slices.Backward(all) {
		err := syscall.Rmdir(path)
		for range 1000 { // the last zombies leave a moment later
			if err != syscall.EBUSY {
				break
			}
			<-time.After(10 * time.Millisecond)
			err = syscall.Rmdir(path)
		}
		if err != nil {
			t.Errorf("remove cgroup %q: %v", path, err)
		}
	}
}

// command is a program inside the machine.
func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(m.pid), "-a", "env", "-i", "GPM_HOME=/root/g", "HOME=/root", "NO_COLOR=1", "GORACE=atexit_sleep_ms=0",
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

// try runs a program inside and returns what it said, whatever came of it.
func (m *machine) try(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, _ := m.command(ctx, args...).CombinedOutput()
	return string(out)
}

// in runs a program inside that has to succeed.
func (m *machine) in(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := m.command(ctx, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// get asks a server inside, on a connection of its own. The socket is made on a
// thread that is in the machine's network for ever.
func (m *machine) get(url string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.dial}}
		res, err := c.Get(url)
		if err != nil {
			done <- answer{"", err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		done <- answer{string(b), err}
	}()
	a := <-done
	return a.text, a.err
}

func (m *machine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// inside is a file of the machine.
func (m *machine) inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, path) }

// lives tells whether a process of the machine does.
func (m *machine) lives(pid int) bool {
	b, err := os.ReadFile(m.inside(fmt.Sprintf("/proc/%d/stat", pid)))
	i := bytes.LastIndexByte(b, ')')
	return err == nil && i > 0 && !strings.ContainsAny(string(b[i+2:i+3]), "ZX")
}

func (m *machine) kill9(pid int) {
	m.t.Helper()
	if pid <= 1 {
		m.t.Fatalf("kill pid %d", pid)
	}
	m.in("kill", "-9", strconv.Itoa(pid))
}

// property asks systemd about the unit.
func (m *machine) property(name string) string {
	return strings.TrimSpace(m.try("systemctl", "show", "-p", name, "--value", unit))
}

func (m *machine) keeper() int {
	n, _ := strconv.Atoi(m.property("MainPID"))
	return n
}

// crash kills the keeper and waits for the next one.
func (m *machine) crash() {
	m.t.Helper()
	old := m.keeper()
	m.kill9(old)
	m.until("the unit is active again", func() bool {
		now := m.keeper()
		return now != old && now != 0 && m.property("ActiveState") == "active"
	})
}

func pidsOf(r []api.Instance) (pids []int) {
	for _, in := range r {
		pids = append(pids, in.PID)
	}
	return pids
}

// counted checks that the log has each number once, in order, and returns the
// last one.
func (m *machine) counted(path string) int {
	m.t.Helper()
	text := m.read(m.inside(path))
	n := 0
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if n++; line != strconv.Itoa(n)+"\n" {
			m.t.Fatalf("line %d of %s is %q", n, path, line)
		}
	}
	return n
}

// goesOn checks that lines still arrive.
func (m *machine) goesOn(path string) {
	m.t.Helper()
	n := m.counted(path)
	m.until("lines arrive", func() bool { return m.counted(path) > n+100 })
}

// Under systemd the keeper is the unit's main process. Whatever happens to it,
// to the daemon, or to both, the apps do not notice.
func TestUnderSystemd(t *testing.T) {
	m := boot(t)
	contains(t, m.in("gpm", "startup"), "wrote /etc/systemd/system/"+unit, "starts at boot")
	if said := m.in("systemd-analyze", "verify", "/etc/systemd/system/"+unit); said != "" {
		t.Errorf("systemd finds fault with the unit: %s", said)
	}
	m.in("systemctl", "start", unit)
	m.writeIn("/root/gpm.conf.json", `{"apps": [
		{"name": "sse", "script": "/usr/local/bin/sse-app", "instances": 2, "env": {"PORT": "8080"}, "cwd": "/root"},
		{"name": "count", "script": "/root/count.sh", "interpreter": "/bin/sh", "out_file": "/root/count.log"},
		{"name": "mortal", "script": "/root/mortal.sh", "interpreter": "/bin/sh"}]}`)
	m.writeIn("/root/count.sh", "i=0\nwhile :; do\n  for j in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo $i; done\n  sleep 0.01\ndone\n")
	m.writeIn("/root/mortal.sh", "while [ ! -e /root/die ]; do sleep 0.02; done; rm /root/die; echo dying; exit 7\n")
	m.in("gpm", "start", "/root/gpm.conf.json")
	m.goesOn("/root/count.log")

	t.Run("the keeper is killed", m.keeperKilled)
	t.Run("the daemon is killed", m.daemonKilled)
	t.Run("both are killed", m.bothKilled)
	t.Run("systemctl restart", m.restarted)
	t.Run("systemctl stop and start", m.stopped)
	journal := m.in("journalctl", "-u", unit, "--no-pager", "-o", "cat")
	contains(t, journal, "descriptors came back from systemd", "daemon runs", "the keeper was killed")
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "a bug in gpm", "such failures"} {
		if strings.Contains(journal, bad) {
			t.Errorf("the journal speaks of a %s", bad)
		}
	}
}

func (m *machine) writeIn(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(m.inside(path), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// use is m for a part of the test.
func (m *machine) use(t *testing.T) *machine {
	g := *m.gpm
	g.t = t
	return &machine{&g, m.pid}
}

func (m *machine) keeperKilled(t *testing.T) {
	m = m.use(t)
	sse, others := pidsOf(m.online("sse", 2)), pidsOf(slices.Concat(m.online("count", 1), m.online("mortal", 1)))
	stored := m.property("NFileDescriptorStore")
	for range 3 {
		m.crash()
		if got := pidsOf(m.online("sse", 2)); !slices.Equal(got, sse) {
			t.Fatalf("pids %v, before %v", got, sse)
		}
		if got := pidsOf(slices.Concat(m.online("count", 1), m.online("mortal", 1))); !slices.Equal(got, others) {
			t.Fatalf("pids %v, before %v", got, others)
		}
		m.goesOn("/root/count.log")
	}
	// Each keeper has a filter of its own; the old ones live with their processes.
	before, _ := strconv.Atoi(stored)
	if before < 8 {
		t.Errorf("systemd had %d descriptors", before)
	}
	m.until(fmt.Sprintf("systemd has no more than the %d descriptors of before and three filters", before), func() bool {
		after, err := strconv.Atoi(m.property("NFileDescriptorStore"))
		return err == nil && after <= before+3
	})
	m.servesThroughADeath(sse[0])
	m.noticesAnEnd()
}

// servesThroughADeath kills an instance: who connects meanwhile waits.
func (m *machine) servesThroughADeath(pid int) {
	m.t.Helper()
	m.kill9(pid)
	for range 20 {
		if _, err := m.get("http://127.0.0.1:8080/v1/models"); err != nil {
			m.t.Fatal(err)
		}
	}
	m.until("it is back", func() bool { p := pidsOf(m.online("sse", 2)); return !slices.Contains(p, pid) })
}

// noticesAnEnd has an app that was adopted exit by itself.
func (m *machine) noticesAnEnd() {
	m.t.Helper()
	pid := m.online("mortal", 1)[0].PID
	m.writeIn("/root/die", "")
	m.until("it is started again", func() bool {
		in := m.instance("mortal", 0)
		return in.Status == api.Online && in.PID != pid
	})
	if e := m.instance("mortal", 0).LastExit; e == nil || e.PID != pid {
		m.t.Errorf("its last exit is %+v", e)
	}
	m.until("its last words are there", func() bool {
		return strings.Contains(m.read(m.inside("/root/g/logs/mortal-out.log")), "dying")
	})
}

func (m *machine) daemonKilled(t *testing.T) {
	m = m.use(t)
	sse, keeper, daemon := pidsOf(m.online("sse", 2)), m.keeper(), m.gpm.pid("gpm.pid")
	m.kill9(daemon)
	m.until("another daemon answers", func() bool { return m.answers() && m.gpm.pid("gpm.pid") != daemon })
	if got := pidsOf(m.online("sse", 2)); !slices.Equal(got, sse) || m.keeper() != keeper {
		t.Errorf("pids %v, before %v; keeper %d, before %d", got, sse, m.keeper(), keeper)
	}
	m.goesOn("/root/count.log")
	m.servesThroughADeath(sse[1])
}

// bothKilled has an app end while nobody is there to see it.
func (m *machine) bothKilled(t *testing.T) {
	m = m.use(t)
	sse, mortal, keeper := pidsOf(m.online("sse", 2)), m.online("mortal", 1)[0].PID, m.keeper()
	m.in("kill", "-9", strconv.Itoa(m.gpm.pid("gpm.pid")), strconv.Itoa(keeper), strconv.Itoa(sse[0]))
	m.writeIn("/root/die", "") // its last words come while nobody listens
	for range 10 {
		if _, err := m.get("http://127.0.0.1:8080/v1/models"); err != nil {
			t.Fatal(err)
		}
	}
	m.until("the unit is active again", func() bool { p := m.keeper(); return p != keeper && p != 0 && m.property("ActiveState") == "active" })
	m.until("the dead are back", func() bool { return m.online("mortal", 1)[0].PID != mortal && m.online("sse", 2)[0].PID != sse[0] })
	if got := m.online("sse", 2)[1].PID; got != sse[1] {
		t.Errorf("the other is %d, was %d", got, sse[1])
	}
	said := func() int { return strings.Count(m.read(m.inside("/root/g/logs/mortal-out.log")), "dying") }
	m.until("its last words are there", func() bool { return said() >= 2 }) // they are written while the next one starts
	if n := said(); n != 2 {
		t.Errorf("it has said its last words %d times, it died twice", n)
	}
	m.goesOn("/root/count.log")
	m.servesThroughADeath(sse[1])
}

func (m *machine) all() []int { return pidsOf(m.list()) }

// unitPIDs counts the processes of the unit.
func (m *machine) unitPIDs() int {
	n := 0
	root := m.inside("/sys/fs/cgroup/system.slice/" + unit)
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" {
			n += len(strings.Fields(m.read(path)))
		}
		return nil
	})
	return n
}

func (m *machine) restarted(t *testing.T) {
	m = m.use(t)
	before, keeper := m.all(), m.keeper()
	m.in("systemctl", "restart", unit)
	for _, pid := range append(before, keeper) {
		if m.lives(pid) {
			t.Errorf("pid %d lives on", pid)
		}
	}
	m.online("sse", 2)
	m.online("count", 1)
	m.online("mortal", 1)
	if _, err := m.get("http://127.0.0.1:8080/v1/models"); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) stopped(t *testing.T) {
	m = m.use(t)
	before := m.all()
	m.in("systemctl", "stop", unit)
	for _, pid := range before {
		if m.lives(pid) {
			t.Errorf("pid %d lives on", pid)
		}
	}
	if s, r := m.property("ActiveState"), m.property("Result"); s != "inactive" || r != "success" {
		t.Errorf("the unit is %s, result %s", s, r)
	}
	if n := m.unitPIDs(); n != 0 {
		t.Errorf("the unit has %d processes", n)
	}
	if _, err := m.get("http://127.0.0.1:8080/v1/models"); err == nil {
		t.Error("somebody serves")
	}
	m.in("systemctl", "start", unit)
	m.online("sse", 2)
	m.online("count", 1)
	m.online("mortal", 1)
	if _, err := m.get("http://127.0.0.1:8080/v1/models"); err != nil {
		t.Fatal(err)
	}
}
