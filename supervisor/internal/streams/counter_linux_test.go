package streams

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

func TestCountsEachProcess(t *testing.T) {
	needIPv6(t)
	servers := map[string]*child{
		"v4":   startChild(t, "tcp4", "127.0.0.1:0"),
		"v6":   startChild(t, "tcp6", "[::1]:0"),
		"dual": startChild(t, "tcp", ":0"),
		"none": startChild(t, "tcp4", "127.0.0.1:0"),
	}
	q := Query{}
	for key, s := range servers {
		q.Ports = append(q.Ports, s.port)
		q.Processes = append(q.Processes, s.process(key))
	}
	q.Processes = append(q.Processes, Process{Key: "dead", PIDs: []int{1 << 30}})
	dialTo(t, "127.0.0.1", servers["v4"].port, 3)
	servers["v4"].tell("accept 3")
	dialTo(t, "::1", servers["v6"].port, 2)
	servers["v6"].tell("accept 2")
	dialTo(t, "127.0.0.1", servers["dual"].port, 1)
	dialTo(t, "::1", servers["dual"].port, 1)
	servers["dual"].tell("accept 2")

	c := newCounter(t)
	begin := time.Now()
	for range 2 { // searched, then remembered
		r := count(t, c, q)
		for key, want := range map[string]int{"v4": 3, "v6": 2, "dual": 2, "none": 0, "dead": 0} {
			n, ok := r.By[key]
			if !ok || n.Streams != want || n.Live != 0 || !n.Sent.IsZero() {
				t.Errorf("%s: %+v, want %d streams", key, n, want)
			}
			if n.Oldest.IsZero() != (want == 0) || want > 0 && n.Oldest.Before(begin) || n.Ages[0] != want {
				t.Errorf("%s: ages %v, oldest %v", key, n.Ages, n.Oldest)
			}
		}
		if r.Unowned != 0 || len(r.Listeners) != len(servers) {
			t.Errorf("%d unowned, listeners %v", r.Unowned, r.Listeners)
		}
	}

	q.Ports = []uint16{servers["v6"].port}
	if r := count(t, c, q); r.By["v6"].Streams != 2 || r.By["v4"].Streams != 0 || len(r.Listeners) != 1 {
		t.Errorf("one port only: %+v", r)
	}
	q.Ports = nil
	if r := count(t, c, q); r.By["v6"].Streams != 0 || len(r.By) != 5 || len(r.Listeners) != 0 || len(c.streams) != 0 {
		t.Errorf("no port: %+v", r)
	}
}

// The kernel filters a few ports, more of them are filtered here.
func TestManyPorts(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	other := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 2)
	srv.tell("accept 2")
	dialTo(t, "127.0.0.1", other.port, 1)
	other.tell("accept 1")
	c := newCounter(t)
	q := Query{Processes: []Process{srv.process("a"), other.process("b")}}
	for _, n := range []int{1, 2, 3, 63, 64, 65, 1000} {
		q.Ports = []uint16{srv.port}
		for p := uint16(1); len(q.Ports) < n; p++ { // nobody has these
			q.Ports = append(q.Ports, p)
		}
		r := count(t, c, q)
		mine := 0
		for _, l := range r.Listeners {
			if l.Addr.Port() == srv.port {
				mine++
			}
		}
		if r.By["a"].Streams != 2 || r.By["b"].Streams != 0 || mine != 1 {
			t.Errorf("%d ports: %+v", n, r)
		}
	}
}

