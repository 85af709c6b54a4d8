package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	sse "github.com/tmaxmax/go-sse"

	"gpm/examples/sse-app/ssetest"
)

// Six parsers, each written by somebody else, read the same bytes and must
// understand the same events. What is compared of each:
//
//	parser               last id, type, data       what it cannot tell
//	ssetest              of every event            -
//	Chromium             of every event            -
//	eventsource-parser   of every event            -
//	npm eventsource      of every event            an empty id from none
//	go-sse               of every event with data  an event without data from one whose data is empty;
//	                                               an unfinished event at the end from a whole one
//	fetch-event-source   of every event with data  the same, and an empty id from none
//
// Ids are sticky, as an EventSource has them, also where a parser gives them
// with their own event only. Not compared: comments, which few of them show,
// and retry, which most of them keep to themselves. Where one of them departs
// from the standard, its oddity is listed. Of what the app sends by itself
// nothing is read in two ways.
var oddities = map[string]map[string]string{
	"no data, no event": {
		"eventsource-parser": "forgets an id that came without data",
		"eventsource":        "forgets an id that came without data",
	},
	"unfinished event":                  {"go-sse": "gives an event that the end interrupted"},
	"an unfinished event's retry holds": {"go-sse": "gives an event that the end interrupted"},
	"unfinished line":                   {"go-sse": "an error at the end"},
	"bad bytes":                         {"go-sse": "leaves bytes that are not UTF-8 in place"},
	"a real U+FFFD":                     {"go-sse": "leaves bytes that are not UTF-8 in place"},
	"name without a colon":              {"fetch-event-source": "knows no field without a colon"},
	"names do not stay":                 {"fetch-event-source": "knows no field without a colon"},
	"empty lines of data":               {"fetch-event-source": "loses empty lines at the beginning of data"},
	"an empty id forgets": {
		"fetch-event-source": "knows no field without a colon",
		"eventsource":        "does not tell an empty id from none",
	},
	"an id with NUL is none": {"fetch-event-source": "takes an id with NUL"},
	"BOM later":              {"fetch-event-source": "drops a BOM at the beginning of each value"},
	"echo: a BOM":            {"fetch-event-source": "drops a BOM at the beginning of each value"},
}

// seen is an event as all parsers can give it.
type seen struct{ ID, Event, Data string }

// specimen is a stream for all parsers.
type specimen struct {
	name, stream string
	want         []seen
}

// How streams are cut: in memory and on the wire, where each piece costs a system call.
var (
	cutsInMemory = []int{0, 1, 2, 3, 5, 64}
	cutsOnWire   = []int{0, 1, 7}
)

func TestSixParsersUnderstandTheSame(t *testing.T) {
	specimens := append(vectorSpecimens(), appSpecimens(t)...)
	srv := httptest.NewServer(serveSpecimens(specimens))
	t.Cleanup(srv.Close)
	got := map[string][][][]seen{ // parser, specimen, cut
		"ssetest":  inMemory(specimens, parseOurs),
		"go-sse":   inMemory(specimens, parseGoSSE),
		"Chromium": chromiumEvents(t, srv.URL, specimens),
	}
	for parser, events := range nodeEvents(t, srv.URL, specimens) {
		got[parser] = events
	}
	if len(got) != 6 {
		t.Fatalf("%d parsers", len(got))
	}
	for parser, all := range got {
		for i, sp := range specimens {
			compare(t, parser, sp, all[i])
		}
	}
}

// compare checks what a parser made of a specimen, for each way of cutting it.
func compare(t *testing.T, parser string, sp specimen, all [][]seen) {
	t.Helper()
	odd := oddities[sp.name][parser]
	for k, got := range all {
		want := sp.want
		if parser == "go-sse" || parser == "fetch-event-source" {
			got, want = withData(got), withData(want)
		}
		switch same := slices.Equal(got, want); {
		case same && odd != "":
			t.Errorf("%s, cut %d: %s understands it now, and is listed with %q", sp.name, k, parser, odd)
			return
		case !same && odd == "":
			t.Errorf("%s, cut %d: %s\n got %+q\nwant %+q\n of %.300q", sp.name, k, parser, got, want, sp.stream)
			return
		}
	}
}

func withData(events []seen) (some []seen) {
	for _, e := range events {
		if e.Data != "" {
			some = append(some, e)
		}
	}
	return some
}

func eventsOf(events []ssetest.Event) (s []seen) {
	for _, e := range events {
		s = append(s, seen{e.ID, e.Event, e.Data})
	}
	return s
}

func vectorSpecimens() (specimens []specimen) {
	for _, v := range ssetest.Vectors {
		specimens = append(specimens, specimen{v.Name, v.Stream, eventsOf(v.Want)})
	}
	return specimens
}

// appSpecimens are streams of the app, each as it came once. Here the linter is
// the first to read, and the expectation is our own parser's.
func appSpecimens(t *testing.T) (specimens []specimen) {
	r := start(t, func(a *app) { a.heartbeat = 2 * time.Millisecond })
	ask := func(name, method, path, body string) {
		resp := do(t, method, r.url+path, body)
		stream := read(t, resp.Body)
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %s %s", name, resp.Status, stream)
		}
		specimens = append(specimens, specimen{name, stream, eventsOf(ssetest.Parse(stream))})
	}
	ask("the app's stream", "GET", "/stream?n=5", "")
	ask("the app's chat", "POST", "/v1/chat/completions", `{"prompt":"Grüße\r\n\u2028 …","stream":true,"stream_options":{"include_usage":true}}`)
	for name, q := range map[string]url.Values{
		"several lines":  {"data": {"one\ntwo\r\nthree\rfour\n\nsix\n"}},
		"spaces":         {"data": {" a\n  b\n\tc "}},
		"hostile data":   {"data": {"x\n\ndata: forged\n\nevent: e\nid: 9\ndata: forged too\n\n:"}},
		"hostile id":     {"data": {"x"}, "id": {"1\ndata: forged\n\n"}, "event": {"e\r\ndata: forged"}},
		"NUL and others": {"data": {"a\x00b\u2028c\u0085d\vé😀"}},
		"a BOM":          {"data": {"a\uFEFFb\n\uFEFF"}},
		"looks like SSE": {"data": {":comment\nretry: 5\ndata"}},
	} {
		ask("echo: "+name, "GET", "/echo?"+q.Encode(), "")
		if last := specimens[len(specimens)-1]; len(last.want) != 2 {
			t.Errorf("%s: %+q are not the event that was asked for and [DONE]", name, last.want)
		}
	}
	return specimens
}

