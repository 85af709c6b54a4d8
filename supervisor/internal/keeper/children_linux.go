package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fork starts a program from the calling thread. It is not os.StartProcess: the
// keeper waits for any child itself and needs no os.Process for each.
func fork(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	pid, err := syscall.ForkExec(path, argv, attr)
	if err == nil {
		return pid, nil
	}
	// The child reports an errno only; a missing folder looks like a missing program.
	if _, e := os.Stat(attr.Dir); attr.Dir != "" && e != nil {
		if p, ok := e.(*fs.PathError); ok {
			p.Op = "chdir"
		}
		return 0, e
	}
	return 0, &fs.PathError{Op: "fork/exec", Path: path, Err: err}
}

// spawner is the one thread whose children are filtered.
type spawner struct{ orders chan<- order }

type order struct {
	path   string
	argv   []string
	attr   *syscall.ProcAttr
	result chan<- result
}

type result struct {
	pid int
	err error
}

// installed is what became of the filter.
type installed struct {
	notify     int
	noNewPrivs bool
	err        error
}

// newSpawner starts a goroutine, for the life of the keeper, on a thread of its
// own that has install run on it. It never unlocks the thread: Go then clones no
// other thread from it (runtime.newm), and ends it if install fails.
func newSpawner(install func() (int, bool, error)) (*spawner, installed) {
	orders, ready := make(chan order), make(chan installed, 1)
	go func() {
		runtime.LockOSThread()
		fd, noNewPrivs, err := install()
		ready <- installed{fd, noNewPrivs, err}
		if err != nil {
			return
		}
		for o := range orders {
			pid, err := fork(o.path, o.argv, o.attr)
			o.result <- result{pid, err}
		}
	}()
	return &spawner{orders}, <-ready
}

func (s *spawner) fork(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	c := make(chan result, 1)
	s.orders <- order{path, argv, attr, c}
	r := <-c
	return r.pid, r.err
}

// spawn starts what the daemon asks for.
func (k *keeper) spawn(p *packet) (*Child, error) {
	o := p.Spawn
	if o == nil || len(o.Argv) == 0 {
		return nil, errors.New("spawn: the message says not what")
	}
	attr, err := k.attributes(o, p.fds)
	if err != nil {
		return nil, err
	}
	start := fork
	if o.Filtered {
		if k.filtered == nil {
			return nil, fmt.Errorf("%w: %s", ErrNoHold, k.hold)
		}
		start = k.filtered.fork
	}
	pid, err := start(o.Path, o.Argv, attr)
	if err != nil {
		return nil, err
	}
	c := &Child{PID: pid, Tag: o.Tag}
	if st, err := readStat(pid); err == nil { // a zombie at worst: nobody but this loop reaps
		c.Start = st.start
	}
	k.live[pid] = c
	return c, nil
}

func (k *keeper) attributes(o *spawnOrder, fds []int) (*syscall.ProcAttr, error) {
	a := &syscall.ProcAttr{Dir: o.Dir, Env: o.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	if a.Dir == "" {
		a.Dir = "/"
	}
	for _, i := range o.Files {
		switch {
		case i == -1:
			a.Files = append(a.Files, uintptr(k.null))
		case i >= 0 && i < len(fds):
			a.Files = append(a.Files, uintptr(fds[i]))
		default:
			return nil, errors.New("spawn: the message lacks a descriptor")
		}
	}
	for len(a.Files) < 3 {
		a.Files = append(a.Files, uintptr(k.null))
	}
	if o.Cred != nil {
		a.Sys.Credential = &syscall.Credential{Uid: o.Cred.UID, Gid: o.Cred.GID, Groups: o.Cred.Groups, NoSetGroups: os.Geteuid() != 0}
	}
	if o.Cgroup >= 0 {
		if o.Cgroup >= len(fds) {
			return nil, errors.New("spawn: the message lacks a descriptor")
		}
		a.Sys.UseCgroupFD, a.Sys.CgroupFD = true, fds[o.Cgroup]
	}
	return a, nil
}

// reap collects every dead child: the daemon, apps, and orphans that were
// reparented to us, of which nobody wants to know.
func (k *keeper) reap() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if k.daemon != nil && pid == k.daemon.pid {
			k.daemonReaped(ws)
		} else if c := k.live[pid]; c != nil {
			k.exited(c, exitOf(ws))
		}
	}
}

// exited records an end and tells the daemon, once per life of the daemon.
func (k *keeper) exited(c *Child, e Exit) {
	e.PID, e.Tag, e.At = c.PID, c.Tag, time.Now()
	c.Exit = &e
	delete(k.live, c.PID)
	if len(k.ended) >= maxEnded {
		k.logf("forget the exit of %q (pid %d): nobody has acknowledged it", k.ended[0].Tag, k.ended[0].PID)
		k.ended = k.ended[1:]
	}
	k.ended = append(k.ended, c)
	k.sweepTraps(c.PID)
	k.post(message{Type: msgExit, Exit: &e}, nil)
}

// acknowledge forgets an exit, the oldest one of that pid.
func (k *keeper) acknowledge(pid int) error {
	i := slices.IndexFunc(k.ended, func(c *Child) bool { return c.PID == pid })
	if i < 0 {
		return fmt.Errorf("acknowledge the exit of process %d: there is none", pid)
	}
	k.ended = slices.Delete(k.ended, i, i+1)
	return nil
}

// inventory is every child, the ended ones first.
func (k *keeper) inventory() []Child {
	all := make([]Child, 0, len(k.ended)+len(k.live))
	for _, c := range k.ended {
		all = append(all, *c)
	}
	for _, pid := range sorted(k.live) {
		all = append(all, *k.live[pid])
	}
	return all
}

func sorted[K int | uint64, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func exitOf(ws unix.WaitStatus) Exit {
	if ws.Signaled() {
		return Exit{Code: -1, Signal: ws.Signal(), Core: ws.CoreDump()}
	}
	return Exit{Code: ws.ExitStatus()}
}

func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + unix.SignalName(ws.Signal())
	}
	return "exit code " + strconv.Itoa(ws.ExitStatus())
}

// stat is what the keeper needs of /proc/pid/stat.
type stat struct {
	zombie          bool
	parent, session int
	start           uint64          // field 22
	status          unix.WaitStatus // field 52; 0 for those who may not know
}

func readStat(pid int) (stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name before may hold anything
	if len(f) < 50 {
		return stat{}, fmt.Errorf("read %q: %d fields", path, len(f))
	}
	number := func(field int) (n uint64) { // 1 is the pid; f begins with 3
		if err == nil {
			n, err = strconv.ParseUint(f[field-3], 10, 64)
		}
		return n
	}
	s := stat{zombie: f[0] == "Z", parent: int(number(4)), session: int(number(6)), start: number(22), status: unix.WaitStatus(number(52))}
	if err != nil {
		return stat{}, fmt.Errorf("read %q: %w", path, err)
	}
	return s, nil
}
