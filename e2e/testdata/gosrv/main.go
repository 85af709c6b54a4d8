// A server that knows nothing of gpm and of signals: it calls ListenAndServe and
// answers with its pid; /stream is the same as in node/stream.js.
package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Instance", instance())
		fmt.Fprintln(w, os.Getpid())
	})
	http.HandleFunc("/stream", stream)
	fmt.Println("listening on", os.Getenv("ADDR"))
	if err := http.ListenAndServe(os.Getenv("ADDR"), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func instance() string { return cmp.Or(os.Getenv("NODE_APP_INSTANCE"), "0") }

// millis is a number of milliseconds from the environment.
func millis(name string, otherwise int) time.Duration {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		n = otherwise
	}
	return time.Duration(n) * time.Millisecond
}

func stream(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))         // 0: for ever
	id, _ := strconv.Atoi(r.Header.Get("Last-Event-ID")) // 0: from the start
	age := millis("MAX_AGE", 1<<40)
	bye := time.Now().Add(age*7/10 + time.Duration(rand.Int64N(int64(age*3/10)+1)))
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Instance", instance())
	send := func(format string, args ...any) {
		fmt.Fprintf(w, format, args...)
		http.NewResponseController(w).Flush()
	}
	send("event: hello\ndata: {\"pid\":%d}\n\n", os.Getpid())
	tick := time.NewTicker(millis("INTERVAL", 20))
	defer tick.Stop()
	for n == 0 && time.Now().Before(bye) || id < n {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		id++
		send("id: %d\ndata: message %d\n\n", id, id)
	}
	if n > 0 {
		send("id: done\ndata: [DONE]\n\n")
	} else {
		send("retry: 100\nevent: reconnect\ndata: old age\n\n")
	}
}
