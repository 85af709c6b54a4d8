package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faces are what the test binary is when it is started again.
var faces = map[string]func() int{"reader": readerFace, "writer": writerFace}

// dup is a second set of descriptors, as the keeper gives to each daemon.
func dup(t testing.TB, p Pipe) Pipe {
	t.Helper()
	one := func(f *os.File) *os.File {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var fd int
		if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		return os.NewFile(uintptr(fd), f.Name())
	}
	return Pipe{one(p.Read), one(p.Journal)}
}

// daemonConfig is what a reader process gets; its pipes are descriptors 3, 4, ...
type daemonConfig struct {
	Files   []File
	Partial time.Duration
}

func readerFace() int {
	var c daemonConfig
	if err := json.Unmarshal([]byte(os.Getenv("GPM_LOGS_CONFIG")), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b := NewBook(Options{Problem: func(s Source, p string) { fmt.Fprintln(os.Stderr, s, p) }})
	b.partialAfter = c.Partial
	var pipes []Pipe
	for i := range c.Files {
		pipes = append(pipes, Pipe{os.NewFile(uintptr(3+2*i), "read"), os.NewFile(uintptr(4+2*i), "journal")})
	}
	if err := b.Recover(pipes...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var readers []*Reader
	for i, f := range c.Files {
		r, err := b.Read(Source{ID: i, Name: "app", Stream: "out"}, pipes[i], f)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		readers = append(readers, r)
	}
	fmt.Println("up")
	for _, r := range readers {
		<-r.Done() // all writers are gone
	}
	return 0
}

// writerFace floods stdout with numbered lines until stdin ends. GPM_LOGS_CONFIG
// is its name and how it writes.
func writerFace() int {
	name, style, _ := strings.Cut(os.Getenv("GPM_LOGS_CONFIG"), " ")
	over := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(over) }()
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	timer := time.NewTimer(0)
	for i := 0; ; i++ {
		select {
		case <-over:
			fmt.Fprintf(w, "%s end %d", name, i) // no newline
			if w.Flush() != nil {
				return 1
			}
			return 0
		default:
		}
		line := numbered(name, i)
		switch style {
		case "pieces": // within lines too, with pauses
			cut := rnd.IntN(len(line))
			w.WriteString(line[:cut])
			w.Flush()
			timer.Reset(time.Duration(rnd.IntN(1500)) * time.Microsecond)
			<-timer.C
			w.WriteString(line[cut:])
			w.Flush()
		default:
			w.WriteString(line)
			if style == "lines" {
				w.Flush()
			}
		}
	}
}

func numbered(name string, i int) string {
	pad := i * 7 % 150
	if i%4999 == 0 {
		pad = 9000
	}
	return name + " " + strconv.Itoa(i) + " " + strings.Repeat("abcdefghij", pad/10) + "\n"
}

// TestKill kills the daemon 20 times while apps write, and counts every line.
func TestKill(t *testing.T) {
	dated := Format{Date: "YYYY-MM-DDTHH:mm:ss"}
	rotated := Rotation{MaxSize: 300_000}
	// A writer that is not let run stands still within a line. To show its
	// beginning would let another writer, or a rotation, cut the line in two.
	const never = time.Hour
	for _, c := range []struct {
		name    string
		files   []File
		style   string
		partial time.Duration
	}{
		{"raw blocks", []File{{}}, "blocks", never},
		{"dated lines", []File{{Format: dated}}, "lines", never},
		{"dated, rotated", []File{{Format: dated, Rotation: rotated}}, "blocks", never},
		{"two pipes on one file", []File{{Format: dated}, {Format: dated}}, "blocks", never},
		{"three, rotated, lines", []File{{Rotation: rotated}, {Rotation: rotated}, {Rotation: rotated}}, "lines", never},
		{"unfinished lines", []File{{Format: dated}}, "pieces", time.Millisecond},
		{"unfinished and rotated", []File{{Rotation: Rotation{MaxSize: 20_000}}}, "pieces", time.Millisecond},
		{"blocking policy", []File{{Full: Block, Format: dated}}, "blocks", never},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.log")
			for i := range c.files {
				c.files[i].Path = path
			}
			exact := !(c.style == "pieces" && c.files[0].Rotation.MaxSize > 0) // rotation may end an unfinished line
			ends := killed(t, daemonConfig{c.files, c.partial}, c.style)
			check(t, history(t, path), ends, c.files[0].Format.Date != "", exact)
		})
	}
}

