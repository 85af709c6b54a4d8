// Command gpm-load sends load to a service and prints the ledger. It exits
// with 1 if a unit was lost.
//
//	gpm-load -addr 127.0.0.1:8080 -requests 2000 -streams 50 -held 100 -for 30s
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpm/bench/load"
)

func main() {
	o := load.Options{}
	flag.StringVar(&o.Addr, "addr", "127.0.0.1:8080", "`host:port` of the service")
	flag.Float64Var(&o.RequestRate, "requests", 0, "short requests per second, each on a new connection")
	flag.StringVar(&o.Request.Path, "request", "/v1/models", "`path` of the short requests; not a readiness check, which rightly says 503 while an instance drains")
	flag.Float64Var(&o.StreamRate, "streams", 0, "finite streams per second")
	flag.StringVar(&o.Stream.Path, "stream", "/stream?n={n}", "`path` of the finite streams; {n} stands for the number of events")
	lengths := flag.String("events", "5", "`numbers` of events that finite streams have, in turn (5,20,100); empty: do not check")
	flag.StringVar(&o.Stream.Body, "post", "", "`body`: send the finite streams as POST with it")
	flag.IntVar(&o.Held, "held", 0, "endless streams held for the whole run")
	flag.StringVar(&o.Hold.Path, "hold", "/stream", "`path` of the held streams")
	flag.DurationVar(&o.Duration, "for", 10*time.Second, "how long units are started; 0: until Ctrl-C")
	flag.DurationVar(&o.Grace, "grace", 30*time.Second, "how long units under way may go on after that")
	flag.DurationVar(&o.Timeout, "timeout", 10*time.Second, "longest silence of the service")
	flag.IntVar(&o.MaxConns, "max", 10000, "connections open at once")
	flag.Parse()
	for _, n := range strings.FieldsFunc(*lengths, func(r rune) bool { return r == ',' }) {
		events, err := strconv.Atoi(n)
		if err != nil {
			fmt.Fprintf(os.Stderr, "gpm-load: read -events %q: %v\n", *lengths, err)
			os.Exit(2)
		}
		o.Lengths = append(o.Lengths, events)
	}
	if o.Stream.Body != "" {
		o.Stream.Method = "POST"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ledger, err := load.Run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpm-load:", err)
		os.Exit(2)
	}
	fmt.Print(ledger)
	if ledger.Bad() > 0 {
		os.Exit(1)
	}
}
