package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What the program of a group reads, and how it is laid out. The slots map is
// an array of one element: a header and one word for each slot. It is mapped
// into this process too (BPF_F_MMAPABLE, Linux 5.5), so that both sides change
// words atomically; the map's system calls could only overwrite them, and lose
// the connections that came in between.
//
//	header  bits 0-15 slots in use (the highest and those below), 16-31 how to
//	        choose, 48-63 layout
//	word    bits 0-39 load, 40 queue, 41 away
const (
	loadBits  = 40
	loadMask  = 1<<loadBits - 1
	queueBit  = 1 << loadBits
	awayBit   = 1 << (loadBits + 1)
	indexBits = 10 // of a slot, in the program's keys
	layout    = 1
	tableSize = 8 + 8*maxSlots
)

// How to choose, in the header.
const (
	chooseLeast = iota
	chooseRandom
	chooseHash
	chooseKernel // the kernel's own hash over all sockets, strangers included
)

var hostLittle = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// slots are the two maps of a group: which socket is in which slot, and what
// each slot gets.
type slots struct {
	socks *ebpf.Map
	table *ebpf.Map
	mem   []byte
	file  map[string]*os.File // the same two, for the keeper
}

func newSlots() (*slots, error) {
	s, err := makeSlots()
	if raised(err) {
		s, err = makeSlots()
	}
	return s, err
}

func makeSlots() (*slots, error) {
	socks, err := ebpf.NewMap(&ebpf.MapSpec{Name: "gpm_socks", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: maxSlots})
	if err != nil {
		return nil, fmt.Errorf("make the map of sockets: %w", err)
	}
	table, err := ebpf.NewMap(&ebpf.MapSpec{Name: "gpm_slots", Type: ebpf.Array, KeySize: 4, ValueSize: tableSize, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		socks.Close()
		return nil, fmt.Errorf("make the map of slots: %w", err)
	}
	s := &slots{socks: socks, table: table, file: map[string]*os.File{}}
	for part, m := range map[string]*ebpf.Map{"socks": socks, "slots": table} {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("duplicate the map of %s: %w", part, err)
		}
		s.file[part] = os.NewFile(uintptr(fd), "gpm_"+part)
	}
	if err := s.mapTable(); err != nil {
		s.close()
		return nil, err
	}
	for i := range maxSlots {
		atomic.StoreUint64(s.word(i), awayBit)
	}
	s.setHeader(0, chooseKernel)
	return s, nil
}

// oldSlots takes the maps that an earlier daemon made. It takes the files only
// if it succeeds.
func oldSlots(files map[string]*os.File) (*slots, error) {
	s := &slots{}
	for part, to := range map[string]**ebpf.Map{"socks": &s.socks, "slots": &s.table} {
		if files[part] == nil {
			s.close()
			return nil, fmt.Errorf("restore the map of %s: it is not there", part)
		}
		fd, err := duplicate(files[part])
		if err == nil {
			*to, err = ebpf.NewMapFromFD(fd)
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("restore the map of %s: %w", part, err)
		}
	}
	if s.socks.Type() != ebpf.ReusePortSockArray || s.socks.MaxEntries() != maxSlots || s.socks.ValueSize() != 8 ||
		s.table.Type() != ebpf.Array || s.table.ValueSize() != tableSize {
		s.close()
		return nil, errors.New("restore the maps: another gpm made them differently")
	}
	if err := s.mapTable(); err != nil {
		s.close()
		return nil, err
	}
	if h := atomic.LoadUint64(s.header()); h>>48 != layout {
		s.close()
		return nil, fmt.Errorf("restore the maps: layout %d, not %d", h>>48, layout)
	}
	s.file = files
	return s, nil
}

func (s *slots) mapTable() error {
	mem, err := unix.Mmap(s.table.FD(), 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the slots into memory: %w", err)
	}
	s.mem = mem
	return nil
}

func (s *slots) close() {
	if s.mem != nil {
		_ = unix.Munmap(s.mem)
		s.mem = nil
	}
	for _, m := range []*ebpf.Map{s.socks, s.table} {
		if m != nil {
			m.Close()
		}
	}
	for _, f := range s.file {
		f.Close()
	}
}

func (s *slots) header() *uint64    { return (*uint64)(unsafe.Pointer(&s.mem[0])) }
func (s *slots) word(i int) *uint64 { return (*uint64)(unsafe.Pointer(&s.mem[8+8*i])) }

func (s *slots) inUse() int { return min(maxSlots, int(atomic.LoadUint64(s.header())&0xffff)) }

func (s *slots) setHeader(used, choose int) {
	atomic.StoreUint64(s.header(), layout<<48|uint64(choose)<<16|uint64(used))
}

func class(t Traffic) uint64 {
	switch t {
	case Serve:
		return 0
	case Queue:
		return queueBit
	}
	return awayBit
}

func (s *slots) traffic(i int) Traffic {
	switch w := atomic.LoadUint64(s.word(i)); {
	case w&awayBit != 0:
		return Away
	case w&queueBit != 0:
		return Queue
	}
	return Serve
}

// setTraffic leaves the load as it is.
func (s *slots) setTraffic(i int, t Traffic) {
	s.change(i, func(w uint64) uint64 { return class(t) | w&loadMask })
}

func (s *slots) load(i int) int64 { return int64(atomic.LoadUint64(s.word(i)) & loadMask) }

// addLoad never goes below zero.
func (s *slots) addLoad(i int, n int64) {
	s.change(i, func(w uint64) uint64 {
		return w&^loadMask | uint64(min(max(0, int64(w&loadMask)+n), loadMask))
	})
}

func (s *slots) change(i int, f func(uint64) uint64) {
	for p := s.word(i); ; {
		if old := atomic.LoadUint64(p); atomic.CompareAndSwapUint64(p, old, f(old)) {
			return
		}
	}
}

// put makes a socket that of a slot. EBUSY: it is in another map still, or in
// another slot.
func (s *slots) put(i int, socket *os.File) error {
	return with(socket, func(fd int) error { return s.socks.Put(uint32(i), uint64(fd)) })
}

// cookie is whose slot it is; 0 if nobody's. The kernel takes a socket out when
// its last copy is closed, or it is shut down.
func (s *slots) cookie(i int) (c uint64) {
	if s.socks.Lookup(uint32(i), &c) != nil {
		return 0
	}
	return c
}

// empty takes the socket out of a slot, if it is still there.
func (s *slots) empty(i int) {
	atomic.StoreUint64(s.word(i), awayBit)
	_ = s.socks.Delete(uint32(i)) // ENOENT: it was closed
}
