package monit

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
)

// shell does what the model wants and feeds the answers back. Its methods and
// fields belong to the program's loop, but for those under mu. The commands it
// makes run in a goroutine each, owned by the program, and end with ctx.
type shell struct {
	ctx    context.Context
	cancel context.CancelFunc
	src    Source
	m      *model
	quit   func() // ends the program, from any goroutine but the loop's

	events, logs feed

	running sync.WaitGroup // commands
	mu      sync.Mutex
	leaving bool  // no further commands
	crash   error // the first panic
}

// feed is the open stream of a kind.
type feed struct {
	no     int
	cancel context.CancelFunc
	take   tea.Cmd // the next batch
}

func newShell(ctx context.Context, src Source, m *model) *shell {
	s := &shell{src: src, m: m, quit: func() {}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// close ends all commands and waits for them, for leaveWait at most: a Source
// that ignores its context must not keep the user from his prompt. It returns
// the panic that ended the program, if one did.
func (s *shell) close() error {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() { // waiter: ends with the last command
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(leaveWait):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crash
}

// Init begins: the streams and the clock.
func (s *shell) Init() tea.Cmd {
	return tea.Batch(s.do(s.m.start()), s.tick())
}

// Update hands a message to the model and does what it wants. The next batch of
// a stream is taken when this one is in the model: a flood costs one redraw per
// batch, and keys come in between.
func (s *shell) Update(msg tea.Msg) (_ tea.Model, cmd tea.Cmd) {
	defer func() {
		if r := recover(); r != nil {
			s.crashed(r)
			cmd = tea.Quit
		}
	}()
	cmd = s.do(s.m.update(time.Now(), msg))
	switch msg := msg.(type) {
	case tick:
		cmd = tea.Batch(cmd, s.tick())
	case connected:
		if msg.no == s.events.no {
			cmd = tea.Batch(cmd, s.readEvents(msg))
		}
	case eventBatch:
		if msg.no == s.events.no {
			cmd = tea.Batch(cmd, s.events.take)
		}
	case logBatch:
		if msg.gen == s.logs.no {
			cmd = tea.Batch(cmd, s.logs.take)
		}
	}
	return s, cmd
}

// View draws the model. The window title is left alone: it could not be given back.
func (s *shell) View() (v tea.View) {
	v.AltScreen = true
	defer func() {
		if r := recover(); r != nil {
			s.crashed(r)
			go s.quit() // not from the loop, which has to take it
		}
	}()
	v.SetContent(s.m.render())
	return v
}

// crashed keeps a panic for Run to return when the screen is given back.
func (s *shell) crashed(r any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crash == nil {
		s.crash = fmt.Errorf("run monit: panic: %v\n%s", r, debug.Stack())
	}
}

// command makes f a command that is waited for when monit ends, and whose panic
// ends monit in order.
func (s *shell) command(f func() tea.Msg) tea.Cmd {
	return func() (msg tea.Msg) {
		s.mu.Lock()
		if s.leaving {
			s.mu.Unlock()
			return nil
		}
		s.running.Add(1)
		s.mu.Unlock()
		defer s.running.Done()
		defer func() {
			if r := recover(); r != nil {
				s.crashed(r)
				msg = tea.QuitMsg{}
			}
		}()
		return f()
	}
}

func (s *shell) tick() tea.Cmd {
	return s.command(func() tea.Msg {
		if !wait(s.ctx, tickEvery) {
			return nil
		}
		return tick{}
	})
}

// do makes commands of effects.
func (s *shell) do(effects []effect) tea.Cmd {
	var cmds []tea.Cmd
	for _, e := range effects {
		switch e := e.(type) {
		case connect:
			cmds = append(cmds, s.connect(e))
		case refresh:
			cmds = append(cmds, s.refresh(e))
		case follow:
			cmds = append(cmds, s.follow(e))
		case act:
			cmds = append(cmds, s.act(e))
		case suspend:
			cmds = append(cmds, tea.Suspend)
		case quit:
			cmds = append(cmds, tea.Quit)
		}
	}
	return tea.Batch(cmds...)
}
