package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gpm/bench/load"
	"gpm/examples/sse-app/ssetest"
	"gpm/supervisor/api"
)

// sample is examples/sse-app under a gpm of its own, by its own config file.
type sample struct {
	*gpm
	url  string
	port int
}

// newSample starts it as its README says, only elsewhere: other ports, the
// binaries of the tests, and flags.
func newSample(t *testing.T, flags ...string) *sample {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join("..", "examples", "sse-app", "gpm.conf.json"))
	if err != nil {
		t.Fatal(err)
	}
	g, port := newGPM(t), freePort(t)
	args, _ := json.Marshal(flags)
	text := string(conf)
	for _, r := range [][2]string{
		{"../../bin/", bin + "/"},
		{`"PORT": "8080"`, fmt.Sprintf(`"PORT": "%d"`, port)},
		{`"PORT": "6390"`, fmt.Sprintf(`"PORT": "%d"`, freePort(t))},
		{`"depends_on"`, fmt.Sprintf(`"args": %s, "depends_on"`, args)},
	} {
		if !strings.Contains(text, r[0]) {
			t.Fatalf("there is no %s in the config of the sample", r[0])
		}
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	s := &sample{g, "http://" + addr(port), port}
	g.write("gpm.conf.json", text)
	g.ok("start", "gpm.conf.json")
	g.online("sse-bus", 1)
	g.online("sse-app", 4)
	return s
}

// ask sends a request on a connection of its own and reads a JSON answer.
func (s *sample) ask(method, path, body string, into any, header ...string) (status int) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	if into != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(b, into); err != nil {
			s.t.Fatalf("%s %s answers %q: %v", method, path, b, err)
		}
	}
	return res.StatusCode
}

// comeback is a client that connects again after every cut, as an EventSource
// does.
type comeback struct {
	s     *sample
	path  string
	last  string // id of its last event
	conns int
}

// read hands every event to each, until that says stop. The error is an answer
// that would close an EventSource.
func (c *comeback) read(each func(ssetest.Event) (stop bool)) error {
	for c.conns < 1000 {
		c.conns++
		req, err := http.NewRequestWithContext(c.s.t.Context(), http.MethodGet, c.s.url+c.path, nil)
		if err != nil {
			return err
		}
		if c.last != "" {
			req.Header.Set("Last-Event-ID", c.last)
		}
		res, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			continue // its process was killed
		}
		stop, err := c.one(res, each)
		res.Body.Close()
		if stop || err != nil {
			return err
		}
	}
	return errors.New("it was cut a thousand times")
}

// one reads one connection to its end. What a cut leaves of an event is nothing.
func (c *comeback) one(res *http.Response, each func(ssetest.Event) bool) (stop bool, err error) {
	if res.StatusCode != 200 {
		return false, fmt.Errorf("status %s", res.Status)
	}
	events := ssetest.Open(res.Body)
	for {
		e, err := events.Next()
		if err != nil {
			return false, nil
		}
		c.last = e.ID
		if each(e) {
			return true, nil
		}
	}
}

// chunk is what of a chat chunk counts here.
type chunk struct {
	Choices []struct {
		Delta        struct{ Content string }
		FinishReason string `json:"finish_reason"`
	}
	Error json.RawMessage
}

// answer reads a ticket to its end: the words, and how often another process
// went on writing.
func (s *sample) answer(ticket string, word func(n int)) (words []string, takeovers int) {
	s.t.Helper()
	c, whole := comeback{s: s, path: "/stream?ticket=" + ticket}, false
	err := c.read(func(e ssetest.Event) bool {
		switch {
		case e.Event == "takeover":
			takeovers++
		case e.Event != "" && e.Event != "message":
		case e.Data == "[DONE]":
			whole = true
			return true
		default:
			var k chunk
			if err := json.Unmarshal([]byte(e.Data), &k); err != nil || k.Error != nil || len(k.Choices) != 1 {
				s.t.Errorf("chunk %q: %v", e.Data, err)
			} else if text := k.Choices[0].Delta.Content; text != "" {
				words = append(words, text)
				word(len(words))
			}
		}
		return false
	})
	if err != nil || !whole {
		s.t.Errorf("the answer ended after %d words without its end mark: %v", len(words), err)
	}
	return words, takeovers
}

