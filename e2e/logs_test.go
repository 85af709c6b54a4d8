package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const hello = "echo hello; echo oops >&2; exec sleep 1000"

// The names are PM2's: "-<pm_id>" before the extension, unless logs are merged.
func TestLogFileNames(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	d := func(name string) string { return filepath.Join(g.dir, name) }
	g.ok("start", g.conf(
		g.app("plain", hello),                                            // 0
		g.app("many", hello, keys{"instances": 2}),                       // 1, 2
		g.app("merged", hello, keys{"instances": 2, "merge_logs": true}), // 3, 4
		g.app("own", hello, keys{"instances": 2, "out_file": "own/out.log", "error_file": "own/err.txt"}), // 5, 6
		g.app("both", hello, keys{"out_file": "both.log", "error_file": "both.log"}),                      // 7
		g.app("none", hello, keys{"out_file": "/dev/null", "error_file": "NULL"}),                         // 8
		g.app("a b", hello), g.app("a:b", hello), // 9, 10: other names become the same text, and must not share a file
	))
	for path, want := range map[string]string{
		g.log("plain-out.log"): "hello\n", g.log("plain-error.log"): "oops\n",
		g.log("many-out-1.log"): "hello\n", g.log("many-error-1.log"): "oops\n",
		g.log("many-out-2.log"): "hello\n", g.log("many-error-2.log"): "oops\n",
		g.log("merged-out.log"): "hello\nhello\n", g.log("merged-error.log"): "oops\noops\n",
		d("own/out-5.log"): "hello\n", d("own/err-5.txt"): "oops\n",
		d("own/out-6.log"): "hello\n", d("own/err-6.txt"): "oops\n",
	} {
		g.until(path+" has its lines", func() bool { return g.read(path) == want })
	}
	for _, name := range []string{"a b", "a:b"} {
		in := g.instance(name, 0)
		if !regexp.MustCompile(`^a-b-[0-9a-f]{4}-out.log$`).MatchString(filepath.Base(in.OutFile)) {
			t.Errorf("%q writes %s", name, in.OutFile)
		}
		g.until(name+" has its lines", func() bool { return g.read(in.OutFile) == "hello\n" })
	}
	g.until("both streams are in one file", func() bool { return len(g.read(d("both.log"))) == len("hello\noops\n") })
	for _, in := range g.list() {
		for path, stream := range map[string]string{in.OutFile: "hello", in.ErrorFile: "oops"} {
			if in.Name == "none" && path != "" || in.Name != "none" && !strings.Contains(g.read(path), stream) {
				t.Errorf("%s-%d is listed with log file %q", in.Name, in.Instance, path)
			}
		}
	}
	files, err := os.ReadDir(filepath.Join(g.home, "logs"))
	if err != nil || len(files) != 12 {
		t.Errorf("%d files in logs, %v: %v", len(files), err, files)
	}
	if info, err := os.Stat(g.log("plain-out.log")); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody can read %v: %v", info, err)
	}
	g.ok("logs", "none", "--nostream") // no file, no failure
}

func TestLogDates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key    keys
		prefix string // regular expression
		layout string // of package time, for the part in parentheses
	}{
		"time":    {keys{"time": true}, `^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d): `, "2006-01-02T15:04:05"},
		"day.js":  {keys{"log_date_format": "YYYY-MM-DD HH:mm:ss.SSS Z"}, `^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d\d:\d\d): `, "2006-01-02 15:04:05.000 -07:00"},
		"literal": {keys{"log_date_format": "[at] dddd D MMMM YYYY, h:mm a"}, `^at (\w+ \d+ \w+ \d{4}, \d+:\d\d [ap]m): `, "Monday 2 January 2006, 3:04 pm"},
		"java":    {keys{"log_date_format": "yyyy-MM-dd HH:mm:ss"}, `^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d): `, "2006-01-02 15:04:05"},
		"java ms": {keys{"log_date_format": "yyyy-MM-dd'T'HH:mm:ss,SSS"}, `^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}): `, "2006-01-02T15:04:05,000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			before := time.Now()
			g.ok("start", g.conf(g.app("dated", "echo one; echo two; printf three; sleep 0.1; printf ' and a half\nlast'; exit 0",
				c.key, keys{"autorestart": false})))
			var lines []string
			g.until("all is written", func() bool {
				lines = strings.Split(g.read(g.log("dated-out.log")), "\n")
				return strings.Contains(lines[max(0, len(lines)-2)], "last")
			})
			date := regexp.MustCompile(c.prefix)
			for i, want := range []string{"one", "two", "three and a half", "last", ""} {
				m := date.FindStringSubmatch(lines[i])
				if want == "" && lines[i] == "" {
					continue
				}
				if m == nil || strings.TrimPrefix(lines[i], m[0]) != want {
					t.Fatalf("line %d is %q, date and %q are expected", i, lines[i], want)
				}
				at, err := time.ParseInLocation(c.layout, m[1], time.Local)
				if err != nil || at.Before(before.Add(-time.Minute)) || at.After(time.Now()) {
					t.Errorf("line %d is of %v, %v", i, at, err)
				}
			}
		})
	}
}

