package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpm/config"
)

func TestSubscribe(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		f, list := m.sup().Subscribe()
		if len(list) != 1 || list[0].State != Online {
			t.Errorf("snapshot %+v", list)
		}
		m.act(Stop, "web")
		m.sup().Unsubscribe(f)
		m.sup().Unsubscribe(f)
		var got []string
		last := uint64(0)
		for e := range f.C {
			got = append(got, e.Kind)
			if e.Seq != last+1 && last != 0 || e.App != "web" || e.At.IsZero() {
				t.Errorf("%+v after %d", e, last)
			}
			last = e.Seq
		}
		if !slices.Equal(got, []string{"exit", "stop"}) || f.Lagged() {
			t.Errorf("events %v, lagged %v", got, f.Lagged())
		}
	})
}

// Ids are in the order of the config, as PM2's are.
func TestIDsInOrder(t *testing.T) {
	bubble(t, func(m *machine) {
		var apps []config.App
		for i := range 20 {
			apps = append(apps, webApp(fmt.Sprint("app", i), 2))
		}
		for i, o := range m.sup().Start(m.t.Context(), apps, false) {
			if o.ID != i || !o.OK {
				t.Errorf("%s-%d has id %d, want %d", o.Name, o.Index, o.ID, i)
			}
		}
	})
}

// A reader that does not read costs nobody anything: it is cut, and told so.
func TestLaggingSubscriber(t *testing.T) {
	bubble(t, func(m *machine) {
		slow, _ := m.sup().Subscribe()
		good, _ := m.sup().Subscribe()
		n := 0
		counted := make(chan bool)
		go func() {
			for range good.C {
				n++
			}
			close(counted)
		}()
		for i := range 3 * eventsKept {
			m.sup().Emit(Event{Kind: "daemon", ID: -1, Index: -1, Message: fmt.Sprint(i)})
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		m.sup().Unsubscribe(good)
		<-counted
		if n != 3*eventsKept || good.Lagged() {
			t.Errorf("the good one got %d, lagged %v", n, good.Lagged())
		}
		left := 0
		for range slow.C {
			left++
		}
		if left != eventsQueue || !slow.Lagged() {
			t.Errorf("the slow one got %d, lagged %v", left, slow.Lagged())
		}
		m.sup().do(func(b *board) {
			if len(b.feeds.past) > 2*eventsKept || len(b.feeds.subs) != 0 {
				t.Errorf("history %d, subscribers %d", len(b.feeds.past), len(b.feeds.subs))
			}
		})
	})
}

func TestFeedsEndWithTheSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(&World{})
		f, _ := s.Subscribe()
		s.Close()
		if _, ok := <-f.C; ok || f.Lagged() {
			t.Error("the feed goes on")
		}
		late, list := s.Subscribe()
		if _, ok := <-late.C; ok || list != nil {
			t.Error("a feed of what has ended")
		}
		s.Unsubscribe(late)
		s.Emit(Event{})
		if s.List() != nil {
			t.Error("a list of what has ended")
		}
	})
}

func TestHistory(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 2)), 2)
		m.act(Restart, "web-1")
		s := m.status("web", 1)
		m.sup().Emit(Event{Kind: "watch", App: "web", ID: -1, Index: -1, Message: "of the app"})
		h := m.sup().History("web", s.ID, 3)
		if len(h) != 3 || h[2].Message != "of the app" || h[1].Kind != "online" || h[0].Kind != "listen" {
			t.Errorf("%+v", h)
		}
		for _, e := range m.sup().History("web", s.ID, 100) {
			if e.ID == 0 {
				t.Errorf("of the other instance: %+v", e)
			}
		}
	})
}

func TestEventsOfALife(t *testing.T) {
	bubble(t, func(m *machine) {
		allOK(t, m.start(webApp("web", 1)), 1)
		m.proc("web", 0).kill("SIGSEGV")
		pass(time.Second)
		m.act(Reload, "web")
		pass(time.Second)
		m.act(Delete, "web")
		var kinds []string
		for _, e := range m.events("web") {
			if kind := strings.Fields(e)[0]; kind != "rollout:" { // the app's word, in no order with the instance's
				kinds = append(kinds, kind)
			}
		}
		want := "start: listen: online: exit: start: listen: online: reload: start: listen: online: exit: exit: stop: delete:"
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("events\n%s\nwant\n%s", got, want)
		}
	})
}

func TestTargets(t *testing.T) {
	bubble(t, func(m *machine) {
		named := func(name, space string, n int) config.App {
			app := webApp(name, n)
			app.Namespace = space
			return app
		}
		m.sup().Register([]config.App{
			named("api", "back", 2), named("web", "front", 1), named("web-2", "front", 1), named("7", "odd", 1), named("api-v2", "back", 3),
		})
		for target, want := range map[string]string{
			"all":         "7-0 api-0 api-1 api-v2-0 api-v2-1 api-v2-2 web-0 web-2-0",
			"api":         "api-0 api-1",
			"back":        "api-0 api-1 api-v2-0 api-v2-1 api-v2-2",
			"front":       "web-0 web-2-0",
			"1":           "api-1",
			"7":           "7-0", // a name goes before an id
			"web-2":       "web-2-0",
			"web-0":       "web-0",
			"api-1":       "api-1",
			"api-v2-2":    "api-v2-2",
			"/^api/":      "api-0 api-1 api-v2-0 api-v2-1 api-v2-2",
			"/b$/":        "web-0",
			"api-0,api-1": "api-0 api-1",
			"api-1,api":   "api-0 api-1",
			"api,0":       "api-0 api-1",
			"0,0,web":     "api-0 web-0",
		} {
			list, err := m.sup().Match(strings.Split(target, ","))
			if err != nil {
				t.Errorf("%s: %v", target, err)
			}
			var got []string
			for _, s := range list {
				got = append(got, fmt.Sprintf("%s-%d", s.App.Name, s.Index))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %v, want %s", target, got, want)
			}
		}
		for _, target := range []string{"nobody", "99", "-1", "api-2", "api-", "/^x/", "/", "//", ""} {
			var none *NotFound
			if _, err := m.sup().Match([]string{"api", target}); !errors.As(err, &none) || none.Target != target {
				t.Errorf("%q: %v", target, err)
			}
		}
		if _, err := m.sup().Match([]string{"/(/"}); err == nil || !strings.Contains(err.Error(), `parse target "/(/"`) {
			t.Errorf("bad expression: %v", err)
		}
		if _, err := m.sup().Act(m.t.Context(), Start, []string{"nobody"}, nil); err == nil {
			t.Error("start of nobody")
		}
		m.will(server)
		allOK(t, m.act(Start, "api-1", "web"), 2)
		m.wantState("api", 0, Stopped)
		m.wantState("api", 1, Online)
	})
}
