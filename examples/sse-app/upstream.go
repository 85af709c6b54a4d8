package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// With -upstream everything under /v1 is answered by another server. What goes
// there and what comes back passes as it is, but for what is between us and the
// browser (cookies, CORS), and streams keep the manners of this app: heartbeats,
// a deadline for each write, and never a silent end.

const (
	maxRelayed    = 16 << 20    // bytes of a request: pictures travel in them
	relayedWithin = time.Minute // to come in
	maxHops       = 8           // of servers like this one, one behind the other, or it is a circle
	hop           = "sse-app"
)

// newWire has no limit for the time of a whole answer: streams may last.
func newWire() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  10 * time.Minute, // as long as OpenAI's own libraries wait; an unstreamed answer comes after all of its thinking
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // what is compressed cannot be read event by event
		ForceAttemptHTTP2:      true,
		// A peer that is gone without a word is noticed though nothing limits the
		// answer. On HTTP/1 the kernel's keep-alive does that.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// parseUpstream reads the base URL of an upstream. OpenAI's libraries call the
// one with /v1 at its end the base, most people the one without; both are right.
func parseUpstream(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("upstream %q is not a URL as https://llm.example/v1, with nothing but host, port and path", base)
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1")
	u.RawPath = ""
	return u, nil
}

// toUpstream makes a request for the upstream, to where at points under /v1.
func (a *app) toUpstream(ctx context.Context, method string, at *url.URL, headers http.Header, body []byte) (*http.Request, error) {
	u, err := parseUpstream(a.upstream)
	if err != nil {
		return nil, err
	}
	u.RawPath = u.EscapedPath() + at.EscapedPath()
	u.Path += at.Path
	u.RawQuery = at.RawQuery
	out, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header.Set("User-Agent", "") // if there is none net/http would say its own
	copyHeaders(out.Header, headers, notAsked)
	out.Header.Add("Via", "1.1 "+hop)
	if out.Header.Get("Authorization") == "" && a.askKey != "" {
		out.Header.Set("Authorization", "Bearer "+a.askKey)
	}
	return out, nil
}

// relay passes a request to the upstream and its answer to the client.
func (a *app) relay(w http.ResponseWriter, r *http.Request) {
	if fault, status := notRelayed(r); fault != nil {
		fault.write(w, status)
		return
	}
	body, status, fault := readAll(w, r, maxRelayed, relayedWithin)
	if fault != nil {
		fault.write(w, status)
		return
	}
	ctx, undo := a.untilCutoff(r.Context())
	defer undo()
	resp, err := a.fromUpstream(a.toUpstream(ctx, r.Method, r.URL, r.Header, body))
	if err != nil {
		a.deny(w, r, err)
		return
	}
	defer resp.Body.Close()
	if r.Method != http.MethodHead && resp.StatusCode == http.StatusOK && isEventStream(resp) {
		a.relayEvents(w, r, resp)
		return
	}
	a.relayBody(w, r, resp)
}

// notRelayed says why a request is not for the upstream.
func notRelayed(r *http.Request) (fault *apiError, status int) {
	switch {
	case r.Method == http.MethodTrace: // it would show the client what we add
		return badRequest("TRACE is not passed on.", "method_not_allowed", ""), http.StatusMethodNotAllowed
	case strings.Count(strings.Join(r.Header.Values("Via"), ","), " "+hop) >= maxHops:
		return serverError("The upstream of this server leads back to itself.", "upstream_loop"), http.StatusLoopDetected
	}
	return nil, 0
}

// fromUpstream is the upstream's answer to what toUpstream has made. The caller
// closes its body.
func (a *app) fromUpstream(out *http.Request, err error) (*http.Response, error) {
	if err != nil {
		return nil, badGateway("The upstream has no usable address.", "upstream_unreachable", err)
	}
	resp, err := a.wire.RoundTrip(out)
	var timeout net.Error
	var op *net.OpError
	switch {
	case err == nil && isEventStream(resp) && !slices.Contains([]string{"", "identity"}, resp.Header.Get("Content-Encoding")):
		resp.Body.Close()
		return nil, badGateway("The upstream sent a compressed stream.", "upstream_failed", errors.New("it was asked not to"))
	case err == nil:
		return resp, nil
	case errors.As(err, &timeout) && timeout.Timeout() && !(errors.As(err, &op) && op.Op == "dial"):
		return nil, &chatError{status: http.StatusGatewayTimeout, fault: serverError("The upstream did not answer in time.", "upstream_timeout"), cause: err}
	}
	return nil, badGateway("The upstream cannot be reached.", "upstream_unreachable", err)
}