// Each line of a JSON log is one object, whatever the app writes.
func TestJSONLogs(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	g.write("words", "plain\n{\"msg\":\"its own JSON\"}\nquote \" backslash \\ tab\t end\nnot UTF-8: \xff\xfe.\n\nzażółć 漢字 🎉\n\x1b[31mred\x1b[0m\nlast, no newline")
	g.ok("start", g.conf(g.app("json", "cat words; cat words >&2", keys{"log_type": "json", "autorestart": false, "instances": 2})))
	want := []string{"plain", `{"msg":"its own JSON"}`, "quote \" backslash \\ tab\t end", "not UTF-8: \ufffd\ufffd.", "", "zażółć 漢字 🎉", "\x1b[31mred\x1b[0m", "last, no newline"}
	for id := range 2 {
		for file, stream := range map[string]string{"out": "out", "error": "err"} {
			path := g.log(fmt.Sprintf("json-%s-%d.log", file, id))
			g.until(path+" is complete", func() bool { return strings.Count(g.read(path), "\n") == len(want) })
			n := 0
			for line := range strings.Lines(g.read(path)) {
				var o struct {
					Message   *string   `json:"message"`
					At        time.Time `json:"timestamp"`
					Type      string    `json:"type"`
					ProcessID *int      `json:"process_id"`
					App       string    `json:"app_name"`
				}
				if err := json.Unmarshal([]byte(line), &o); err != nil {
					t.Fatalf("line %q: %v", line, err)
				}
				if o.Message == nil || *o.Message != want[n] || o.Type != stream || o.ProcessID == nil || *o.ProcessID != id || o.App != "json" || time.Since(o.At) > time.Hour {
					t.Errorf("%s line %d: %s", path, n, line)
				}
				n++
			}
		}
	}
}

// Whatever the size of the files: no line is lost or torn between two of them.
func TestRotation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key  keys
		kept int // old files; zero: all
		ext  string
	}{
		"all kept":   {keys{"log_max_files": 0, "log_compress": false}, 0, ".log"},
		"compressed": {keys{"log_max_files": 0}, 0, ".log.gz"},
		"three kept": {keys{"log_max_files": 3}, 3, ".log.gz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGPM(t)
			const lines = 4000
			g.ok("start", g.conf(g.app("many", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done; exec sleep 1000", lines),
				keys{"log_max_size": "4K"}, c.key)))
			current := g.log("many-out.log")
			g.until("the last line is written", func() bool { return strings.Contains(g.read(current), fmt.Sprintf("line %d\n", lines)) })
			var old []string
			g.until("old files are as many as they should be, and compressed", func() bool {
				all := g.logFiles("many-out-*")
				old = g.logFiles("many-out-*" + c.ext)
				return len(old) > 1 && len(all) == len(old) && (c.kept == 0 || len(all) == c.kept)
			})
			slices.Sort(old) // the names are dates
			var text strings.Builder
			for _, path := range append(old, current) {
				text.WriteString(g.unpacked(path))
			}
			got := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
			first := lines - len(got) + 1
			if c.kept == 0 && first != 1 {
				t.Fatalf("%d lines of %d are left", len(got), lines)
			}
			for i, line := range got {
				if line != fmt.Sprintf("line %d", first+i) {
					t.Fatalf("line %d of the files is %q, expected was %d", i, line, first+i)
				}
			}
		})
	}
}

// A writer that does not flood gets files that are as small as it wants them.
func TestRotatedFilesHaveTheirSize(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	k := g.talker("app", keys{"log_max_size": "1K", "log_max_files": 0, "log_compress": false})
	line := strings.Repeat("x", 99)
	for i := range 50 {
		k.say(line)
		g.until("it is written", func() bool {
			total := 0
			for _, path := range g.logFiles("app-out*") {
				total += len(g.read(path))
			}
			return total == (i+1)*100
		})
	}
	files := g.logFiles("app-out*")
	if len(files) < 5 {
		t.Errorf("%d files", len(files))
	}
	for _, path := range files {
		if n := len(g.read(path)); n > 1<<10 {
			t.Errorf("%s has %d bytes", path, n)
		}
	}
}

func (g *gpm) logFiles(pattern string) []string {
	g.t.Helper()
	all, err := filepath.Glob(g.log(pattern))
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

// unpacked is the text of a log file.
func (g *gpm) unpacked(path string) string {
	g.t.Helper()
	b, err := os.ReadFile(path)
	if err == nil && strings.HasSuffix(path, ".gz") {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(z)
		}
	}
	if err != nil {
		g.t.Fatalf("%s: %v", path, err)
	}
	return string(b)
}

