// Command sse-app is a small streaming service: Server-Sent Events, an
// OpenAI-compatible chat endpoint, and a page that shows both. It is an
// ordinary Go program that knows nothing of its supervisor, and it shows what
// a streaming service must do so that a restart breaks no stream:
//
//	listen.go  one port for many instances
//	events.go  Server-Sent Events that every client understands
//	stream.go  GET /stream: numbered messages, resumable by Last-Event-ID
//	chat.go    POST /v1/chat/completions
//	drain.go   what happens between SIGTERM and exit
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what flags and environment decide.
type config struct {
	addr     string        // host:port to listen on
	interval time.Duration // between two messages of /stream
	delay    time.Duration // between two words of a chat answer
	drain    time.Duration // how long running answers may go on after a signal
	instance string        // number of this process among its siblings
}

func main() {
	if err := run(parse(os.Args[1:])); err != nil {
		fmt.Fprintln(os.Stderr, "sse-app:", err)
		os.Exit(1)
	}
}

func parse(args []string) config {
	var c config
	f := flag.NewFlagSet("sse-app", flag.ExitOnError)
	f.StringVar(&c.addr, "addr", ":"+cmp.Or(os.Getenv("PORT"), "8080"), "`host:port` to listen on; the PORT variable changes the default")
	f.DurationVar(&c.interval, "interval", time.Second, "time between two messages of /stream")
	f.DurationVar(&c.delay, "delay", 200*time.Millisecond, "time between two words of a chat answer")
	f.DurationVar(&c.drain, "drain", 10*time.Second, "how long running answers may go on after SIGTERM")
	f.Parse(args) // ExitOnError: prints the usage and exits by itself
	c.instance = cmp.Or(os.Getenv("NODE_APP_INSTANCE"), "0")
	return c
}

func run(c config) error {
	// Subscribed before the port opens: a signal in between must drain, not kill.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	ln, err := listen(c.addr)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", c.addr, err)
	}
	a := newApp(c)
	a.out.Printf("instance %s, pid %d: listening on %s", c.instance, os.Getpid(), ln.Addr())
	return a.serve(ln, stop)
}
