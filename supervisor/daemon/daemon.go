// Package daemon is the part of gpm that does much and may die: it joins the
// brain (package supervisor) to the hands and to the API. It holds nothing that
// must outlive it: listeners, pipes and processes are the keeper's, wishes are
// in the records. So a crash, an update and an ordinary start are one path.
//
// Goroutines of its own: the run group in serve (keeper link, traps, API,
// notify socket, sampler, store), one for each connection and each death.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gpm/config"
	"gpm/logs"
	"gpm/supervisor"
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/notify"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/sock"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/trap"
)

// controlFD is where a daemon finds its end of the socket to the keeper.
const controlFD = 3

type daemon struct {
	home      string
	exe       string
	started   time.Time
	keeperPID int
	inventory keeper.Inventory
	log       *slog.Logger
	link      *keeper.Link
	store     *store
	hands     *hands
	brain     *supervisor.Supervisor
	sampler   *sampler
	census    *census
	notify    *notify.Socket
	versions  versions
	savedApps atomic.Pointer[map[string]int]

	ending chan struct{} // closed when the daemon begins to end
	once   sync.Once
	why    string
	last   bool // no daemon follows: everything was stopped

	mu     sync.Mutex
	alerts []string // for gpm list: what is wrong with gpm itself
}

// Main is the daemon's face: it runs until it is told to leave or its keeper
// is gone, and returns the exit code.
func Main(home string) int {
	d, err := open(home)
	if err == nil {
		err = d.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpm daemon:", err)
		return 1
	}
	return 0
}

// open connects to the keeper and brings back what an earlier daemon left.
func open(home string) (*daemon, error) {
	link, inv, err := keeper.Connect(controlFD)
	if err != nil {
		return nil, err
	}
	d := &daemon{
		home: home, exe: inv.Exe, started: time.Now(), keeperPID: inv.KeeperPID, inventory: inv, link: link,
		ending: make(chan struct{}),
	}
	d.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if d.store, err = openStore(filepath.Join(home, "state"), d.log); err != nil {
		return nil, err
	}
	if err := d.hear(); err != nil {
		return nil, err
	}
	if err := d.arm(); err != nil {
		return nil, err
	}
	d.brain = supervisor.New(d.world())
	d.sampler = newSampler(d.brain)
	d.census = newCensus(d.hands, d.brain, d.log)
	if s, err := d.undump(); err == nil {
		d.remember(s)
	}
	return d, nil
}

// notifyFile is the keeper's name of the notify socket: an app that says
// READY=1 while no daemon lives is heard by the next one.
const notifyFile = "notify"

// hear opens the socket for sd_notify messages. Its name is abstract, so that
// apps of other users reach it; who may speak is decided by pid.
func (d *daemon) hear() (err error) {
	if f := d.inventory.Files[notifyFile]; f != nil {
		d.notify, err = notify.FromFile(f)
		return err
	}
	if d.notify, err = notify.Listen(fmt.Sprintf("@gpm-%d-%d", os.Getuid(), d.keeperPID)); err != nil {
		return err
	}
	f, err := d.notify.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return d.link.Store(notifyFile, f)
}

// arm makes the hands.
func (d *daemon) arm() error {
	self, err := proc.Read(os.Getpid())
	if err != nil {
		return err
	}
	// The home names the forest: the next daemon and the next keeper find it again.
	name := fnv.New64a()
	_, _ = name.Write([]byte(d.home))
	forest, err := proc.Plant(proc.Options{Name: strconv.FormatUint(name.Sum64(), 36)})
	if err != nil {
		return err
	}
	h := &hands{
		log: d.log, home: d.home, exe: d.exe, link: d.link, boot: self.Boot, hold: d.inventory.Hold, forest: forest, notify: d.notify.Name(),
		emit:  func(e supervisor.Event) { d.brain.Emit(e) },
		traps: make(chan *trap.Trap, 1024), procs: map[place]*process{}, byTag: map[string]*process{}, reserves: map[string]*reserve{},
		known:  make(chan struct{}),
		births: int(time.Now().Unix()), // never again a name that the keeper still knows
	}
	h.book = logs.NewBook(logs.Options{Problem: h.logTrouble})
	mode, why := d.detect()
	h.steerWhy = why
	h.steer = steer.New(steer.Options{
		Mode: mode, Why: why, Store: d.link.Store, Drop: d.link.Drop,
		Problem: func(group string, err error) { d.log.Warn("steer connections", "group", group, "error", err) },
	})
	h.holder = sock.New(sock.Options{
		Owner: h.ownerOf, Store: d.link.Store, Drop: d.link.Drop, Event: h.heard, Steer: h.steer, InUse: h.inUse, Gate: h.gate,
	})
	d.hands = h
	return nil
}

// safeFile is the keeper's name for the knowledge that classic programs are safe
// on this kernel: the next daemon is there 100 ms sooner. Nothing is in it.
const safeFile = "kernel/cbpf"

func (d *daemon) detect() (steer.Mode, string) {
	known := d.inventory.Files[safeFile] != nil
	mode, why := steer.Detect(known)
	if mode != steer.CBPF || known {
		return mode, why
	}
	f, err := os.Open(os.DevNull)
	if err == nil {
		err = d.link.Store(safeFile, f)
		f.Close()
	}
	if err != nil {
		d.log.Warn("remember what this kernel offers", "error", err)
	}
	return mode, why
}

