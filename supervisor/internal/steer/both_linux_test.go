package steer

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"gpm/supervisor/internal/aim"
)

func TestStranger(t *testing.T) {
	for _, mode := range []Mode{EBPF, CBPF} {
		t.Run(string(mode), func(t *testing.T) {
			s, k := open(t, mode)
			list, addr := four(t, s, "127.0.0.1")
			stranger := listen(t, addr).serve(99)
			all := inodes(append(slices.Clone(list), stranger))
			must(t, s.Verify(site, all))
			must(t, s.Verify(site, all))
			if told := k.told(); len(told) != 1 {
				t.Errorf("told %q, want once", told)
			}
			wantHow(t, s, "hash: foreign listeners share the address: 1")
			until(t, "the stranger is served", func() bool { return ask(t, addr, aim.Aim{}) == 99 })
			for _, l := range list {
				if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
			stranger.stop()
			must(t, s.Verify(site, inodes(list)))
			if how := s.How(site); how[:5] != "least" {
				t.Errorf("steered by %q", how)
			}
		})
	}
}

// An app closes its listener, and a child of it has a copy: it gets nothing, and
// is no stranger either.
func TestGhost(t *testing.T) {
	for _, mode := range []Mode{EBPF, CBPF} {
		t.Run(string(mode), func(t *testing.T) {
			s, k := open(t, mode)
			list, addr := four(t, s, "127.0.0.1")
			s.Leave(list[1].Cookie)() // not closed
			before := list[1].count()
			for _, l := range []*server{list[0], list[2], list[3]} {
				if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
			must(t, s.Verify(site, inodes(list)))
			for range 100 {
				ask(t, addr, aim.Aim{})
			}
			if list[1].count() != before {
				t.Error("the ghost was served")
			}
			list[1].stop()
			rest := []*server{list[0], list[2], list[3]}
			must(t, s.Verify(site, inodes(rest)))
			for _, l := range rest {
				if got := ask(t, addr, mark(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
			if told := k.told(); len(told) != 0 {
				t.Error(told)
			}
		})
	}
}

// Whatever the family, a listener that is away gets nothing but what is aimed at
// it. Nobody who aims at one is answered by another.
func TestFamilies(t *testing.T) {
	for _, mode := range []Mode{EBPF, CBPF} {
		for _, c := range []struct {
			network, host string
			targets       []string // the first one is aimed at
		}{
			{"tcp", "::", []string{"127.0.0.1", "::1"}},
			{"tcp4", "0.0.0.0", []string{"127.0.0.1"}},
			{"tcp6", "::", []string{"::1"}},
			{"tcp6", "::1", []string{"::1"}},
		} {
			t.Run(fmt.Sprint(mode, c.network, c.host), func(t *testing.T) {
				s, _ := open(t, mode)
				var list []*server
				at := "0"
				for i := range 4 {
					l, err := tryListen(c.network, net.JoinHostPort(c.host, at))
					must(t, err)
					t.Cleanup(l.close)
					join(t, s, l.serve(i), Serve)
					list, at = append(list, l), port(l)
				}
				must(t, s.Route(list[0].Cookie, Away))
				for _, target := range c.targets {
					for range 50 {
						if ask(t, net.JoinHostPort(target, at), aim.Aim{}) == 0 {
							t.Fatalf("%s: the listener that is away was served", target)
						}
					}
				}
				to := net.JoinHostPort(c.targets[0], at)
				for _, l := range list {
					for range 10 {
						if got := ask(t, to, mark(t, s, l)); got != int(l.id) {
							t.Fatalf("server %d answered for %d", got, l.id)
						}
					}
				}
				if mode == EBPF { // a classic program does not know who is there
					gone := mark(t, s, list[2])
					list[2].stop()
					refused(t, to, gone)
				}
			})
		}
	}
}

func port(l *server) string {
	_, p, _ := net.SplitHostPort(l.Addr.String())
	return p
}
