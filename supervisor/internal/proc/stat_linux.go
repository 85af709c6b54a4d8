package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procRoot is where the kernel shows its processes; tests use another folder.
const procRoot = "/proc"

// Read is the identity of the process that has that pid now. It fails with
// ErrGone if none has; a zombie still has its pid.
func Read(pid int) (Identity, error) { return readIdentity(procRoot, pid) }

func readIdentity(root string, pid int) (Identity, error) {
	st, err := readStat(root, pid)
	if err != nil {
		return Identity{}, err
	}
	boot, err := readBoot(root)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, Start: st.Start, Boot: boot}, nil
}

// Alive tells whether this very process still runs: not another one that got
// its pid, not one of an earlier boot, not a zombie.
func (id Identity) Alive() bool { return id.aliveIn(procRoot) }

func (id Identity) aliveIn(root string) bool {
	st, err := readStat(root, id.PID)
	if err != nil || st.Dead() || st.Start != id.Start {
		return false
	}
	boot, err := readBoot(root)
	return err == nil && (id.Boot == "" || boot == id.Boot)
}

func readBoot(root string) (string, error) {
	b, err := os.ReadFile(root + "/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Snapshot reads every process of the machine in one pass over /proc. A
// process that comes or goes meanwhile may be in it or not.
func Snapshot() (map[int]Stat, error) { return snapshot(procRoot) }

func snapshot(root string) (map[int]Stat, error) {
	d, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]Stat, len(names))
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if st, err := readStat(root, pid); err == nil {
			all[pid] = st
		}
	}
	return all, nil
}

// readStat fails with ErrGone if no process has that pid.
func readStat(root string, pid int) (Stat, error) {
	// A stat line is below 500 bytes: 15 bytes of name and 51 numbers, few of them long.
	var buf [2048]byte
	n, err := readSmall(root+"/"+strconv.Itoa(pid)+"/stat", buf[:])
	// ESRCH: it ended between open and read.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	st, err := parseStat(buf[:n])
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return st, nil
}

// parseStat reads a line of /proc/<pid>/stat (proc_pid_stat(5)). The name may
// hold blanks and parentheses, so it ends at the last one.
func parseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("parse stat %q: no name in it", b)
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3
	if len(f) < 20 {
		return Stat{}, fmt.Errorf("parse stat %q: too short", b)
	}
	st := Stat{Comm: string(b[open+1 : end]), State: f[0][0]}
	var errs [6]error
	st.PID, errs[0] = strconv.Atoi(strings.TrimSpace(string(b[:open])))
	st.PPid, errs[1] = strconv.Atoi(f[1])
	st.PGrp, errs[2] = strconv.Atoi(f[2])
	st.Session, errs[3] = strconv.Atoi(f[3])
	st.Threads, errs[4] = strconv.Atoi(f[17])
	st.Start, errs[5] = strconv.ParseUint(f[19], 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return Stat{}, fmt.Errorf("parse stat %q: %w", b, err)
	}
	return st, nil
}

// readSmall reads a small file in one piece without the netpoller that
// os.Open asks first; a snapshot does this for every process of the machine.
func readSmall(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// command is the command line of a process, "[comm]" if it has none.
func command(root string, st Stat) string {
	var buf [4096]byte
	n, err := readSmall(root+"/"+strconv.Itoa(st.PID)+"/cmdline", buf[:])
	line := strings.TrimSpace(strings.ReplaceAll(string(buf[:n]), "\x00", " "))
	if err != nil || line == "" {
		return "[" + st.Comm + "]"
	}
	return line
}
