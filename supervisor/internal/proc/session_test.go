package proc

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// machine is a small process table: init and kernel threads, a login shell,
// keeper 100 with daemon 101, and app 200 whose tree the tests look for.
func machine() map[int]Stat {
	all := map[int]Stat{}
	put := func(pid, ppid, session int, start uint64) {
		all[pid] = Stat{PID: pid, PPid: ppid, PGrp: session, Session: session, Start: start, State: 'S', Threads: 1}
	}
	put(1, 0, 1, 1)
	put(2, 0, 0, 1)
	put(30, 2, 0, 2)
	put(31, 2, 0, 9000) // a kworker younger than the app
	put(50, 1, 50, 10)
	put(51, 50, 50, 6000) // somebody's build, younger than the app
	put(100, 1, 100, 100)
	put(101, 100, 100, 110)
	put(200, 100, 200, 5000)
	put(201, 200, 200, 5001)
	put(202, 201, 200, 5002)
	put(203, 200, 203, 5003) // setsid, parent alive
	put(300, 100, 300, 7000) // another app
	put(301, 300, 300, 7001)
	return all
}

func look(all map[int]Stat, seen map[int]uint64, marked ...int) sighting {
	return sighting{
		all: all, root: Identity{PID: 200, Start: 5000}, seen: seen, self: 101, thorough: true,
		marked: func(pid int) bool { return slices.Contains(marked, pid) },
	}
}

func TestMembersOfASession(t *testing.T) {
	orphaned := machine()
	delete(orphaned, 200)
	for _, pid := range []int{201, 203} {
		st := orphaned[pid]
		st.PPid = 100
		orphaned[pid] = st
	}
	reused := maps.Clone(orphaned)
	reused[200] = Stat{PID: 200, PPid: 50, Session: 200, Start: 9999, Threads: 1}
	reused[204] = Stat{PID: 204, PPid: 200, Session: 200, Start: 9999, Threads: 1}
	for _, c := range []struct {
		name string
		s    sighting
		want []int
	}{
		{"root alive", look(machine(), nil), []int{200, 201, 202, 203}},
		{"root gone, nothing to go by", look(orphaned, nil), nil},
		{"root gone, markers", look(orphaned, nil, 201, 203), []int{201, 202, 203}},
		{"root gone, seen before", look(orphaned, map[int]uint64{201: 5001, 203: 5003}), []int{201, 202, 203}},
		{"seen before, but the pid is another's now", look(orphaned, map[int]uint64{203: 5002}), nil},
		{"pid of the root given out again", look(reused, nil, 201), []int{201, 202}},
		{"the daemon and keeper carry the marker", look(machine(), nil, 100, 101, 1, 2, 30, 31), []int{200, 201, 202, 203}},
		{"marked, but older than the root", look(machine(), nil, 50), []int{200, 201, 202, 203}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := slices.Sorted(maps.Keys(c.s.members())); !slices.Equal(got, c.want) {
				t.Errorf("members %v, want %v", got, c.want)
			}
		})
	}
}

func TestAnUnknownRootHasOnlyMarkedMembers(t *testing.T) {
	s := look(machine(), nil)
	s.root = Identity{}
	if got := s.members(); len(got) != 0 {
		t.Errorf("members %v of nobody", got)
	}
	s.marked = func(pid int) bool { return pid == 201 }
	if got := slices.Sorted(maps.Keys(s.members())); !slices.Equal(got, []int{201, 202}) {
		t.Errorf("members %v, want the marked one and its child", got)
	}
}

// Whatever the machine looks like: each member has a reason of its own or a
// member as parent, and nobody is init, the kernel's, ours, or older than the root.
func TestMembersNeverIncludeStrangers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := map[int]Stat{1: {PID: 1, Start: 1}, 2: {PID: 2, Start: 1}}
		for pid := 3; pid < 30; pid++ {
			all[pid] = Stat{
				PID: pid, PPid: rapid.IntRange(0, 29).Draw(t, "parent"), Session: rapid.IntRange(0, 29).Draw(t, "session"),
				Start: rapid.Uint64Range(1, 60).Draw(t, "start"), Threads: 1, State: 'S',
			}
		}
		root := rapid.IntRange(0, 29).Draw(t, "root")
		marks := rapid.SliceOfN(rapid.IntRange(1, 29), 0, 4).Draw(t, "marked")
		s := sighting{
			all: all, root: Identity{PID: root, Start: rapid.Uint64Range(1, 60).Draw(t, "root start")},
			marked: func(pid int) bool { return slices.Contains(marks, pid) },
			seen:   map[int]uint64{rapid.IntRange(1, 29).Draw(t, "seen"): rapid.Uint64Range(1, 60).Draw(t, "seen start")},
			self:   rapid.IntRange(3, 29).Draw(t, "self"), thorough: rapid.Bool().Draw(t, "thorough"),
		}
		if rapid.Bool().Draw(t, "root is alive") && root > 2 {
			s.root.Start = all[root].Start
		}
		found := s.members()
		alive := root > 0 && all[root].Start == s.root.Start
		for pid := range found {
			st := all[pid]
			if pid <= 2 || pid == s.self || st.Start < s.root.Start {
				t.Fatalf("pid %d must never be a member: %+v", pid, st)
			}
			own := alive && (pid == root || st.Session == root) || s.marked(pid) || s.seen[pid] == st.Start
			if !own && !found[st.PPid] {
				t.Fatalf("pid %d is a member without a reason: %+v", pid, st)
			}
		}
		for pid, up := s.self, 0; pid > 0 && up < 30; pid, up = all[pid].PPid, up+1 {
			if found[pid] {
				t.Fatalf("ancestor %d of this process is a member", pid)
			}
		}
	})
}
