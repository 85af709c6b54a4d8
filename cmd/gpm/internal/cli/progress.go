package cli

import (
	"context"
	"time"

	"gpm/cmd/gpm/internal/term"
)

// quietFor is how long a verb may take before it tells what it waits for.
const quietFor = time.Second

// narrate shows what happens while a verb waits for apps: a drain may take
// minutes. It speaks on stderr, and only to a terminal. The caller calls the
// function it returns when the wait is over; nothing is printed after that.
func (s *session) narrate(ctx context.Context) (done func()) {
	if s.err.Width() == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		s.tell(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (s *session) tell(ctx context.Context) {
	quiet := time.NewTimer(quietFor)
	defer quiet.Stop()
	select {
	case <-ctx.Done():
		return
	case <-quiet.C:
	}
	_, events, err := s.client.Events(ctx)
	if err != nil {
		return // the verb itself will say what is wrong
	}
	for e, err := range events {
		if err != nil {
			return
		}
		who := e.App
		if e.Instance >= 0 {
			who = title(e.App, e.Instance)
		}
		if who != "" {
			who += ": "
		}
		s.err.Println(s.err.Paint(term.Faint, "  "+term.Clean(who+e.Message)))
	}
}
