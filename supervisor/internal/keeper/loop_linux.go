package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// terminateLimit is how long the daemon may take to stop everything after a
// SIGTERM to the keeper. A variable for tests.
var terminateLimit = 10 * time.Minute

// keeper is all there is. Its fields belong to the goroutine of run.
type keeper struct {
	home       house
	foreground bool
	journal    *journal

	files    map[string]int // by name; closed when dropped
	capacity capacity
	null     int       // /dev/null
	fdstore  *fdStore  // nil: nobody keeps descriptors for us
	silenced []*filter // came back from fdstore; received from when a daemon knows their processes

	hold       string // why calls cannot be trapped; "": they can
	noNewPrivs bool
	filtered   *spawner // nil if hold says so

	live  map[int]*Child // running, by pid
	ended []*Child       // not acknowledged, oldest first

	traps  map[uint64]*waiting // not answered, by serial
	serial uint64

	daemon  *daemon // nil between two lives
	program program
	quick   int // lives in a row that were too short

	terminating bool
	quitting    bool // the daemon said Quit: end with it
	over        bool
	code        int

	// What the loop waits for. Nil channels are waits that are not on.
	children chan os.Signal // SIGCHLD
	stop     chan os.Signal // SIGTERM, SIGINT
	calls    chan call      // from one receiver per notify descriptor
	unused   chan *filter   // from the same: its last process has ended
	ends     chan ending    // from one watcher per adopted child
	writable chan *daemon   // from whoever waits until the daemon reads on
	restart  <-chan time.Time
	trial    <-chan time.Time // the next program should have been ready
	overtime <-chan time.Time // all apps should have been stopped
	heirloom <-chan struct{}  // the daemon that started this keeper has ended
}

// capacity bounds what is kept by what the process may open: there must remain
// descriptors to start the next daemon with.
type capacity struct{ files, traps int }

const (
	maxTraps = 1024
	maxEnded = 4096 // exits kept for a daemon that never acknowledges
)

func newCapacity() capacity {
	limit := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // Go raised it to the hard limit at start
	open := int(min(limit.Cur, 1<<20))
	return capacity{files: open / 2, traps: min(maxTraps, open/8)}
}

func newKeeper(home house, program program) *keeper {
	return &keeper{
		home:     home,
		program:  program,
		journal:  newJournal(),
		capacity: newCapacity(),
		files:    map[string]int{},
		live:     map[int]*Child{},
		traps:    map[uint64]*waiting{},
		children: make(chan os.Signal, 1),
		stop:     make(chan os.Signal, 1),
		calls:    make(chan call),
		unused:   make(chan *filter),
		ends:     make(chan ending),
		writable: make(chan *daemon),
	}
}

// catch subscribes to signals. SIGHUP and SIGPIPE are caught and forgotten
// rather than ignored: an ignored signal would be ignored by every app too.
func (k *keeper) catch() {
	signal.Notify(k.children, unix.SIGCHLD)
	signal.Notify(k.stop, unix.SIGTERM, unix.SIGINT)
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGPIPE)
}

// run is the loop. It returns the exit code.
func (k *keeper) run() int {
	defer k.journal.flush()
	if k.heirloom == nil {
		k.startDaemon()
	}
	for !k.over {
		k.step()
	}
	k.home.leave()
	if k.code == ExitOK { // else something lives on, and needs it
		k.vacate()
	}
	return k.code
}

