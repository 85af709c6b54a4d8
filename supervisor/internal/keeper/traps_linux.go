package keeper

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/trap"
)

// filter is a notify descriptor: this keeper's own, or one of a keeper before it
// whose children still live.
type filter struct {
	name string
	fd   int // also in keeper.files
}

// call is a stopped call that has come through a filter.
type call struct {
	filter *filter
	trap.Notification
}

// waiting is a trap that the daemon has not answered.
type waiting struct {
	trap.Trap
	notify int
	socket int // closed when it is forgotten
}

// addFilter keeps a new notify descriptor under a free name.
func (k *keeper) addFilter(fd int) {
	for i := 0; ; i++ {
		name := NotifyPrefix + strconv.Itoa(i)
		if _, taken := k.files[name]; !taken {
			k.keep(name, fd)
			k.receive(&filter{name, fd})
			return
		}
	}
}

// receive starts the goroutine that receives what is stopped; it ends, and tells
// so, when no process uses the filter any more.
func (k *keeper) receive(f *filter) {
	go func() {
		for {
			n, err := trap.Receive(f.fd)
			switch {
			case err == nil:
				k.calls <- call{f, n}
			case errors.Is(err, io.EOF):
				k.unused <- f
				return
			default: // no memory, perhaps; to give up would break every bind() to come
				k.logf("receive from %q: %v", f.name, err)
				<-time.After(time.Second)
			}
		}
	}()
}

func (k *keeper) dropFilter(f *filter) {
	for _, w := range k.traps { // of processes that died waiting
		if w.notify == f.fd {
			k.forget(w)
		}
	}
	k.discard(f.name)
}

// trapped puts a stopped call before the daemon if it is about a TCP socket of
// one of its children; any other goes on at once.
func (k *keeper) trapped(c call) {
	t, socket, err := trap.Look(c.Notification)
	var owner *Child
	if err == nil {
		owner = k.owner(t.PID)
	}
	if len(k.traps) >= k.capacity.traps {
		k.sweepTraps(0)
	}
	// Valid last: it proves that all of the above was read from the caller.
	if owner == nil || len(k.traps) >= k.capacity.traps || !trap.Valid(c.filter.fd, c.ID) {
		closeAll([]int{socket})
		_ = trap.Pass(c.filter.fd, c.ID)
		return
	}
	k.serial++
	t.Serial, t.Filter, t.Child, t.Tag = k.serial, c.filter.name, owner.PID, owner.Tag
	w := &waiting{t, c.filter.fd, socket}
	k.traps[t.Serial] = w
	k.postTrap(w)
}

// owner is the child that a process belongs to: by descent, or, if its parent
// has gone, by session.
func (k *keeper) owner(pid int) *Child {
	const deepest = 64
	session := 0
	for p, depth := pid, 0; p > 1 && depth < deepest; depth++ {
		if c := k.live[p]; c != nil {
			return c
		}
		st, err := readStat(p)
		if err != nil {
			break
		}
		if p == pid {
			session = st.session
		}
		p = st.parent
	}
	return k.live[session]
}

func (k *keeper) postTrap(w *waiting) {
	k.post(message{Type: msgTrap, Trap: &w.Trap}, func() ([]int, bool) {
		return []int{w.socket}, k.traps[w.Serial] == w
	})
}

// answer carries out a verdict. ENOENT: nobody waits any more. After any other
// error the call still waits and wants another verdict.
func (k *keeper) answer(p *packet) error {
	w := k.traps[p.Serial]
	if w == nil {
		return fmt.Errorf("answer trap %d: %w", p.Serial, unix.ENOENT)
	}
	if p.Verdict == nil {
		return fmt.Errorf("answer trap %d: the message has no verdict", p.Serial)
	}
	err := k.carryOut(w, p)
	if err == nil || errors.Is(err, unix.ENOENT) {
		k.forget(w)
	}
	if err != nil {
		return fmt.Errorf("answer %s of process %d: %w", w.Call, w.PID, err)
	}
	return nil
}

func (k *keeper) carryOut(w *waiting, p *packet) error {
	id := w.Notification.ID
	switch v := p.Verdict; v.Action {
	case trap.ActContinue:
		return trap.Pass(w.notify, id)
	case trap.ActErrno:
		return trap.Fail(w.notify, id, v.Errno)
	case trap.ActInject:
		if len(p.fds) == 0 {
			return errors.New("the message lacks a descriptor")
		}
		return trap.Replace(w.notify, id, p.fds[0], w.FD, v.CloseOnExec)
	default:
		return fmt.Errorf("the keeper does not know the verdict %q", v.Action)
	}
}

// sweepTraps forgets the traps that nobody waits in any more, those of one child
// or, for 0, of all.
func (k *keeper) sweepTraps(child int) {
	for _, w := range k.traps {
		if (child == 0 || w.Child == child) && !trap.Valid(w.notify, w.Notification.ID) {
			k.forget(w)
		}
	}
}

func (k *keeper) forget(w *waiting) {
	delete(k.traps, w.Serial)
	unix.Close(w.socket)
}
