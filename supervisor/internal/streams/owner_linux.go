package streams

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a descriptor of a process.
type place struct{ pid, fd int }

// search is for the owners of connections that have none.
type search struct {
	wanted map[uint64]*stream // by inode
	known  map[place]bool     // whose connection has an owner
}

// attribute finds owners for the connections that have none.
func (c *Counter) attribute(processes []Process, newcomers bool) {
	s := c.search(newcomers)
	if len(s.wanted) == 0 {
		return
	}
	c.look(processes, s, s.probe)
	// Who serves short requests has some that ended since the dump. They would
	// be reason for a thorough search at every Count.
	c.forgetEnded(s.wanted)
	c.look(processes, s, s.readAll)
	for _, w := range s.wanted {
		w.next = c.round + 1<<w.tries
		w.tries = min(w.tries+1, 5)
	}
}

// search begins one. Of the connections that were sought in vain before, some
// are on their way from one process to another, and some belong to strangers:
// they are sought again at growing distances, or when there are new processes.
func (c *Counter) search(newcomers bool) search {
	found := search{wanted: map[uint64]*stream{}, known: map[place]bool{}}
	for _, s := range c.streams {
		if s.owner != nil && s.owner.round != c.round {
			s.owner, s.tries, s.next = nil, 0, 0 // it is not asked for any more
		}
		if s.owner == nil && (newcomers || s.next <= c.round) {
			found.wanted[s.inode] = s
		}
	}
	if len(found.wanted) == 0 {
		return found
	}
	for _, s := range c.streams {
		if s.owner != nil {
			found.known[s.place] = true
		}
	}
	return found
}

// look goes through the processes until nothing is wanted any more.
func (c *Counter) look(processes []Process, s search, into func(*owner, int, *os.File)) {
	for _, p := range processes {
		for _, pid := range p.PIDs {
			if len(s.wanted) == 0 {
				return
			}
			dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
			if errors.Is(err, os.ErrPermission) {
				c.owners[p.Key].blind = true
			}
			if err != nil {
				continue // it has ended, or is not ours to look into
			}
			into(c.owners[p.Key], pid, dir)
			dir.Close()
		}
	}
}

// probe tries one number after the other and does not read the directory, which
// costs as much as counting does: the kernel gives a new descriptor the lowest
// number that is free, so it is among the known ones or soon after them.
func (s search) probe(o *owner, pid int, dir *os.File) {
	const gap = 64
	fd := int(dir.Fd())
	for n, missing := 0, 0; missing < gap && len(s.wanted) > 0; n++ {
		if s.known[place{pid, n}] || s.take(o, place{pid, n}, fd) {
			missing = 0
		} else {
			missing++
		}
	}
}

// readAll looks at every descriptor. Of the known ones too: a process may have
// passed on what it had, and have something new under the same number.
func (s search) readAll(o *owner, pid int, dir *os.File) {
	fd := int(dir.Fd())
	names, _ := dir.Readdirnames(-1) // an error: it ended meanwhile
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			s.take(o, place{pid, n}, fd)
		}
	}
}

// take gives the owner what is at a descriptor if it is wanted, and says
// whether there is such a descriptor.
func (s search) take(o *owner, at place, dir int) bool {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, strconv.Itoa(at.fd), buf[:])
	if err != nil {
		return false
	}
	inode, ok := inodeOf(string(buf[:n]))
	if w := s.wanted[inode]; ok && w != nil {
		w.owner, w.place, w.tries, w.next = o, at, 0, 0
		delete(s.wanted, inode)
	}
	return true
}

// inodeOf reads "socket:[123]".
func inodeOf(link string) (uint64, bool) {
	text, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
	return inode, err == nil
}

// forgetEnded drops those that the kernel does not have any more, or nobody.
func (c *Counter) forgetEnded(wanted map[uint64]*stream) {
	const many = 256 // a search costs less than so many questions
	if len(wanted) > many {
		return
	}
	for inode, s := range wanted {
		there := false
		err := c.ask(question{exact: &s.ident}, func(now *socket) { there = now.inode != 0 })
		if err == nil && !there {
			delete(wanted, inode)
			delete(c.streams, s.cookie())
		}
	}
}
