package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/api"
)

// maxBody bounds a request: a StartRequest with hundreds of apps and their
// environments stays far below it.
const maxBody = 32 << 20

type peerKey struct{}

// peer is who is at the other end of the unix socket.
type peer struct {
	uid uint32
	err error
}

func (d *daemon) server() *http.Server {
	mux := http.NewServeMux()
	handlers := d.handlers()
	for _, r := range api.Routes {
		mux.Handle(r.Method+" "+r.Path, d.guard(r, handlers[r.Name]))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &api.Error{
			Kind: api.KindNotFound, Message: fmt.Sprintf("no route %s %s", r.Method, r.URL.Path),
			Hint: "client and daemon may be of different versions: gpm update",
		})
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := peerUID(c)
			return context.WithValue(ctx, peerKey{}, peer{uid, err})
		},
	}
}

// guard is what every request passes first. A local HTTP API has to defend
// itself: a web page can make a browser send requests, but neither to a unix
// socket with mode 0600, nor with this Host and no Origin.
func (d *daemon) guard(route api.Route, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.ProtocolHeader, strconv.Itoa(api.Protocol))
		p, _ := r.Context().Value(peerKey{}).(peer)
		switch {
		case p.err != nil:
			fail(w, &api.Error{Kind: api.KindDenied, Message: fmt.Sprintf("cannot tell who calls: %v", p.err)})
		case route.Right == api.Owner && p.uid != 0 && p.uid != uint32(os.Geteuid()):
			fail(w, &api.Error{
				Kind: api.KindDenied, Message: fmt.Sprintf("this gpm belongs to uid %d, not to uid %d", os.Geteuid(), p.uid),
				Hint: "each user has a gpm of his own; set GPM_HOME to choose one",
			})
		case r.Host != api.WireHost || r.Header.Get("Origin") != "":
			fail(w, &api.Error{Kind: api.KindDenied, Message: "not a request of a gpm client"})
		case newer(r.Header.Get(api.ProtocolHeader)):
			fail(w, &api.Error{Kind: api.KindVersion, Message: "the daemon is older than this gpm", Hint: "gpm update"})
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			h(w, r)
		}
	})
}

func newer(version string) bool {
	v, err := strconv.Atoi(version)
	return err == nil && v > api.Protocol
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // if the client has gone there is nobody to tell
}

// fail answers with an error; kinds meet HTTP in api.
func fail(w http.ResponseWriter, err error) {
	e := wireError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.HTTPStatus())
	_ = json.NewEncoder(w).Encode(struct {
		Error *api.Error `json:"error"`
	}{e})
}

func wireError(err error) *api.Error {
	var e *api.Error
	var missing *supervisor.NotFound
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &missing):
		return &api.Error{Kind: api.KindNotFound, Message: err.Error(), Hint: "gpm list shows what there is"}
	}
	return &api.Error{Kind: api.KindInvalid, Message: err.Error()}
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(r.Body).Decode(v)
	var big *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.As(err, &big):
		fail(w, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("request larger than %d MiB", maxBody>>20)})
	default:
		fail(w, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("read request: %v", err)})
	}
	return false
}
