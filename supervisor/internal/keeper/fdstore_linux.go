package keeper

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what is given to systemd.
const (
	mostStored = 4096 // FileDescriptorStoreMax= of the unit that gpm startup writes
	longestFD  = 255  // characters of an FDNAME (systemd, fdname_is_valid)
	// All names come back as one variable, LISTEN_FDNAMES. With one longer than
	// 128 KiB (MAX_ARG_STRLEN) no exec succeeds: the unit could never start again.
	mostNames   = 120_000
	mostStates  = 16                    // not sent yet
	storeRetry  = 10 * time.Millisecond // systemd's queue is full: it is busy for that long
	vacateLimit = time.Second
)

// fdMark begins each FDNAME of ours: what a socket unit passes is not ours.
const fdMark = "gpm/"

// fdStore is the keeper's way to systemd, which keeps a duplicate of each
// descriptor while the unit is restarted (sd_notify(3), FDSTORE=1; systemd 219).
// It belongs to the loop, and a nil one does nothing. It never blocks: what
// systemd does not take at once is due, at most once for each name.
type fdStore struct {
	socket int
	to     *unix.SockaddrUnix
	there  map[string]bool // names of which systemd has a descriptor
	size   int             // bytes of their FDNAMEs
	due    []string        // names whose descriptor has changed
	states []string        // to be told after that
	retry  <-chan time.Time
	failed int
}

// newFDStore is nil if nobody has set NOTIFY_SOCKET.
func newFDStore() (*fdStore, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &fdStore{socket: fd, to: &unix.SockaddrUnix{Name: path}, there: map[string]bool{}}, nil // "@": abstract
}

// fdName is name as systemd allows it: ':' and what is not printable ASCII are
// written as a backslash and two hex digits. False: it is too long.
func fdName(name string) (string, bool) {
	const digits = "0123456789abcdef"
	b := []byte(fdMark)
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' || c == '\\' {
			b = append(b, '\\', digits[c>>4], digits[c&15])
			continue
		}
		b = append(b, c)
	}
	return string(b), len(b) <= longestFD
}

// nameOf undoes fdName; false for a name that fdName does not make.
func nameOf(fdname string) (string, bool) {
	rest, ok := strings.CutPrefix(fdname, fdMark)
	var b []byte
	for ok && rest != "" {
		if rest[0] != '\\' {
			b, rest = append(b, rest[0]), rest[1:]
			continue
		}
		if len(rest) < 3 {
			return "", false
		}
		c, err := strconv.ParseUint(rest[1:3], 16, 8)
		if err != nil {
			return "", false
		}
		b, rest = append(b, byte(c)), rest[3:]
	}
	return string(b), ok && len(b) > 0
}

// reclaim takes the descriptors that systemd passes to this process, by name,
// and removes the variables that speak of them. Those that are not ours are
// closed. What came twice is in doubt: one of them is kept, and pushed again.
func reclaim() (files map[string]int, twice []string) {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "FDSTORE"} {
		os.Unsetenv(v)
	}
	files = map[string]int{}
	if pid != os.Getpid() {
		return files, nil
	}
	for i, fd := 0, 3; i < n && i < len(names); i, fd = i+1, fd+1 {
		name, ours := nameOf(names[i])
		_, again := files[name]
		if ours && again {
			twice = append(twice, name)
		}
		if !ours || again || name == LockFile {
			unix.Close(fd)
			continue
		}
		unix.CloseOnExec(fd)
		files[name] = fd
	}
	return files, twice
}

// comeBack puts what systemd has kept into the table. From its notify
// descriptors nothing is received until the daemon knows the processes again:
// a call of a process that nobody knows would go on unheld.
func (k *keeper) comeBack(files map[string]int, twice []string) {
	for name, fd := range files {
		k.files[name] = fd
		if strings.HasPrefix(name, NotifyPrefix) {
			k.silenced = append(k.silenced, &filter{name, fd})
		}
		if k.fdstore != nil {
			k.fdstore.note(name)
		}
	}
	for _, name := range twice {
		k.changed(name)
	}
	if len(files) > 0 {
		k.logf("%d descriptors came back from systemd", len(files))
	}
}

