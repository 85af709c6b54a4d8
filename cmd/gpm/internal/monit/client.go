package monit

import (
	"context"
	"iter"

	"gpm/supervisor/api"
)

// FromClient is the daemon behind c as a Source.
func FromClient(c *api.Client) Source { return clientSource{c} }

type clientSource struct{ c *api.Client }

func (s clientSource) List(ctx context.Context) (api.List, error) { return s.c.List(ctx) }

func (s clientSource) Events(ctx context.Context) (api.List, iter.Seq2[api.Event, error], error) {
	return s.c.Events(ctx)
}

func (s clientSource) Logs(ctx context.Context, targets []string, lines int) iter.Seq2[api.LogLine, error] {
	return s.c.Logs(ctx, api.LogsQuery{Targets: targets, Lines: lines, Follow: true})
}

func (s clientSource) Restart(ctx context.Context, targets []string) (api.Result, error) {
	return s.c.Restart(ctx, api.ActRequest{Targets: targets})
}

func (s clientSource) Reload(ctx context.Context, targets []string) (api.Result, error) {
	return s.c.Reload(ctx, api.ActRequest{Targets: targets})
}

func (s clientSource) Stop(ctx context.Context, targets []string) (api.Result, error) {
	return s.c.Stop(ctx, api.ActRequest{Targets: targets})
}
