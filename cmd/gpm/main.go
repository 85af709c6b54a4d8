// Gpm keeps streaming services running. One binary has four faces: the command
// line, and the three processes that it starts of itself.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gpm/cmd/gpm/internal/cli"
	"gpm/cmd/gpm/internal/monit"
	"gpm/supervisor/api"
	"gpm/supervisor/daemon"
)

func main() { os.Exit(run(os.Args)) }

// run picks a face, before anything of the command line is built: the keeper is
// to stay small, and the trampoline runs once for each process of an app.
func run(args []string) int {
	face := ""
	if len(args) > 1 {
		face = args[1]
	}
	switch face {
	case "trampoline":
		return daemon.Trampoline(args[2:])
	case "keeper":
		exe, err := os.Executable()
		if err != nil {
			fmt.Fprintf(os.Stderr, "find my own binary: %v\n", err)
			return 1
		}
		return daemon.Keeper(home(), exe, slices.Contains(args[2:], "--foreground"))
	case "daemon":
		return daemon.Main(home())
	}
	return commandLine(args)
}

// home is GPM_HOME for the faces that the command line or systemd starts, both
// of which set it.
func home() string {
	if h := os.Getenv("GPM_HOME"); h != "" {
		return h
	}
	user, err := os.UserHomeDir()
	if err != nil {
		user = "/root"
	}
	return filepath.Join(user, ".gpm")
}

func commandLine(args []string) int {
	env, err := cli.RealEnv()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	env.Monit = func(ctx context.Context, c *api.Client, target string) error {
		return monit.Run(ctx, monit.FromClient(c), target, os.Stdin, os.Stdout)
	}
	ctx, stop := cli.UntilSignal(context.Background())
	defer stop()
	return cli.Run(ctx, args[min(1, len(args)):], env)
}
