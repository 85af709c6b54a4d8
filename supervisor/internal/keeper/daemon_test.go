//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// request asks the test daemon to do one thing with its Link.
type request struct {
	Op       string
	Name     string // store, drop, read, next
	Data     string // store
	PID      int    // ack, adopt
	Start    uint64 // adopt
	Count    int    // bench, huge
	Tag      string
	Argv     []string
	Env      []string
	Dir      string
	Cred     *Credential
	Cgroup   string
	Filtered bool
}

// reply is its answer. PID is always the daemon's.
type reply struct {
	Err      string
	Errno    syscall.Errno
	NoHold   bool
	PID      int
	Inv      Inventory // without the files
	Files    []string
	Children []Child
	Child    *Child
	Exit     *Exit
	Data     string
	Traps    []trap.Trap
	Took     time.Duration
}

// tester is the daemon: the simplest one that can be asked to do things, with
// the simplest policy for held listeners.
type tester struct {
	link *Link
	inv  Inventory
	home string

	mu       sync.Mutex
	changed  *sync.Cond
	children map[int]Child
	exits    map[string]Exit
	held     map[string]*os.File
	traps    []trap.Trap
	silent   bool // do not answer traps
}

func daemonMain() int {
	home := os.Getenv(envHome)
	if _, err := os.Stat(filepath.Join(home, "broken")); err == nil {
		return 3
	}
	link, inv, err := Connect(3)
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		return 1
	}
	d := &tester{link: link, inv: inv, home: home, exits: map[string]Exit{}, held: map[string]*os.File{}, children: map[int]Child{}}
	d.changed = sync.NewCond(&d.mu)
	_, err = os.Stat(filepath.Join(home, "silent"))
	d.silent = err == nil
	for _, c := range inv.Children {
		d.children[c.PID] = c
		if c.Exit != nil {
			d.exits[c.Tag] = *c.Exit
		}
	}
	for name, f := range inv.Files {
		if strings.HasPrefix(name, "held/") {
			d.held[name] = f
		}
	}
	l, err := net.FileListener(inv.Files[APIFile])
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		return 1
	}
	if inv.Terminating {
		go d.Terminate()
	}
	if b, err := os.ReadFile(filepath.Join(home, "adopt")); err == nil {
		var c Child
		if _, err := fmt.Sscan(string(b), &c.PID, &c.Start, &c.Tag); err == nil {
			if c, err = link.Adopt(context.Background(), c.PID, c.Start, c.Tag); err == nil {
				d.children[c.PID] = c
			}
		}
	}
	_ = link.Ready()
	go d.listen(l)
	err = link.Serve(d)
	if _, none := os.Stat(filepath.Join(home, "replace")); none != nil {
		return 0 // as when told to quit
	}
	d.mu.Lock()
	children := d.list()
	d.mu.Unlock()
	if err := Replace(home, inv.Exe, inv.Files, children, link.Unanswered()); err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "daemon: replaced the keeper:", err)
	return 0
}

func (d *tester) list() (all []Child) {
	for _, c := range d.children {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Child) int { return a.PID - b.PID })
	return all
}

// Exited records and does not acknowledge.
func (d *tester) Exited(e Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exits[e.Tag] = e
	c := d.children[e.PID]
	c.PID, c.Tag, c.Exit = e.PID, e.Tag, &e
	d.children[e.PID] = c
	d.changed.Broadcast()
}

// Terminate kills the apps and quits.
func (d *tester) Terminate() {
	if _, err := os.Stat(filepath.Join(d.home, "deaf")); err == nil {
		return
	}
	d.mu.Lock()
	for _, c := range d.children {
		if c.Exit == nil {
			_ = unix.Kill(-c.PID, unix.SIGKILL)
		}
	}
	d.mu.Unlock()
	_ = d.link.Quit()
	os.Exit(0)
}

// Trapped holds each listener per tag and address.
func (d *tester) Trapped(t *trap.Trap) {
	defer t.Socket.Close()
	if t.Address.Port() == 0 { // Go asks by such binds which kinds of IP there are
		_ = d.link.Answer(t, trap.Continue())
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.traps = append(d.traps, *t)
	d.changed.Broadcast()
	if !d.silent {
		if err := d.link.Answer(t, d.judge(t)); err != nil && !errors.Is(err, unix.ENOENT) {
			fmt.Fprintln(os.Stderr, "daemon: answer:", err)
		}
	}
}

func (d *tester) judge(t *trap.Trap) trap.Verdict {
	if t.Call == trap.Listen {
		return trap.Continue()
	}
	name := "held/" + t.Tag + "/" + t.Address.String()
	mine := int(t.Socket.Fd())
	if h := d.held[name]; h != nil {
		if cookie(h) == cookie(t.Socket) { // injected before; the caller was interrupted
			return trap.Errno(0)
		}
		return trap.Inject(h, t.CloseOnExec)
	}
	if err := unix.SetsockoptInt(mine, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return trap.Continue()
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(t.Address.Port()), Addr: t.Address.Addr().As4()}
	if err := unix.Bind(mine, sa); err != nil {
		return trap.Errno(err.(syscall.Errno))
	}
	dup, err := unix.FcntlInt(t.Socket.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		d.held[name], err = quietFile(dup, name)
	}
	if err == nil {
		err = d.link.Store(name, d.held[name])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon: hold:", err)
	}
	return trap.Errno(0)
}

func cookie(f *os.File) uint64 {
	n, err := unix.GetsockoptUint64(int(f.Fd()), unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return uint64(f.Fd())
	}
	return n
}

func (d *tester) listen(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var q request
			if json.NewDecoder(c).Decode(&q) != nil {
				return
			}
			a := reply{PID: os.Getpid()}
			if err := d.do(q, &a); err != nil {
				a.Err, a.NoHold = err.Error(), errors.Is(err, ErrNoHold)
				errors.As(err, &a.Errno)
			}
			_ = json.NewEncoder(c).Encode(a)
			if a.Err == "" && (q.Op == "quit" || q.Op == "next") {
				c.Close()
				os.Exit(0)
			}
		}()
	}
}

