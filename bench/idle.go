package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	idleViewers = 10000
	idleTime    = 5 * time.Second // in which processor time is measured
)

// idleKinds are streams on which little or nothing happens.
var idleKinds = []struct{ name, ask, sign, kind string }{
	{"SSE, news only", viewing("/stream?only=news", ""), "event: hello", "stream"},
	{"SSE, a message a second", viewing("/stream", ""), "event: hello", "stream"},
	{"WebSocket", "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n", "HTTP/1.1 101", "socket"},
}

// idleStreams measures what an open stream costs one instance of examples/sse-app.
func (b *bench) idleStreams(ctx context.Context) error {
	if err := b.buildChat(ctx); err != nil {
		return err
	}
	rows := [][]string{{fmt.Sprintf("%d idle clients on one instance of sse-app", idleViewers), "RSS / PSS / private each, KiB", "RSS in all, MiB", "goroutines each", "processor"}}
	for _, k := range idleKinds {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		err := b.withChat(limited, 1, func(port int) error {
			row, err := idleRow(limited, port, k.ask, k.sign, k.kind)
			rows = append(rows, append([]string{k.name}, row...))
			return err
		})
		cancel()
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("idle clients, %s: %v", k.name, err))
		}
		fmt.Fprintf(os.Stderr, "bench: idle, %s: %.1f s\n", k.name, time.Since(began).Seconds())
	}
	b.tables = append(b.tables, rows)
	b.notes = append(b.notes, fmt.Sprintf("idle clients: of a process of its own each; what it grew by since before the first of them, divided by their number, after %s; the kernel's memory for sockets is not in it", idleTime))
	return nil
}

func idleRow(ctx context.Context, port int, ask, sign, kind string) ([]string, error) {
	pid, goroutines, _, err := look(port, kind)
	if err != nil {
		return nil, err
	}
	before, err := memoryOf([]int{pid})
	if err != nil {
		return nil, err
	}
	crowd, err := gather(ctx, idleViewers, show{port: port, ask: ask, sign: sign})
	if err != nil {
		return nil, err
	}
	defer crowd.leave()
	used, err := cpuOf([]int{pid})
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	usedAfter, err := cpuOf([]int{pid})
	if err != nil {
		return nil, err
	}
	after, err := memoryOf([]int{pid})
	if err != nil {
		return nil, err
	}
	_, goroutinesAfter, open, err := look(port, kind)
	if err != nil {
		return nil, err
	}
	if open != idleViewers {
		return nil, fmt.Errorf("%d of %d are open", open, idleViewers)
	}
	each := func(after, before uint64) float64 { return float64(int64(after)-int64(before)) / idleViewers / 1024 }
	return []string{
		fmt.Sprintf("%.1f / %.1f / %.1f", each(after.rss, before.rss), each(after.pss, before.pss), each(after.private, before.private)),
		mib(after.rss), fmt.Sprintf("%.2f", float64(goroutinesAfter-goroutines)/idleViewers),
		fmt.Sprintf("%.0f %%", (usedAfter-used).Seconds()/idleTime.Seconds()*100),
	}, nil
}

// look reads the pid of the only instance, and what it says about itself.
func look(port int, kind string) (pid, goroutines, open int, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return 0, 0, 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, 0, 0, err
	}
	value := func(name string) int { return int(gauge(string(text), name)) }
	if pid, err = pidOf(client, port); err != nil {
		return 0, 0, 0, err
	}
	return pid, value("go_goroutines"), value(`sse_app_open_streams{kind="` + kind + `"}`), nil
}

func pidOf(client *http.Client, port int) (int, error) {
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var said struct{ PID int }
	err = json.NewDecoder(res.Body).Decode(&said)
	return said.PID, err
}
