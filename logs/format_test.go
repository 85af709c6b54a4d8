package logs

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var src = Source{ID: 3, Name: "api", Instance: 1, Stream: "out"}

// message is the message of a JSON line, which must have the fields of one.
func message(t *testing.T, line string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	var v struct {
		Message   *string `json:"message"`
		Timestamp string  `json:"timestamp"`
		Type      string  `json:"type"`
		ID        *int    `json:"process_id"`
		App       string  `json:"app_name"`
	}
	if err := d.Decode(&v); err != nil || d.More() {
		t.Fatalf("line %.100q is not one JSON object: %v", line, err)
	}
	if v.Message == nil || v.ID == nil || *v.ID != src.ID || v.App != src.Name || v.Type != "out" || v.Timestamp == "" {
		t.Fatalf("line %.200q lacks something", line)
	}
	return *v.Message
}

func TestDateFormats(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	at := time.Date(2026, time.March, 5, 15, 4, 9, 87_654_321, zone) // a Thursday
	for format, want := range map[string]string{
		"YYYY-MM-DDTHH:mm:ss":                 "2026-03-05T15:04:09",
		"YYYY-MM-DD HH:mm:ss.SSS Z":           "2026-03-05 15:04:09.087 +01:00",
		"YY M D H h m s":                      "26 3 5 15 3 4 9",
		"MMMM MMM dddd ddd dd d":              "March Mar Thursday Thu Th 4",
		"hh:mm A a ZZ":                        "03:04 PM pm +0100",
		"[on] DD [at YYYY] HH[":               "on 05 at YYYY 15[",
		"DD/MM/YYYY, [it's] h 'o'":            "05/03/2026, it's 3 'o'",
		"yyyy-MM-dd HH:mm:ss":                 "2026-03-05 15:04:09",
		"yyyy-MM-dd HH:mm:ss.SSS":             "2026-03-05 15:04:09.087",
		"yyyy-MM-dd'T'HH:mm:ss.SSSXXX":        "2026-03-05T15:04:09.087+01:00",
		"dd.MM.yy EEE EEEE d a hh 'o''clock'": "05.03.26 Thu Thursday 5 PM 03 o'clock",
		"yyyy-MM-DD HH:mm":                    "2026-03-05 15:04",
		"yyyy D DDD S SS SSSSSS Z z X":        "2026 64 064 0 08 087654 +0100 CET +01",
		"''yyyy":                              "'2026",
		"[yyyy] DD":                           "yyyy 05",
		"":                                    "",
		"a\nb":                                "pm b",
		"YYYYY":                               "2026Y",
	} {
		if got := string(compileDate(format).append(nil, at)); got != want {
			t.Errorf("%q gives %q, want %q", format, got, want)
		}
	}
	midnight := time.Date(2026, time.March, 8, 0, 0, 0, 0, zone) // a Sunday
	if got := string(compileDate("d H h hh SSS").append(nil, midnight)); got != "0 0 12 12 000" {
		t.Errorf("midnight is %q", got)
	}
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{"YYYY-MM-DD HH:mm:ss", "yyyy-MM-dd'T'HH:mm", "[", "[]", "''", "'", "[a]yy[", "MMMMMMMMMMMMM"} {
		f.Add(s, int64(1e9))
	}
	f.Fuzz(func(t *testing.T, format string, unix int64) {
		got := compileDate(format).append([]byte("x"), time.Unix(unix&(1<<36-1), 0))
		if got[0] != 'x' || strings.ContainsAny(string(got), "\n\r") {
			t.Errorf("%q gives %q", format, got)
		}
		if len(got) > 1+len(format)*16 {
			t.Errorf("%q gives %d bytes", format, len(got))
		}
	})
}