// world is what the brain sees.
func (d *daemon) world() *supervisor.World {
	return &supervisor.World{
		Launch:  d.hands.launch,
		Release: d.hands.release,
		Park:    d.hands.park,
		Route:   d.hands.route,
		Probe:   d.hands.probe,
		Reserve: d.hands.reserve,
		Settled: d.hands.settled,
		Save:    d.store.Save,
		Forget:  d.store.Forget,
		Sync:    d.store.Sync,
		Watch:   d.watch,
		Build:   func(ctx context.Context, app *config.App) error { return build(ctx, app, d.home) },
		Jitter:  rand.Float64,
	}
}

// serve is the run group: the first part to return ends all.
func (d *daemon) serve() error {
	listener, err := d.listen()
	if err != nil {
		return err
	}
	server := d.server()
	parts := map[string]func() error{
		"keeper link":   func() error { return d.link.Serve(&handler{d.hands, d}) },
		"traps":         func() error { d.hands.judgeTraps(d.ending); return nil },
		"records":       func() error { d.store.run(d.ending); return nil },
		"sampler":       func() error { d.sampler.run(d.ending, d.hands); return nil },
		"housekeeping":  func() error { d.keepHouse(); return nil },
		"notify socket": func() error { return d.notify.Serve(d.hands.told) },
	}
	ended := make(chan error, len(parts)+2)
	for name, run := range parts {
		go func() {
			err := run()
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			ended <- err
		}()
	}
	d.recover()
	go func() { d.census.run(d.ending); ended <- nil }() // now it is known who listens
	// Before the first answer: whoever has got one from this daemon finds its pid.
	if err := os.WriteFile(filepath.Join(d.home, "gpm.pid"), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		d.log.Error("write pid file", "error", err)
	}
	go func() { ended <- server.Serve(listener) }()
	if err := d.link.Ready(); err != nil {
		d.log.Error("tell the keeper that we are ready", "error", err)
	}
	d.log.Info("daemon runs", "pid", os.Getpid(), "keeper", d.keeperPID, "home", d.home)
	if d.inventory.Terminating {
		go d.terminate()
	}
	return d.wait(ended, server)
}

// wait ends the daemon when the first part has returned or somebody called
// leave. Readers need no goodbye: what they have not written is in the journal.
func (d *daemon) wait(ended <-chan error, server *http.Server) error {
	var err error
	select {
	case <-d.ending:
	case err = <-ended:
		d.leave("a part of the daemon ended")
	}
	d.log.Info("daemon ends", "why", d.why, "error", err)
	gone := errors.Is(err, keeper.ErrGone)
	if gone && d.inventory.Foreground {
		return d.makeRoom()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if gone {
		server.Close() // the apps are without a keeper: whoever waits for an answer asks the next daemon
	} else {
		_ = server.Shutdown(ctx) // answers that are on their way; streams end by d.ending
	}
	if e := d.store.Sync(); e != nil {
		d.log.Error("write records", "error", e)
	}
	if gone {
		return d.replaceKeeper()
	}
	if d.last {
		if e := d.hands.forest.Close(); e != nil {
			d.log.Error("give back the cgroup", "error", e)
		}
	}
	return err
}

// farewell is leave for a gpm that ends with this daemon.
func (d *daemon) farewell(why string) {
	d.once.Do(func() {
		d.why, d.last = why, true
		close(d.ending)
	})
}

func (d *daemon) leave(why string) {
	d.once.Do(func() {
		d.why = why
		close(d.ending)
	})
}

// terminate is SIGTERM to the keeper: all apps end, and what was wanted stays
// on record for the next start.
func (d *daemon) terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), actTime)
	defer cancel()
	d.brain.Shutdown(ctx, true)
	d.hands.rest()
	if err := d.link.Quit(); err != nil {
		d.log.Error("tell the keeper to end", "error", err)
	}
	d.farewell("terminated")
}

// handler is what the keeper tells, on the goroutine of Link.Serve.
type handler struct {
	*hands
	d *daemon
}

// Terminate implements keeper.Handler.
func (h *handler) Terminate() { go h.d.terminate() }

// listen takes the API's socket from the keeper, who holds it across our
// deaths: a client that connects meanwhile waits; it is not refused.
func (d *daemon) listen() (net.Listener, error) {
	f := d.inventory.Files[keeper.APIFile]
	if f == nil {
		return nil, errors.New("the keeper has no API socket")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on the API socket: %w", err)
	}
	return l, nil
}

const alertsKept = 5

// warn keeps a sentence for gpm list and the log.
func (d *daemon) warn(text string) {
	d.log.Warn(text)
	d.brain.Emit(supervisor.Event{Kind: "daemon", ID: -1, Index: -1, Message: text})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.alerts {
		if a == text {
			return
		}
	}
	d.alerts = append(d.alerts, text)
	d.alerts = d.alerts[max(0, len(d.alerts)-alertsKept):]
}

func (d *daemon) warnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.alerts...)
}