// The kernel does filter: without, a Count would cost more but be as right.
func TestKernelFilters(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	other := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 2) // their own ends are other ports
	c := newCounter(t)
	until(t, "the server's side is connected as well", func() bool {
		l, _, err := Listeners(srv.port)
		return err == nil && len(l) == 1 && l[0].Queue == 2
	})
	for _, ports := range [][]uint16{{srv.port}, {1, srv.port}, {srv.port, 65535}, {1, 2, srv.port, 65534, 65535}} {
		q := question{states: allListeners | allStreams, ports: ports}
		answers, err := c.conn.Execute(netlink.Message{
			Header: netlink.Header{Type: tcpdiagGetsock, Flags: netlink.Request | netlink.Dump},
			Data:   q.encode(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range answers {
			var s socket
			if err := s.decode(m.Data); err != nil || s.port != srv.port {
				t.Errorf("asked for %v: a socket on port %d, not %d or %d: %v", ports, s.port, srv.port, other.port, err)
			}
		}
		if len(answers) != 3 {
			t.Errorf("asked for %v: %d sockets, want a listener and 2 connections", ports, len(answers))
		}
	}
}

// A new connection is found without reading the directory.
func TestProbe(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}}
	p := srv.process("a")
	dialTo(t, "127.0.0.1", srv.port, 100)
	srv.tell("accept 100")
	count(t, c, q)
	q.Processes = []Process{p}
	c.list(q)
	s := c.search(true)
	c.look(q.Processes, s, s.probe)
	if len(s.wanted) != 0 {
		t.Errorf("%d of 100 are not found", len(s.wanted))
	}
}

// What waits to be accepted is in the listener's queue, and nobody's stream.
func TestQueue(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	c := newCounter(t)
	conns := dialTo(t, "127.0.0.1", srv.port, 3)
	conns[2].CloseWrite() // CLOSE_WAIT and not accepted: no stream either
	var r Reading
	see := func(queue, streams int) {
		t.Helper()
		until(t, "queue of "+strconv.Itoa(queue), func() bool {
			r = count(t, c, q)
			return len(r.Listeners) == 1 && r.Listeners[0].Queue == queue
		})
		if r.Queued[r.Listeners[0].Inode] != queue || r.By["a"].Streams != streams || r.Unowned != 0 {
			t.Errorf("%d of 3 waiting: %+v", queue, r)
		}
	}
	see(3, 0)
	srv.tell("accept 1")
	see(2, 1)
	srv.tell("accept 2")
	see(0, 3)
}

func TestHalfClosed(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	c := newCounter(t)
	conns := dialTo(t, "127.0.0.1", srv.port, 3)
	srv.tell("accept 3")
	srv.tell("half 0")    // FIN_WAIT of a descriptor that is still open
	conns[1].CloseWrite() // CLOSE_WAIT
	if r := count(t, c, q); r.By["a"].Streams != 3 {
		t.Errorf("half closed are not counted: %+v", r)
	}
	// Closed by the server and not by the client: FIN_WAIT that nobody has.
	srv.tell("close 3")
	if r := count(t, c, q); r.By["a"].Streams != 0 || r.Unowned != 0 || r.Queued[r.Listeners[0].Inode] != 0 {
		t.Errorf("closed ones are counted: %+v", r)
	}
}

func TestLiveAndSent(t *testing.T) {
	const idle = 30 * time.Millisecond
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	conns := dialTo(t, "127.0.0.1", srv.port, 2)
	srv.tell("accept 2")
	c := newCounter(t)
	ask := func(idle time.Duration) Count {
		t.Helper()
		return count(t, c, Query{
			Ports:     []uint16{srv.port},
			Processes: []Process{srv.process("a")},
			Closely:   map[string]time.Duration{"a": idle},
		}).By["a"]
	}
	if n := ask(time.Hour); n.Live != 2 || !n.Sent.IsZero() {
		t.Errorf("connected, nothing said: %+v", n)
	}
	until(t, "both are idle", func() bool { return ask(idle).Live == 0 })

	// From here on the second one has been idle for long enough for ever.
	alive := func(who string, speak func()) (n Count) {
		t.Helper()
		until(t, "only one is live: "+who, func() bool {
			speak()
			if n = ask(idle); n.Live > 1 {
				t.Fatalf("%s: %+v", who, n)
			}
			return n.Live == 1
		})
		return n
	}
	n := alive("what its client says counts", func() { conns[0].Write([]byte{'x'}); srv.tell("receive 0") })
	if !n.Sent.IsZero() {
		t.Errorf("the server sent nothing: %+v", n)
	}
	until(t, "both are idle again", func() bool { return ask(idle).Live == 0 })

	const tick = 20 * time.Millisecond // the kernel's clock: at least 100 Hz
	var before time.Time
	began := time.Now()
	n = alive("what its server says counts", func() {
		srv.tell("send 0")
		before, began = began, time.Now()
	})
	took := time.Since(began)
	if n.Sent.Before(before.Add(-took-tick)) || n.Sent.After(time.Now().Add(tick)) {
		t.Errorf("sent at %v, want between %v and now", n.Sent, before)
	}
	until(t, "all are idle", func() bool { return ask(idle).Live == 0 })
	if late := ask(idle); late.Sent.After(n.Sent.Add(took+tick)) || late.Sent.IsZero() {
		t.Errorf("sent at %v, later %v", n.Sent, late.Sent)
	}

	// Of others it is not told.
	if r := count(t, c, Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")},
		Closely: map[string]time.Duration{"b": time.Hour}}); r.By["a"].Live != 0 || !r.By["a"].Sent.IsZero() {
		t.Errorf("not asked for: %+v", r.By["a"])
	}
}

