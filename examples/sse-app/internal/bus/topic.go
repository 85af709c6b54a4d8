package bus

import (
	"slices"
	"sync"
	"time"
)

const (
	held     = 64             // newest entries of a topic that are held for its followers
	heldSize = 256 << 10      // bytes of them
	fresh    = 24 * time.Hour // how long it is trusted what the log said; reading it keeps its memory alive
)

// topic is a log that has followers here. Once one of them has read the log to
// its end, it knows the number of the newest entry, as everything that is
// published then is heard. It holds the newest entries for a moment; followers
// have nothing but a position. One who is too slow for what is held reads the log
// by itself: nobody is slow for others, ten thousand followers are cheap, and if
// they all come back at once the log is read once.
type topic struct {
	name string

	mu           sync.Mutex
	followers    map[*Follower]struct{}
	live         bool // subscribed in this session
	subscription int  // number of it in this process: what was said before may be unheard
	exact        bool // newest is the newest, not only the newest heard
	learned      time.Time
	newest       uint64
	run          []Entry // up to newest, without holes; may be empty
	size         int     // bytes in run
	quiet        bool    // nothing was heard since the last beat
}

// join adds f to the followers of a log.
func (b *Bus) join(f *Follower, log string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f.t = b.topics[log]
	if f.t == nil {
		f.t = &topic{name: log, followers: map[*Follower]struct{}{}}
		b.topics[log] = f.t
		b.change(log)
	}
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.followers[f] = struct{}{}
	if f.t.live {
		f.poke() // else when the subscription is acknowledged
	}
}

func (b *Bus) leave(f *Follower) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if _, here := f.t.followers[f]; !here {
		return
	}
	delete(f.t.followers, f)
	delete(b.waiting, f)
	if len(f.t.followers) == 0 {
		delete(b.topics, f.t.name)
		b.change(f.t.name)
	}
}

// change tells ask that a topic came or went. b.mu is held.
func (b *Bus) change(log string) {
	b.dirty[log] = true
	select {
	case b.changed <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// news is what f has not got yet; not ok if the log must be asked. t.mu is held.
func (t *topic) news(f *Follower) (entries []Entry, ok bool) {
	if !t.live || !t.exact {
		return nil, false
	}
	if !f.known && f.after == "now" {
		f.pos, f.known = t.newest, true
	}
	before := t.newest - uint64(len(t.run)) // the entry before the run
	if !f.known || f.pos < before || f.pos > t.newest {
		return nil, false
	}
	entries = slices.Clone(t.run[f.pos-before:])
	f.pos = t.newest
	return entries, true
}

// learn takes over what was read during a subscription, if it goes up to the end.
func (t *topic) learn(p page, subscription int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subscription != subscription || p.pos < p.last {
		return
	}
	t.exact, t.learned = true, time.Now()
	if p.pos > t.newest { // of what comes now it was not heard yet
		t.newest, t.run, t.size, t.quiet = p.pos, nil, 0, false
		for _, e := range p.entries[max(0, len(p.entries)-held):] {
			t.hold(e)
		}
	}
}

// hear takes a message to those who follow its log.
func (b *Bus) hear(channel, payload string) {
	n, e, err := unpack(payload)
	if err != nil && payload != "" { // that one says: a claim was given back
		return // of somebody else on our channel
	}
	t := b.topic(channel)
	if t == nil {
		return // the last follower has just left
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > t.newest {
		if n > t.newest+1 { // the first that is heard, or the bus has lost its memory
			t.run, t.size = nil, 0
		}
		t.newest, t.quiet = n, false
		t.hold(e)
	}
	for f := range t.followers {
		f.freed = f.freed || payload == ""
		f.poke()
	}
}

// hold adds the newest entry to the run. t.mu is held.
func (t *topic) hold(e Entry) {
	t.run, t.size = append(t.run, e), t.size+len(e.Data)
	for len(t.run) > held || t.size > heldSize {
		t.size -= len(t.run[0].Data)
		t.run = slices.Delete(t.run, 0, 1)
	}
}

func (b *Bus) topic(name string) *topic {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.topics[name]
}

// subscribed: from now on everything on this channel is heard. What was said
// before is in the log.
func (b *Bus) subscribed(channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[channel]
	if t == nil {
		return
	}
	b.acks++
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live, t.exact, t.newest, t.run, t.size = true, false, 0, nil, 0
	t.subscription = b.acks
	for f := range t.followers {
		f.poke()
	}
}

// all does something with every topic.
func (b *Bus) all(do func(*topic)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.topics {
		t.mu.Lock()
		do(t)
		t.mu.Unlock()
	}
}

// deafen: nothing is heard any more.
func (b *Bus) deafen() {
	b.all(func(t *topic) { t.live, t.run, t.size = false, nil, 0 })
}

// wake is for the end: there is nothing to wait for any more.
func (b *Bus) wake() {
	b.all(func(t *topic) {
		for f := range t.followers {
			f.poke()
		}
	})
}

// beat: the bus is alive. Those who had doubts try again, and what was held for
// followers that are not slow is let go.
func (b *Bus) beat() {
	b.all(func(t *topic) {
		if t.quiet {
			t.run, t.size = nil, 0
		}
		t.quiet = true
		t.exact = t.exact && time.Since(t.learned) < fresh
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.waiting {
		f.poke()
	}
	clear(b.waiting)
}

// later wakes f at the next sign of life, if this session has one; else the next
// session does.
func (b *Bus) later(f *Follower) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[f] = struct{}{}
}
