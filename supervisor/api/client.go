package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// What both sides of the wire say of themselves.
const (
	// ProtocolHeader carries Protocol, in requests and in answers.
	ProtocolHeader = "Gpm-Protocol"
	// WireHost is the only Host that the daemon answers to on its socket: a web
	// page that was tricked into calling it would send another one.
	WireHost = "gpm"
	// SocketName is the name of the control socket in GPM_HOME.
	SocketName = "gpm.sock"
)

// Deadlines of calls whose context has none of its own.
const (
	readTimeout = 10 * time.Second
	// An act waits for apps: for readiness, for streams that drain. Its end is
	// the daemon's to find; this is only the end of all patience.
	actTimeout = time.Hour
	dialWait   = 5 * time.Second
)

// maxAnswer bounds the body of an answer: about ten thousand instances.
const maxAnswer = 64 << 20

// readTries is how often a GET is sent when its connection breaks. The pauses
// between them add up to about a second, many times what a daemon needs to be back.
const (
	readTries    = 7
	initialPause = 10 * time.Millisecond
)

// ErrNoDaemon says that nobody listens on the socket: gpm does not run.
var ErrNoDaemon = errors.New("gpm is not running")

// ErrBroken says that the daemon went away in the middle of an answer.
var ErrBroken = errors.New("the daemon was restarted")

// Client talks to the daemon of one GPM_HOME. It holds no connection between
// calls and needs no closing; it may be used from many goroutines.
type Client struct {
	// Warn, if set before the first call, gets at most one sentence: that the
	// daemon is older than this client.
	Warn func(text string)

	home     string
	http     *http.Client
	warnOnce sync.Once
}

// Dial is a client for the daemon of home. It does not connect yet; a call
// without a daemon returns an error that is ErrNoDaemon.
func Dial(home string) *Client {
	path := filepath.Join(home, SocketName)
	dialer := &net.Dialer{Timeout: dialWait}
	return &Client{
		home: home,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", path)
			},
			// A kept connection would be a dead one after a daemon restart.
			DisableKeepAlives:  true,
			DisableCompression: true,
		}},
	}
}

// Home is the GPM_HOME that the client was made for.
func (c *Client) Home() string { return c.home }

// Ping asks the daemon who it is.
func (c *Client) Ping(ctx context.Context) (Daemon, error) {
	return read[Daemon](ctx, c, RoutePing, nil)
}

// List is every instance, or those of the targets.
func (c *Client) List(ctx context.Context, targets ...string) (List, error) {
	return read[List](ctx, c, RouteList, url.Values{"target": targets})
}

// Describe tells everything about the instances of the targets; env shows the
// values of environment variables instead of "[redacted]".
func (c *Client) Describe(ctx context.Context, env bool, targets ...string) ([]Description, error) {
	query := url.Values{"target": targets}
	if env {
		query.Set("env", "1")
	}
	return read[[]Description](ctx, c, RouteDescribe, query)
}

// Doctor asks the daemon what this machine offers it.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	return read[[]Check](ctx, c, RouteDoctor, nil)
}

// Start starts apps and returns when each instance is online or has failed.
func (c *Client) Start(ctx context.Context, r StartRequest) (Result, error) {
	return act[Result](ctx, c, RouteStart, r)
}

// Stop stops the targets and returns when their processes are gone.
func (c *Client) Stop(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteStop, r)
}

// Restart stops and starts the targets; it starts what is stopped.
func (c *Client) Restart(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteRestart, r)
}

// Reload replaces the targets' processes one after another without losing a
// connection, and returns when the rollout ended.
func (c *Client) Reload(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteReload, r)
}

// Delete stops the targets and forgets them.
func (c *Client) Delete(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteDelete, r)
}

// Scale changes how many instances the target has.
func (c *Client) Scale(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteScale, r)
}

// Drain takes the targets out of traffic, or back with Undo. It answers at
// once: their streams go on.
func (c *Client) Drain(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteDrain, r)
}

// Abort ends the rollouts of the targets' apps and returns when what they had
// begun is taken back; Runs of each outcome says which version the instance runs.
// It is no error if there is nothing to end.
func (c *Client) Abort(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteAbort, r)
}

// Reset sets the targets' counters to zero.
func (c *Client) Reset(ctx context.Context, r ActRequest) (Result, error) {
	return act[Result](ctx, c, RouteReset, r)
}

// Flush empties the log files of the targets.
func (c *Client) Flush(ctx context.Context, r ActRequest) (FlushResult, error) {
	return act[FlushResult](ctx, c, RouteFlush, r)
}

// Save writes the list of apps to dump.json.
func (c *Client) Save(ctx context.Context) (SaveResult, error) {
	return act[SaveResult](ctx, c, RouteSave, struct{}{})
}

// Resurrect starts the saved apps that are not in the list.
func (c *Client) Resurrect(ctx context.Context) (Result, error) {
	return act[Result](ctx, c, RouteResurrect, struct{}{})
}

// Update asks that the daemon be replaced by the binary exe. The answer comes
// from the old daemon; the new one is there when Ping tells another pid.
func (c *Client) Update(ctx context.Context, exe string) error {
	_, err := act[json.RawMessage](ctx, c, RouteUpdate, UpdateRequest{Exe: exe})
	return err
}

