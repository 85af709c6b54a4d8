package logs

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poll wakes the readers of a Book whose pipes have output. Go's own poller is
// told of every write() of an app, also while its reader works or naps; here a
// pipe is watched only from arm to its next output (EPOLLONESHOT).
type poll struct {
	file *os.File // the epoll descriptor; Go's poller waits for it, no thread does
	raw  syscall.RawConn
	done chan struct{} // closed when nobody is woken any more

	mu    sync.Mutex // never held while anything waits
	ready map[int32]chan<- struct{}
}

// newPoll starts the one goroutine of a Book, which ends with close.
func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make poll of log pipes: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.NewFile keeps it out of Go's poller
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make poll of log pipes: %w", err)
	}
	p := &poll{
		file:  os.NewFile(uintptr(fd), "log pipes"),
		done:  make(chan struct{}),
		ready: map[int32]chan<- struct{}{},
	}
	if err = p.file.SetReadDeadline(time.Time{}); err == nil { // Go's poller has it
		p.raw, err = p.file.SyscallConn()
	}
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("make poll of log pipes: %w", err)
	}
	go p.run() // the Book's; ends when close, or an error of the kernel, closes file
	return p, nil
}

// run is the poll's goroutine.
func (p *poll) run() {
	defer close(p.done)
	defer p.file.Close()
	var events [64]unix.EpollEvent
	for {
		n, err := p.wait(events[:])
		if err != nil {
			return
		}
		p.mu.Lock()
		for _, e := range events[:n] {
			select {
			case p.ready[e.Fd] <- struct{}{}: // nil where the pipe was removed meanwhile
			default:
			}
		}
		p.mu.Unlock()
	}
}

// wait fills events with the pipes that have output, or have lost their last
// writer. An error: file is closed.
func (p *poll) wait(events []unix.EpollEvent) (n int, err error) {
	e := p.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.EpollWait(int(fd), events, 0); err != unix.EINTR {
				return n != 0 || err != nil
			}
		}
	})
	if e != nil {
		return 0, e
	}
	return n, err
}

// add makes p watch the pipe fd, armed. When it has output or no writer, ready
// gets one value per arm, if it has room; it may come late, or without a cause.
// The caller calls remove before fd is closed.
func (p *poll) add(fd int, ready chan<- struct{}) error {
	p.mu.Lock()
	p.ready[int32(fd)] = ready
	p.mu.Unlock()
	if err := p.control(unix.EPOLL_CTL_ADD, fd); err != nil {
		p.forget(fd)
		return fmt.Errorf("watch log pipe: %w", err)
	}
	return nil
}

// arm asks for one wake-up. What is in the pipe already counts: the kernel looks
// at it again on each EPOLL_CTL_MOD, so nothing is missed between a look of the
// reader and this.
func (p *poll) arm(fd int) error {
	if err := p.control(unix.EPOLL_CTL_MOD, fd); err != nil {
		return fmt.Errorf("watch log pipe: %w", err)
	}
	return nil
}

// remove is the opposite of add. To close fd is not enough: the kernel watches
// until the last duplicate is closed, and the keeper has one.
func (p *poll) remove(fd int) {
	_ = p.control(unix.EPOLL_CTL_DEL, fd) // fails where p is closed, and watches nothing
	p.forget(fd)
}

func (p *poll) forget(fd int) {
	p.mu.Lock()
	delete(p.ready, int32(fd))
	p.mu.Unlock()
}

func (p *poll) control(op, fd int) (err error) {
	e := p.raw.Control(func(ep uintptr) {
		err = unix.EpollCtl(int(ep), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)})
	})
	if e != nil {
		return e
	}
	return err
}

// close ends the goroutine and waits for it, which takes no time.
func (p *poll) close() {
	_ = p.file.Close() // closed already: the goroutine has ended
	<-p.done
}
