package monit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"

	"gpm/supervisor/api"
)

// loop is Bubble Tea's loop without a terminal: it runs commands in goroutines
// and hands their messages to the shell, one at a time.
type loop struct {
	s    *shell
	msgs chan tea.Msg
	done chan struct{}

	mu    sync.Mutex
	ended bool
}

func startLoop(f *fake) *loop {
	l := &loop{s: newShell(context.Background(), f, newModel(time.Now(), copyList(f.list), scope{}, unicodeGlyphs)), msgs: make(chan tea.Msg), done: make(chan struct{})}
	l.run(l.s.Init())
	go func() { // the loop; ends with stop
		defer close(l.done)
		for msg := range l.msgs {
			switch msg := msg.(type) {
			case nil:
			case func(*model):
				msg(l.s.m)
			case tea.QuitMsg:
				l.mu.Lock()
				l.ended = true
				l.mu.Unlock()
			case tea.BatchMsg:
				for _, c := range msg {
					l.run(c)
				}
			default:
				_, cmd := l.s.Update(msg)
				l.s.View()
				l.run(cmd)
			}
		}
	}()
	return l
}

func (l *loop) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	go func() {
		msg := cmd()
		select {
		case l.msgs <- msg:
		case <-l.s.ctx.Done():
		}
	}()
}

// look runs f in the loop, when it is idle.
func (l *loop) look(f func(*model)) {
	synctest.Wait()
	l.msgs <- f
	synctest.Wait()
}

func (l *loop) stop() error {
	err := l.s.close()
	synctest.Wait()
	close(l.msgs)
	<-l.done
	return err
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func lastText(m *model) string {
	if m.logs.next == 0 {
		return ""
	}
	return m.logs.at(m.logs.next - 1).text
}

func plainLines(from, to int) []api.LogLine {
	var lines []api.LogLine
	for i := from; i < to; i++ {
		lines = append(lines, api.LogLine{Stream: "out", Text: fmt.Sprint(i)})
	}
	return lines
}

func count(calls []string, call string) int {
	n := 0
	for _, c := range calls {
		if c == call {
			n++
		}
	}
	return n
}

func TestDaemonGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		f.backlog = plainLines(0, 30)
		l := startLoop(f)
		pass(3 * time.Second)
		l.look(func(m *model) {
			if !m.link.up || lastText(m) != "29" {
				t.Errorf("up: %v, last line %q", m.link.up, lastText(m))
			}
		})

		f.down()
		pass(time.Second)
		l.look(func(m *model) {
			if m.link.up || !strings.Contains(m.render(), "daemon gone, reconnecting") {
				t.Error("the daemon's absence is not shown")
			}
			if lastText(m) != "29" {
				t.Error("the lines went with the daemon")
			}
		})
		before := len(f.called())
		pass(time.Minute)
		if n := len(f.called()) - before; n < 10 || n > 16 {
			t.Errorf("%d calls in a minute without a daemon", n)
		}

		f.set(func() { f.backlog = plainLines(0, 45) })
		f.up()
		pass(lastRetry + time.Second)
		l.look(func(m *model) {
			if !m.link.up || !strings.HasPrefix(m.note.text, "the daemon is back") {
				t.Errorf("up: %v, note %q", m.link.up, m.note.text)
			}
			if lastText(m) != "44" || m.logs.next != 45 {
				t.Errorf("%d lines, the last is %q; want 45 without a gap or a double", m.logs.next, lastText(m))
			}
		})
		// And it is live again: an event shows within a moment.
		f.emit(api.Event{ID: 5, Status: api.Online}, func(in *api.Instance) { in.Status, in.PID = api.Online, 77 })
		pass(time.Second)
		l.look(func(m *model) {
			if in, _ := m.selection(); in.Status != api.Online || in.PID != 77 {
				t.Errorf("after an event: %s, pid %d", in.Status, in.PID)
			}
		})
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestEventsAreFollowedByOneList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		l := startLoop(f)
		pass(100 * time.Millisecond)
		before := count(f.called(), "list")
		for i := range 80 {
			f.emit(api.Event{ID: 0, Status: api.Stopping, Message: fmt.Sprint(i)}, func(*api.Instance) {})
		}
		pass(time.Second)
		if n := count(f.called(), "list") - before; n < 1 || n > 3 {
			t.Errorf("%d lists for 80 events in a moment", n)
		}
		l.stop()
	})
}

func TestDeafDaemonIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		l := startLoop(f)
		f.set(func() { f.deaf = true })
		pass(10 * time.Second)
		l.look(func(m *model) {
			if !strings.Contains(m.render(), "the daemon does not answer") {
				t.Error("its silence is not shown")
			}
		})
		if n := count(f.called(), "list"); n > 4 {
			t.Errorf("%d list calls to a daemon that answers none", n)
		}
		f.set(func() { f.deaf = false })
		pass(10 * time.Second)
		l.look(func(m *model) {
			if strings.Contains(m.render(), "does not answer") {
				t.Error("it answers again, which is not shown")
			}
		})
		l.stop()
	})
}

func TestMovingQuicklyOpensOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		f.backlog = plainLines(0, 3)
		l := startLoop(f)
		pass(time.Second)
		for range 4 {
			l.look(func(m *model) {})
			l.msgs <- tea.KeyPressMsg{Code: 'j', Text: "j"}
			pass(20 * time.Millisecond)
		}
		pass(time.Second)
		opened := slices.DeleteFunc(f.called(), func(c string) bool { return !strings.HasPrefix(c, "logs ") })
		if !slices.Equal(opened, []string{"logs 5", "logs 1"}) {
			t.Errorf("streams: %v, want 5 and, after four rows, 1", opened)
		}
		l.stop()
	})
}

func TestVerbTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		f.act = func(ctx context.Context, _ string, _ []string) (api.Result, error) {
			<-ctx.Done()
			return api.Result{}, ctx.Err()
		}
		l := startLoop(f)
		pass(time.Second)
		l.msgs <- tea.KeyPressMsg{Code: 'r', Text: "r"}
		pass(actWait + time.Second)
		l.look(func(m *model) {
			if !strings.Contains(m.note.text, "not done after 2m00s; the daemon goes on with it") || len(m.working) != 0 {
				t.Errorf("note %q, %d at work", m.note.text, len(m.working))
			}
		})
		l.stop()
	})
}

func TestPanicInACallEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(fleet(time.Now()))
		l := startLoop(f)
		f.set(func() { f.panics = true })
		pass(5 * time.Second)
		l.mu.Lock()
		ended := l.ended
		l.mu.Unlock()
		if !ended {
			t.Error("monit goes on after a panic")
		}
		if err := l.stop(); err == nil || !strings.Contains(err.Error(), "a bug in the list") || !strings.Contains(err.Error(), "fake_test.go") {
			t.Errorf("error: %v, want the panic and its stack", err)
		}
	})
}

func TestInboxKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox(100, func(int) int { return 1 })
		for i := range 1234 {
			b.put(i)
		}
		begun := time.Now()
		items, skipped, ok := b.take(t.Context(), batchEvery)
		if !ok || len(items)+skipped != 1234 || len(items) < 50 || len(items) > 100 || items[len(items)-1] != 1233 || items[0] != skipped {
			t.Errorf("%d items from %d to %d, %d skipped", len(items), items[0], items[len(items)-1], skipped)
		}
		if d := time.Since(begun); d != batchEvery {
			t.Errorf("taken after %s, want a frame", d)
		}
		b.put(1)
		b.close()
		if items, _, ok := b.take(t.Context(), batchEvery); !ok || len(items) != 1 {
			t.Errorf("what was put before the close: %v, %v", items, ok)
		}
		for range 2 {
			if _, _, ok := b.take(t.Context(), batchEvery); ok {
				t.Error("a closed and empty inbox gives something")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, ok := newInbox(1, func(int) int { return 1 }).take(ctx, batchEvery); ok {
			t.Error("an ended context gives something")
		}
	})
}
