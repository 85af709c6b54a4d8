package steer

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What nobody saw is either explained rightly or not at all.
func TestAfterIsNeverWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var seen order
		for i := range rapid.IntRange(0, 8).Draw(t, "sockets") {
			seen = seen.listened(uint64(i + 1))
		}
		next, now := uint64(100), seen
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			if len(now) > 0 && rapid.Bool().Draw(t, "close") {
				now = now.closed(rapid.SampledFrom(now).Draw(t, "which"))
			} else {
				now, next = now.listened(next), next+1
			}
		}
		live := slices.Sorted(slices.Values(now))
		if !allIn(now, 100, next) {
			return // one came and went: after cannot know
		}
		if got, ok := seen.after(live); ok && !slices.Equal(got, now) {
			t.Fatalf("%v became %v; explained as %v", seen, now, got)
		}
	})
}

func allIn(o order, from, to uint64) bool {
	for s := from; s < to; s++ {
		if o.index(s) < 0 {
			return false
		}
	}
	return true
}

func TestAfterExplains(t *testing.T) {
	for _, c := range []struct {
		was  order
		live []uint64
		want order
	}{
		{order{1, 2, 3}, []uint64{3, 2, 1}, order{1, 2, 3}},
		{order{1, 2, 3}, []uint64{1, 2, 3, 4}, order{1, 2, 3, 4}}, // killed between listen and record
		{order{1, 2, 3}, []uint64{2, 3}, order{3, 2}},             // killed between close and record
		{order{1, 2, 3}, []uint64{2}, order{2}},
		{order{1, 2, 3}, nil, order{}},
		{nil, []uint64{7}, order{7}},
		{order{1, 2, 3, 4}, []uint64{3, 4}, nil}, // 4 3 or 3 4
		{order{1, 2}, []uint64{1, 2, 3, 4}, nil},
		{order{1, 2, 3}, []uint64{2, 3, 4}, nil},
	} {
		got, ok := c.was.after(c.live)
		if ok != (c.want != nil) || ok && !slices.Equal(got, c.want) {
			t.Errorf("%v with %v now: %v, %v; want %v", c.was, c.live, got, ok, c.want)
		}
	}
}

// A daemon may be killed in the middle of any write.
func TestRecordIsWholeAtAnyInstant(t *testing.T) {
	path := filepath.Join(t.TempDir(), "order")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := record{f: f}
	first, second := order{1, 2, 3}, order{3, 2, 9, 10}
	for _, o := range []order{{5}, first} {
		if err := r.write(o, map[uint64]Traffic{o[0]: Serve, 2: Queue}); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.write(second, map[uint64]Traffic{9: Serve, 2: Queue}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before = append(before, make([]byte, len(after)-len(before))...)
	for cut := range len(after) + 1 {
		torn := slices.Concat(after[:cut], before[cut:])
		r := record{f: &memory{torn}}
		got, traffic, err := r.read()
		switch {
		case err != nil:
			t.Fatalf("cut at %d: %v", cut, err)
		case slices.Equal(got, first) && maps.Equal(traffic, map[uint64]Traffic{1: Serve, 2: Queue, 3: Away}):
		case slices.Equal(got, second) && maps.Equal(traffic, map[uint64]Traffic{9: Serve, 2: Queue, 3: Away, 10: Away}):
		default:
			t.Fatalf("cut at %d: %v, %v", cut, got, traffic)
		}
	}
	if _, _, err := (&record{f: &memory{make([]byte, 2*copySize)}}).read(); err == nil {
		t.Error("an empty record was read")
	}
}

type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, at int64) (int, error)  { return bytes.NewReader(m.b).ReadAt(p, at) }
func (m *memory) WriteAt(p []byte, at int64) (int, error) { return copy(m.b[at:], p), nil }

func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.String().Draw(t, "group")
		name := storeName(g, "socks")
		got, part, ok := parseName(name)
		if !ok || got != g || part != "socks" || !IsName(name) || bytes.ContainsRune([]byte(name), ':') {
			t.Fatalf("%q: %q %q %v", name, got, part, ok)
		}
	})
	for _, bad := range []string{"listen/a/b", "steer/", "steer/x", "steer/x/", "steer/%zz/socks"} {
		if _, _, ok := parseName(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestFill(t *testing.T) {
	for _, c := range []struct{ counts, want []int }{
		{[]int{0, 100, 100, 100}, []int{150, 50, 50, 50}}, // one has died: it gets half of those who come
		{[]int{0, 1, 0}, []int{9, 8, 9}},
		{[]int{3, 3}, []int{8, 8}},
		{[]int{0, 300}, []int{300, 0}},
		{[]int{0, 0, 0, 90}, []int{30, 30, 30, 0}},
		{[]int{7}, []int{8}},
		{nil, []int{}},
	} {
		if got := fill(c.counts); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.counts, got, c.want)
		}
	}
}

func TestDiffer(t *testing.T) {
	for _, c := range []struct {
		a, b []int
		want bool
	}{
		{[]int{1, 1}, []int{100, 101}, false},
		{[]int{1, 1}, []int{3, 1}, true},
		{[]int{1, 1}, []int{1, 1, 1}, true},
		{nil, nil, false},
	} {
		if got := differ(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
	}
}
