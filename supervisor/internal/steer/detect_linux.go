package steer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Detect finds the best mode of this machine, and says why it is not a better
// one; "" if there is none better. GPM_STEER=ebpf|cbpf|none in the environment
// asks for less. Where eBPF is not allowed it reads all of /proc/kallsyms (some
// 100 ms), unless it is known, from an earlier call on this kernel, that classic
// programs are safe.
func Detect(safe bool) (Mode, string) {
	ask := os.Getenv("GPM_STEER")
	switch Mode(ask) {
	case None:
		return None, "GPM_STEER=none"
	case CBPF:
		return detectClassic("GPM_STEER=cbpf", safe)
	}
	why := ""
	if ask != "" && Mode(ask) != EBPF {
		why = fmt.Sprintf("GPM_STEER=%q is ignored: it may be ebpf, cbpf or none", ask)
	}
	err := tryEBPF()
	if err == nil {
		return EBPF, why
	}
	if why != "" {
		why += "; "
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return detectClassic(why+"eBPF needs root or CAP_BPF and CAP_NET_ADMIN", safe)
	}
	return detectClassic(fmt.Sprintf("%seBPF does not work here (%v)", why, err), safe)
}

// raised tells whether it makes sense to try again what was refused. Before 5.11
// maps and programs are charged to RLIMIT_MEMLOCK, which is 64 KiB: enough for
// the first group, and not for the next.
func raised(refused error) bool {
	var limit unix.Rlimit
	if !errors.Is(refused, unix.EPERM) || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return false
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) == nil
}

// tryEBPF loads what a group needs: only that tells what capabilities,
// lockdown, a container and the kernel's verifier make of it.
func tryEBPF() error {
	s, err := newSlots()
	if err != nil {
		return err
	}
	defer s.close()
	p, err := newProgram(s, bounds[0])
	if err != nil {
		return err
	}
	return p.Close()
}

// Migrates tells whether, under eBPF, the queue of a listener that is closed goes
// to the others (Linux 5.14). A kernel that can looks at what a program is to be
// attached for, and refuses what is wrong; an older one takes anything, the right
// one as well, and then drops the queue.
func Migrates() bool {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "gpm_probe", Type: ebpf.SkReuseport, License: "Apache-2.0", AttachType: ebpf.AttachCGroupInetEgress,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err == nil {
		p.Close()
	}
	return errors.Is(err, unix.EINVAL)
}

func detectClassic(why string, safe bool) (Mode, string) {
	if safe {
		return CBPF, why
	}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return None, fmt.Sprintf("%s; whether classic programs are safe here cannot be known (%v)", why, err)
	}
	defer f.Close()
	if !freesLate(f) {
		return None, why + "; on this kernel the exchange of classic programs may panic the host (it lacks \"bpf: Free reuseport cBPF prog after RCU grace period\")"
	}
	return CBPF, why
}

// freesLate looks for the function that commit 18fc650ccd7f added. Anybody may
// read the names; addresses are zero for most.
func freesLate(kallsyms io.Reader) bool {
	lines := bufio.NewScanner(kallsyms)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), " sk_reuseport_prog_free_rcu") {
			return true
		}
	}
	return false
}
