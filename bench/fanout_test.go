package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// stage is an event stream service of one process: what is posted goes to all.
type stage struct {
	mu      sync.Mutex
	viewers map[chan string]bool
	edit    func(i int, text string) []string // what becomes of message i
	said    int
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		text, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, t := range s.edit(s.said, string(text)) {
			for v := range s.viewers {
				v <- t
			}
		}
		s.said++
		return
	}
	mine := make(chan string, 100)
	s.mu.Lock()
	s.viewers[mine] = true
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ":\nevent: hello\ndata: {}\n\n")
	http.NewResponseController(w).Flush()
	for {
		select {
		case t := <-mine:
			fmt.Fprintf(w, "data: {\"message\":%q}\n\n", t)
			http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.viewers, mine)
			return
		}
	}
}

func play(t *testing.T, edit func(i int, text string) []string) (port int) {
	t.Helper()
	srv := httptest.NewServer(&stage{viewers: map[chan string]bool{}, edit: edit})
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestAudienceHearsEverything(t *testing.T) {
	port := play(t, func(_ int, text string) []string { return []string{text} })
	a, err := gather(deadline(t), 20, show{port: port, ask: viewing("/", ""), sign: "event: hello", warm: 2, total: 10})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.perform(deadline(t), 1000, "/"); err != nil {
		t.Fatal(err)
	}
	f := a.result()
	if len(f.took) != 20*8 || f.expected != 20*8 || f.doubled != 0 {
		t.Errorf("%d of %d, %d doubled", len(f.took), f.expected, f.doubled)
	}
	if got := summary([]fanned{f}); got.p50 <= 0 || got.p50 > got.p99 || got.p99 > got.worst || got.worst > time.Since(began) || got.delivered != "160 / 160" {
		t.Errorf("%+v", got)
	}
}

// Time counts from when a message was due, also if the service was slow to take it.
func TestLateMessagesAreLate(t *testing.T) {
	const late = 50 * time.Millisecond
	port := play(t, func(i int, text string) []string {
		number, due, _ := readStamp([]byte(text))
		return []string{stamp(number, due-int64(late))}
	})
	a, err := gather(deadline(t), 1, show{port: port, ask: viewing("/", ""), sign: "event: hello", total: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.perform(deadline(t), 1000, "/"); err != nil {
		t.Fatal(err)
	}
	if got := summary([]fanned{a.result()}); got.p50 < late {
		t.Errorf("median %s", got.p50)
	}
}

func TestMissingAndDoubledMessagesAreSeen(t *testing.T) {
	port := play(t, func(i int, text string) []string {
		switch i { // in the order in which they arrive, so that others come after the doubled one
		case 4:
			return nil
		case 5:
			return []string{text, text}
		}
		return []string{text}
	})
	a, err := gather(deadline(t), 3, show{port: port, ask: viewing("/", ""), sign: "event: hello", total: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.publish(deadline(t), 1000, "/"); err != nil {
		t.Fatal(err)
	}
	if !until(deadline(t), func() bool { return a.heard.Load() == 27 }) {
		t.Fatalf("%d heard", a.heard.Load())
	}
	f := a.result()
	if len(f.took) != 27 || f.expected != 30 || f.doubled != 3 {
		t.Errorf("%d of %d, %d doubled", len(f.took), f.expected, f.doubled)
	}
	if got := summary([]fanned{f, f}).delivered; got != "54 / 60, 6 doubled" {
		t.Errorf("the table says %q", got)
	}
}

func TestAudienceIsRefused(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	port, _ := strconv.Atoi(srv.URL[strings.LastIndex(srv.URL, ":")+1:])
	if _, err := gather(deadline(t), 3, show{port: port, ask: viewing("/", ""), sign: "event: hello"}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v", err)
	}
	if err := (show{port: port, total: 1}).publish(deadline(t), 1000, "/"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v", err)
	}
}

func TestStamps(t *testing.T) {
	if n, due, ok := readStamp([]byte(`data: {"message":"` + stamp(7, 123) + `"}`)); n != 7 || due != 123 || !ok {
		t.Errorf("%d, %d, %t", n, due, ok)
	}
	for _, bad := range []string{"", "data: x", "!", "!!", "!1!", "!a,1!", "!1,b!", "!-1,5!", "!1,5"} {
		if _, _, ok := readStamp([]byte(bad)); ok {
			t.Errorf("%q has a stamp", bad)
		}
	}
}

func TestGauge(t *testing.T) {
	const text = "# HELP up x\nup_bad 3\nup 1\nopen{kind=\"a\"} 2.5\n"
	if gauge(text, "up") != 1 || gauge(text, `open{kind="a"}`) != 2.5 || gauge(text, "nope") != -1 {
		t.Error("misread")
	}
}
