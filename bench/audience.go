package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gpm/bench/load"
)

const (
	arriving = 64  // viewers that connect at the same time
	stamped  = "!" // begins the stamp of a message: !number,due! in nanoseconds of now()
)

// show is a number of messages, and who is to get all of them.
type show struct {
	port  int
	ask   string // the whole request of a viewer
	sign  string // how the line begins that says that he is in
	warm  int    // messages before the first that counts
	total int    // all messages
}

// audience is many viewers, each on a connection of his own.
type audience struct {
	show
	way     *load.Dialer
	all     []*viewer
	heard   atomic.Int64 // messages that count, by all
	reading sync.WaitGroup
}

type viewer struct {
	conn    net.Conn
	seen    []bool // by the message's number
	took    []time.Duration
	doubled int
}

// gather connects n viewers. The caller lets them leave.
func gather(ctx context.Context, n int, s show) (*audience, error) {
	a := &audience{show: s, way: load.NewDialer("127.0.0.1:"+strconv.Itoa(s.port), 10*time.Second), all: make([]*viewer, n)}
	var arrived sync.WaitGroup
	var failed atomic.Pointer[error]
	places := make(chan int)
	for range arriving {
		arrived.Go(func() { // until there are no more places
			for i := range places {
				if err := a.admit(ctx, i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for i := range n {
		if failed.Load() == nil {
			places <- i
		}
	}
	close(places)
	arrived.Wait()
	if err := failed.Load(); err != nil {
		a.leave()
		return nil, fmt.Errorf("connect %d viewers: %w", n, *err)
	}
	return a, nil
}

// admit connects viewer i and reads until he is in.
func (a *audience) admit(ctx context.Context, i int) error {
	conn, err := a.way.Dial(ctx)
	if err != nil {
		return err
	}
	v := &viewer{conn: conn}
	a.all[i] = v
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, a.ask); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 1<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte(a.sign)) {
			break
		}
		if bytes.HasPrefix(line, []byte("HTTP/1.1 4")) || bytes.HasPrefix(line, []byte("HTTP/1.1 5")) {
			return errors.New(strings.TrimSpace(string(line)))
		}
	}
	_ = conn.SetDeadline(time.Time{})
	v.seen = make([]bool, a.total)
	a.reading.Go(func() { a.watch(v, in) }) // until he leaves
	return nil
}

// watch notes when each message came. A message is short: it is never torn over
// two lines.
func (a *audience) watch(v *viewer, in *bufio.Reader) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		number, due, ok := readStamp(line)
		if !ok || number >= len(v.seen) {
			continue
		}
		if v.seen[number] {
			v.doubled++
			continue
		}
		v.seen[number] = true
		if number >= a.warm {
			v.took = append(v.took, since(due))
			a.heard.Add(1)
		}
	}
}

// leave closes all connections; what the viewers noted may be read then.
func (a *audience) leave() {
	for _, v := range a.all {
		if v != nil {
			_ = v.conn.(*net.TCPConn).SetLinger(0) // nothing stays behind in TIME_WAIT
			_ = v.conn.Close()
		}
	}
	a.reading.Wait()
}

func stamp(number int, due int64) string {
	return fmt.Sprintf("%s%d,%d%s", stamped, number, due, stamped)
}

func readStamp(line []byte) (number int, due int64, ok bool) {
	_, rest, _ := bytes.Cut(line, []byte(stamped))
	text, _, ok := bytes.Cut(rest, []byte(stamped))
	if !ok {
		return 0, 0, false
	}
	n, d, _ := strings.Cut(string(text), ",")
	number, err := strconv.Atoi(n)
	due, err2 := strconv.ParseInt(d, 10, 64)
	return number, due, err == nil && err2 == nil && number >= 0
}

// publish sends the messages of a show, each when it is due and not when the one
// before was taken: a slow service meets the same load as a fast one. A stamp
// holds the time when the message was due.
func (s show) publish(ctx context.Context, rate float64, path string) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	var failed atomic.Pointer[error]
	var sending sync.WaitGroup
	start := now()
	for i := range s.total {
		due := start + int64(float64(i)/rate*float64(time.Second))
		if err := pause(ctx, time.Duration(due-now())); err != nil {
			return err
		}
		sending.Go(func() { // within the client's timeout
			if err := post(ctx, client, fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path), stamp(i, due)); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	sending.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("publish: %w", *err)
	}
	return nil
}

func post(ctx context.Context, client *http.Client, url, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("POST %s: %s: %s", url, res.Status, bytes.TrimSpace(said))
	}
	return err
}
