package main

import (
	"net/url"
	"strings"
	"testing"
)

// Whatever the text is, it is the text of one event, as a client reads it.
func TestEcho(t *testing.T) {
	r := start(t, nil)
	for data, want := range map[string]string{
		"two\nlines":              "two\nlines",
		"three\r\nline\rends\n":   "three\nline\nends\n",
		"x\n\ndata: forged":       "x\n\ndata: forged",
		"x\r\rid: 9\r\nevent: a":  "x\n\nid: 9\nevent: a",
		" a blank first: héllo ✓": " a blank first: héllo ✓",
		":\n:":                    ":\n:",
	} {
		body := read(t, do(t, "GET", r.url+"/echo?"+url.Values{"data": {data}}.Encode(), "").Body)
		if got := dataOf(t, body); len(got) != 2 || got[0] != want || got[1] != "[DONE]" {
			t.Errorf("%q arrived as %q", data, got)
		}
	}
	q := url.Values{"data": {"x"}, "event": {"a\r\nid: 5\n\ndata: forged"}, "id": {"1\n\ndata: forged\x00"}}
	body := read(t, do(t, "GET", r.url+"/echo?"+q.Encode(), "").Body)
	if got := dataOf(t, body); len(got) != 2 || got[0] != "x" || !strings.Contains(body, "\nid: 1data: forged\n") {
		t.Errorf("a name or an id became %q", body)
	}
	body = read(t, do(t, "GET", r.url+"/echo?data=x&event=%0a&id=%00", "").Body)
	if strings.Contains(body, "event:") || strings.Count(body, "id:") != 1 {
		t.Errorf("a name and an id of nothing but line ends became %q", body)
	}
	if resp := do(t, "GET", r.url+"/echo?data=x", "", "Last-Event-ID", "done"); resp.StatusCode != 204 {
		t.Errorf("after the end: %s", resp.Status)
	}
	if resp := do(t, "GET", r.url+"/echo", ""); resp.StatusCode != 400 {
		t.Errorf("without data: %s", resp.Status)
	}
}