func TestDescriptorIsReused(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	c := newCounter(t)
	dialTo(t, "127.0.0.1", srv.port, 1)
	srv.tell("accept 1")
	fd := srv.tell("fd 0")
	first := count(t, c, q).By["a"]
	srv.tell("close 1")
	dialTo(t, "127.0.0.1", srv.port, 1)
	srv.tell("accept 1")
	if again := srv.tell("fd 0"); again != fd {
		t.Fatalf("descriptor %s, then %s", fd, again)
	}
	r := count(t, c, q)
	if n := r.By["a"]; n.Streams != 1 || r.Unowned != 0 || !n.Oldest.After(first.Oldest) {
		t.Errorf("first %+v, then %+v", first, r)
	}
}

// A server that accepts, passes the connection to a child and accepts the next
// one under the same number.
func TestPassedOn(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 2)
	srv.tell("accept 1")
	fd := srv.tell("fd 0")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	first := count(t, c, q)

	pid, _ := strconv.Atoi(srv.tell("pass 0"))
	srv.tell("accept 1")
	if again := srv.tell("fd 1"); again != fd {
		t.Fatalf("descriptor %s, then %s", fd, again)
	}
	q.Processes = []Process{srv.process("a", pid)}
	r := count(t, c, q)
	if n := r.By["a"]; n.Streams != 2 || r.Unowned != 0 || n.Oldest != first.By["a"].Oldest {
		t.Errorf("first %+v, passed on %+v", first, r)
	}
	// A Counter that comes later finds them where they are now.
	if r := count(t, newCounter(t), q); r.By["a"].Streams != 2 || r.Unowned != 0 {
		t.Errorf("late: %+v", r)
	}
	// If the child is somebody else's it is not the one who had it first.
	q.Processes = []Process{srv.process("a"), {Key: "b", PIDs: []int{pid}}}
	if r := count(t, newCounter(t), q); r.By["a"].Streams != 1 || r.By["b"].Streams != 1 {
		t.Errorf("of two: %+v", r)
	}
}

func TestSharedCountsOnce(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 2)
	srv.tell("accept 2")
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("first", srv.pid), srv.process("second")}}
	c := newCounter(t)
	for range 2 {
		if r := count(t, c, q); r.By["first"].Streams != 2 || r.By["second"].Streams != 0 || r.Unowned != 0 {
			t.Errorf("%+v", r)
		}
	}
	// An owner that is not asked for any more owns nothing.
	q.Processes = q.Processes[1:]
	if r := count(t, c, q); r.By["second"].Streams != 2 || len(r.By) != 1 {
		t.Errorf("%+v", r)
	}
	q.Processes = nil
	if r := count(t, c, q); r.Unowned != 2 {
		t.Errorf("%+v", r)
	}
}

