package sock

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gpm/supervisor/internal/steer"
)

func at(s string) key { return key{addr: netip.MustParseAddrPort(s)} }

func only6(s string) key { return key{addr: netip.MustParseAddrPort(s), only6: true} }

func TestOverlapFollowsTheKernelsRules(t *testing.T) {
	other := at("0.0.0.0:80")
	other.ns = 7
	for _, c := range []struct {
		a, b key
		want bool
	}{
		{at("0.0.0.0:80"), at("0.0.0.0:80"), true},
		{at("0.0.0.0:80"), at("0.0.0.0:81"), false},
		{at("0.0.0.0:80"), at("127.0.0.1:80"), true},
		{at("127.0.0.2:80"), at("127.0.0.1:80"), false},
		{at("[::]:80"), at("0.0.0.0:80"), true},
		{at("[::]:80"), at("127.0.0.1:80"), true},
		{only6("[::]:80"), at("0.0.0.0:80"), false},
		{only6("[::]:80"), at("[::]:80"), true},
		{only6("[::]:80"), at("[::1]:80"), true},
		{at("[::1]:80"), at("0.0.0.0:80"), false},
		{at("[::1]:80"), at("127.0.0.1:80"), false},
		{at("[::ffff:127.0.0.1]:80"), at("127.0.0.1:80"), true},
		{at("[::ffff:127.0.0.1]:80"), at("[::]:80"), true},
		{at("[::ffff:127.0.0.1]:80"), only6("[::]:80"), false},
		{at("[fe80::1%2]:80"), at("[fe80::1%3]:80"), false},
		{at("0.0.0.0:80"), other, false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("overlap(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
		}
		if got := overlap(c.b, c.a); got != c.want {
			t.Errorf("overlap(%v, %v) = %v, want %v", c.b, c.a, got, c.want)
		}
	}
}

// record is a row of the model: what the table should hold, in the plainest form.
type record struct {
	Cookie    uint64
	Place     string
	Addr      string
	Listening bool
	Gens      []int
}

func (r record) others(gen int) bool {
	return slices.ContainsFunc(r.Gens, func(g int) bool { return g != gen })
}

type model struct {
	rows    []record
	settled map[string]int
}

// takeover is the row that a bind gets by the rule as it is told, 0: none.
func (m *model) takeover(place, addr string, gen int, steered bool) uint64 {
	for _, ok := range []func(record) bool{
		func(r record) bool { return r.Listening && !r.others(gen) },
		func(r record) bool { return r.Listening && !steered },
		func(r record) bool { return !r.others(gen) },
		func(record) bool { return !steered },
	} {
		for _, r := range m.rows { // the lowest cookie comes first
			if r.Place == place && r.Addr == addr && ok(r) {
				return r.Cookie
			}
		}
	}
	return 0
}

func (m *model) row(cookie uint64) *record {
	for i := range m.rows {
		if m.rows[i].Cookie == cookie {
			return &m.rows[i]
		}
	}
	return nil
}

func (m *model) has(place string) bool {
	return slices.ContainsFunc(m.rows, func(r record) bool { return r.Place == place })
}

func (m *model) keepIf(ok func(record) bool) {
	m.rows = slices.DeleteFunc(m.rows, func(r record) bool { return !ok(r) })
}

func (m *model) down(place string, gen int) {
	if m.settled[place] == gen {
		delete(m.settled, place)
	}
	for i := range m.rows {
		if m.rows[i].Place == place {
			m.rows[i].Gens = slices.DeleteFunc(m.rows[i].Gens, func(g int) bool { return g == gen })
		}
	}
}

func (m *model) retire(place string, gen int) {
	m.down(place, gen)
	m.keepIf(func(r record) bool {
		needed := len(r.Gens) > 0
		waited := r.Listening && m.settled[place] == 0
		return r.Place != place || needed || waited
	})
}

// contents is the table as rows of the model.
func contents(tb *table) []record {
	var out []record
	for p, r := range tb.rooms {
		for _, e := range r.held {
			rec := record{Cookie: e.cookie, Place: fmt.Sprint(p.app, p.index), Addr: e.key.addr.String(), Listening: e.listening}
			for g := range e.gens {
				rec.Gens = append(rec.Gens, g)
			}
			out = append(out, rec)
		}
	}
	return normal(out)
}

func normal(rows []record) []record {
	out := []record{}
	for _, r := range rows {
		r.Gens = slices.Sorted(slices.Values(r.Gens))
		if len(r.Gens) == 0 {
			r.Gens = nil
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b record) int { return cmp.Compare(a.Cookie, b.Cookie) })
	return out
}

// play is one run of the table beside its model.
type play struct {
	tb      *table
	m       *model
	steered bool
	cookies uint64
	away    map[string]bool // places of which some generation was turned away
}

func (y *play) place(t *rapid.T) (place, string) {
	p := place{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), rapid.IntRange(0, 1).Draw(t, "index")}
	return p, fmt.Sprint(p.app, p.index)
}

