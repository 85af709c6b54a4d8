// Package trampoline is gpm run inside a child between fork and exec, for what
// depends on the child's own pid. The pid is kept.
package trampoline

// Face is the first argument that makes gpm a trampoline.
const Face = "trampoline"

// Command is how to start argv through the trampoline of the gpm at exe, an
// absolute path. The child's environment holds LISTEN_FDS and LISTEN_FDNAMES
// already; the trampoline adds LISTEN_PID.
func Command(exe string, argv []string) (path string, args []string) {
	return exe, append([]string{"gpm", Face, "--"}, argv...)
}