// kill -9 of whoever writes an answer: another instance goes on, the client
// comes back, and has each word once.
func TestTheSampleGoesOnWithAnAnswer(t *testing.T) {
	t.Parallel()
	s := newSample(t, "-delay", "30ms")
	question := `{"messages":[{"role":"user","content":"Who goes on when you are gone?"}],"stream":true}`
	var whole struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if status := s.ask("POST", "/v1/chat/completions", strings.Replace(question, "true", "false", 1), &whole); status != 200 {
		t.Fatalf("status %d", status)
	}
	want := whole.Choices[0].Message.Content
	kills, takeovers := 0, 0
	for round := 0; kills < 8 && round < 24; round++ {
		var made struct{ Ticket string }
		if status := s.ask("POST", "/tickets", question, &made); status != 201 {
			t.Fatalf("status %d", status)
		}
		type writing struct{ Instance, Status string }
		state := func() (g writing) {
			s.ask("GET", "/v1/generations/"+made.Ticket, "", &g)
			return g
		}
		at := 2 + kills*2
		words, others := s.answer(made.Ticket, func(n int) {
			if n != at {
				return
			}
			who := state().Instance
			index, err := strconv.Atoi(who)
			if err != nil {
				t.Fatalf("who writes is %q", who)
			}
			kill9(t, s.instance("sse-app", index).PID)
			if now := state(); now == (writing{who, "finished"}) {
				t.Logf("round %d: the writer was killed too late, its answer was whole", round)
				return
			}
			kills++
		})
		if got := strings.Join(words, ""); got != want {
			t.Errorf("round %d: %q, want %q", round, got, want)
		}
		takeovers += others
		s.online("sse-app", 4)
	}
	if kills < 8 || takeovers < kills {
		t.Errorf("writers were killed %d times, others went on %d times", kills, takeovers)
	}
}

// A reload of the whole sample, its bus too, under a load of chat answers, short
// requests and event streams.
func TestTheSampleIsReloaded(t *testing.T) {
	t.Parallel()
	s := newSample(t, "-delay", "20ms", "-interval", "20ms")
	o := load.Options{
		Addr:       addr(s.port),
		Stream:     load.Call{Method: "POST", Path: "/v1/chat/completions", Body: `{"prompt":"Hello, who are you?","stream":true}`, Header: map[string]string{"Content-Type": "application/json"}},
		StreamRate: 20, Hold: load.Call{Path: "/stream"}, Held: 10, Request: load.Call{Path: "/v1/models"}, RequestRate: 50, Timeout: patience, Grace: patience,
	}
	l := s.underLoad(o, func() {
		for range 2 {
			s.ok("reload", "sse-app")
			s.drained()
		}
		s.ok("reload", "all")
		s.drained()
	})
	nothingBroken(t, o, l, "3 reloads")
}

// kill -9 of the bus: streams stay open, and hear of what comes after it.
func TestTheSampleSurvivesItsBus(t *testing.T) {
	t.Parallel()
	s := newSample(t, "-interval", "20ms")
	ready, heard := make(chan struct{}), make(chan error, 1)
	go func() { // until it has heard the news, or is cut
		c, ticks, gap := comeback{s: s, path: "/stream"}, 0, false
		err := c.read(func(e ssetest.Event) bool {
			if ticks++; ticks == 10 {
				close(ready)
			}
			gap = gap || e.Event == "gap"
			return strings.Contains(e.Data, "after its death")
		})
		if err == nil && (c.conns != 1 || !gap) {
			err = fmt.Errorf("%d connections, a gap was told: %v", c.conns, gap)
		}
		heard <- err
	}()
	<-ready
	was := s.instance("sse-bus", 0)
	kill9(t, was.PID)
	s.until("the bus is back", func() bool {
		in := s.instance("sse-bus", 0)
		return in.Status == api.Online && in.PID != was.PID
	})
	s.until("news are taken again", func() bool { return s.ask("POST", "/send_message", "after its death", nil) == 200 })
	if err := <-heard; err != nil {
		t.Error(err)
	}
	for _, in := range s.online("sse-app", 4) {
		if in.Restarts != 0 {
			t.Errorf("instance %d was restarted", in.Instance)
		}
	}
}
