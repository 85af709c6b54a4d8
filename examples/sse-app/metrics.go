package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Kinds of what stays open, as the metrics call them. There are no others, so
// nobody who asks can make the metrics grow.
const (
	kindStream = "stream" // GET /stream
	kindTicket = "ticket" // GET /stream?ticket=...
	kindChat   = "chat"   // an answer of the model, streamed
	kindSocket = "socket" // GET /ws
	kindOther  = "other"
)

// metrics are what GET /metrics tells. Every file counts its own.
type metrics struct {
	registry *prometheus.Registry

	open *prometheus.GaugeVec   // by kind
	sent *prometheus.CounterVec // events, by kind
	slow *prometheus.CounterVec // clients that were dropped because they did not read, by kind
	left *prometheus.CounterVec // clients that left before the end, by kind

	tokens       prometheus.Counter // words of the model
	published    prometheus.Counter // pushes that were new
	deduplicated prometheus.Counter // pushes whose id was there already
	delivered    prometheus.Counter // pushes that were written to a client

	answers    *prometheus.HistogramVec // how long answers took that are no streams, by route and code
	firstByte  *prometheus.HistogramVec // from the request to the first byte of a stream, by kind
	firstToken prometheus.Histogram     // from the question to the first word of an answer
}

// newMetrics makes all of them; busUp and draining are asked when somebody looks.
func newMetrics(busUp, draining func() bool) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sse_app_open_streams", Help: "Event streams and WebSockets that are open now."}, []string{"kind"}),
		sent: byKind("sse_app_events_sent_total", "Events and messages written to clients."),
		slow: byKind("sse_app_slow_clients_total", "Clients dropped because they did not read."),
		left: byKind("sse_app_client_disconnects_total", "Clients that left before the end of their stream."),

		tokens:       counter("sse_app_tokens_total", "Words that the model has written."),
		published:    counter("sse_app_pushes_published_total", "Pushes that were new."),
		deduplicated: counter("sse_app_pushes_deduplicated_total", "Pushes that were published before."),
		delivered:    counter("sse_app_pushes_delivered_total", "Pushes written to a client."),

		answers: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sse_app_request_duration_seconds", Help: "Time to answer requests that are no streams.",
			Buckets: prometheus.DefBuckets}, []string{"route", "code"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sse_app_first_byte_seconds", Help: "Time from a request to the first byte of its stream.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"kind"}),
		firstToken: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sse_app_first_token_seconds", Help: "Time until the model says the first word of an answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
	for _, kind := range []string{kindStream, kindTicket, kindChat, kindSocket, kindOther} {
		m.open.WithLabelValues(kind) // zero is said, too: an alert on what is not there is never raised
	}
	m.registry.MustRegister(m.open, m.sent, m.slow, m.left, m.tokens, m.published, m.deduplicated, m.delivered,
		m.answers, m.firstByte, m.firstToken,
		yesOrNo("sse_app_bus_up", "1 if the bus can be reached.", busUp),
		yesOrNo("sse_app_draining", "1 if the process is about to leave.", draining),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func byKind(name, help string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"kind"})
}

func yesOrNo(name, help string, ask func() bool) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if ask() {
			return 1
		}
		return 0
	})
}

// addMetrics serves GET /metrics. It is not for everybody: keep it away from
// outside in the proxy.
func (a *app) addMetrics(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{
		DisableCompression:  true, // as all of this app: what compresses also collects
		MaxRequestsInFlight: 4,
		Timeout:             a.writeTimeout,
		ErrorLog:            a.err,
	}))
}

// kindOf is the kind of the stream that answers r.
func kindOf(r *http.Request) string {
	switch path := r.URL.Path; {
	case path == "/stream" && r.URL.Query().Get("ticket") != "":
		return kindTicket
	case path == "/stream":
		return kindStream
	case path == "/ws":
		return kindSocket
	case strings.HasPrefix(path, "/v1/"), strings.HasPrefix(path, "/chatgptApi/"):
		return kindChat
	}
	return kindOther
}

// spoken counts the words of an answer, from word number from on.
func (m *metrics) spoken(from int, say func(word string) error) func(word string) error {
	asked, first := time.Now(), from == 0
	return func(word string) error {
		if first {
			m.firstToken.Observe(time.Since(asked).Seconds())
			first = false
		}
		m.tokens.Inc()
		return say(word)
	}
}

// began notes the first byte of a stream.
func (m *metrics) began(seen *observed) {
	if seen.streams() {
		m.firstByte.WithLabelValues(kindOf(seen.request)).Observe(time.Since(seen.start).Seconds())
	}
}

// answered notes a request that is over, unless it was a stream: how long those
// are open says nothing.
func (m *metrics) answered(seen *observed) {
	if seen.streams() || seen.status == http.StatusSwitchingProtocols {
		return
	}
	route := seen.request.Pattern // the mux has left it here; of paths there are as many as clients like
	if route == "" {
		route = "other"
	}
	m.answers.WithLabelValues(route, strconv.Itoa(seen.status)).Observe(time.Since(seen.start).Seconds())
}

func (o *observed) streams() bool {
	return strings.HasPrefix(o.Header().Get("Content-Type"), "text/event-stream")
}