func (y *play) gen(t *rapid.T) int { return rapid.IntRange(1, 4).Draw(t, "gen") }

func (y *play) bind(t *rapid.T) {
	p, name := y.place(t)
	addr := rapid.SampledFrom([]string{"0.0.0.0:1", "127.0.0.1:1", "127.0.0.1:2", "[::]:2"}).Draw(t, "addr")
	g := y.gen(t)
	want := y.m.takeover(name, addr, g, y.steered)
	if e := y.tb.heir(p, at(addr), g, y.steered); e != nil {
		if e.cookie != want {
			t.Fatalf("generation %d of %s gets socket %d, want %d", g, name, e.cookie, want)
		}
		e.use(g)
		if row := y.m.row(want); !slices.Contains(row.Gens, g) {
			row.Gens = append(row.Gens, g)
		}
		return
	}
	if want != 0 {
		t.Fatalf("generation %d of %s gets a socket of its own, want %d", g, name, want)
	}
	if y.tb.rival(p.app, at(addr), false) != "" {
		if !slices.ContainsFunc(y.m.rows, func(r record) bool {
			return r.Place[:1] != p.app && overlap(at(r.Addr), at(addr))
		}) {
			t.Fatalf("%s may not bind %s, but nobody has it", name, addr)
		}
		return
	}
	y.cookies++
	if err := y.tb.keep(p, &entry{key: at(addr), cookie: y.cookies, gens: map[int]bool{g: false}}); err != nil {
		t.Fatal(err)
	}
	y.m.rows = append(y.m.rows, record{Cookie: y.cookies, Place: name, Addr: addr, Gens: []int{g}})
}

func (y *play) listen(t *rapid.T) {
	p, name := y.place(t)
	c := rapid.Uint64Range(0, y.cookies).Draw(t, "cookie")
	row := y.m.row(c)
	e := y.tb.byCookie(p, c)
	if (e != nil) != (row != nil && row.Place == name) {
		t.Fatalf("socket %d of %+v: in %s is found %v", c, row, name, e)
	}
	if e != nil {
		e.listening, row.Listening = true, true
		e.joined, e.traffic = true, y.tb.due(p, e)
	}
}

func (y *play) route(t *rapid.T) {
	p, name := y.place(t)
	g := y.gen(t)
	to := rapid.SampledFrom([]steer.Traffic{steer.Away, steer.Queue, steer.Serve}).Draw(t, "traffic")
	y.away[name] = y.away[name] || to == steer.Away
	for _, e := range y.tb.route(p, g, to) {
		if row := y.m.row(e.cookie); row.Place != name || !row.Listening || !slices.Contains(row.Gens, g) {
			t.Fatalf("socket %d of %+v is routed for generation %d of %s", e.cookie, row, g, name)
		}
		if due := y.tb.due(p, e); due != to && len(e.gens) == 1 {
			t.Fatalf("socket %d of generation %d gets %q, want %q", e.cookie, g, due, to)
		}
	}
}

func (y *play) settle(t *rapid.T) {
	p, name := y.place(t)
	g := y.gen(t)
	r := y.tb.rooms[p]
	known, dead := r != nil, r != nil && r.dead[g]
	if y.tb.settle(p, g); dead {
		return // nothing changes
	}
	if y.m.has(name) || known {
		y.m.settled[name] = g
	}
	y.m.keepIf(func(r record) bool { return r.Place != name || len(r.Gens) > 0 })
}

