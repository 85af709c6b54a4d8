package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpm/supervisor/api"
)

func TestEveryRouteHasAHandlerAndEveryHandlerARoute(t *testing.T) {
	handlers := (&daemon{}).handlers()
	for _, r := range api.Routes {
		if handlers[r.Name] == nil {
			t.Errorf("route %q has no handler", r.Name)
		}
		delete(handlers, r.Name)
	}
	for name := range handlers {
		t.Errorf("handler %q has no route", name)
	}
}

// Whoever gets to a handler has passed: a known uid, our Host, no Origin, and
// no newer protocol.
func TestGuard(t *testing.T) {
	d := &daemon{}
	me := uint32(os.Geteuid())
	for _, c := range []struct {
		name   string
		peer   peer
		change func(*http.Request)
		want   int
	}{
		{"a client", peer{uid: me}, nil, 200},
		{"root", peer{uid: 0}, nil, 200},
		{"another user", peer{uid: me + 1}, nil, 403},
		{"nobody knows who", peer{err: errors.New("no")}, nil, 403},
		{"a web page", peer{uid: me}, func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 403},
		{"DNS rebinding", peer{uid: me}, func(r *http.Request) { r.Host = "evil.example" }, 403},
		{"a newer client", peer{uid: me}, func(r *http.Request) { r.Header.Set(api.ProtocolHeader, "99") }, 426},
		{"an older client", peer{uid: me}, func(r *http.Request) { r.Header.Set(api.ProtocolHeader, "0") }, 200},
	} {
		called := false
		h := d.guard(api.Find(api.RoutePing), func(http.ResponseWriter, *http.Request) { called = true })
		r := httptest.NewRequest("GET", "/v1/ping", nil)
		r.Host = api.WireHost
		if c.change != nil {
			c.change(r)
		}
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, c.peer))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || called != (c.want == 200) {
			t.Errorf("%s: status %d, handler called: %v", c.name, w.Code, called)
		}
		if c.want != 200 && !strings.Contains(w.Body.String(), `"kind"`) {
			t.Errorf("%s: no error in %q", c.name, w.Body)
		}
	}
}

func TestPeerUID(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	uid, err := peerUID(s)
	if err != nil || uid != uint32(os.Geteuid()) {
		t.Fatal(uid, err)
	}
	p1, p2 := net.Pipe()
	defer p1.Close()
	defer p2.Close()
	if _, err := peerUID(p1); err == nil {
		t.Error("a pipe has no peer")
	}
}
