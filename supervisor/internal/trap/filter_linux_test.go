package trap

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run is what the kernel would make of the filter.
func run(t *testing.T, code []unix.SockFilter, arch, nr, addrlen uint32) uint32 {
	t.Helper()
	data := map[uint32]uint32{0: nr, 4: arch, 32: addrlen} // struct seccomp_data, little endian
	var a uint32
	for i := 0; i < len(code); i++ {
		switch c := code[i]; c.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			v, ok := data[c.K]
			if !ok {
				t.Fatalf("instruction %d loads offset %d", i, c.K)
			}
			a = v
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == c.K {
				i += int(c.Jt)
			} else {
				i += int(c.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return c.K
		default:
			t.Fatalf("instruction %d has code %#x", i, c.Code)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilterNotifiesOfTCPBindAndListenAlone(t *testing.T) {
	prog, err := program()
	if err != nil {
		t.Fatal(err)
	}
	code := unsafe.Slice(prog.Filter, prog.Len)
	sys := natives[runtime.GOARCH]
	const (
		yes, no = unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ALLOW
		foreign = 0x40000003 // AUDIT_ARCH_I386
	)
	for _, c := range []struct {
		name              string
		arch, nr, addrlen uint32
		want              uint32
	}{
		{"bind of an IPv4 address", sys.arch, sys.bind, 16, yes},
		{"bind of an IPv6 address", sys.arch, sys.bind, 28, yes},
		{"bind of a netlink address", sys.arch, sys.bind, 12, no},
		{"bind of a unix address", sys.arch, sys.bind, 110, no},
		{"listen with a backlog of 16", sys.arch, sys.listen, 16, yes},
		{"listen with any third argument", sys.arch, sys.listen, 12345, yes},
		{"the call before", sys.arch, sys.bind - 1, 16, no},
		{"the call after", sys.arch, sys.listen + 1, 16, no},
		{"bind of a foreign architecture", foreign, sys.bind, 16, no},
		{"listen of a foreign architecture", foreign, sys.listen, 16, no},
		{"bind of x32", sys.arch, sys.bind | 1<<30, 16, no},
	} {
		if got := run(t, code, c.arch, c.nr, c.addrlen); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}
