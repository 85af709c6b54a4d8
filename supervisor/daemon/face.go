package daemon

import (
	"gpm/supervisor/internal/keeper"
	"gpm/supervisor/internal/trampoline"
)

// Keeper is the keeper's face: the process that must not die. foreground: it
// was started by systemd or as a container's init, and stays where it is.
func Keeper(home, exe string, foreground bool) int {
	if foreground {
		return keeper.Main(home, exe, keeper.Foreground)
	}
	return keeper.Main(home, exe)
}

// Trampoline is the face that becomes an app: it sets what must be set in the
// app's own process and executes it. It returns only if that fails.
func Trampoline(args []string) int { return trampoline.Main(args) }