// untilCutoff is ctx with an end at the cutoff, for what waits for others.
func (a *app) untilCutoff(ctx context.Context) (until context.Context, undo func()) {
	until, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(a.cutoff, cancel)
	return until, func() { forget(); cancel() }
}

func isEventStream(resp *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return kind == "text/event-stream"
}

// relayEvents passes a stream on, event by event.
func (a *app) relayEvents(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	copyHeaders(w.Header(), resp.Header, notAnswered)
	w.Header().Del("Content-Length") // heartbeats come in between
	s, ok := a.openAnswer(w, r)
	if !ok {
		return
	}
	defer s.close()
	err := s.pump(func(ctx context.Context, yield func(...event) error) error {
		in := newHearing(ctx, resp.Body, strings.HasSuffix(r.URL.Path, "/completions"))
		defer in.close()
		return in.each(func(e event) error { return yield(e) })
	})
	s.lastWord(err, plainChunk)
}

// relayBody passes on what is no stream. JSON of an ordinary size is looked at
// whole first: if it is cut, the client gets an error that it understands, and
// tries again by itself.
func (a *app) relayBody(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	var head []byte
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/json" {
		var err error
		if head, err = io.ReadAll(io.LimitReader(resp.Body, maxBody)); err != nil {
			a.deny(w, r, badGateway("The upstream broke off its answer.", "upstream_interrupted", err))
			return
		}
	}
	copyHeaders(w.Header(), resp.Header, notAnswered)
	w.WriteHeader(resp.StatusCode)
	to := &timely{w, http.NewResponseController(w), a.writeTimeout}
	if _, err := io.Copy(to, io.MultiReader(bytes.NewReader(head), resp.Body)); err != nil {
		if r.Context().Err() == nil {
			a.err.Printf("broke off the answer of the upstream: %v", err)
		}
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
}

// timely writes at once, each time with a deadline.
type timely struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	within time.Duration
}

func (p *timely) Write(b []byte) (int, error) {
	p.rc.SetWriteDeadline(time.Now().Add(p.within))
	n, err := p.w.Write(b)
	if err == nil {
		err = p.rc.Flush()
	}
	return n, err
}

// Headers that are not passed on. A name that ends in '-' stands for all that
// begin like this.
var (
	// Between two neighbours only (RFC 9110, 7.6.1).
	hopByHop = []string{"Connection", "Keep-Alive", "Proxy-", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

	// Of a request: what is ours (the cookie), what we have dealt with (CORS, the
	// body), who the client is, and what would make events unreadable.
	notAsked = append([]string{"Accept-Encoding", "Content-Length", "Cookie", "Expect", "Forwarded", "Origin", "Referer",
		"Sec-", "X-Forwarded-", "X-Real-Ip"}, hopByHop...)

	// Of an answer: what speaks about a whole site, which is ours, not theirs.
	notAnswered = append([]string{"Access-Control-", "Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Set-Cookie",
		"Strict-Transport-Security", "X-Instance"}, hopByHop...)
)

// copyHeaders copies all headers but some, and those that their own Connection
// header names.
func copyHeaders(to, from http.Header, but []string) {
	for _, name := range strings.Split(strings.Join(from.Values("Connection"), ","), ",") {
		but = append(but[:len(but):len(but)], http.CanonicalHeaderKey(strings.TrimSpace(name)))
	}
	for name, values := range from {
		private := slices.ContainsFunc(but, func(b string) bool {
			return name == b || (strings.HasSuffix(b, "-") && strings.HasPrefix(name, b))
		})
		switch {
		case private:
		case name == "Vary":
			to[name] = append(to[name], values...)
		default:
			to[name] = slices.Clone(values)
		}
	}
}
