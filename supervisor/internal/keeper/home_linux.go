package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Files in the home folder.
const (
	lockName = "gpm.lock" // flock'ed; holds the keeper's pid and start time
	pidName  = "keeper.pid"
	sockName = "gpm.sock"
	logName  = "gpm.log"
)

// errBusy is wrapped when another keeper has the home.
var errBusy = errors.New("another keeper has it")

// house is the home folder as the keeper has it.
type house struct {
	dir       string
	lock, api int // the locked gpm.lock, the listening gpm.sock
}

// lockLimit is how long a keeper that has said goodbye may take to end, or the
// daemon of one that was killed.
const lockLimit = 10 * time.Second

// enter takes possession of a home folder, making it if need be. api is a socket
// that came back from systemd, or 0: it goes on if it is gpm.sock still.
func enter(dir string, api int) (house, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return house{}, fmt.Errorf("use home %q: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return house{}, fmt.Errorf("make home %q: %w", dir, err)
	}
	h := house{dir: dir, api: -1}
	if h.lock, err = unix.Open(h.path(lockName), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err != nil {
		return house{}, fmt.Errorf("use home %q: cannot write into it: open %q: %w", dir, h.path(lockName), err)
	}
	err = h.takeLock(lockLimit)
	if errors.Is(err, unix.EWOULDBLOCK) {
		unix.Close(h.lock)
		who := ""
		if pid, err := os.ReadFile(h.path(pidName)); err == nil && len(pid) > 0 {
			who = ", pid " + strings.TrimSpace(string(pid))
		}
		return house{}, fmt.Errorf("use home %q: %w%s", dir, errBusy, who)
	}
	if err != nil {
		unix.Close(h.lock)
		return house{}, fmt.Errorf("lock %q: %w", h.path(lockName), err)
	}
	if err := h.sign(); err != nil {
		return house{}, err
	}
	if h.isAPI(api) {
		h.api = api
		return h, nil
	}
	if h.api, err = listen(h.path(sockName)); err != nil {
		return house{}, err
	}
	return h, nil
}

// takeLock waits for the lock as long as no living keeper has it: then it is one
// that is about to end (gpm kill and gpm start in a row), or the daemon of one
// that was killed, which replaces it or ends. EWOULDBLOCK: somebody has it.
func (h house) takeLock(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	again := time.NewTicker(5 * time.Millisecond) // flock has no deadline of its own
	defer again.Stop()
	for {
		err := unix.Flock(h.lock, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if _, lives := Running(h.dir); lives || time.Now().After(deadline) {
			return err
		}
		<-again.C
	}
}

// isAPI tells whether fd is what clients of gpm.sock reach. A keeper that ends
// in order unlinks gpm.sock, so one that is there with that name is this one.
func (h house) isAPI(fd int) bool {
	if fd <= 0 {
		return false
	}
	name, err := unix.Getsockname(fd)
	at, ok := name.(*unix.SockaddrUnix)
	if err != nil || !ok || at.Name != h.path(sockName) {
		return false
	}
	var st unix.Stat_t
	return unix.Lstat(at.Name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

func (h house) path(name string) string { return filepath.Join(h.dir, name) }

// sign writes who the keeper is: the pid for people, and the identity, by which
// Running knows it, into the lock.
func (h house) sign() error {
	st, err := readStat(os.Getpid())
	if err != nil {
		return err
	}
	who := fmt.Sprintf("%d %d\n", os.Getpid(), st.start)
	err = unix.Ftruncate(h.lock, 0)
	if err == nil {
		_, err = unix.Pwrite(h.lock, []byte(who), 0)
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", h.path(lockName), err)
	}
	if err := os.WriteFile(h.path(pidName), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the keeper's pid: %w", err)
	}
	return nil
}

// leave removes the traces. The lock itself goes with the process: whoever sees
// that gpm.sock is gone and starts the next keeper must find that it may wait.
func (h house) leave() {
	_ = unix.Ftruncate(h.lock, 0)
	_ = os.Remove(h.path(pidName))
	_ = os.Remove(h.path(sockName))
}

// listen makes gpm.sock. A socket that is there already is stale: only the
// holder of the lock comes here.
func listen(path string) (int, error) {
	const longest = len(unix.RawSockaddrUnix{}.Path) - 1
	if len(path) > longest {
		return -1, fmt.Errorf("listen on %q: the path has %d characters, a socket's may have %d: choose a shorter GPM_HOME", path, len(path), longest)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("remove the old %q: %w", path, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	old := unix.Umask(0o177) // 0600 from birth: after a chmod somebody could be in already
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %q: %w", path, err)
	}
	return fd, nil
}

// detach moves stdout and stderr to gpm.log. Whoever started the keeper sees the
// end of its pipe then, and knows that all went well.
func (h house) detach() error {
	fd, err := unix.Open(h.path(logName), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %q: %w", h.path(logName), err)
	}
	defer unix.Close(fd)
	for _, std := range []int{1, 2} {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return fmt.Errorf("move output to %q: %w", h.path(logName), err)
		}
	}
	return nil
}

// Running tells whether a keeper has the home, and its pid. It disturbs nobody:
// it does not try the lock.
func Running(home string) (pid int, ok bool) {
	b, err := os.ReadFile(filepath.Join(home, lockName))
	if err != nil {
		return 0, false
	}
	var start uint64
	if n, _ := fmt.Sscan(string(b), &pid, &start); n != 2 {
		return 0, false
	}
	st, err := readStat(pid)
	if err != nil || st.zombie || st.start != start {
		return 0, false
	}
	return pid, true
}
