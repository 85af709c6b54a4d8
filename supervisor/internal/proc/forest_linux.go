package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Forest makes trees. It is safe for use by many goroutines and has none.
type Forest struct {
	name string
	kind Kind
	why  string
	dir  string // the cgroup folder above all trees; kind Cgroup only
	path string // dir as /proc/<pid>/cgroup writes it
}

// Plant looks at what this machine offers and makes the place for trees. With
// Options.Force it fails if that kind cannot be had; without, it falls back to
// Session and Kind tells why.
func Plant(o Options) (*Forest, error) {
	f := &Forest{name: folder("gpm-", o.Name), kind: Session, why: "asked for"}
	if o.Force == Session {
		return f, nil
	}
	dir, path, err := plantCgroup(f.name)
	if err == nil {
		f.kind, f.dir, f.path = Cgroup, dir, path
		f.why = "own folders in " + dir
		return f, nil
	}
	if o.Force == Cgroup {
		return nil, fmt.Errorf("plant cgroup: %w", err)
	}
	f.why = "no cgroup: " + err.Error()
	return f, nil
}

// Kind is the kind of new trees, and the reason for it as a phrase.
func (f *Forest) Kind() (Kind, string) { return f.kind, f.why }

// Close removes the forest's own cgroup folder if no tree is left in it.
func (f *Forest) Close() error {
	if f.dir == "" {
		return nil
	}
	if err := unix.Rmdir(f.dir); err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
		return fmt.Errorf("remove cgroup %q: %w", f.dir, err)
	}
	return nil
}

// Tree makes the place for a tree before its first process is spawned. The
// caller spawns it with Env in its environment and into Cgroup, as the leader
// of a session, then calls Root. It fails if an earlier tree of that name
// still has processes: Open and Kill that one first.
func (f *Forest) Tree(name string) (*Tree, error) {
	t := f.tree(name)
	if f.kind == Session {
		return t, nil
	}
	if err := t.makeCgroup(f.dir, f.path); err != nil {
		return nil, fmt.Errorf("make tree %q: %w", name, err)
	}
	return t, nil
}

// Open finds a tree again after a restart of the daemon. It looks for the
// cgroup in this forest, then where the root process is; without one the tree
// is of kind Session. It does not fail because everybody is dead.
func (f *Forest) Open(name string, root Identity) (*Tree, error) {
	t := f.tree(name)
	if err := t.findCgroup(f, root); err != nil {
		return nil, fmt.Errorf("open tree %q: %w", name, err)
	}
	t.Root(root)
	return t, nil
}

func (f *Forest) tree(name string) *Tree {
	dir := folder("app-", name)
	return &Tree{name: name, folder: dir, mark: f.name + "/" + dir, kind: Session, proc: procRoot}
}

// Tree is all processes of one generation of an instance: the root that the
// keeper spawned, its children, their children, and whoever they left behind.
// It is safe for use by many goroutines and has none.
type Tree struct {
	name   string
	folder string
	mark   string // value of GPM_TREE
	proc   string

	mu   sync.Mutex
	kind Kind
	dir  string // cgroup folder
	path string // dir as /proc/<pid>/cgroup writes it
	fd   *os.File
	root Identity
	seen map[int]uint64 // kind Session: pid -> start of the members found last
}

// Env is the variable that the processes of the tree must inherit, "GPM_TREE=...".
func (t *Tree) Env() string { return marker + "=" + t.mark }

// Kind is how the processes of this tree are found. It may differ from the
// forest's after a restart of the daemon.
func (t *Tree) Kind() Kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kind
}

// Cgroup is the folder to clone the root process into
// (SysProcAttr.UseCgroupFD, Linux 5.7); nil if the tree has none. It belongs
// to the tree and is closed by Close.
func (t *Tree) Cgroup() *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fd
}

// Root says which process the tree began with. If it is not in the tree's
// cgroup (the spawner could not put it there) the tree becomes a Session.
func (t *Tree) Root(id Identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root = id
	if t.kind == Cgroup && id.Alive() && !t.inCgroup(id.PID) {
		t.kind = Session
	}
}

// Members lists the living processes of the tree, by pid.
func (t *Tree) Members() []Proc {
	var out []Proc
	for _, st := range t.scan(true) {
		out = append(out, Proc{PID: st.PID, Parent: st.PPid, Start: st.Start, Command: command(t.proc, st)})
	}
	slices.SortFunc(out, func(a, b Proc) int { return cmp.Compare(a.PID, b.PID) })
	return out
}

// PIDs lists the same processes at less cost, for a sampler that asks every
// second. A tree of kind Session does not look at environments here.
func (t *Tree) PIDs() []int {
	var out []int
	for _, st := range t.scan(false) {
		out = append(out, st.PID)
	}
	slices.Sort(out)
	return out
}

// Left tells whether processes of the tree live, once its root is dead. It looks
// harder than PIDs: without a cgroup also into the environment of everybody who
// may be read, because a child that was never seen while its parent lived, and
// has a session of its own, has nothing else that says whose it is.
func (t *Tree) Left() bool { return len(t.scan(true)) > 0 }

// Signal sends sig once to every process of the tree, children before their
// parents, the root last. It returns how many got it, and an error if one of
// the living could not be reached. Nobody left is not an error.
func (t *Tree) Signal(sig syscall.Signal) (int, error) {
	var n int
	var errs []error
	for _, st := range childrenFirst(t.scan(true), t.rootPID()) {
		switch err := t.send(st, sig); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ESRCH):
			errs = append(errs, fmt.Errorf("send %s to process %d: %w", SignalName(sig), st.PID, err))
		}
	}
	return n, errors.Join(errs...)
}

// Kill ends every process of the tree by SIGKILL and returns when none is
// left, or with an error that names those still alive when ctx ends (without
// a deadline: after ten seconds).
func (t *Tree) Kill(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, killWait)
		defer cancel()
	}
	var err error
	if t.Kind() == Cgroup {
		err = t.killCgroup(ctx)
	} else {
		err = t.sweep(ctx)
	}
	if err == nil {
		return nil
	}
	var left []int
	for _, st := range t.scan(true) {
		left = append(left, st.PID)
	}
	return fmt.Errorf("kill tree %q: still alive: %v: %w", t.name, left, err)
}

// Close gives the cgroup back: the folder is removed if it is empty. It kills
// nobody; a tree that still has processes keeps its folder and an error says so.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd != nil {
		t.fd.Close()
		t.fd = nil
	}
	if t.dir == "" {
		return nil
	}
	if err := removeCgroup(t.dir, maxDepth); err != nil {
		return fmt.Errorf("remove cgroup of tree %q: %w", t.name, err)
	}
	return nil
}

func (t *Tree) rootPID() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.root.PID
}

// scan is the living processes of the tree. thorough also reads environments.
func (t *Tree) scan(thorough bool) []Stat {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kind == Cgroup {
		return t.scanCgroup()
	}
	return t.scanSession(thorough)
}

// childrenFirst orders by depth, the deepest first; a process whose parent is
// not in the list is as deep as the root, which comes last of all.
func childrenFirst(list []Stat, root int) []Stat {
	parent := make(map[int]int, len(list))
	for _, st := range list {
		parent[st.PID] = st.PPid
	}
	depth := func(pid int) int {
		n := 0
		for p, ok := parent[pid]; ok && n <= len(list); p, ok = parent[p] {
			n++
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b Stat) int {
		if (a.PID == root) != (b.PID == root) {
			if a.PID == root {
				return 1
			}
			return -1
		}
		return cmp.Compare(depth(b.PID), depth(a.PID))
	})
	return list
}
