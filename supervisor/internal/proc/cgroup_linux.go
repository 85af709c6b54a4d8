package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep a tree's own sub-cgroups are followed.
const maxDepth = 16

// plantCgroup makes the folder name below this process's own cgroup. dir is
// its place in the file system, path how /proc/<pid>/cgroup writes it.
func plantCgroup(name string) (dir, path string, err error) {
	mounts, err := os.ReadFile(procRoot + "/self/mountinfo")
	if err != nil {
		return "", "", fmt.Errorf("read mounts: %w", err)
	}
	path, err = cgroupPath(procRoot, "self")
	if err != nil {
		return "", "", err
	}
	own, err := cgroupDir(mounts, path)
	if err != nil {
		return "", "", err
	}
	// clone3 into a cgroup wants write access to cgroup.procs of the common
	// ancestor, which is our own folder (kernel/cgroup/cgroup.c,
	// cgroup_attach_permissions).
	if err := unix.Access(own+"/cgroup.procs", unix.W_OK); err != nil {
		return "", "", fmt.Errorf("move processes below %q: %w", own, err)
	}
	dir = filepath.Join(own, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", "", fmt.Errorf("make folder: %w", err)
	}
	if typ, err := os.ReadFile(dir + "/cgroup.type"); err != nil || strings.TrimSpace(string(typ)) != "domain" {
		unix.Rmdir(dir)
		return "", "", fmt.Errorf("use %q: it takes no processes (%q)", own, strings.TrimSpace(string(typ)))
	}
	return dir, filepath.Join(path, name), nil
}

// cgroupPath is the cgroup v2 of a process, "/user.slice/...".
func cgroupPath(root, pid string) (string, error) {
	b, err := os.ReadFile(root + "/" + pid + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %s: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(p, "\n"), nil
		}
	}
	return "", errors.New("no cgroup v2 on this system")
}

// cgroupDir finds where path can be reached: the cgroup2 mount may be
// /sys/fs/cgroup, /sys/fs/cgroup/unified beside v1, or show only a part of the
// hierarchy (a container without a cgroup namespace).
func cgroupDir(mountinfo []byte, path string) (string, error) {
	sc := bufio.NewScanner(bytes.NewReader(mountinfo))
	for sc.Scan() {
		// proc_pid_mountinfo(5): id parent major:minor root mountpoint options... - type source options
		before, after, ok := strings.Cut(sc.Text(), " - ")
		f := strings.Fields(before)
		if !ok || !strings.HasPrefix(after, "cgroup2 ") || len(f) < 5 {
			continue
		}
		rel, err := filepath.Rel(unescapeMount(f[3]), path)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return filepath.Join(unescapeMount(f[4]), rel), nil
		}
	}
	return "", fmt.Errorf("no cgroup2 mount shows %q", path)
}

// unescapeMount undoes the octal escapes of mountinfo ("\040" is a blank).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// makeCgroup makes the tree's folder. One that an earlier daemon left behind
// is used again if it is empty.
func (t *Tree) makeCgroup(forestDir, forestPath string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir := filepath.Join(forestDir, t.folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if busy, err := populated(dir); err != nil || busy {
		return errors.Join(err, fmt.Errorf("use %q: processes of an earlier tree live there", dir))
	}
	return t.useCgroup(dir, filepath.Join(forestPath, t.folder))
}

// findCgroup finds the folder of a tree that an earlier daemon made.
func (t *Tree) findCgroup(f *Forest, root Identity) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.kind == Cgroup {
		dir := filepath.Join(f.dir, t.folder)
		if _, err := os.Stat(dir); err == nil {
			return t.useCgroup(dir, filepath.Join(f.path, t.folder))
		}
	}
	// The earlier daemon may have been started from another cgroup.
	path, err := cgroupPath(procRoot, strconv.Itoa(root.PID))
	if err != nil || !root.Alive() || !strings.HasSuffix(path, "/"+f.name+"/"+t.folder) {
		return nil
	}
	mounts, err := os.ReadFile(procRoot + "/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	dir, err := cgroupDir(mounts, path)
	if err != nil || unix.Access(dir+"/cgroup.procs", unix.W_OK) != nil {
		return nil // out of reach: the session finds them
	}
	return t.useCgroup(dir, path)
}

func (t *Tree) useCgroup(dir, path string) error {
	fd, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	t.kind, t.dir, t.path, t.fd = Cgroup, dir, path, fd
	return nil
}

// inCgroup tells whether that pid is in the tree's folder or below it now.
func (t *Tree) inCgroup(pid int) bool {
	p, err := cgroupPath(t.proc, strconv.Itoa(pid))
	return err == nil && (p == t.path || strings.HasPrefix(p, t.path+"/"))
}

// scanCgroup lists the living processes of the folder and those below.
// Membership is checked after the stat was read, so that a pid which was given
// out again between the two cannot bring in a stranger.
func (t *Tree) scanCgroup() []Stat {
	var out []Stat
	seen := map[int]bool{}
	for _, pid := range cgroupPIDs(t.dir, maxDepth) {
		st, err := readStat(t.proc, pid)
		if err == nil && !seen[pid] && !st.Dead() && t.inCgroup(pid) {
			seen[pid] = true
			out = append(out, st)
		}
	}
	return out
}

// cgroupPIDs lists cgroup.procs of dir and of what the app made below it. It
// says 0 for a process of another pid namespace: nobody we could signal.
func cgroupPIDs(dir string, depth int) []int {
	var out []int
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return nil
	}
	for _, s := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	for _, sub := range subCgroups(dir, depth) {
		out = append(out, cgroupPIDs(sub, depth-1)...)
	}
	return out
}

