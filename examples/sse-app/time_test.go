package main

import (
	"bufio"
	"regexp"
	"strings"
	"testing"
)

func TestTimeTicksForEveryOrigin(t *testing.T) {
	r := start(t, nil)
	resp := do(t, "GET", r.url+"/time", "", "Origin", "https://elsewhere.example")
	var lines []string
	br := bufio.NewReader(resp.Body)
	for range 3 {
		lines = append(lines, nextLine(t, br, "data: "))
	}
	for _, line := range lines {
		if !regexp.MustCompile(`^data: The server time is: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+$`).MatchString(line) {
			t.Errorf("line %q", line)
		}
	}
	preflight := do(t, "OPTIONS", r.url+"/time", "", "Origin", "https://elsewhere.example", "Access-Control-Request-Method", "GET")
	if resp.StatusCode != 200 || preflight.StatusCode != 204 {
		t.Errorf("%s, preflight %s", resp.Status, preflight.Status)
	}
	for _, h := range []map[string][]string{resp.Header, preflight.Header} {
		got := map[string]string{}
		for name, values := range h {
			if strings.HasPrefix(name, "Access-Control-") {
				got[name] = strings.Join(values, "|")
			}
		}
		if len(got) != 3 || got["Access-Control-Allow-Origin"] != "*" ||
			got["Access-Control-Allow-Headers"] != "Content-Type,Content-Length,Authorization,Accept,X-Requested-With" ||
			got["Access-Control-Allow-Methods"] != "PUT,POST,GET,DELETE,OPTIONS" {
			t.Errorf("CORS headers %v", got)
		}
	}
	if resp := do(t, "POST", r.url+"/time", ""); resp.StatusCode != 405 {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestTimeEndsAsAnEndlessStream(t *testing.T) {
	p := launch(t, "-max-age", "20ms", "-interval", "1ms")
	told(t, read(t, do(t, "GET", p.url+"/time", "").Body))
}
