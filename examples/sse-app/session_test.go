package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// login gives the cookie of a user, ready to be sent.
func login(t *testing.T, url, user string) string {
	t.Helper()
	resp := do(t, "POST", url+"/login", "user="+user, "Content-Type", "application/x-www-form-urlencoded")
	if resp.StatusCode != 204 || len(resp.Cookies()) != 1 {
		t.Fatalf("login: %s %q, cookies %v", resp.Status, read(t, resp.Body), resp.Cookies())
	}
	c := resp.Cookies()[0]
	return c.Name + "=" + c.Value
}

func who(t *testing.T, url, cookie string) string {
	t.Helper()
	return strings.TrimSpace(read(t, do(t, "GET", url+"/me", "", "Cookie", cookie).Body))
}

func TestLogin(t *testing.T) {
	r := start(t, nil)
	for _, tt := range []struct{ kind, body, want string }{
		{"application/x-www-form-urlencoded", "user=al.ice%40home", "al.ice@home"},
		{"application/json", `{"user":"bob_-2"}`, "bob_-2"},
		{"application/json; charset=utf-8", `{"user":"c"}`, "c"},
		{"application/json", `{"user":"` + strings.Repeat("x", 64) + `"}`, strings.Repeat("x", 64)},
	} {
		resp := do(t, "POST", r.url+"/login", tt.body, "Content-Type", tt.kind)
		if resp.StatusCode != 204 || len(resp.Cookies()) != 1 {
			t.Fatalf("%s: %s, cookies %v", tt.body, resp.Status, resp.Cookies())
		}
		c := resp.Cookies()[0]
		if c.Name != "sse_user" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Secure || c.MaxAge != 7*24*3600 {
			t.Errorf("cookie %+v", c)
		}
		if got := who(t, r.url, c.Name+"="+c.Value); got != `{"user":"`+tt.want+`"}` {
			t.Errorf("%s: the server knows %s", tt.body, got)
		}
	}
	if got := who(t, r.url, ""); got != `{"user":null}` {
		t.Errorf("nobody is %s", got)
	}
	secure := do(t, "POST", r.url+"/login", `{"user":"a"}`, "Content-Type", "application/json", "X-Forwarded-Proto", "https").Cookies()[0]
	if !secure.Secure {
		t.Error("behind TLS the cookie is not for TLS only")
	}
	out := do(t, "POST", r.url+"/logout", "")
	if c := out.Cookies(); out.StatusCode != 204 || len(c) != 1 || c[0].MaxAge >= 0 || c[0].Name != "sse_user" {
		t.Errorf("logout: %s, %v", out.Status, c)
	}
}

func TestLoginRefuses(t *testing.T) {
	r := start(t, nil)
	for body, kind := range map[string]string{
		"":                                    "application/x-www-form-urlencoded",
		"user=":                               "application/x-www-form-urlencoded",
		"user=a%0d%0ab":                       "application/x-www-form-urlencoded",
		"user=a~b":                            "application/x-www-form-urlencoded",
		"user=a:b":                            "application/x-www-form-urlencoded",
		"user=é":                              "application/x-www-form-urlencoded",
		"user=" + strings.Repeat("x", 65):     "application/x-www-form-urlencoded",
		"user=" + strings.Repeat("x", 5<<10):  "application/x-www-form-urlencoded",
		`{"user":5}`:                          "application/json",
		`user=alice&json=no`:                  "application/json",
		`{"user":"` + strings.Repeat("x", 70): "application/json",
	} {
		resp := do(t, "POST", r.url+"/login", body, "Content-Type", kind)
		if resp.StatusCode != 400 || len(resp.Cookies()) != 0 || !strings.Contains(read(t, resp.Body), `"error"`) {
			t.Errorf("%.40q: %s, cookies %v", body, resp.Status, resp.Cookies())
		}
	}
}

// Whatever is in the cookie, only what this service has signed makes somebody of
// a visitor.
func TestCookiesCannotBeForged(t *testing.T) {
	r := start(t, func(a *app) { a.secret = "one" })
	cookie := login(t, r.url, "alice")
	if got := who(t, r.url, cookie); got != `{"user":"alice"}` {
		t.Fatalf("alice is %s", got)
	}
	value := strings.TrimPrefix(cookie, "sse_user=")
	soon := time.Now().Add(time.Hour)
	for _, bad := range []string{
		"", "alice", "alice:", ":", "::", strings.Replace(value, "alice", "admin", 1), value + "x", value[:len(value)-1],
		value[:strings.LastIndex(value, ":")+1], sign([]byte("another"), "alice", soon), sign([]byte("one"), "alice", time.Now().Add(-time.Second)),
		sign([]byte("one"), "al~ice", soon), sign([]byte("one"), "", soon), strings.Repeat("a", 5000),
	} {
		if got := who(t, r.url, "sse_user="+bad); got != `{"user":null}` {
			t.Errorf("%.60q is %s", bad, got)
		}
	}
}

