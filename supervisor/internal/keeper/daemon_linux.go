package keeper

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shortLife  = time.Second // a daemon that dies younger is restarted with a growing delay
	firstDelay = 10 * time.Millisecond
	maxDelay   = time.Second
	trialLimit = time.Minute // for a program named by Next to become ready
)

// daemon is one life of the daemon process.
type daemon struct {
	pid     int
	exe     string // as inventoried
	trial   bool   // exe was named by Next and has not been ready yet
	ready   bool   // it said so
	since   time.Time
	conn    *conn
	in      <-chan packet // closed when it has hung up and all it said has been read
	out     []parcel      // to be sent
	blocked bool          // a goroutine waits until the daemon reads on
	reaped  bool
	done    chan struct{} // closed by the loop at the end of this life
}

// parcel is a message to be sent. Its descriptors are looked up when it is: they
// belong to tables that may have closed them meanwhile (false: do not send).
type parcel struct {
	message
	fds func() ([]int, bool)
}

// startDaemon begins a life and hands over what is kept.
func (k *keeper) startDaemon() {
	k.restart = nil
	if k.daemon != nil {
		return
	}
	d, err := k.launch()
	if err != nil {
		if k.tellsDeath() {
			k.logf("start the daemon: %v", err)
		}
		k.program.failed()
		k.restartLater(0)
		return
	}
	k.daemon = d
	if d.trial {
		k.trial = time.After(trialLimit)
	}
	k.handOver()
}

// launch starts the daemon process and the reader of its requests.
func (k *keeper) launch() (*daemon, error) {
	c, far, err := pair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(far)
	exe, trial := k.program.choose()
	pid, err := fork(exe, []string{"gpm", "daemon"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment(k.home.dir),
		Files: []uintptr{uintptr(k.null), 1, 2, uintptr(far)},
		Sys:   &syscall.SysProcAttr{Setsid: true}, // Ctrl-C in a foreground keeper's terminal is the keeper's
	})
	if err != nil {
		c.close()
		return nil, err
	}
	in := make(chan packet)
	d := &daemon{pid: pid, exe: exe, trial: trial, since: time.Now(), conn: c, in: in, done: make(chan struct{})}
	go d.read(in)
	return d, nil
}

// environment is the keeper's own with GPM_HOME, for daemon and next keeper.
func environment(home string, more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, envHome+"=") || strings.HasPrefix(e, envTakeover+"=")
	})
	return append(append(env, envHome+"="+home), more...)
}

// read is the reader goroutine of one life; it ends when the daemon has hung up.
func (d *daemon) read(in chan<- packet) {
	defer close(in)
	for {
		p, err := d.conn.recv()
		if err != nil {
			return
		}
		in <- p
	}
}

func (d *daemon) kill() { _ = unix.Kill(d.pid, unix.SIGKILL) } // not reaped yet, so it is still this pid's

// handOver sends the inventory, then the descriptors, then the open traps.
func (k *keeper) handOver() {
	k.sweepTraps(0)
	names := make([]string, 0, len(k.files))
	for name := range k.files {
		names = append(names, name)
	}
	slices.Sort(names)
	k.post(message{Type: msgHello, Hello: &hello{
		Protocol: protocol, PID: os.Getpid(), Children: k.inventory(), Files: len(names),
		Hold: k.hold, NoNewPrivs: k.noNewPrivs, Terminating: k.terminating,
		Foreground: k.foreground, Exe: k.daemon.exe,
	}}, nil)
	for batch := range slices.Chunk(names, maxRights/2) {
		k.post(message{Type: msgFiles, Names: batch}, func() ([]int, bool) { return k.lookUp(batch) })
	}
	for _, serial := range sorted(k.traps) {
		k.postTrap(k.traps[serial])
	}
}

func (k *keeper) lookUp(names []string) ([]int, bool) {
	fds := make([]int, 0, len(names))
	for _, name := range names {
		fd, ok := k.files[name]
		if !ok { // a notify descriptor whose last process has just ended
			fd = k.null
		}
		fds = append(fds, fd)
	}
	return fds, true
}

// post sends a message to the daemon, now if it reads, else as soon as it does.
func (k *keeper) post(m message, fds func() ([]int, bool)) {
	d := k.daemon
	if d == nil || d.reaped {
		return
	}
	d.out = append(d.out, parcel{m, fds})
	k.flush(d)
}

// flush sends until the socket is full.
func (k *keeper) flush(d *daemon) {
	for !d.blocked && len(d.out) > 0 {
		var fds []int
		send := true
		if p := d.out[0]; p.fds != nil {
			fds, send = p.fds()
		}
		if send {
			err := d.conn.trySend(d.out[0].message, fds)
			if err == unix.EAGAIN {
				d.blocked = true
				go k.awaitReading(d)
				return
			}
			if err != nil && err != unix.EPIPE && err != unix.ECONNRESET {
				k.logf("send %q to the daemon: %v", d.out[0].Type, err)
			}
		}
		d.out = d.out[1:]
	}
	if len(d.out) == 0 {
		d.out = nil // the queue's memory was for a burst
	}
}

// awaitReading is a goroutine that ends when the daemon reads on, or dies.
func (k *keeper) awaitReading(d *daemon) {
	asked := false
	_ = d.conn.raw.Write(func(uintptr) bool { // false: wait until it is writable
		was := asked
		asked = true
		return was
	})
	select {
	case k.writable <- d:
	case <-d.done:
	}
}

// daemonReaped notes the death; the life is over when all it said is read too.
func (k *keeper) daemonReaped(ws unix.WaitStatus) {
	d := k.daemon
	if !k.quitting && k.tellsDeath() {
		k.logf("the daemon (pid %d) has ended after %v: %s", d.pid, time.Since(d.since).Round(time.Millisecond), describe(ws))
	}
	d.reaped, d.out = true, nil
	d.conn.finish()
	if d.in == nil {
		k.daemonOver()
	}
}

// hungUp notes that the daemon has closed its end, usually by dying.
func (k *keeper) hungUp(d *daemon) {
	d.in = nil
	if d.reaped {
		k.daemonOver()
		return
	}
	d.kill() // alive without a keeper it is of no use; dying it does not mind
}

func (k *keeper) daemonOver() {
	d := k.daemon
	close(d.done)
	d.conn.close()
	k.daemon, k.trial = nil, nil
	if k.quitting {
		k.over, k.code = true, ExitOK
		return
	}
	if !d.ready {
		k.program.failed()
	}
	k.restartLater(time.Since(d.since))
}

// ready takes note that the daemon works, and tells systemd.
func (k *keeper) ready() {
	k.daemon.ready = true
	k.trial = nil
	k.program.ready(k.daemon.exe, k.daemon.pid)
	for _, f := range k.silenced {
		k.receive(f)
	}
	k.silenced = nil
	k.notifySystemd(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=the daemon runs, pid %d", os.Getpid(), k.daemon.pid))
}

// restartLater plans the next life after one that lasted for life.
func (k *keeper) restartLater(life time.Duration) {
	if k.quick++; life >= shortLife {
		k.quick = 0
	}
	k.restart = time.After(delay(k.quick))
}

// tellsDeath is false for most of many short lives: gpm.log must not grow for ever.
func (k *keeper) tellsDeath() bool { return k.quick < 20 || k.quick%64 == 0 }

// delay before the next start after n short lives in a row: the first restart is
// immediate, and it never gives up.
func delay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return min(firstDelay<<min(n-2, 16), maxDelay)
}