func subCgroups(dir string, depth int) []string {
	if depth <= 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

func removeCgroup(dir string, depth int) error {
	for _, sub := range subCgroups(dir, depth) {
		if err := removeCgroup(sub, depth-1); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// populated tells whether a living process is in dir or below it.
func populated(dir string) (bool, error) {
	b, err := os.ReadFile(dir + "/cgroup.events")
	if err != nil {
		return false, err
	}
	return strings.Contains(string(b), "populated 1"), nil
}

// killCgroup ends everybody in the folder and waits until the kernel says it
// is empty.
func (t *Tree) killCgroup(ctx context.Context) error {
	t.mu.Lock()
	dir := t.dir
	t.mu.Unlock()
	err := writeControl(dir, "cgroup.kill", "1") // Linux 5.14
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return nil // removed, so it was empty
		}
		return t.freezeAndKill(ctx, dir)
	default:
		return fmt.Errorf("write cgroup.kill: %w", err)
	}
	return waitEvent(ctx, dir, "populated 0")
}

// writeControl writes to one of the kernel's files. It never asks for a new one:
// where there is none, that is "permission denied", also for root.
func writeControl(dir, name, value string) error {
	f, err := os.OpenFile(dir+"/"+name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// freezeAndKill is for kernels before 5.14: nobody forks while frozen, and
// SIGKILL ends a frozen process.
func (t *Tree) freezeAndKill(ctx context.Context, dir string) error {
	if err := writeControl(dir, "cgroup.freeze", "1"); err == nil {
		defer func() { _ = writeControl(dir, "cgroup.freeze", "0") }()
		// Not frozen in time (a process hangs in the kernel): the sweep looks twice anyway.
		short, cancel := context.WithTimeout(ctx, time.Second)
		waitEvent(short, dir, "frozen 1")
		cancel()
	}
	return t.sweep(ctx)
}

// waitEvent waits until cgroup.events says want. The kernel announces changes
// of that file by POLLPRI (Documentation/admin-guide/cgroup-v2.rst).
func waitEvent(ctx context.Context, dir, want string) error {
	fd, err := unix.Open(dir+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open cgroup.events: %w", err)
	}
	defer unix.Close(fd)
	var buf [256]byte
	for {
		n, err := unix.Pread(fd, buf[:], 0)
		if err == unix.ENODEV || err == nil && bytes.Contains(buf[:n], []byte(want)) {
			return nil // ENODEV: the folder was removed meanwhile
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("read cgroup.events: %w", err)
		}
		if err := pollUntil(ctx, []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}); err != nil {
			return err
		}
	}
}

// waitMillis is how long one poll may last: until the deadline, at most a second.
func waitMillis(ctx context.Context) int {
	wait := time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(d), 0))
	}
	return int(wait.Milliseconds()) + 1
}