// keep puts fd, which it takes, under a name, in place of what was there.
func (k *keeper) keep(name string, fd int) {
	if old, ok := k.files[name]; ok {
		unix.Close(old)
	}
	k.files[name] = fd
	k.changed(name)
}

// discard closes what is kept under a name.
func (k *keeper) discard(name string) {
	if fd, ok := k.files[name]; ok {
		unix.Close(fd)
		delete(k.files, name)
		k.changed(name)
	}
}

// changed has systemd's store follow the table. The lock is not for it: it has to
// go with the keeper and the daemon.
func (k *keeper) changed(name string) {
	if s := k.fdstore; s != nil && name != LockFile {
		if !slices.Contains(s.due, name) {
			s.due = append(s.due, name)
		}
		k.flushStore()
	}
}

// notifySystemd tells a state, after all descriptors that are due.
func (k *keeper) notifySystemd(state string) {
	if s := k.fdstore; s != nil {
		if len(s.states) < mostStates {
			s.states = append(s.states, state)
		}
		k.flushStore()
	}
}

// flushStore sends until systemd's queue is full; then it is tried again soon.
func (k *keeper) flushStore() {
	s := k.fdstore
	if s == nil || s.retry != nil {
		return
	}
	for len(s.due) > 0 {
		err := s.update(s.due[0], k.files)
		if later(err) {
			s.retry = time.After(storeRetry)
			return
		}
		if err != nil {
			// A descriptor that is not there is re-taken from the live app.
			if s.failed++; s.failed&(s.failed-1) == 0 {
				k.logf("give %q to systemd: %v (%d such failures)", s.due[0], err, s.failed)
			}
		}
		s.due = s.due[1:]
	}
	for s.due = nil; len(s.states) > 0; s.states = s.states[1:] {
		err := s.send(s.states[0], -1)
		if later(err) {
			s.retry = time.After(storeRetry)
			return
		}
		if err != nil {
			k.logf("notify %q: %v", s.to.Name, err)
		}
	}
}

// later tells of errors that pass by themselves.
func later(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETOOMANYREFS) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// update makes systemd's store say about a name what files says. Removing comes
// first: under a name that is there already systemd would keep both.
func (s *fdStore) update(name string, files map[string]int) error {
	fdname, ok := fdName(name)
	if s.there[name] {
		if err := s.send("FDSTOREREMOVE=1\nFDNAME="+fdname, -1); err != nil {
			return err
		}
		delete(s.there, name)
		s.size -= len(fdname) + 1
	}
	fd, held := files[name]
	switch {
	case !held:
		return nil
	case !ok:
		return errors.New("the name is too long")
	case len(s.there) >= mostStored || s.size+len(fdname)+1 > mostNames:
		return errors.New("its store is full")
	}
	// FDPOLL=0 (246): else a pipe whose writers are gone would be dropped, and
	// what is in it.
	if err := s.send("FDSTORE=1\nFDNAME="+fdname+"\nFDPOLL=0", fd); err != nil {
		return err
	}
	s.note(name)
	return nil
}

// note remembers that systemd has a name.
func (s *fdStore) note(name string) {
	fdname, _ := fdName(name)
	s.there[name] = true
	s.size += len(fdname) + 1
}

// send sends one message, with a descriptor unless that is -1.
func (s *fdStore) send(text string, fd int) error {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	return ignoringEINTR(func() error {
		return unix.Sendmsg(s.socket, []byte(text), oob, s.to, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
}

// retries is what the loop waits for.
func (s *fdStore) retries() <-chan time.Time {
	if s == nil {
		return nil
	}
	return s.retry
}

// vacate empties systemd's store at an end after which nothing lives on:
// systemctl restart would pass it all to the next keeper.
func (k *keeper) vacate() {
	s := k.fdstore
	if s == nil {
		return
	}
	clear(k.files) // closed by the end of the process
	for name := range s.there {
		k.changed(name)
	}
	for limit := time.After(vacateLimit); s.retry != nil; {
		select {
		case <-s.retry:
			s.retry = nil
			k.flushStore()
		case <-limit:
			return
		}
	}
}
