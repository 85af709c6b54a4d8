package sock

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
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
	Place     string
	Addr      string
	Listening bool
	Gens      []int
}

type model struct {
	rows    []record
	settled map[string]int
}

func (m *model) row(place, addr string) *record {
	for i := range m.rows {
		if m.rows[i].Place == place && m.rows[i].Addr == addr {
			return &m.rows[i]
		}
	}
	return nil
}

func (m *model) keepIf(ok func(record) bool) {
	m.rows = slices.DeleteFunc(m.rows, func(r record) bool { return !ok(r) })
}

func (m *model) retire(place string, gen int) {
	if m.settled[place] == gen {
		delete(m.settled, place)
	}
	for i := range m.rows {
		if m.rows[i].Place == place {
			m.rows[i].Gens = slices.DeleteFunc(m.rows[i].Gens, func(g int) bool { return g == gen })
		}
	}
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
			rec := record{Place: fmt.Sprint(p.app, p.index), Addr: e.key.addr.String(), Listening: e.listening}
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
	slices.SortFunc(out, func(a, b record) int {
		return strings.Compare(a.Place+" "+a.Addr, b.Place+" "+b.Addr)
	})
	return out
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tb, m := newTable(), &model{settled: map[string]int{}}
		var cookies uint64
		byCookie := map[uint64]record{}
		drawPlace := func() (place, string) {
			p := place{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), rapid.IntRange(0, 1).Draw(t, "index")}
			return p, fmt.Sprint(p.app, p.index)
		}
		drawAddr := func() string {
			return rapid.SampledFrom([]string{"0.0.0.0:1", "127.0.0.1:1", "127.0.0.1:2", "[::]:2"}).Draw(t, "addr")
		}
		gen := func() int { return rapid.IntRange(1, 3).Draw(t, "gen") }
		t.Repeat(map[string]func(*rapid.T){
			"bind": func(*rapid.T) {
				p, name := drawPlace()
				addr, g := drawAddr(), gen()
				if e := tb.find(p, at(addr)); e != nil {
					e.gens[g] = true
					if row := m.row(name, addr); row != nil && !slices.Contains(row.Gens, g) {
						row.Gens = append(row.Gens, g)
					}
					return
				}
				if tb.rival(p.app, at(addr), false) != "" {
					if !slices.ContainsFunc(m.rows, func(r record) bool {
						return r.Place[:1] != p.app && overlap(at(r.Addr), at(addr))
					}) {
						t.Fatalf("%s may not bind %s, but nobody has it", name, addr)
					}
					return
				}
				cookies++
				if err := tb.keep(p, &entry{key: at(addr), cookie: cookies, gens: map[int]bool{g: true}}); err != nil {
					t.Fatal(err)
				}
				m.rows = append(m.rows, record{Place: name, Addr: addr, Gens: []int{g}})
				byCookie[cookies] = record{Place: name, Addr: addr}
			},
			"listen": func(*rapid.T) {
				p, name := drawPlace()
				c := rapid.Uint64Range(0, cookies).Draw(t, "cookie")
				e := tb.byCookie(p, c)
				row := m.row(name, byCookie[c].Addr)
				if e == nil {
					return
				}
				if row == nil || byCookie[c].Place != name {
					t.Fatalf("socket %d is found in %s", c, name)
				}
				e.listening, row.Listening = true, true
			},
			"retire": func(*rapid.T) {
				p, name := drawPlace()
				g := gen()
				tb.retire(p, g)
				m.retire(name, g)
			},
			"settle": func(*rapid.T) {
				p, name := drawPlace()
				g := gen()
				tb.settle(p, g)
				if slices.ContainsFunc(m.rows, func(r record) bool { return r.Place == name }) {
					m.settled[name] = g
					m.keepIf(func(r record) bool { return r.Place != name || len(r.Gens) > 0 })
				} else if tb.rooms[p] != nil {
					m.settled[name] = g
				}
			},
			"release": func(*rapid.T) {
				p, name := drawPlace()
				tb.release(p)
				delete(m.settled, name)
				m.keepIf(func(r record) bool { return r.Place != name })
			},
			"": func(t *rapid.T) {
				if diff := cmp.Diff(normal(m.rows), contents(tb)); diff != "" {
					t.Fatalf("table differs from model (-model +table):\n%s", diff)
				}
				for i, a := range m.rows {
					for _, b := range m.rows[i+1:] {
						if a.Place[:1] != b.Place[:1] && overlap(at(a.Addr), at(b.Addr)) {
							t.Fatalf("two apps hold one address: %+v %+v", a, b)
						}
					}
				}
			},
		})
	})
}

func TestAPlaceIsBounded(t *testing.T) {
	tb := newTable()
	for port := range uint16(maxPerPlace) {
		k := key{addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port+1)}
		if err := tb.keep(place{"a", 0}, &entry{key: k}); err != nil {
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
		}
		name := storeName(p, e)
		got, addr, shared, err := parseName(name)
		if err != nil || got != p || addr != e.key.addr || shared != e.shared {
			t.Fatalf("%q gives %v %v %v %v", name, got, addr, shared, err)
		}
		if !IsName(name) || strings.ContainsAny(name, ": \x00\n") {
			t.Fatalf("%q is no name for an fd store", name)
		}
	})
	for _, bad := range []string{"", "listen/", "listen/a/0/x/-", "listen/a/x/0.0.0.0%3A1/-", "listen/%zz/0/0.0.0.0%3A1/-", "log/a", "listen/a/0/0.0.0.0%3A1"} {
		if _, _, _, err := parseName(bad); err == nil {
			t.Errorf("parseName(%q) gave no error", bad)
		}
	}
}