// FuzzLines feeds output in arbitrary batches, with arbitrary endings and limits,
// and puts it together again.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), uint64(1), false)
	f.Add([]byte("äöü€\xff\xe2\x82 \"quoted\" \\ \x00\n"), uint64(2), true)
	f.Add([]byte(strings.Repeat("x", 100)+"\n"+strings.Repeat("€", 50)), uint64(3), true)
	f.Fuzz(func(t *testing.T, output []byte, seed uint64, js bool) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		date := ""
		if !js {
			date = "[D]"
		}
		fm := newFormatter(src, Format{Date: date, JSON: js})
		fm.maxLine = 8 + rnd.IntN(40)
		text, pieces := assemble(t, fm, rnd, output)
		if len(output) > 0 && (len(text) == 0 || text[len(text)-1] != '\n') {
			t.Fatalf("text %q of %q does not end", text, output)
		}
		back := disassemble(t, js, text)
		want := strings.ReplaceAll(string(output), "\n", "")
		if js {
			want = valid(output)
		}
		if got := strings.Join(back, ""); got != want {
			t.Errorf("%q became %q, in %d pieces", want, got, pieces)
		}
		for _, l := range back {
			if !js && len(l) > fm.maxLine && pieces == 0 {
				t.Errorf("line %q is longer than %d", l, fm.maxLine)
			}
			if utf8.Valid(output) && !utf8.ValidString(l) {
				t.Errorf("a rune of %q was cut: %q", output, l)
			}
		}
	})
}

// assemble does what a reader does, with a journal in memory.
func assemble(t *testing.T, fm *formatter, rnd *rand.Rand, output []byte) (text []byte, pieces int) {
	open := false
	var waiting []byte
	for rounds := 0; len(output) > 0 || len(waiting) > 0 || open; rounds++ {
		n := rnd.IntN(len(output) + 1)
		waiting, output = append(waiting, output[:n]...), output[n:]
		end := keep
		switch {
		case len(output) == 0:
			end = final
		case rnd.IntN(4) == 0:
			end = show
		}
		limit := 1 + rnd.IntN(200)
		fm.stamp(time.Unix(0, 0))
		b := fm.lines(nil, waiting, end, open, limit)
		if b.used == 0 && b.lines == 0 && end == final {
			t.Fatalf("nothing of %q was taken at the end", waiting)
		}
		if len(b.text) > limit && b.lines > 1 {
			t.Fatalf("%d bytes in %d lines, limit %d", len(b.text), b.lines, limit)
		}
		if got := strings.Count(string(b.text), "\n"); got != b.lines {
			t.Fatalf("%q has %d lines, counted %d", b.text, got, b.lines)
		}
		if len(b.text) > 0 {
			if !open {
				text = append(text, fm.head...)
			}
			text = append(text, b.text...)
			open = b.open
		}
		if b.open {
			pieces++
		}
		waiting = waiting[b.used:]
	}
	return text, pieces
}

// disassemble is what the app wrote, by lines of the file.
func disassemble(t *testing.T, js bool, text []byte) (back []string) {
	for _, line := range strings.SplitAfter(string(text), "\n") {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		if js {
			if !json.Valid([]byte(line)) || !utf8.ValidString(line) {
				t.Fatalf("%q is not JSON", line)
			}
			line = message(t, line)
		} else {
			var ok bool
			if line, ok = strings.CutPrefix(line, "D: "); !ok {
				t.Fatalf("%q has no date", line)
			}
		}
		back = append(back, line)
	}
	return back
}

// valid is output without newlines and with U+FFFD for each bad byte, by lines:
// a newline ends a rune too.
func valid(output []byte) string {
	var s strings.Builder
	for _, l := range strings.Split(string(output), "\n") {
		for _, r := range l {
			s.WriteRune(r)
		}
	}
	return s.String()
}

func TestRuneCut(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "a": 1, "€": 3, "a€": 4, "a\xe2": 1, "a\xe2\x82": 1, "\xf0\x9f\x98": 0, "a\x80": 2,
		"\x80\x80\x80\x80": 4, "a\xff": 2, "\xf0\x9f\x98\x80": 4,
	} {
		if got := runeCut([]byte(s)); got != want {
			t.Errorf("runeCut(%q) = %d, want %d", s, got, want)
		}
	}
}
