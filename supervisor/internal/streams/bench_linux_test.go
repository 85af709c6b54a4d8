package streams

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd starts a server in a process of its own that has n connections.
func crowd(b *testing.B, n int) *child {
	b.Helper()
	srv := startChild(b, "tcp4", "127.0.0.1:0")
	for done := 0; done < n; {
		some := min(n-done, 500) // of what fits into the queue
		dialTo(b, "127.0.0.1", srv.port, some)
		srv.tell("accept %d", some)
		done += some
	}
	return srv
}

var crowds = []int{0, 1000, 10_000}

func BenchmarkCount(b *testing.B) {
	for _, n := range crowds {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			srv := crowd(b, n)
			q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
			closely := q
			closely.Closely = map[string]time.Duration{"a": time.Second}
			b.Run("first", func(b *testing.B) { first(b, q, n) })
			b.Run("steady", func(b *testing.B) { steady(b, q, n) })
			b.Run("steady closely", func(b *testing.B) { steady(b, closely, n) })
			b.Run("one new each", func(b *testing.B) { oneNew(b, q, srv, n) })
			b.Run("one stranger each", func(b *testing.B) { oneStranger(b, q, n) })
		})
	}
}

// first is what a daemon does that has just started.
func first(b *testing.B, q Query, n int) {
	for b.Loop() {
		b.StopTimer()
		c := newCounter(b)
		b.StartTimer()
		expect(b, count(b, c, q), n)
		b.StopTimer()
		c.Close()
		b.StartTimer()
	}
}

func steady(b *testing.B, q Query, n int) {
	c := newCounter(b)
	count(b, c, q)
	for b.Loop() {
		expect(b, count(b, c, q), n)
	}
}

// oneNew has one connection replaced between two counts.
func oneNew(b *testing.B, q Query, srv *child, n int) {
	c := newCounter(b)
	count(b, c, q)
	for b.Loop() {
		b.StopTimer()
		dialTo(b, "127.0.0.1", srv.port, 1)
		srv.tell("accept 1")
		if n > 0 {
			srv.tell("close 1")
		} else {
			n++
		}
		b.StartTimer()
		expect(b, count(b, c, q), n)
	}
}

// oneStranger has a connection of a stranger appear between two counts: all
// descriptors are looked through for it.
func oneStranger(b *testing.B, q Query, n int) {
	other := startChild(b, "tcp4", "127.0.0.1:0")
	q.Ports = append([]uint16{other.port}, q.Ports...)
	c := newCounter(b)
	count(b, c, q)
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		dialTo(b, "127.0.0.1", other.port, 1)
		other.tell("accept 1")
		if i > 0 {
			other.tell("close 1")
		}
		b.StartTimer()
		if r := count(b, c, q); r.Unowned == 0 || r.By["a"].Streams < n {
			b.Fatal(r.Unowned, r.By)
		}
	}
}

func expect(b *testing.B, r Reading, n int) {
	b.Helper()
	if got := r.By["a"].Streams; got < n {
		b.Fatalf("%d of %d streams", got, n)
	}
}

// BenchmarkDump and BenchmarkDumpBare are the price of the library: the bare
// one does all that is needed to get at the same messages, in one buffer.
func BenchmarkDump(b *testing.B) {
	srv := crowd(b, 10_000)
	conn, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for name, q := range dumps(srv.port) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := ask(conn, q, func(s *socket) { n++ }); err != nil || n < 10_000 {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkDumpBare(b *testing.B) {
	srv := crowd(b, 10_000)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	for name, q := range dumps(srv.port) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := bare(b, fd, q, buf); n < 10_000 {
					b.Fatal(n)
				}
			}
		})
	}
}

// dumps are the ways to ask for connections on one port.
func dumps(port uint16) map[string]question {
	other := make([]uint16, 65) // too many for the kernel
	for i := range other {
		other[i] = uint16(i)
	}
	return map[string]question{
		"filtered by the kernel": {states: allStreams, ports: []uint16{port}},
		"filtered here":          {states: allStreams, ports: append(other, port)},
		"tcp_info":               {states: allStreams, ports: []uint16{port}, info: true},
	}
}

func bare(b *testing.B, fd int, q question, buf []byte) (n int) {
	data := q.encode()
	m := make([]byte, 16, 16+len(data))
	binary.NativeEndian.PutUint32(m, uint32(16+len(data)))
	binary.NativeEndian.PutUint16(m[4:], tcpdiagGetsock)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, append(m, data...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		b.Fatal(os.NewSyscallError("sendto", err))
	}
	var s socket
	for {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			b.Fatal(os.NewSyscallError("recvfrom", err))
		}
		for m := buf[:size]; len(m) >= 16; {
			length := int(binary.NativeEndian.Uint32(m))
			if binary.NativeEndian.Uint16(m[4:]) == unix.NLMSG_DONE {
				return n
			}
			if err := s.decode(m[16:length]); err != nil {
				b.Fatal(err)
			}
			if q.has(s.port) {
				n++
			}
			m = m[min((length+3)&^3, len(m)):]
		}
	}
}
