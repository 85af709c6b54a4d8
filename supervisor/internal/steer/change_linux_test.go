package steer

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"gpm/supervisor/internal/aim"
)

// descriptors are those of BPF and of records that this process has.
func descriptors(t *testing.T) (list []string) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range all {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.Contains(to, "bpf-") || strings.Contains(to, "gpm_order") {
			list = append(list, to)
		}
	}
	return list
}

// churn joins, routes and leaves at random, under load.
func churn(t *testing.T, s *Steerer, steps int, strict bool) {
	before := descriptors(t)
	defer func() {
		if after := descriptors(t); len(after) > len(before) {
			t.Errorf("descriptors before: %q, after: %q", before, after)
		}
	}()
	rng := rand.New(rand.NewPCG(1, 2))
	first := listen(t, "127.0.0.1:0").serve(0)
	addr := first.Addr.String()
	join(t, s, first, Serve)
	list, traffic := []*server{first}, map[*server]Traffic{first: Serve}
	c := newCrowd(t, addr, 4)
	serving := func() (n int) {
		for _, tr := range traffic {
			if tr == Serve {
				n++
			}
		}
		return n
	}
	for step := range steps {
		i := rng.IntN(len(list))
		l := list[i]
		switch rng.IntN(4) {
		case 0, 1:
			if len(list) < 8 {
				n := listen(t, addr).serve(step + 1)
				tr := []Traffic{Away, Serve, Queue}[rng.IntN(3)]
				join(t, s, n, tr)
				list, traffic[n] = append(list, n), tr
				break
			}
			fallthrough
		case 2:
			if traffic[l] != Serve || serving() > 1 {
				must(t, s.Route(l.Cookie, Away))
				traffic[l] = Away
			}
		case 3:
			if traffic[l] != Serve || serving() > 1 {
				delete(traffic, l)
				list = slices.Delete(list, i, i+1)
				c.gate.Lock() // nobody is in a queue
				if !strict {
					leave(s, l)
				}
				c.gate.Unlock()
				if strict { // under load
					leave(s, l)
				}
			} else {
				must(t, s.Route(l.Cookie, Serve))
			}
		}
		for _, l := range list {
			if traffic[l] == Queue && serving() == 0 {
				t.Fatal("nobody serves")
			}
		}
		c.gate.Lock()
		before := map[*server]int{}
		for l, tr := range traffic {
			if tr != Serve {
				before[l] = l.count()
			}
		}
		c.gate.Unlock()
		c.more(t, 40)
		c.gate.Lock()
		for l, n := range before {
			if now := l.count(); now != n {
				t.Fatalf("step %d: a listener that is %s got %d connections", step, traffic[l], now-n)
			}
		}
		c.gate.Unlock()
	}
	c.check(t)
	for _, l := range list {
		leave(s, l)
	}
}

func TestNobodyFailsUnderChange(t *testing.T) {
	s, k := open(t, EBPF)
	churn(t, s, 80, true)
	if len(k.files) != 0 || len(s.Files()) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
	if told := k.told(); len(told) > 0 {
		t.Error(told)
	}
}

func TestRestartUnderLoad(t *testing.T) {
	s, k := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	hold(t, addr, 100)
	must(t, s.Route(list[3].Cookie, Away))
	away := list[3].count()
	c := newCrowd(t, addr, 4)
	for range 5 {
		c.more(t, 100)
		next := k.restart(t, EBPF)
		die(s)
		s = next
		for i, l := range list {
			join(t, s, l, map[bool]Traffic{true: Away, false: Serve}[i == 3])
			c.more(t, 20)
		}
		if got := s.Mark().loads[list[3].Cookie]; got != 25 { // its share of those that are held
			t.Errorf("the load was 25 and is %d", got)
		}
		s.Prune()
		must(t, s.Verify(site, inodes(list)))
		wantHow(t, s, "least (eBPF)")
	}
	c.check(t)
	if got := list[3].count(); got != away {
		t.Errorf("the listener that is away got %d", got-away)
	}
	for _, l := range list {
		leave(s, l)
	}
	if len(k.files) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
}

// A listener that was closed while no daemon lived leaves a slot.
func TestRestartWithoutOne(t *testing.T) {
	s, k := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	die(s)
	list[1].stop()
	s = k.restart(t, EBPF)
	for _, i := range []int{0, 2, 3} {
		join(t, s, list[i], Serve)
	}
	fresh := listen(t, addr).serve(9)
	join(t, s, fresh, Serve)
	if mark(t, s, fresh) != aim.IPv4(1) {
		t.Error("the slot of the dead was not free")
	}
	for _, l := range []*server{list[0], list[2], list[3], fresh} {
		if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
			t.Errorf("server %d answered for %d", got, l.id)
		}
	}
}

func TestNobodyComesBack(t *testing.T) {
	s, k := open(t, EBPF)
	list, _ := four(t, s, "127.0.0.1")
	die(s)
	for _, l := range list {
		l.stop()
	}
	s = k.restart(t, EBPF)
	if len(s.Files()) != 2 {
		t.Errorf("files: %v", s.Files())
	}
	s.Prune()
	if len(s.Files()) != 0 || len(k.files) != 0 {
		t.Errorf("the keeper still has %v", k.files)
	}
}

// Keeper and daemon are killed: the maps live in the old program only.
func TestMapsAreLost(t *testing.T) {
	s, k := open(t, EBPF)
	list, addr := four(t, s, "127.0.0.1")
	c := newCrowd(t, addr, 2)
	c.more(t, 20)
	die(s)
	for name, f := range k.files {
		f.Close()
		delete(k.files, name)
	}
	s = New(k.options(EBPF))
	for _, l := range list {
		join(t, s, l, Serve)
	}
	until(t, "the last program is freed", func() bool {
		must(t, s.Correct(s.Mark(), nil))
		return s.How(site) == "least (eBPF)"
	})
	c.check(t)
	for _, l := range list {
		if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
			t.Errorf("server %d answered for %d", got, l.id)
		}
	}
}

func TestForeignMaps(t *testing.T) {
	s, k := open(t, EBPF)
	null, err := os.Open(os.DevNull)
	must(t, err)
	must(t, s.Restore(storeName(site, "slots"), null))
	l := listen(t, "127.0.0.1:0").serve(1)
	join(t, s, l, Serve)
	if len(k.told()) == 0 {
		t.Error("nobody was told that the maps are useless")
	}
	if got := ask(t, l.Addr.String(), mark(t, s, l)); got != 1 || len(k.files) != 2 {
		t.Errorf("server %d; the keeper has %v", got, k.files)
	}
}
