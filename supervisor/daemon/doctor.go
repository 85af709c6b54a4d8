package daemon

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"gpm/supervisor/api"
	"gpm/supervisor/internal/proc"
	"gpm/supervisor/internal/steer"
	"gpm/supervisor/internal/streams"
)

// doctor says what this machine offers and what falls back.
func (d *daemon) doctor() []api.Check {
	return []api.Check{d.checkHold(), d.checkSteering(), d.checkStreams(), d.checkTrees(), d.checkRoot(), checkDescriptors(), checkPipes(), checkWatches(), d.checkLogs()}
}

func (d *daemon) checkHold() api.Check {
	c := api.Check{Name: "held listeners", State: "ok", Detail: "kernel " + kernel() + ": bind() and listen() of apps are answered by gpm"}
	switch {
	case d.inventory.Hold != "":
		c.State, c.Detail = "missing", d.inventory.Hold
		c.Fallback = "apps are started plainly: a port is refused while its app restarts"
	case d.inventory.NoNewPrivs:
		c.State = "limited"
		c.Detail += "; as an ordinary user this sets no_new_privs"
		c.Fallback = `setuid programs inside apps gain nothing; "hold": false switches it off for an app`
	}
	return c
}

func (d *daemon) checkSteering() api.Check {
	c := api.Check{Name: "steering", State: "ok", Detail: "eBPF: new connections go to the instance with the fewest streams"}
	switch d.hands.steer.Mode() {
	case steer.EBPF:
		if steer.Migrates() {
			c.Detail += "; a listener that is closed leaves its queue to the others"
		} else {
			c.State, c.Fallback = "limited", "the queue of a listener that is closed is lost (Linux 5.14 leaves it to the others): of a process that crashes while its successor starts"
		}
	case steer.CBPF:
		c.State, c.Detail = "limited", "classic BPF: "+d.hands.steerWhy
		c.Fallback = "new connections are dealt by chance, weighted with counts of the last seconds; the queue of a listener that is closed is lost"
	case steer.None:
		c.State, c.Detail = "missing", d.hands.steerWhy
		c.Fallback = "the kernel's hash deals new connections: a process that is replaced takes new ones until it is told to end, so its streams end unless it drains itself"
	}
	return c
}

func (d *daemon) checkStreams() api.Check {
	counter, err := streams.New()
	if err != nil {
		return api.Check{Name: "stream counts", State: "missing", Detail: err.Error(), Fallback: "drains last until drain_timeout"}
	}
	defer counter.Close()
	return api.Check{Name: "stream counts", State: "ok", Detail: "sock_diag"}
}

func (d *daemon) checkTrees() api.Check {
	kind, why := d.hands.forest.Kind()
	c := api.Check{Name: "process trees", State: "ok", Detail: why}
	if kind != proc.Cgroup {
		c.State = "limited"
		c.Fallback = "sessions, descent and a marker in the environment; a child that leaves all three is not ended with its app"
	}
	return c
}

func (d *daemon) checkRoot() api.Check {
	if os.Geteuid() == 0 {
		return api.Check{Name: "privileges", State: "ok", Detail: "root: uid, gid and ports below 1024 work"}
	}
	return api.Check{Name: "privileges", State: "limited", Detail: fmt.Sprintf("uid %d", os.Geteuid()), Fallback: "uid and gid are refused; all else works"}
}

func checkDescriptors() api.Check {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return api.Check{Name: "open files", State: "limited", Detail: err.Error()}
	}
	c := api.Check{Name: "open files", State: "ok", Detail: fmt.Sprintf("%d for each process", l.Max)}
	if l.Max < 65536 {
		c.State = "limited"
		c.Fallback = "an instance cannot hold more streams than that; raise LimitNOFILE (systemd) or ulimit -Hn"
	}
	return c
}

func checkPipes() api.Check {
	soft := readLine("/proc/sys/fs/pipe-user-pages-soft")
	c := api.Check{Name: "log pipes", State: "ok", Detail: "1 MiB each"}
	if os.Geteuid() != 0 {
		c.State = "limited"
		c.Detail += ", for the first " + soft + " pages of this user"
		c.Fallback = "smaller pipes beyond that: apps that write much wait more often"
	}
	return c
}

func checkWatches() api.Check {
	return api.Check{Name: "file watches", State: "ok", Detail: readLine("/proc/sys/fs/inotify/max_user_watches") + " folders (fs.inotify.max_user_watches)"}
}

func (d *daemon) checkLogs() api.Check {
	if err := d.store.Sync(); err != nil {
		return api.Check{Name: "state folder", State: "missing", Detail: err.Error(), Fallback: "changes are forgotten when gpm restarts"}
	}
	return api.Check{Name: "state folder", State: "ok", Detail: d.store.dir}
}

func kernel() string { return readLine("/proc/sys/kernel/osrelease") }

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}