// What an app says last is why it died. It is in the file, with the newline it
// had no time for, and in front of whoever started it.
func TestLastWords(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	for name, script := range map[string]string{
		"newline":  "echo TAIL; exit 3",
		"none":     "printf TAIL; exit 3",
		"stderr":   "printf TAIL >&2; exit 3",
		"killed":   "printf TAIL; kill -9 $$",
		"grandson": "printf TAIL; (sleep 1000) & exit 3", // who holds the pipe open
	} {
		said := g.fails("start", g.conf(g.app(name, script, keys{"autorestart": false})))
		contains(t, said, "\n    TAIL\n", name+"-0 stopped")
		if got := g.read(g.log(name+"-out.log")) + g.read(g.log(name+"-error.log")); got != "TAIL\n" {
			t.Errorf("%s: the files have %q", name, got)
		}
		if e := g.describe(name)[0].Exits; len(e) != 1 || len(e[0].Tail) != 1 || e[0].Tail[0].Text != "TAIL" {
			t.Errorf("%s: exits %+v", name, e)
		}
	}
}

func TestAllOfALongOutputBeforeTheEnd(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	for name, key := range map[string]keys{"raw": {}, "dated": {"time": true}, "json": {"log_type": "json"}} {
		g.run("start", g.conf(g.app(name, "seq 1 100000; echo LAST; exit 1", keys{"autorestart": false, "log_max_size": "100M"}, key))) // fails, or on a slow machine sees it online before
		g.until("it has ended", func() bool { e := g.instance(name, 0).LastExit; return e != nil && e.Code == 1 })
		number := regexp.MustCompile(`^(?:\{"message":"|[0-9T:-]{19}: )?(\d+|LAST)(?:"|$)`)
		n := 0
		for line := range strings.Lines(g.read(g.log(name + "-out.log"))) {
			n++
			want := fmt.Sprint(n)
			if n == 100_001 {
				want = "LAST"
			}
			if m := number.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m == nil || m[1] != want {
				t.Fatalf("%s: line %d is %q", name, n, line)
			}
		}
		if n != 100_001 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
}

// A line of 10 MB, and bytes that are no text, reach the file as they are; gpm
// logs shows them without choking.
func TestOutputThatIsNoText(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	const long = 10 << 20
	g.ok("start", g.conf(
		g.app("long", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; echo; echo END; exec sleep 1000", long), keys{"log_max_size": "100M"}),
		g.app("bytes", `printf 'a\377\376\000b\n'; head -c 200000 /dev/zero; printf '\nEND\n'; exec sleep 1000`),
	))
	g.until("the long line is written", func() bool { return strings.HasSuffix(g.read(g.log("long-out.log")), "END\n") })
	text := g.read(g.log("long-out.log"))
	if n := strings.Count(text, "x"); n != long || strings.Trim(text, "x\n") != "END" {
		t.Errorf("%d bytes of the long line, and %q", n, strings.Trim(text, "x"))
	}
	g.until("the bytes are written", func() bool { return strings.HasSuffix(g.read(g.log("bytes-out.log")), "END\n") })
	if got, want := g.read(g.log("bytes-out.log")), "a\xff\xfe\x00b\n"+strings.Repeat("\x00", 200_000)+"\nEND\n"; got != want {
		t.Errorf("%d bytes, expected were %d: %.40q", len(got), len(want), got)
	}
	contains(t, g.ok("logs", "long", "--nostream"), "END")
	contains(t, g.ok("logs", "bytes", "--nostream", "--lines", "5"), "END")
	for line := range strings.Lines(g.ok("logs", "--json", "--nostream")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %.100q", line)
		}
	}
}

// Four writers of one file: every line is there, none is torn.
func TestOneFileForAll(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	const lines = 3000
	g.ok("start", g.conf(g.app("many", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do i=$((i+1)); printf "$pm_id "; echo "says $i"; done; exec sleep 1000`, lines),
		keys{"instances": 4, "merge_logs": true})))
	path := g.log("many-out.log")
	g.until("all is written", func() bool { return strings.Count(g.read(path), "\n") >= 4*lines })
	next := map[int]int{}
	for line := range strings.Lines(g.read(path)) {
		var id, n int
		if _, err := fmt.Sscanf(line, "%d says %d\n", &id, &n); err != nil || n != next[id]+1 {
			t.Fatalf("line %q after %d of %d: %v", line, next[id], id, err)
		}
		next[id] = n
	}
	for id := range 4 {
		if next[id] != lines {
			t.Errorf("%d lines of %d", next[id], id)
		}
	}
}

// Somebody cleans up under gpm's feet: the next line makes the file anew.
func TestADeletedLogFileComesBack(t *testing.T) {
	t.Parallel()
	g := newGPM(t)
	k := g.talker("app", keys{"out_file": "logs/of/app.log"})
	path := g.path("logs/of/app.log")
	k.say("one")
	g.until("it is written", func() bool { return g.read(path) == "one\n" })
	for i, harm := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.RemoveAll(g.path("logs")) },
		func() error { return os.Rename(path, path+".1") }, // an external logrotate
		func() error { return os.Truncate(path, 0) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		k.say(fmt.Sprintf("again %d", i))
		g.until("the file is there again", func() bool { return g.read(path) == fmt.Sprintf("again %d\n", i) })
	}
}