// step waits for one thing and does what it asks for. Nothing in it is meant to
// panic; should something do so, the apps must not lose their parent over it.
func (k *keeper) step() {
	defer func() {
		if r := recover(); r != nil {
			k.logf("a bug in gpm: %v\n%s", r, debug.Stack())
		}
	}()
	requests, d := k.requests()
	select {
	case p, ok := <-requests:
		if !ok {
			k.hungUp(d)
			return
		}
		k.handle(&p)
	case <-k.children:
		k.reap()
	case c := <-k.calls:
		k.trapped(c)
	case e := <-k.ends:
		k.adoptedEnded(e)
	case f := <-k.unused:
		k.dropFilter(f)
	case d := <-k.writable:
		d.blocked = false
		k.flush(d)
	case <-k.fdstore.retries():
		k.fdstore.retry = nil
		k.flushStore()
	case <-k.restart:
		k.startDaemon()
	case <-k.trial:
		k.trial = nil
		k.logf("kill the daemon: %q is not ready after %v", k.daemon.exe, trialLimit)
		k.daemon.kill()
	case <-k.stop:
		k.terminate()
	case <-k.overtime:
		k.logf("end: the daemon did not stop the apps and end within %v; what runs lives on", terminateLimit)
		k.over, k.code = true, ExitFailed
	case <-k.heirloom:
		k.heirloom = nil
		k.startDaemon()
	}
}

// requests are those of the daemon, but not while it owes us reading: so what
// waits to be sent is bounded by the children and the traps.
func (k *keeper) requests() (<-chan packet, *daemon) {
	if k.daemon == nil || len(k.daemon.out) > 0 {
		return nil, nil
	}
	return k.daemon.in, k.daemon
}

// handle obeys a request and answers it, whatever happens.
func (k *keeper) handle(p *packet) {
	var child *Child
	err := errors.New("a bug in gpm: see gpm.log")
	defer func() {
		p.close()
		if p.ID != 0 {
			k.post(message{Type: msgReply, ID: p.ID, Child: child, Failure: failed(err)}, nil)
		}
	}()
	if p.bad != nil {
		err = p.bad
		return
	}
	child, err = k.obey(p)
}

func (k *keeper) obey(p *packet) (*Child, error) {
	switch p.Type {
	case msgSpawn:
		return k.spawn(p)
	case msgAdopt:
		return k.adopt(p.PID, p.Start, p.Name)
	case msgAck:
		return nil, k.acknowledge(p.PID)
	case msgAnswer:
		return nil, k.answer(p)
	case msgStore:
		return nil, k.store(p)
	case msgDrop:
		return nil, k.drop(p.Name)
	case msgNext:
		return nil, k.program.setNext(p.Name)
	case msgReady:
		k.ready()
		return nil, nil
	case msgQuit:
		k.quitting = true
		k.overtime = time.After(terminateLimit)
		return nil, nil
	}
	return nil, fmt.Errorf("the keeper does not know the request %q", p.Type)
}

func (k *keeper) store(p *packet) error {
	if p.Name == "" || strings.HasPrefix(p.Name, ReservedPrefix) {
		return fmt.Errorf("store a descriptor: the name %q is not allowed", p.Name)
	}
	_, replaced := k.files[p.Name]
	if !replaced && len(k.files) >= k.capacity.files {
		return fmt.Errorf("store %q: %d descriptors are kept already, half of what ulimit -n allows", p.Name, len(k.files))
	}
	fd, err := p.take(0)
	if err != nil {
		return err
	}
	k.keep(p.Name, fd)
	return nil
}

func (k *keeper) drop(name string) error {
	if _, ok := k.files[name]; !ok || strings.HasPrefix(name, ReservedPrefix) {
		return fmt.Errorf("drop %q: no such descriptor is stored", name)
	}
	k.discard(name)
	return nil
}

// terminate asks the daemon to stop everything. A second signal changes nothing.
func (k *keeper) terminate() {
	if k.terminating {
		return
	}
	k.terminating = true
	k.overtime = time.After(terminateLimit)
	k.post(message{Type: msgTerminate}, nil)
	k.notifySystemd("STOPPING=1")
}

func (k *keeper) logf(format string, args ...any) {
	k.journal.printf(format, args...)
}

// holdFiltered makes the filtered thread, or notes why there is none.
func (k *keeper) holdFiltered() {
	if os.Getenv(envNoHold) != "" {
		k.hold = envNoHold + " is set"
		return
	}
	s, filter := newSpawner(trap.Install)
	k.noNewPrivs = filter.noNewPrivs
	if filter.err != nil {
		k.hold = filter.err.Error()
		return
	}
	k.filtered = s
	k.addFilter(filter.notify)
}