func (y *play) check(t *rapid.T) {
	if diff := gocmp.Diff(normal(y.m.rows), contents(y.tb)); diff != "" {
		t.Fatalf("table differs from model (-model +table):\n%s", diff)
	}
	for i, a := range y.m.rows {
		if y.steered && len(a.Gens) > 1 {
			t.Fatalf("two generations share %+v", a)
		}
		for _, b := range y.m.rows[i+1:] {
			if a.Place[:1] != b.Place[:1] && overlap(at(a.Addr), at(b.Addr)) {
				t.Fatalf("two apps hold one address: %+v %+v", a, b)
			}
		}
	}
	for p, r := range y.tb.rooms {
		open := map[key]bool{} // whether anybody there may get a connection
		for _, e := range r.held {
			if e.listening {
				open[e.key] = open[e.key] || y.tb.due(p, e) != steer.Away
			}
		}
		for k, ok := range open {
			if !ok && !y.away[fmt.Sprint(p.app, p.index)] {
				t.Fatalf("all listeners of %v on %v turn clients away, and nobody said so", p, k.addr)
			}
		}
	}
	for _, e := range y.tb.orphans() {
		if row := y.m.row(e.cookie); len(row.Gens) > 0 {
			t.Fatalf("%+v counts as nobody's", row)
		}
	}
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := &play{
			tb: newTable(), m: &model{settled: map[string]int{}}, away: map[string]bool{},
			steered: rapid.Bool().Draw(t, "steered"),
		}
		t.Repeat(map[string]func(*rapid.T){
			"bind": y.bind, "listen": y.listen, "route": y.route, "settle": y.settle, "": y.check,
			"down": func(t *rapid.T) {
				p, name := y.place(t)
				g := y.gen(t)
				y.tb.down(p, g)
				y.m.down(name, g)
			},
			"retire": func(t *rapid.T) {
				p, name := y.place(t)
				g := y.gen(t)
				y.tb.retire(p, g)
				y.m.retire(name, g)
			},
			"release": func(t *rapid.T) {
				p, name := y.place(t)
				y.tb.release(p)
				delete(y.m.settled, name)
				y.m.keepIf(func(r record) bool { return r.Place != name })
			},
		})
	})
}

func TestTrafficOfAGeneration(t *testing.T) {
	const addr = "0.0.0.0:80"
	type held struct {
		gens  []int
		heard bool // listens
	}
	for _, c := range []struct {
		name string
		said map[int]steer.Traffic
		held []held
		want []steer.Traffic
	}{
		{"the first waits for its turn", nil, []held{{[]int{1}, true}}, []steer.Traffic{steer.Queue}},
		{"a candidate gets nothing", map[int]steer.Traffic{1: steer.Serve}, []held{{[]int{1}, true}, {[]int{2}, true}}, []steer.Traffic{steer.Serve, steer.Away}},
		{"nor beside one of which nothing was said", nil, []held{{[]int{1}, true}, {[]int{2}, true}}, []steer.Traffic{steer.Queue, steer.Away}},
		{"nor do two of them", nil, []held{{[]int{1}, true}, {[]int{2}, true}, {[]int{3}, true}}, []steer.Traffic{steer.Queue, steer.Away, steer.Away}},
		{"nor beside one that drains", map[int]steer.Traffic{1: steer.Away, 2: steer.Serve}, []held{{[]int{1}, true}, {[]int{2}, true}, {[]int{3}, true}}, []steer.Traffic{steer.Away, steer.Serve, steer.Away}},
		{"the successor of one that died beside one that drains is no candidate", map[int]steer.Traffic{1: steer.Away}, []held{{[]int{1}, true}, {[]int{3}, true}}, []steer.Traffic{steer.Away, steer.Queue}},
		{"nor is one beside a dead one", nil, []held{{nil, true}, {[]int{2}, true}}, []steer.Traffic{steer.Queue, steer.Queue}},
		{"nor beside one that has only bound", nil, []held{{[]int{1}, false}, {[]int{2}, true}}, []steer.Traffic{steer.Queue, steer.Queue}},
		{"of two that share, the luckier", map[int]steer.Traffic{1: steer.Away, 2: steer.Serve}, []held{{[]int{1, 2}, true}}, []steer.Traffic{steer.Serve}},
		{"a second port gets what was said before", map[int]steer.Traffic{2: steer.Serve}, []held{{[]int{1}, true}, {[]int{2}, true}}, []steer.Traffic{steer.Queue, steer.Serve}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb, p := newTable(), place{"a", 0}
			for i, x := range c.held {
				e := &entry{key: at(addr), cookie: uint64(i + 1), listening: x.heard, gens: map[int]bool{}}
				for _, g := range x.gens {
					e.use(g)
				}
				if err := tb.keep(p, e); err != nil {
					t.Fatal(err)
				}
			}
			for g, said := range c.said {
				tb.route(p, g, said)
			}
			for i, want := range c.want {
				if got := tb.due(p, tb.byCookie(p, uint64(i+1))); got != want {
					t.Errorf("socket %d gets %q, want %q", i+1, got, want)
				}
			}
		})
	}
}