func (d *tester) do(q request, a *reply) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch q.Op {
	case "inventory":
		d.mu.Lock()
		defer d.mu.Unlock()
		a.Inv, a.Children = d.inv, d.list()
		a.Inv.Files = nil
		for name := range d.inv.Files {
			a.Files = append(a.Files, name)
		}
		slices.Sort(a.Files)
	case "spawn":
		return d.spawn(ctx, q, a)
	case "give up": // spawn, and wait for no answer
		cancel()
		return d.spawn(ctx, q, a)
	case "adopt":
		c, err := d.link.Adopt(ctx, q.PID, q.Start, q.Tag)
		a.Child = &c
		return err
	case "exit":
		return d.wait(func() bool {
			e, ok := d.exits[q.Tag]
			a.Exit = &e
			return ok
		})
	case "traps": // waits until there are Count
		return d.wait(func() bool { a.Traps = d.traps; return len(d.traps) >= q.Count })
	case "ack":
		return d.link.Ack(q.PID)
	case "store":
		return d.store(q)
	case "drop":
		return d.link.Drop(q.Name)
	case "read":
		return d.read(q, a)
	case "next":
		return d.link.Next(q.Name)
	case "quit":
		return d.link.Quit()
	case "junk":
		return d.link.conn.send(message{Type: kind(q.Name), ID: 1 << 60, Name: q.Data}, nil)
	case "unknown":
		return d.link.ask(message{Type: "no-such-request"})
	case "bench":
		return d.bench(ctx, q, a)
	default:
		return fmt.Errorf("test daemon: unknown %q", q.Op)
	}
	return nil
}

func (d *tester) wait(cond func() bool) error {
	limit := time.AfterFunc(patience, d.changed.Broadcast)
	defer limit.Stop()
	deadline := time.Now().Add(patience)
	d.mu.Lock()
	defer d.mu.Unlock()
	for !cond() {
		if time.Now().After(deadline) {
			return errors.New("test daemon: it did not happen")
		}
		d.changed.Wait()
	}
	return nil
}

// spawn starts a program whose output goes into gpm.log, or, if Name is set, to
// that file.
func (d *tester) spawn(ctx context.Context, q request, a *reply) error {
	s := Spawn{Tag: q.Tag, Argv: q.Argv, Env: q.Env, Dir: q.Dir, Cred: q.Cred, Filtered: q.Filtered, Files: []*os.File{nil, nil, os.Stderr}}
	if len(q.Argv) > 0 {
		s.Path = q.Argv[0]
	}
	if q.Count > 0 {
		s.Env = append(s.Env, "HUGE="+strings.Repeat("x", q.Count))
	}
	if q.Name != "" {
		f, err := os.OpenFile(q.Name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		s.Files[1] = f
	}
	if q.Cgroup != "" {
		dir, err := os.Open(q.Cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		s.Cgroup = dir
	}
	c, err := d.link.Spawn(ctx, s)
	if err != nil {
		return err
	}
	a.Child = &c
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ended := d.children[c.PID]; !ended {
		d.children[c.PID] = c
	}
	return nil
}

// store has the keeper keep the read end of a pipe with Data in it.
func (d *tester) store(q request) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.WriteString(q.Data); err != nil {
		return err
	}
	return d.link.Store(q.Name, r)
}

// read reads what is in a pipe that an earlier daemon stored.
func (d *tester) read(q request, a *reply) error {
	f := d.inv.Files[q.Name]
	if f == nil {
		return fmt.Errorf("no %q in the inventory", q.Name)
	}
	b := make([]byte, 4096)
	n, err := f.Read(b)
	a.Data = string(b[:n])
	return err
}

// bench measures Count spawns.
func (d *tester) bench(ctx context.Context, q request, a *reply) error {
	began := time.Now()
	for range q.Count {
		s := Spawn{Tag: "bench", Path: "/bin/true", Argv: []string{"true"}, Filtered: q.Filtered}
		c, err := d.link.Spawn(ctx, s)
		if err != nil {
			return err
		}
		a.Child = &c
	}
	a.Took = time.Since(began)
	return nil
}

// appMain is an unmodified app: it knows nothing of gpm.
func appMain(args []string) int {
	switch args[0] {
	case "serve": // addr: tells its pid to everybody who connects
		l, err := net.Listen("tcp", args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			return 1
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return 2
			}
			fmt.Fprintln(c, os.Getpid())
			c.Close()
		}
	case "interrupted": // addr: binds under a storm of signals to its own thread
		return interrupted(args[1])
	case "env": // name: exits with 0 if the variable has 1 MiB or more
		if len(os.Getenv(args[1])) >= 1<<20 {
			return 0
		}
	}
	return 9
}

// interrupted binds 200 sockets while signals arrive all the time.
func interrupted(addr string) int {
	runtime.LockOSThread()
	tid, done := unix.Gettid(), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // as Go's own preemption
				runtime.Gosched()
			}
		}
	}()
	defer close(done)
	for range 200 {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			return 1
		}
		l.Close()
	}
	return 0
}