func TestOtherSitesCannotLogAnybodyIn(t *testing.T) {
	r := start(t, func(a *app) { a.origins = []string{"https://chat.example"} })
	for _, path := range []string{"/login", "/logout", "/push?user=u", "/send_message"} {
		for _, tt := range []struct {
			header, value string
			refused       bool
		}{
			{"Sec-Fetch-Site", "cross-site", true}, {"Origin", "https://evil.example", true},
			{"Sec-Fetch-Site", "same-origin", false}, {"Origin", "https://chat.example", false}, {"X-None", "curl", false},
		} {
			resp := do(t, "POST", r.url+path, `{"user":"a"}`, "Content-Type", "application/json", tt.header, tt.value)
			if refused := resp.StatusCode == 403; refused != tt.refused {
				t.Errorf("%s with %s: %s gets %s", path, tt.header, tt.value, resp.Status)
			}
		}
	}
	h := do(t, "GET", r.url+"/me", "", "Origin", "https://chat.example").Header
	if h.Get("Access-Control-Allow-Origin") != "https://chat.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin" {
		t.Errorf("a page that is let in gets %v", h)
	}
	h = do(t, "GET", r.url+"/me", "", "Origin", "https://evil.example").Header
	if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("another page gets %v", h)
	}
}

// An EventSource cannot log in: it must be told by the status, and stop.
func TestStreamsOfOthersAreRefused(t *testing.T) {
	r := start(t, nil)
	cookie := login(t, r.url, "alice")
	for _, tt := range []struct {
		path, cookie string
		status       int
	}{
		{"/stream?user=alice&n=1", "", 401},
		{"/stream?user=alice&n=1", "sse_user=alice:99999999999:forged", 401},
		{"/stream?user=bob&n=1", cookie, 403},
		{"/stream?user=alice&n=1", cookie, 200},
		{"/stream?user=&n=1", cookie, 400},
		{"/stream?user=a~b&n=1", cookie, 400},
		{"/history?user=alice", "", 401},
		{"/history?user=bob", cookie, 403},
		{"/history?user=a~b", cookie, 400},
		{"/history", cookie, 400},
		{"/history?log=chat", cookie, 400},
		{"/history?log=news&user=bob", cookie, 400},
	} {
		if resp := do(t, "GET", r.url+tt.path, "", "Cookie", tt.cookie); resp.StatusCode != tt.status {
			t.Errorf("%s with %.20q: %s, want %d", tt.path, tt.cookie, resp.Status, tt.status)
		}
	}
	hello := read(t, do(t, "GET", r.url+"/stream?n=1", "", "Cookie", cookie).Body)
	if !strings.Contains(hello, `"user":"alice"}`) {
		t.Errorf("alice is greeted with %q", hello)
	}
}

func TestKeysGrowOldButNotMany(t *testing.T) {
	var k keyring
	for _, key := range []string{"a", "b", "c", "d", "e", "c"} {
		k.add([]byte(key))
	}
	var got []string
	for _, key := range k.keys {
		got = append(got, string(key))
	}
	if s := strings.Join(got, ""); s != "cedb" {
		t.Errorf("keys %q, want the newest first, each once", s)
	}
}

func TestCookieOfALongGoneKeyIsNobody(t *testing.T) {
	a := newApp(config{})
	r := httptest.NewRequest("GET", "/me", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: sign([]byte("gone"), "alice", time.Now().Add(time.Hour))})
	if a.user(r) != "" {
		t.Error("it is taken")
	}
	a.keyring.add([]byte("gone"))
	a.keyring.add([]byte("new"))
	if a.user(r) != "alice" {
		t.Error("the cookie of the key before is not taken")
	}
}

// Whoever comes first makes the secret, all use the same, and it outlives them.
func TestInstancesOfOneMachineShareASecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "session.key")
	const n = 8
	got := make(chan string, n)
	for range n {
		go func() { // until it has one
			secret, err := secretIn(path)
			got <- fmt.Sprint(secret, err)
		}()
	}
	first := <-got
	for range n - 1 {
		if other := <-got; other != first || len(other) < 26 {
			t.Errorf("%q and %q", first, other)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".session-*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestImagesPublishNothing(t *testing.T) {
	r := start(t, nil)
	if resp := do(t, "GET", r.url+"/send_message?message=x", "", "Sec-Fetch-Site", "cross-site"); resp.StatusCode != 403 {
		t.Errorf("a GET from a page of another site: %s", resp.Status)
	}
	if resp := do(t, "GET", r.url+"/send_message?message=x", "", "Sec-Fetch-Site", "none"); resp.StatusCode != 503 { // there is no bus here
		t.Errorf("a GET from the address bar: %s", resp.Status)
	}
}

func TestQueriesThatCannotBeRead(t *testing.T) {
	r := start(t, nil)
	for _, path := range []string{"/stream?n=%", "/stream?n=1;n=2", "/stream?%zz=1", "/echo?data=%ff"} {
		if resp := do(t, "GET", r.url+path, ""); resp.StatusCode != 400 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestFlagsThatCannotBeMeant(t *testing.T) {
	for _, args := range [][]string{{"-delay", "-1s"}, {"-interval", "0s"}, {"extra"}} {
		cmd := self(t, os.Args[0], args...)
		cmd.Env = append(os.Environ(), "SSE_APP_TEST_RUN_MAIN=1", "PORT=0")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), args[0]) {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}
