package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestCORS(t *testing.T) {
	const friend = "https://chat.example"
	for name, tt := range map[string]struct {
		origins                    []string
		origin                     string
		allowed, credentials, vary string
	}{
		"nobody is known":  {nil, friend, "*", "", ""},
		"known":            {[]string{"http://a.example", friend}, friend, friend, "true", "Origin"},
		"other":            {[]string{friend}, "https://evil.example", "*", "", "Origin"},
		"longer":           {[]string{friend}, friend + ".evil.example", "*", "", "Origin"},
		"sandboxed":        {[]string{friend}, "null", "*", "", "Origin"},
		"no browser":       {[]string{friend}, "", "*", "", "Origin"},
		"no other browser": {nil, "", "*", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(a *app) { a.origins = tt.origins })
			for _, ask := range [][2]string{{"GET", "/stream?n=1"}, {"POST", "/v1/chat/completions"}, {"GET", "/nope"}, {"OPTIONS", "/stream"}, {"OPTIONS", "/v1/chat/completions"}} {
				h := do(t, ask[0], r.url+ask[1], `{"prompt":"x","stream":true}`, "Origin", tt.origin).Header
				if h.Get("Access-Control-Allow-Origin") != tt.allowed || h.Get("Access-Control-Allow-Credentials") != tt.credentials || h.Get("Vary") != tt.vary {
					t.Errorf("%s: %v", ask, h)
				}
				if len(h.Values("Access-Control-Allow-Origin")) != 1 || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "X-Request-Id") {
					t.Errorf("%s: %v", ask, h)
				}
			}
		})
	}
}

// The libraries have headers of their own, and new ones in every release.
func TestPreflightAllowsWhatIsAsked(t *testing.T) {
	r := start(t, nil)
	sdk := "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-stainless-timeout"
	for asked, want := range map[string]string{sdk: sdk, "": corsHeaders, strings.Repeat("x", maxCORS+1): corsHeaders} {
		resp := do(t, "OPTIONS", r.url+"/v1/chat/completions", "", "Origin", "https://chat.example",
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", asked)
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Headers") != want || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") {
			t.Errorf("%.60s: %s %v", asked, resp.Status, h)
		}
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, good := range []string{"https://chat.example", "http://localhost:3000", "HTTP://[::1]:80"} {
		if got, err := parseOrigin(good); err != nil || got != strings.ToLower(good) {
			t.Errorf("-origin %s: %q %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "*", "null", "chat.example", "https://chat.example/", "https://u@chat.example", "ftp://x", "https://", "https://:80", "https://x?y"} {
		if _, err := parseOrigin(bad); err == nil {
			t.Errorf("-origin %s is accepted", bad)
		}
	}
	for flag, value := range map[string]string{"-origin": "chat.example", "-upstream": "localhost:8000"} {
		cmd := self(t, os.Args[0], flag, value)
		cmd.Env = append(os.Environ(), "SSE_APP_TEST_RUN_MAIN=1", "PORT=0")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), `"`+value+`"`) {
			t.Errorf("%s %s: %v, %q", flag, value, err, out)
		}
	}
}

// In a real browser a page of another origin asks, with a preflight, and reads
// what is streamed.
func TestChromiumAsksFromAnotherOrigin(t *testing.T) {
	r := start(t, nil)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>another origin</title>")
	}))
	t.Cleanup(other.Close)
	b := &tab{t: t, ctx: browserContext(t)}
	b.do(chromedp.Navigate(other.URL))
	answer := js[string](b, `fetch("`+r.url+`/v1/chat/completions", {method: "POST", headers: {"Content-Type": "application/json"},
		body: '{"model":"lorem","prompt":"x","stream":true}'}).then((r) => r.text())`)
	if !strings.Contains(answer, "Lorem ") || !strings.HasSuffix(answer, "data: [DONE]\n\n") {
		t.Errorf("the page read %q", answer)
	}
	tick := js[string](b, `new Promise((done) => {
		const s = new EventSource("`+r.url+`/time");
		s.onmessage = (e) => { s.close(); done(e.data); };
		s.onerror = () => done("refused");
	})`)
	if !strings.HasPrefix(tick, "The server time is: ") {
		t.Errorf("the page heard %q", tick)
	}
}
