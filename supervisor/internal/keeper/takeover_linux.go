package keeper

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// replyLimit is how long either side waits for an answer of the other.
const replyLimit = 10 * time.Second

// successor is the socket to the keeper that Replace started. It stays open
// until this process ends: by that the new keeper knows that it may start the
// next daemon. A variable, or the garbage collector would close it.
//
//lint:ignore U1000 it is there to be reachable
var successor *conn

// Replace starts a new keeper in the place of one that was killed and hands it
// everything: the files, which must include those of the Inventory with
// ReservedPrefix, the children, and the traps that are not answered. The caller
// then exits at once; the new keeper starts a fresh daemon when it has. The
// running apps go on, and their bind() and listen() calls are still trapped.
func Replace(home, exe string, files map[string]*os.File, children []Child, traps []*trap.Trap) error {
	c, far, err := pair()
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment(home, envTakeover+"=3"),
		Files: []uintptr{0, 1, 2, uintptr(far)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	pid, err := fork(exe, []string{"gpm", "keeper"}, attr)
	if err != nil { // its file may be gone from the disk: ours is not
		pid, err = fork("/proc/self/exe", []string{"gpm", "keeper"}, attr)
	}
	unix.Close(far)
	if err == nil {
		if err = bequeath(c, files, children, traps); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if err != nil {
		c.close()
		return fmt.Errorf("replace the keeper: %w", err)
	}
	successor = c
	return nil
}

// Abandon is for a daemon whose keeper was killed and is not to be replaced by
// it: it answers the traps that nobody can judge any more, for the kernel would
// let those calls wait for ever while somebody keeps the notify descriptors. A
// bind() finds its address in use, so that its process ends and the next one is
// held; any other call goes on. files are those of the Inventory.
func Abandon(files map[string]*os.File, traps []*trap.Trap) error {
	var errs []error
	for _, t := range traps {
		f := files[t.Filter]
		if f == nil {
			continue
		}
		fd, err := duplicate(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t.Call == trap.Bind {
			err = trap.Fail(fd, t.Notification.ID, unix.EADDRINUSE)
		} else {
			err = trap.Pass(fd, t.Notification.ID)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("give up %s of process %d: %w", t.Call, t.PID, err))
		}
	}
	return errors.Join(errs...)
}

// bequeath sends everything and waits for the new keeper to have it.
func bequeath(c *conn, files map[string]*os.File, children []Child, traps []*trap.Trap) error {
	if err := c.file.SetDeadline(time.Now().Add(replyLimit)); err != nil {
		return err
	}
	h := &hello{Protocol: protocol, PID: os.Getpid(), Children: children, Files: len(files)}
	for _, t := range traps {
		h.Traps = append(h.Traps, *t)
	}
	if err := c.send(message{Type: msgTakeover, Hello: h}, nil); err != nil {
		return err
	}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(files)), maxRights/2) {
		if err := sendFiles(c, batch, files); err != nil {
			return err
		}
	}
	p, err := c.recv()
	if err != nil {
		return fmt.Errorf("no answer from the new one: %w", err)
	}
	p.close()
	return p.Failure.error()
}

func sendFiles(c *conn, names []string, files map[string]*os.File) error {
	open := make([]*os.File, 0, len(names))
	for _, name := range names {
		open = append(open, files[name])
	}
	fds, err := duplicateAll(open)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	return c.send(message{Type: msgFiles, Names: names}, fds)
}

// legacy is what a daemon hands to the keeper it started.
type legacy struct {
	conn  *conn
	hello hello
	files map[string]int
}

// inherit reads the legacy from the descriptor that the environment names; nil
// if it names none.
func inherit(number string) (*legacy, error) {
	if number == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("take over from descriptor %q: it is none", number)
	}
	c, err := newConn(fd)
	if err != nil {
		return nil, err
	}
	if err := c.file.SetDeadline(time.Now().Add(replyLimit)); err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	h, files, err := readHello(c, msgTakeover)
	if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	return &legacy{c, h, files}, nil
}

// house is the home folder with the lock and the socket that it is held by.
func (l *legacy) house(dir string) (house, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return house{}, fmt.Errorf("use home %q: %w", dir, err)
	}
	h := house{dir: dir}
	var locked, listens bool
	h.lock, locked = l.files[LockFile]
	h.api, listens = l.files[APIFile]
	if !locked || !listens {
		return house{}, errors.New("take over: lock and socket are not among the descriptors")
	}
	// It is locked by the open file itself; this fails only for a wrong file.
	if err := unix.Flock(h.lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return house{}, fmt.Errorf("take over the lock of %q: %w", dir, err)
	}
	return h, h.sign()
}

// takeOver makes the legacy the keeper's own, and tells the one who left it.
func (k *keeper) takeOver(l *legacy) {
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		fd := l.files[name]
		switch {
		case name == APIFile || name == LockFile:
		case strings.HasPrefix(name, NotifyPrefix):
			k.addFilter(fd)
		default:
			k.keep(name, fd)
		}
	}
	for _, c := range l.hello.Children {
		k.inheritChild(c)
	}
	for _, t := range l.hello.Traps {
		if fd, ok := l.files[t.Filter]; ok {
			k.trapped(call{&filter{t.Filter, fd}, t.Notification})
		}
	}
	k.logf("take over from process %d: %d processes, %d descriptors", l.hello.PID, len(l.hello.Children), len(l.files))
	if err := l.conn.send(message{Type: msgReply}, nil); err != nil {
		k.logf("take over: %v", err)
	}
	gone := make(chan struct{})
	k.heirloom = gone
	go func() { // ends with the old daemon, or when that takes too long
		defer close(gone)
		_ = l.conn.file.SetDeadline(time.Now().Add(replyLimit))
		_, _ = l.conn.recv()
		l.conn.close()
	}()
}

// inheritChild adopts a child of the keeper before. What has ended meanwhile
// ended unseen.
func (k *keeper) inheritChild(c Child) {
	if c.Exit != nil {
		k.ended = append(k.ended, &c)
		return
	}
	if _, err := k.adopt(c.PID, c.Start, c.Tag); err != nil {
		k.logf("take over: %v", err)
		c.Adopted = true
		k.exited(&c, Exit{Code: -1, Unknown: true})
	}
}
