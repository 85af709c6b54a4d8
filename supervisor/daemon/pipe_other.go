//go:build !linux

package daemon

import (
	"gpm/logs"
	"gpm/supervisor/internal/keeper"
)

func duplicate(logs.Pipe) (logs.Pipe, error) { return logs.Pipe{}, keeper.ErrUnsupported }
