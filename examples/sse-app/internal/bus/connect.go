package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	pulse   = time.Second     // between two signs of life that are asked for
	silence = 4 * time.Second // without any, the connection is dead
	soonest = 100 * time.Millisecond
	latest  = 2 * time.Second // between two attempts to connect
)

// run keeps the connection. It is the only one that connects and reports.
func (b *Bus) run() {
	defer close(b.ended)
	reported, up := false, false
	report := func(err error) {
		if b.ctx.Err() == nil && (!reported || up != (err == nil)) {
			reported, up = true, err == nil
			b.o.Report(err)
		}
	}
	for failures := 0; b.ctx.Err() == nil; {
		lasted, err := b.session(report)
		report(err)
		if lasted > pulse {
			failures = 0
			continue
		}
		b.settle(nil, false)
		select {
		case <-time.After(pause(failures)):
		case <-b.ctx.Done():
		}
		failures++
	}
	b.settle(nil, false)
}

// pause is how long to wait after so many failures: the more the longer, and
// never the same for all who lost the same bus.
func pause(failures int) time.Duration {
	most := min(soonest<<min(failures, 5), latest)
	return soonest + rand.N(most-soonest+time.Millisecond)
}

// settle makes client the one to use, or nobody. Whoever needs the bus then waits
// for the attempt that follows at once, if one does.
func (b *Bus) settle(client *redis.Client, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client = client
	if b.trying != nil {
		close(b.trying)
		b.trying = nil
	}
	if again {
		b.trying = make(chan struct{})
	}
}

// session connects and listens until the connection is lost; it returns for how
// long it was there, and why it is not any more.
func (b *Bus) session(report func(error)) (lasted time.Duration, err error) {
	client, err := b.dial()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(b.ctx)
	ears := client.Subscribe(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer ears.Close()                                      // ends the goroutine below if it writes
	defer cancel()                                          // ends it if it waits
	stop := context.AfterFunc(ctx, func() { ears.Close() }) // ends the wait for a message
	defer stop()

	if err := ears.Ping(ctx); err != nil {
		return 0, err
	}
	if _, err := ears.ReceiveTimeout(ctx, b.o.patience); err != nil {
		return 0, err
	}
	began := time.Now()
	b.settle(client, false)
	report(nil)
	b.allDirty()
	asking.Go(func() { b.ask(ctx, ears) }) // until this session is over
	err = b.listen(ctx, ears)
	lasted = time.Since(began)
	b.deafen() // first: when the bus is not up, no follower says that there is just nothing new
	b.settle(nil, lasted > pulse)
	return lasted, err
}

func (b *Bus) dial() (*redis.Client, error) {
	url, err := b.o.URL()
	if err != nil {
		return nil, err
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of the bus: %w", err)
	}
	o.Protocol = 2 // pub/sub has a connection of its own, nothing of 3 is needed
	o.DisableIdentity = true
	o.DialTimeout, o.DialerRetries = b.o.patience/2, 1
	o.ReadTimeout, o.WriteTimeout = b.o.patience, b.o.patience
	o.ContextTimeoutEnabled = true
	o.PoolSize, o.PipelinePoolSize = connections, -1
	o.MaxActiveConns = o.PoolSize
	o.MaxRetries, o.MinRetryBackoff, o.MaxRetryBackoff = 2, 10*time.Millisecond, 50*time.Millisecond
	return redis.NewClient(o), nil
}

// listen hears what is published. It must not wait for anybody.
func (b *Bus) listen(ctx context.Context, ears *redis.PubSub) error {
	for {
		said, err := ears.ReceiveTimeout(ctx, silence)
		if err != nil {
			return err
		}
		switch m := said.(type) {
		case *redis.Message:
			b.hear(m.Channel, m.Payload)
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				b.subscribed(m.Channel)
			}
		case *redis.Pong:
			b.beat()
		}
	}
}

// ask subscribes and unsubscribes as topics come and go, and asks for signs of life.
func (b *Bus) ask(ctx context.Context, ears *redis.PubSub) {
	beat := time.NewTicker(pulse)
	defer beat.Stop()
	for {
		var err error
		for came, gone := b.changes(); err == nil && len(came)+len(gone) > 0; came, gone = b.changes() {
			err = errors.Join(inParts(came, ears.Subscribe)(ctx), inParts(gone, ears.Unsubscribe)(ctx))
		}
		if err != nil {
			ears.Close() // listen sees it and the session is over
			return
		}
		select {
		case <-b.changed:
		case <-beat.C:
			ears.Ping(ctx) // if it fails there is no answer either
		case <-ctx.Done():
			return
		}
	}
}

// inParts keeps single commands short, whatever the number of topics.
func inParts(names []string, do func(context.Context, ...string) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for part := range slices.Chunk(names, 500) {
			if err := do(ctx, part...); err != nil {
				return err
			}
		}
		return nil
	}
}

// allDirty makes ask subscribe to everything.
func (b *Bus) allDirty() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.topics {
		b.dirty[name] = true
	}
}

// changes are the topics that came and went since the last call. One that went
// and came again is subscribed to again, so that there is an acknowledgement.
func (b *Bus) changes() (came, gone []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range maps.Keys(b.dirty) {
		if b.topics[name] != nil {
			came = append(came, name)
		} else {
			gone = append(gone, name)
		}
	}
	clear(b.dirty)
	return came, gone
}

// call runs a script.
func (b *Bus) call(ctx context.Context, s *redis.Script, keys []string, args ...any) (said any, err error) {
	short, cancel := context.WithTimeout(ctx, b.o.patience)
	defer cancel()
	for range 2 {
		var c *redis.Client
		if c, err = b.connected(short); err != nil {
			break
		}
		said, err = s.Run(short, c, keys, args...).Result()
		if err == nil || errors.Is(err, redis.Nil) {
			return said, nil
		}
		if !errors.Is(err, redis.ErrClosed) { // else the connection was lost meanwhile and may be back at once
			break
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, ErrDown) {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %v", ErrDown, err)
}

// connected is the client to use. It waits only for an attempt that has just begun.
func (b *Bus) connected(ctx context.Context) (*redis.Client, error) {
	for range 2 {
		b.mu.Lock()
		client, trying := b.client, b.trying
		b.mu.Unlock()
		if client != nil {
			return client, nil
		}
		if trying == nil {
			break
		}
		select {
		case <-trying:
		case <-b.ctx.Done():
		case <-ctx.Done():
		}
	}
	return nil, ErrDown
}
