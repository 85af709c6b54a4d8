// Command sse-app is a small streaming service: Server-Sent Events, an
// OpenAI-compatible chat endpoint, and a page that shows both. It is an
// ordinary Go program that knows nothing of its supervisor, and it shows what
// a streaming service must do so that a restart breaks no stream:
//
//	listen.go  one port for many instances, closed without leaving anybody outside
//	ready.go   when it is ready, and who is told
//	drain.go   what happens between SIGTERM and exit
//	events.go  Server-Sent Events that every client understands
//
//	stream.go, feed.go, position.go, turn.go  GET /stream: what it sends, from where on, how long
//	push.go, history.go  what one user or everybody is told, and was
//	session.go, cors.go  who asks, and what pages of other origins may do
//	time.go, echo.go     two small streams
//
//	openai.go  what /v1 understands, and how it refuses
//	chat.go    POST /v1/chat/completions
//	qa.go      POST /chatgptApi/chatgpt_qa_stream, the same with less around it
//	model.go   the built-in models
//	upstream.go, ask.go, hear.go   an OpenAI-compatible server in their place
//	pump.go    answers that come from another goroutine, and how they fail
//
//	tickets.go, writer.go, reader.go  answers that outlive the process that writes them
//	socket.go, room.go                the WebSocket chat
//	metrics.go, page.go               GET /metrics, and the page with all it needs
//
// What the instances share is in internal/bus; the bus of one machine is bus.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// config is what flags and environment decide.
type config struct {
	addr     string        // host:port to listen on
	interval time.Duration // between two messages of /stream
	delay    time.Duration // between two words of a chat answer
	warmup   time.Duration // from the open port to being ready
	maxAge   time.Duration // longest life of an endless stream; zero: no limit
	linger   time.Duration // from the signal to the closed port
	spread   time.Duration // over which endless streams end after that
	drain    time.Duration // from the signal to the end of everything else
	gap      time.Duration // least time between two writes of pushed events to one client; zero: none
	busFile  string        // file with the URL of the bus
	upstream string        // base URL of an OpenAI-compatible server; empty: the built-in model
	origins  []string      // other origins whose pages may use a visitor's cookie
	secret   string        // what cookies are signed with; empty: what the instances agree on
	instance string        // number of this process among its siblings
	askKey   string        // what the upstream knows us by, if a client sends nothing of its own
	askModel string        // what the upstream is asked for, if a ticket or /chatgptApi names no model
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
	f.DurationVar(&c.warmup, "warmup", 0, "time from the open port to being ready, as if a model were loaded")
	f.DurationVar(&c.maxAge, "max-age", 10*time.Minute, "longest life of an endless stream, less up to a fifth; 0: no limit")
	f.DurationVar(&c.linger, "linger", 200*time.Millisecond, "how long the port stays open after SIGTERM")
	f.DurationVar(&c.spread, "spread", time.Second, "time over which endless streams end after that")
	f.DurationVar(&c.drain, "drain", 10*time.Second, "how long running answers may go on after SIGTERM")
	f.DurationVar(&c.gap, "gap", 0, "least time between two writes of pushed events to one client; what comes meanwhile goes out together")
	f.StringVar(&c.busFile, "bus", os.Getenv("BUS_FILE"), "`file` with the URL of the bus that the instances share; the BUS_FILE variable changes the default, and REDIS_URL is used in its place")
	f.StringVar(&c.upstream, "upstream", os.Getenv("UPSTREAM_URL"), "base `URL` of an OpenAI-compatible server that answers in place of the built-in model")
	f.Func("origin", "an `origin` whose pages may use a visitor's cookie, as https://chat.example; may be given again", func(s string) error {
		origin, err := parseOrigin(s)
		c.origins = append(c.origins, origin)
		return err
	})
	f.Parse(args) // ExitOnError: prints the usage and exits by itself
	if err := sane(f); err != nil {
		fmt.Fprintf(os.Stderr, "sse-app: %v; see sse-app -h\n", err)
		os.Exit(2)
	}
	c.askKey, c.askModel = os.Getenv("UPSTREAM_API_KEY"), os.Getenv("UPSTREAM_MODEL")
	c.instance = cmp.Or(os.Getenv("NODE_APP_INSTANCE"), "0")
	return c
}

// sane refuses what no flag can mean.
func sane(f *flag.FlagSet) (err error) {
	if f.NArg() > 0 {
		return fmt.Errorf("%q is no flag, and there are no arguments", f.Arg(0))
	}
	f.VisitAll(func(one *flag.Flag) {
		value, ok := one.Value.(flag.Getter)
		if !ok {
			return
		}
		d, ok := value.Get().(time.Duration)
		if ok && (d < 0 || d == 0 && one.Name == "interval") {
			err = fmt.Errorf("-%s %s: a time must be positive", one.Name, d)
		}
	})
	return err
}

func run(c config) error {
	// Subscribed before the port opens: a signal in between must drain, not kill.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	if _, err := parseUpstream(c.upstream); c.upstream != "" && err != nil {
		return err
	}
	shared, err := openBus(c)
	if err != nil {
		return err
	}
	if c.secret = os.Getenv("SESSION_SECRET"); c.secret == "" && c.busFile != "" && os.Getenv("REDIS_URL") == "" {
		if c.secret, err = secretIn(filepath.Join(filepath.Dir(c.busFile), "session.key")); err != nil {
			return fmt.Errorf("share what cookies are signed with: %w; set SESSION_SECRET", err)
		}
	}
	ln, err := listen(c.addr)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", c.addr, err)
	}
	a := newApp(c)
	if a.bus = shared; shared != nil {
		defer shared.Close()
	}
	a.out.Printf("instance %s, pid %d: listening on %s", c.instance, os.Getpid(), ln.Addr())
	return a.serve(ln, signals)
}

// openBus connects to what the instances share: the Redis of REDIS_URL, else the
// bus whose URL is in a file, else nothing.
func openBus(c config) (*bus.Bus, error) {
	where := func() (string, error) { return os.Getenv("REDIS_URL"), nil }
	if os.Getenv("REDIS_URL") == "" {
		if c.busFile == "" {
			return nil, nil
		}
		where = func() (string, error) {
			b, err := os.ReadFile(c.busFile)
			return strings.TrimSpace(string(b)), err
		}
	}
	return bus.Open(bus.Options{URL: where, Report: func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "the bus is away:", err)
			return
		}
		fmt.Fprintln(os.Stdout, "the bus is there")
	}})
}
