package steer

import (
	"net"
	"net/netip"
	"slices"
	"testing"
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
			until(t, "the stranger is served", func() bool { return ask(t, addr, netip.Addr{}) == 99 })
			for _, l := range list {
				if got := ask(t, addr, source(t, s, l)); got != int(l.id) {
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
				if got := ask(t, addr, source(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
			must(t, s.Verify(site, inodes(list)))
			for range 100 {
				ask(t, addr, netip.Addr{})
			}
			if list[1].count() != before {
				t.Error("the ghost was served")
			}
			list[1].stop()
			rest := []*server{list[0], list[2], list[3]}
			must(t, s.Verify(site, inodes(rest)))
			for _, l := range rest {
				if got := ask(t, addr, source(t, s, l)); got != int(l.id) {
					t.Errorf("server %d answered for %d", got, l.id)
				}
			}
			if told := k.told(); len(told) != 0 {
				t.Error(told)
			}
		})
	}
}

func TestFamilies(t *testing.T) {
	for _, mode := range []Mode{EBPF, CBPF} {
		for _, host := range []string{"::", "0.0.0.0"} {
			t.Run(string(mode)+host, func(t *testing.T) {
				s, _ := open(t, mode)
				list, _ := four(t, s, host)
				if host == "::" && (list[0].Only6 || list[0].Addr.Addr().Is4()) {
					t.Skipf("no dual stack here: %v", list[0].Listener)
				}
				must(t, s.Route(list[0].Cookie, Away))
				targets := []string{"127.0.0.1"}
				if host == "::" {
					targets = append(targets, "::1")
				}
				for _, target := range targets {
					for range 50 {
						if ask(t, net.JoinHostPort(target, port(list[0])), netip.Addr{}) == 0 {
							t.Fatalf("%s: the listener that is away was served", target)
						}
					}
				}
				for _, l := range list {
					if got := ask(t, loopback(l.Addr), source(t, s, l)); got != int(l.id) {
						t.Errorf("server %d answered for %d", got, l.id)
					}
				}
			})
		}
	}
}

func port(l *server) string {
	_, p, _ := net.SplitHostPort(l.Addr.String())
	return p
}
