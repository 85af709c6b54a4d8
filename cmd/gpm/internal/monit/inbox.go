package monit

import (
	"context"
	"sync"
	"time"
)

// inbox is a bounded queue between a stream that never waits and a screen that
// takes a batch per frame. When it is full the oldest half goes: what is on the
// screen now matters more than what scrolled by, and neither the daemon nor the
// keys wait for a flood to be drawn.
type inbox[T any] struct {
	limit int
	count func(T) int // how many an item stands for when it is dropped

	mu      sync.Mutex
	items   []T
	skipped int // dropped since the last take; they came before items
	closed  bool
	ready   chan struct{} // one slot: there is something to take
}

func newInbox[T any](limit int, count func(T) int) *inbox[T] {
	return &inbox[T]{limit: limit, count: count, ready: make(chan struct{}, 1)}
}

// put adds an item. It never blocks.
func (b *inbox[T]) put(item T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) >= b.limit {
		half := b.limit / 2
		for _, old := range b.items[:half] {
			b.skipped += b.count(old)
		}
		kept := copy(b.items, b.items[half:])
		clear(b.items[kept:])
		b.items = b.items[:kept]
	}
	b.items = append(b.items, item)
	b.wake()
}

// close says that nothing more will be put. What is there can still be taken.
func (b *inbox[T]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
}

func (b *inbox[T]) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take waits for something, lets it gather for a frame, and takes all of it,
// with the number of items dropped before it. It answers false when ctx ended
// or the inbox is closed and empty.
func (b *inbox[T]) take(ctx context.Context, frame time.Duration) (items []T, skipped int, ok bool) {
	select {
	case <-ctx.Done():
		return nil, 0, false
	case <-b.ready:
	}
	if !wait(ctx, frame) {
		return nil, 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	items, skipped = b.items, b.skipped
	b.items, b.skipped = nil, 0
	select {
	case <-b.ready: // said of what we take here
	default:
	}
	if b.closed {
		b.wake()
	}
	return items, skipped, len(items) > 0 || skipped > 0
}

// wait waits for d, or answers false because ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
