package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	fanoutRuns   = 3
	fanoutTime   = 8 * time.Second // of messages that count
	fanoutWarm   = time.Second     // of those before
	fanoutLate   = 10 * time.Second
	pushRate     = 50.0
	pushMessages = 250
)

// fanoutLoads are numbers of viewers, and messages per second for all of them.
var fanoutLoads = []struct {
	viewers int
	rate    float64
}{{100, 50}, {1000, 10}, {5000, 2}}

// fanned is what was measured of one show.
type fanned struct {
	took              []time.Duration
	expected, doubled int
}

// fanout measures how long a message takes from the moment when it was due to be
// published until each viewer of examples/sse-app has it, over all instances.
func (b *bench) fanout(ctx context.Context) error {
	if err := b.buildChat(ctx); err != nil {
		return err
	}
	news := [][]string{{"sse-app under gpm", "viewers", "messages/s", "delivered / expected", "p50, ms", "p99, ms", "p99.9, ms", "max, ms"}}
	push := [][]string{{"push to one user among", "viewers", "delivered / expected", "p50, ms", "p99, ms", "max, ms", "mark for gpm"}}
	for _, instances := range []int{2, 4} {
		name := fmt.Sprintf("%d instances", instances)
		err := b.withChat(ctx, instances, func(port int) error {
			for _, l := range fanoutLoads {
				began := time.Now()
				var toAll, toOne []fanned
				for r := range fanoutRuns {
					all, one, err := fanoutRun(ctx, port, l.viewers, l.rate, fmt.Sprintf("user-%d-%d", l.viewers, r))
					if err != nil {
						return fmt.Errorf("%d viewers: %w", l.viewers, err)
					}
					toAll, toOne = append(toAll, all), append(toOne, one)
				}
				a, o := summary(toAll), summary(toOne)
				news = append(news, []string{name, fmt.Sprint(l.viewers), fmt.Sprint(l.rate), a.delivered, ms(a.p50), ms(a.p99), ms(a.p999), ms(a.worst)})
				push = append(push, []string{name, fmt.Sprint(l.viewers), o.delivered, ms(o.p50), ms(o.p99), ms(o.worst),
					b.judged("p99 < 50 ms", o.p99 < 50*time.Millisecond && o.p99 > 0)})
				fmt.Fprintf(os.Stderr, "bench: fanout, %s, %d viewers: %.1f s\n", name, l.viewers, time.Since(began).Seconds())
			}
			return nil
		})
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("fanout of %s failed: %v", name, err))
		}
	}
	b.tables = append(b.tables, news, push)
	b.notes = append(b.notes, fmt.Sprintf("fan-out: %d runs of %s each after %s of warming up; quantiles are the median of the runs, max is the worst of all; messages are sent when they are due, whatever became of the ones before, "+
		"and the time counts from there: POST, bus, and one write for each viewer; viewers and publisher are one process and take their part of the same cores; push: %g messages a second to one user while the others are connected", fanoutRuns, fanoutTime, fanoutWarm, pushRate))
	return nil
}

// fanoutRun is one run with its viewers: news for all, then pushes for one user.
func fanoutRun(ctx context.Context, port, viewers int, rate float64, user string) (all, one fanned, err error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const sign = "event: hello"
	warm := int(fanoutWarm.Seconds() * rate)
	crowd, err := gather(limited, viewers, show{port: port, ask: viewing("/stream?only=news", ""), sign: sign, warm: warm, total: warm + int(fanoutTime.Seconds()*rate)})
	if err != nil {
		return all, one, err
	}
	defer crowd.leave()
	if err := crowd.perform(limited, rate, "/send_message"); err != nil {
		return all, one, err
	}
	cookie, err := login(limited, port, user)
	if err != nil {
		return all, one, err
	}
	single, err := gather(limited, 1, show{port: port, ask: viewing("/stream?only=inbox", cookie), sign: sign, warm: int(pushRate), total: int(pushRate) + pushMessages})
	if err != nil {
		return all, one, err
	}
	defer single.leave()
	if err := single.perform(limited, pushRate, "/push?user="+user); err != nil {
		return all, one, err
	}
	return crowd.result(), single.result(), nil
}