// killed runs writers and 20 daemons, one after the other.
func killed(t *testing.T, c daemonConfig, style string) (writers []string) {
	var extra []*os.File
	var stops []func()
	for i := range c.Files {
		p, app := newPipe(t)
		defer p.Close()
		extra = append(extra, p.Read, p.Journal)
		name := "w" + strconv.Itoa(i)
		cmd := face(t, "writer", name+" "+style)
		cmd.Stdout = app
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		app.Close()
		stops = append(stops, func() {
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("writer: %v", err)
			}
		})
		writers = append(writers, name)
	}
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	phases := map[uint64]int{}
	for i := range 20 {
		cmd := face(t, "reader", string(config))
		cmd.ExtraFiles = extra
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Errorf("reader said %q: %v", line, err)
		}
		<-time.After(time.Duration(rand.IntN(20_000)) * time.Microsecond) // the moment of the kill
		if i%2 == 0 {
			whileWriting(t, extra)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
		for i := 1; i < len(extra); i += 2 {
			phases[phase(t, extra[i])]++
		}
	}
	last := face(t, "reader", string(config))
	last.ExtraFiles = extra
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	for _, stop := range stops {
		stop()
	}
	if err := last.Wait(); err != nil {
		t.Errorf("last reader: %v", err)
	}
	t.Logf("phases of the journals after the kills: %v", phases)
	return writers
}

// whileWriting returns when a daemon is between begin and apply, if that is soon.
func whileWriting(t *testing.T, files []*os.File) {
	for range 200_000 {
		for i := 1; i < len(files); i += 2 {
			if phase(t, files[i]) == writing {
				return
			}
		}
	}
}

func phase(t *testing.T, journal *os.File) uint64 {
	var b [8]byte
	if _, err := journal.ReadAt(b[:], 8); err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(b[:])
}

// face is the test binary as something else, killed when the test is over.
func face(t *testing.T, name, config string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 3*limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "GPM_LOGS_TEST="+name, "GPM_LOGS_CONFIG="+config)
	cmd.Stderr = os.Stderr
	return cmd
}

// check finds every line of each writer exactly once, in order, undamaged.
func check(t *testing.T, log []byte, writers []string, dated, exact bool) {
	t.Helper()
	if len(log) == 0 || log[len(log)-1] != '\n' {
		t.Fatalf("log of %d bytes does not end in a newline", len(log))
	}
	if !exact {
		log = bytes.ReplaceAll(log, []byte("\n"), nil)
		want := []byte{}
		for i := 0; len(want) < len(log); i++ {
			line := numbered(writers[0], i)
			end := fmt.Sprintf("%s end %d", writers[0], i)
			if bytes.Equal(log[len(want):], []byte(end)) {
				return
			}
			want = append(want, line[:len(line)-1]...)
			if !bytes.HasPrefix(log, want) {
				t.Fatalf("line %d is not where it should be", i)
			}
		}
		t.Fatal("the last line is missing")
	}
	next, ended := map[string]int{}, map[string]bool{}
	lines := strings.SplitAfter(string(log), "\n")
	for n, line := range lines[:len(lines)-1] {
		if dated {
			const layout = "2006-01-02T15:04:05"
			if len(line) < len(layout)+2 || line[len(layout):len(layout)+2] != ": " {
				t.Fatalf("line %d has no date: %.80q", n, line)
			}
			if _, err := time.Parse(layout, line[:len(layout)]); err != nil {
				t.Fatalf("line %d: %v", n, err)
			}
			line = line[len(layout)+2:]
		}
		name, _, _ := strings.Cut(line, " ")
		switch line {
		case numbered(name, next[name]):
			next[name]++
		case fmt.Sprintf("%s end %d\n", name, next[name]):
			ended[name] = true
		default:
			t.Fatalf("line %d is %.80q, want %s %d", n, line, name, next[name])
		}
	}
	for _, w := range writers {
		if !ended[w] {
			t.Errorf("the last line of %s is missing", w)
		}
	}
	t.Logf("lines: %v", next)
}

// blocks is the memory or disk that f uses, in bytes.
func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
