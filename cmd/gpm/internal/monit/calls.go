package monit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"

	"gpm/supervisor/api"
)

// Waits and bounds of the calls to the Source.
const (
	tickEvery    = time.Second
	listWait     = 5 * time.Second
	snapshotWait = 15 * time.Second
	actWait      = 2 * time.Minute
	reloadWait   = 30 * time.Minute // a rollout waits for streams to end
	batchEvery   = 50 * time.Millisecond
	queuedLines  = 2 * backlog
	queuedEvents = 500
)

// open begins a new stream in the place of the old one.
func (s *shell) open(f *feed, no int) context.Context {
	if f.cancel != nil {
		f.cancel()
	}
	ctx, cancel := context.WithCancel(s.ctx)
	*f = feed{no: no, cancel: cancel}
	return ctx
}

func (s *shell) connect(e connect) tea.Cmd {
	ctx := s.open(&s.events, e.no)
	return s.command(func() tea.Msg {
		if !wait(ctx, e.after) {
			return nil
		}
		list, stream, err := s.snapshot(ctx)
		if err != nil {
			return disconnected{no: e.no, err: err}
		}
		return connected{no: e.no, list: list, stream: stream}
	})
}

// snapshot opens the event stream. The stream lasts as long as ctx, but its
// beginning has a deadline.
func (s *shell) snapshot(ctx context.Context) (api.List, iter.Seq2[api.Event, error], error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(snapshotWait, func() {
		cancel(fmt.Errorf("the daemon sent no snapshot within %s", snapshotWait))
	})
	list, events, err := s.src.Events(ctx)
	if !late.Stop() || err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return list, nil, err
	}
	return list, func(yield func(api.Event, error) bool) {
		defer cancel(nil)
		events(yield)
	}, nil
}

// readEvents starts the two commands of a stream: one never waits for the
// screen, one waits for it.
func (s *shell) readEvents(c connected) tea.Cmd {
	box := newInbox(queuedEvents, func(api.Event) int { return 1 })
	s.events.take = s.command(func() tea.Msg {
		events, _, ok := box.take(s.ctx, batchEvery) // what was dropped is in the list that follows
		if !ok {
			return nil
		}
		return eventBatch{no: c.no, events: events}
	})
	pumped := s.command(func() tea.Msg {
		return disconnected{no: c.no, err: pump(c.stream, box)}
	})
	return tea.Batch(pumped, s.events.take)
}

// pump moves a stream into an inbox until the stream ends, and says why it did.
func pump[T any](stream iter.Seq2[T, error], box *inbox[T]) error {
	defer box.close()
	for item, err := range stream {
		if err != nil {
			return err
		}
		box.put(item)
	}
	return nil
}

func (s *shell) refresh(e refresh) tea.Cmd {
	return s.command(func() tea.Msg {
		if !wait(s.ctx, e.after) {
			return nil
		}
		ctx, cancel := context.WithTimeout(s.ctx, listWait)
		defer cancel()
		list, err := s.src.List(ctx)
		return listed{list: list, err: err}
	})
}

func (s *shell) follow(e follow) tea.Cmd {
	ctx := s.open(&s.logs, e.gen)
	if len(e.ids) == 0 {
		return nil
	}
	box := newInbox(queuedLines, func(l api.LogLine) int { return max(l.Skipped, 1) })
	s.logs.take = s.command(func() tea.Msg {
		raw, skipped, ok := box.take(ctx, batchEvery)
		if !ok {
			return nil
		}
		batch := logBatch{gen: e.gen, skipped: skipped, lines: make([]line, len(raw))}
		for i, l := range raw {
			batch.missed += l.Skipped
			batch.lines[i] = newLine(l)
		}
		return batch
	})
	pumped := s.command(func() tea.Msg {
		if !wait(ctx, e.after) {
			return nil
		}
		return logsEnded{gen: e.gen, err: pump(s.src.Logs(ctx, targets(e.ids), backlog), box)}
	})
	return tea.Batch(pumped, s.logs.take)
}

func (s *shell) act(e act) tea.Cmd {
	call, limit := s.src.Restart, actWait
	switch e.verb {
	case verbReload:
		call, limit = s.src.Reload, reloadWait
	case verbStop:
		call = s.src.Stop
	case verbRestart:
	}
	return s.command(func() tea.Msg {
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		result, err := call(ctx, targets(e.ids))
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not done after %s; the daemon goes on with it", duration(limit))
		}
		return acted{act: e, result: result, err: err}
	})
}

// targets names instances by their ids: a name could mean something else, too.
func targets(ids []int) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = strconv.Itoa(id)
	}
	return names
}