// perform publishes the messages and waits until all are there, or it is late.
func (a *audience) perform(ctx context.Context, rate float64, path string) error {
	if err := a.publish(ctx, rate, path); err != nil {
		return err
	}
	late, cancel := context.WithTimeout(ctx, fanoutLate)
	defer cancel()
	until(late, func() bool { return int(a.heard.Load()) >= a.expected() })
	return ctx.Err()
}

func (a *audience) expected() int { return len(a.all) * (a.total - a.warm) }

// result sends the audience home and is what it has noted.
func (a *audience) result() fanned {
	a.leave()
	f := fanned{expected: a.expected()}
	for _, v := range a.all {
		f.took, f.doubled = append(f.took, v.took...), f.doubled+v.doubled
	}
	return f
}

// figures are what the table shows of several runs.
type figures struct {
	delivered             string
	p50, p99, p999, worst time.Duration
}

func summary(runs []fanned) figures {
	var f figures
	var p50, p99, p999 []time.Duration
	got, expected, doubled := 0, 0, 0
	for _, r := range runs {
		slices.Sort(r.took)
		p50, p99, p999 = append(p50, quantile(r.took, 0.5)), append(p99, quantile(r.took, 0.99)), append(p999, quantile(r.took, 0.999))
		f.worst = max(f.worst, quantile(r.took, 1))
		got, expected, doubled = got+len(r.took), expected+r.expected, doubled+r.doubled
	}
	f.p50, f.p99, f.p999 = median(p50), median(p99), median(p999)
	f.delivered = fmt.Sprintf("%d / %d", got, expected)
	if doubled > 0 {
		f.delivered += fmt.Sprintf(", %d doubled", doubled)
	}
	return f
}

// viewing is the request of a viewer.
func viewing(path, cookie string) string {
	head := "GET " + path + " HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
	if cookie != "" {
		head += "Cookie: " + cookie + "\r\n"
	}
	return head + "\r\n"
}

func login(ctx context.Context, port int, user string) (cookie string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/login", port), strings.NewReader("user="+user))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		return c.Name + "=" + c.Value, nil
	}
	return "", fmt.Errorf("POST /login: %s and no cookie", res.Status)
}

// buildChat builds the example and its bus.
func (b *bench) buildChat(ctx context.Context) error {
	b.chat, b.bus = filepath.Join(b.dir, "sse-app"), filepath.Join(b.dir, "sse-bus")
	for exe, from := range map[string]string{b.chat: "./examples/sse-app", b.bus: "./examples/sse-app/bus"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", exe, from)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := run(build); err != nil {
			return err
		}
	}
	return nil
}

// withChat runs the example with its bus under gpm.
func (b *bench) withChat(ctx context.Context, instances int, use func(port int) error) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	env := func(port int) map[string]string {
		return map[string]string{"PORT": strconv.Itoa(port), "BUS_FILE": filepath.Join(b.dir, fmt.Sprintf("bus-%d", b.homes)), b.mark(): "1"}
	}
	bus := spec{name: "sse-bus", argv: []string{b.bus}, instances: 1, restart: true, env: env(0)}
	app := spec{name: "sse-app", argv: []string{b.chat, "-max-age", "0"}, instances: instances, restart: true, env: env(port), grace: 15 * time.Second}
	return b.with(ctx, b.sheet.kinds[0], []spec{bus, app}, func(t tool) error {
		for _, a := range []spec{bus, app} {
			if err := t.start(ctx, a.name); err != nil {
				return err
			}
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if !until(limited, func() bool { return len(withBus(port, 8*instances)) == instances }) {
			return fmt.Errorf("wait until %d instances have reached the bus: %w", instances, limited.Err())
		}
		return use(port)
	})
}

// withBus asks a few times and returns which instances have reached the bus.
func withBus(port, times int) map[string]bool {
	who := map[string]bool{}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for range times {
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if gauge(string(text), "sse_app_bus_up") == 1 {
			who[res.Header.Get("X-Instance")] = true
		}
	}
	return who
}

// gauge is a value in the text of GET /metrics; -1: it is not there.
func gauge(text, name string) float64 {
	for line := range strings.Lines(text) {
		if series, value, _ := strings.Cut(strings.TrimSpace(line), " "); series == name {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				return v
			}
		}
	}
	return -1
}
