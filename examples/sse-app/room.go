package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// chatLog is the log of the bus that all instances' rooms hear.
const chatLog = "chat"

// roomMemory is how many messages a client may be behind. All read the same
// ones: a client that does not read costs nothing more than one that does.
const roomMemory = 256

// placeTime is how long the first message after the start waits for the bus.
const placeTime = time.Second

// room is where the chat's messages come in, from here or from the bus, and
// where all clients of this process listen. Nobody waits for anybody in it.
type room struct {
	bus   *bus.Bus // nil: what is said here is heard here alone
	there moment   // the bus has told where its newest message is

	mu    sync.Mutex
	heard [roomMemory]string // message n is at n % roomMemory
	next  uint64             // the number of the message after the newest
	seats map[*seat]bool
}

func newRoom(b *bus.Bus) *room {
	return &room{bus: b, there: newMoment(), seats: map[*seat]bool{}}
}

// seat is one client's place. It belongs to one goroutine.
type seat struct {
	room  *room
	at    uint64        // the number of the next message for it
	ready chan struct{} // has a value when there is one
}

// errMissed says that a client was so slow that messages for it are gone.
var errMissed = errors.New("too slow, messages are lost")

// sit gives a seat that hears everything from now on. The caller leaves it.
func (r *room) sit() *seat {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &seat{room: r, at: r.next, ready: make(chan struct{}, 1)}
	r.seats[s] = true
	return s
}

func (s *seat) leave() {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	delete(s.room.seats, s)
}

// message is the next one, if there is one. If more are left, ready has a value.
func (s *seat) message() (text string, ok bool, err error) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	switch behind := s.room.next - s.at; {
	case behind == 0:
		return "", false, nil
	case behind > roomMemory:
		return "", false, errMissed
	case behind > 1:
		s.wake()
	}
	text = s.room.heard[s.at%roomMemory]
	s.at++
	return text, true, nil
}

func (s *seat) wake() {
	select {
	case s.ready <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// say sends a message to everybody. It fails if the bus is down: nobody gets it.
func (r *room) say(ctx context.Context, text string) error {
	if r.bus == nil {
		r.hear(text)
		return nil
	}
	// Whoever spoke before this instance listens would not hear himself.
	limited, cancel := context.WithTimeout(ctx, placeTime)
	defer cancel()
	select {
	case <-r.there.Done():
	case <-limited.Done():
		return bus.ErrDown
	}
	_, _, err := r.bus.Publish(ctx, chatLog, bus.Entry{Kind: "message", Data: text})
	return err
}

func (r *room) hear(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard[r.next%roomMemory] = text
	r.next++
	for s := range r.seats {
		s.wake()
	}
}

// listen brings in what the bus has, until ctx ends. report is told of errors.
func (r *room) listen(ctx context.Context, report func(format string, args ...any)) {
	f, err := r.bus.Follow(chatLog, bus.Now)
	if err != nil {
		report("chat: %v", err)
		return
	}
	defer f.Close()
	for {
		entries, gap, err := f.Next(ctx)
		if gap {
			report("chat: messages are lost, the bus did not keep them")
		}
		if err != nil && !errors.Is(err, bus.ErrDown) && ctx.Err() == nil {
			report("chat: %v", err)
		}
		for _, e := range entries {
			r.hear(e.Data)
		}
		if f.Cursor() != "" {
			r.there.come()
		}
		select {
		case <-f.Ready():
		case <-ctx.Done():
			return
		}
	}
}