// pieces cuts a stream into pieces of n bytes; 0: no cut.
func pieces(stream string, n int) [][]byte {
	if n == 0 {
		n = max(len(stream), 1)
	}
	return slices.Collect(slices.Chunk([]byte(stream), n))
}

// serveSpecimens answers /<specimen>/<bytes per piece>, and a page for browsers.
func serveSpecimens(specimens []specimen) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Type", "text/html") })
	mux.HandleFunc("GET /{i}/{cut}", func(w http.ResponseWriter, r *http.Request) {
		i, _ := strconv.Atoi(r.PathValue("i"))
		n, _ := strconv.Atoi(r.PathValue("cut"))
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		for _, piece := range pieces(specimens[i].stream, n) {
			w.Write(piece)
			http.NewResponseController(w).Flush()
		}
	})
	return mux
}

func urlsOf(base string, i int) (urls []string) {
	for _, n := range cutsOnWire {
		urls = append(urls, fmt.Sprintf("%s/%d/%d", base, i, n))
	}
	return urls
}

// namesOf are the types that a listener must be told.
func namesOf(sp specimen) []string {
	names := []string{}
	for _, e := range sp.want {
		names = append(names, e.Event)
	}
	return names
}

// inMemory lets a Go parser read all specimens, cut in all ways.
func inMemory(specimens []specimen, parse func([][]byte) []seen) (all [][][]seen) {
	for _, sp := range specimens {
		var ways [][]seen
		for _, n := range cutsInMemory {
			ways = append(ways, parse(pieces(sp.stream, n)))
		}
		all = append(all, ways)
	}
	return all
}

func parseOurs(stream [][]byte) (events []seen) {
	var p ssetest.Parser
	for _, piece := range stream {
		events = append(events, eventsOf(p.Feed(piece))...)
	}
	return events
}

func parseGoSSE(stream [][]byte) (events []seen) {
	var readers []io.Reader
	for _, piece := range stream {
		readers = append(readers, bytes.NewReader(piece))
	}
	for e, err := range sse.Read(io.MultiReader(readers...), nil) {
		if err != nil {
			return append(events, seen{Event: "error", Data: err.Error()})
		}
		if e.Type == "" {
			e.Type = "message"
		}
		events = append(events, seen{e.LastEventID, e.Type, e.Data})
	}
	return events
}

// nodeEvents asks the three parsers that are in JavaScript, all in one process.
func nodeEvents(t *testing.T, base string, specimens []specimen) map[string][][][]seen {
	type job struct {
		Bytes   string   `json:"bytes"`
		Lengths []int    `json:"lengths"`
		URLs    []string `json:"urls"`
		Names   []string `json:"names"`
	}
	var jobs []job
	for i, sp := range specimens {
		jobs = append(jobs, job{base64.StdEncoding.EncodeToString([]byte(sp.stream)), cutsInMemory, urlsOf(base, i), namesOf(sp)})
	}
	var answers []map[string][][]seen
	node(t, "parse.mjs", jobs).next(&answers)
	all := map[string][][][]seen{}
	for _, answer := range answers {
		for parser, ways := range answer {
			all[parser] = append(all[parser], ways)
		}
	}
	return all
}

// listenInPage is JavaScript: the events of streams, until each ends. A browser has
// six connections to one server, so four streams at a time are safe.
const listenInPage = `async (streams) => {
	const all = [];
	const one = ({url, names}) => new Promise((resolve) => {
		const events = [], es = new EventSource(url);
		for (const name of new Set(["message", ...names]))
			es.addEventListener(name, (e) => events.push({id: e.lastEventId, event: e.type, data: e.data}));
		es.onerror = () => { es.close(); resolve(events) };
	});
	while (streams.length > 0)
		all.push(...await Promise.all(streams.splice(0, 4).map(one)));
	return all;
}`

// chromiumEvents asks the EventSource of a real browser.
func chromiumEvents(t *testing.T, base string, specimens []specimen) (all [][][]seen) {
	type stream struct {
		URL   string   `json:"url"`
		Names []string `json:"names"`
	}
	var streams []stream
	for i, sp := range specimens {
		for _, u := range urlsOf(base, i) {
			streams = append(streams, stream{u, namesOf(sp)})
		}
	}
	list, err := json.Marshal(streams)
	if err != nil {
		t.Fatal(err)
	}
	ctx := chromium(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(base+"/")); err != nil {
		t.Fatal(err)
	}
	flat, err := chromedp.Run(ctx, chromedp.Evaluate[[][]seen]("("+listenInPage+")("+string(list)+")", chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(slices.Chunk(flat, len(cutsOnWire)))
}

// chromium is a browser without a window, for the length of the test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium-headless-shell")
	if err != nil {
		t.Skip("there is no chromium-headless-shell; packaging/test-tools.sh installs it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits for its end, so that the directory can be removed
		cancel()
	})
	return ctx
}