// Whoever was sought in vain is found when its process is known, at once; and
// later even if nothing seems to have changed.
func TestFoundLater(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	other := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 1)
	srv.tell("accept 1")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{other.process("other")}}
	for range 10 {
		if r := count(t, c, q); r.Unowned != 1 {
			t.Fatalf("%+v", r)
		}
	}
	q.Processes = append(q.Processes, srv.process("a"))
	if r := count(t, c, q); r.Unowned != 0 || r.By["a"].Streams != 1 {
		t.Errorf("%+v", r)
	}

	c.list(q)
	for _, s := range c.streams {
		s.owner, s.tries, s.next = nil, 5, c.round+32
	}
	for n := 1; count(t, c, q).Unowned > 0; n++ {
		if n > 32 {
			t.Fatal("it is not sought any more")
		}
	}
}

func TestUnreadableProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 2)
	srv.tell("accept 2")
	q, err := json.Marshal(Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=counter")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(q), os.Stderr
	cmd.SysProcAttr = asNobody()
	cmd.Dir = "/"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r Reading
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if n, ok := r.By["a"]; !ok || n.Streams != 0 || r.Unowned != 2 || len(r.Listeners) != 1 {
		t.Errorf("%+v", r)
	}
}

// Connections that come and go leave nothing behind, be they owned or not.
func TestChurnIsForgotten(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	dialTo(t, "127.0.0.1", srv.port, 1)
	srv.tell("accept 1")
	oldest := count(t, c, q).By["a"].Oldest
	for i := range 50 {
		q.Processes = []Process{srv.process("a"), {Key: strconv.Itoa(i)}}
		for range 3 { // the last ones are there when it counts
			dialTo(t, "127.0.0.1", srv.port, 20)
			srv.tell("keep 1")
			srv.tell("accept 20")
		}
		r := count(t, c, q)
		if n := r.By["a"]; n.Streams != 21 || r.Unowned != 0 || n.Oldest != oldest {
			t.Fatalf("round %d: %+v", i, r)
		}
		if len(c.streams) != 21 || len(c.owners) != 2 || len(c.pids) != 1 {
			t.Fatalf("round %d: remembers %d streams, %d owners, %d pids", i, len(c.streams), len(c.owners), len(c.pids))
		}
	}
}

// A connection that ended between the dump and the search is nobody's.
func TestEndedMeanwhile(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 3)
	srv.tell("accept 3")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}}
	if r := count(t, c, q); r.Unowned != 3 {
		t.Fatalf("%+v", r)
	}
	srv.tell("close 1")
	c.attribute(nil, true)
	if len(c.streams) != 2 {
		t.Errorf("%d remembered, want the 2 that exist", len(c.streams))
	}
	if c.conn == nil {
		t.Error("a connection that does not exist is taken for a failure")
	}
}

func TestAges(t *testing.T) {
	now := time.Now()
	o := owner{count: Count{Ages: make([]int, len(Bounds)+1)}}
	for _, age := range []time.Duration{0, 9 * time.Second, 10 * time.Second, 59 * time.Second, time.Minute,
		11 * time.Minute, time.Hour, 30 * time.Hour} {
		o.add(&stream{since: now.Add(-age)}, now)
	}
	want := []int{2, 2, 1, 1, 2}
	for i := range want {
		if o.count.Ages[i] != want[i] {
			t.Errorf("ages %v, want %v", o.count.Ages, want)
			break
		}
	}
	if o.count.Streams != 8 || !o.count.Oldest.Equal(now.Add(-30*time.Hour)) {
		t.Errorf("%+v", o.count)
	}
}

// A failure is not for ever.
func TestFailureIsTriedAgain(t *testing.T) {
	srv := startChild(t, "tcp4", "127.0.0.1:0")
	dialTo(t, "127.0.0.1", srv.port, 1)
	srv.tell("accept 1")
	c := newCounter(t)
	q := Query{Ports: []uint16{srv.port}, Processes: []Process{srv.process("a")}}
	first := count(t, c, q)
	c.conn.Close()
	if _, err := c.Count(q); err == nil {
		t.Fatal("it counts with a closed socket")
	}
	if r := count(t, c, q); r.By["a"].Streams != 1 || r.By["a"].Oldest != first.By["a"].Oldest {
		t.Errorf("first %+v, then %+v", first, r)
	}
}