// Kill stops all apps, then the daemon and its keeper end.
func (c *Client) Kill(ctx context.Context) (Result, error) {
	return act[Result](ctx, c, RouteKill, struct{}{})
}

// read sends a GET until one connection lasts for a whole answer.
func read[T any](ctx context.Context, c *Client, route string, query url.Values) (T, error) {
	ctx, cancel := withDeadline(ctx, readTimeout)
	defer cancel()
	var answer T
	var err error
	pause := initialPause
	for range readTries {
		answer, err = roundTrip[T](ctx, c, Find(route), query, nil)
		if !errors.Is(err, ErrBroken) || !wait(ctx, pause) {
			break
		}
		pause *= 2
	}
	return answer, late(ctx, route, err)
}

// act sends a POST, once: the daemon may have done half of it when a
// connection breaks, and only the user can tell whether it should be done again.
func act[T any](ctx context.Context, c *Client, route string, request any) (T, error) {
	ctx, cancel := withDeadline(ctx, actTimeout)
	defer cancel()
	var none T
	body, err := json.Marshal(request)
	if err != nil {
		return none, fmt.Errorf("write %s request: %w", route, err)
	}
	answer, err := roundTrip[T](ctx, c, Find(route), nil, body)
	if errors.Is(err, ErrBroken) {
		return none, &brokenAct{Error{
			Kind:    KindFailed,
			Message: fmt.Sprintf("the daemon was restarted while it worked on %q", route),
			Hint:    "see what came of it: gpm list",
		}}
	}
	return answer, late(ctx, route, err)
}

// brokenAct is both an *Error, for whoever prints it, and ErrBroken.
type brokenAct struct{ e Error }

func (b *brokenAct) Error() string   { return b.e.Message }
func (b *brokenAct) Unwrap() []error { return []error{&b.e, ErrBroken} }

// roundTrip is one request on a connection of its own.
func roundTrip[T any](ctx context.Context, c *Client, r Route, query url.Values, body []byte) (T, error) {
	var answer T
	res, err := c.send(ctx, r, query, body)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return answer, ctx.Err()
	case err != nil:
		return answer, fmt.Errorf("read answer to %s: %w", r.Name, ErrBroken)
	case len(data) > maxAnswer:
		return answer, fmt.Errorf("read answer to %s: longer than %d bytes", r.Name, maxAnswer)
	case len(bytes.TrimSpace(data)) == 0:
		return answer, nil
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("read answer to %s: %w", r.Name, err)
	}
	return answer, nil
}

// send returns the answer of a daemon that said yes; its body is the caller's to close.
func (c *Client) send(ctx context.Context, r Route, query url.Values, body []byte) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: WireHost, Path: r.Path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, r.Method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make %s request: %w", r.Name, err)
	}
	req.Header.Set(ProtocolHeader, strconv.Itoa(Protocol))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	c.checkProtocol(res.Header.Get(ProtocolHeader))
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, readError(r, res)
}

// unanswered says what it means that no answer came.
func (c *Client) unanswered(ctx context.Context, err error) error {
	path := filepath.Join(c.home, SocketName)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w (nobody listens on %s)", ErrNoDaemon, path)
	case errors.Is(err, syscall.EACCES):
		return &Error{Kind: KindDenied, Message: fmt.Sprintf("open %q: permission denied", path),
			Hint: "this gpm belongs to another user; set GPM_HOME to use one of your own"}
	case errors.Is(err, syscall.EINVAL):
		// sun_path holds 108 bytes, on every Linux.
		return &Error{Kind: KindInvalid, Message: fmt.Sprintf("the path %q is too long for a socket", path),
			Hint: "set GPM_HOME to a shorter path"}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		// Nothing was sent: not a broken connection but none.
		return &Error{Kind: KindFailed, Message: fmt.Sprintf("connect to %q: %v", path, op.Err)}
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// checkProtocol warns about a daemon that is older than this client.
func (c *Client) checkProtocol(header string) {
	theirs, err := strconv.Atoi(header)
	if err != nil || theirs >= Protocol || c.Warn == nil {
		return
	}
	c.warnOnce.Do(func() {
		c.Warn(fmt.Sprintf("the daemon is older than this gpm (protocol %d, ours is %d); bring it up with: gpm update", theirs, Protocol))
	})
}

// ErrorBody is the body of every answer that is not a success.
type ErrorBody struct {
	Error *Error `json:"error"`
}

func readError(r Route, res *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read answer to %s: %w", r.Name, ErrBroken)
	}
	var body ErrorBody
	if json.Unmarshal(data, &body) == nil && body.Error != nil && body.Error.Message != "" {
		return body.Error
	}
	return &Error{Kind: KindInternal, Message: fmt.Sprintf("%s: the daemon answered %s", r.Name, res.Status)}
}

// late turns a deadline that passed into the sentence for it.
func late(ctx context.Context, route string, err error) error {
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return &Error{Kind: KindTimeout, Message: fmt.Sprintf("the daemon did not answer %q in time", route),
		Hint: "gpm.log in GPM_HOME tells what it is doing"}
}

func withDeadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// wait pauses for d; it is false when the context ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