func TestTheListenerWithTheQueueIsPreferred(t *testing.T) {
	tb, p, k := newTable(), place{"a", 0}, at("0.0.0.0:80")
	tb.keep(p, &entry{key: k, cookie: 1})
	tb.keep(p, &entry{key: k, cookie: 2, listening: true})
	tb.keep(p, &entry{key: k, cookie: 3, listening: true})
	if e := tb.heir(p, k, 7, true); e == nil || e.cookie != 2 {
		t.Errorf("got %+v, want socket 2", e)
	}
	if e := tb.heir(p, at("0.0.0.0:81"), 7, true); e != nil {
		t.Errorf("got %+v for another port", e)
	}
}

func TestAPlaceThatIsFullShares(t *testing.T) {
	tb, p := newTable(), place{"a", 0}
	for port := range uint16(maxPerPlace) {
		k := key{addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port+1)}
		tb.keep(p, &entry{key: k, cookie: uint64(port), gens: map[int]bool{1: true}})
	}
	if e := tb.heir(p, at("0.0.0.0:80"), 2, true); e == nil {
		t.Error("the next generation gets no listener: there is no room for one of its own")
	}
}

func TestTrafficOfTheDeadIsForgotten(t *testing.T) {
	tb, p := newTable(), place{"a", 0}
	for g := range 10 * maxPerPlace {
		tb.route(p, g+1, steer.Serve)
		tb.retire(p, g-1)
		tb.route(p, g-1, steer.Away) // too late
	}
	if n := len(tb.rooms[p].traffic); n > maxPerPlace {
		t.Errorf("the traffic of %d generations is remembered", n)
	}
	tb.release(p)
	if len(tb.rooms) != 0 {
		t.Error("a released place is remembered")
	}
}

// The news that a generation is online may be older than its death.
func TestTheDeadDoNotSettle(t *testing.T) {
	tb, p := newTable(), place{"a", 0}
	e := &entry{key: at("0.0.0.0:80"), cookie: 1, listening: true, gens: map[int]bool{3: true}}
	if err := tb.keep(p, e); err != nil {
		t.Fatal(err)
	}
	tb.down(p, 3)
	if gone := tb.settle(p, 3); len(gone) > 0 {
		t.Errorf("%+v is closed, with all who wait for the successor", gone[0])
	}
	if gone := tb.retire(p, 3); len(gone) > 0 {
		t.Errorf("%+v is closed when the dead one is buried", gone[0])
	}
	e.use(4)
	if gone := tb.settle(p, 4); len(gone) > 0 || tb.byCookie(p, 1) != e {
		t.Error("the successor has lost it")
	}
}

func TestAPlaceIsBounded(t *testing.T) {
	tb := newTable()
	for port := range uint16(maxPerPlace) {
		k := key{addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port+1)}
		if err := tb.keep(place{"a", 0}, &entry{key: k, cookie: uint64(port)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tb.keep(place{"a", 0}, &entry{key: at("0.0.0.0:60000")}); err == nil {
		t.Error("one too many was kept")
	}
}

func TestNamesBringBackThePlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := place{rapid.String().Draw(t, "app"), rapid.IntRange(0, 1000).Draw(t, "index")}
		e := &entry{
			key:    rapid.SampledFrom([]key{at("0.0.0.0:80"), at("[::]:443"), only6("[::]:80"), at("[fe80::1%2]:80"), at("[::ffff:1.2.3.4]:9")}).Draw(t, "key"),
			shared: rapid.Bool().Draw(t, "shared"),
			opened: rapid.Bool().Draw(t, "opened"),
			cookie: rapid.Uint64().Draw(t, "cookie"),
		}
		name := storeName(p, e)
		want := named{p, e.key.addr, e.shared, e.opened}
		for _, name := range []string{name, name[:strings.LastIndex(name, "/")]} { // an older gpm's has no cookie
			if got, err := parseName(name); err != nil || got != want {
				t.Fatalf("%q gives %+v, %v", name, got, err)
			}
		}
		twin := *e
		if twin.cookie++; storeName(p, &twin) == name {
			t.Fatalf("two sockets are called %q", name)
		}
		if !IsName(name) || strings.ContainsAny(name, ": \x00\n") {
			t.Fatalf("%q is no name for an fd store", name)
		}
	})
	for _, bad := range []string{"", "listen/", "listen/a/0/x/-", "listen/a/x/0.0.0.0%3A1/-", "listen/%zz/0/0.0.0.0%3A1/-", "log/a", "listen/a/0/0.0.0.0%3A1", "listen/a/0/0.0.0.0%3A1/-/1/2"} {
		if _, err := parseName(bad); err == nil {
			t.Errorf("parseName(%q) gave no error", bad)
		}
	}
}
