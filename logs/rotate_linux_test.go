package logs

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// old is the rotated files of dir/out.log, oldest first.
func old(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "out-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// settled waits until the file at path is want, and into the next millisecond:
// there is one rotation in each.
func settled(t *testing.T, path, want string) {
	t.Helper()
	has(t, path, want)
	now := time.Now().UnixMilli()
	until(t, "the clock goes on", func() bool { return time.Now().UnixMilli() != now })
}

func TestRotationBySize(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	r, app := start(t, newBook(t), src, File{Path: path, Rotation: Rotation{MaxSize: 50_000}})
	var want bytes.Buffer
	for i := range 10 {
		var part strings.Builder
		for k := range 3000 {
			fmt.Fprintf(&part, "line %d\n", i*3000+k)
		}
		want.WriteString(part.String())
		write(t, app, part.String())
		last := fmt.Sprintf("line %d\n", i*3000+2999)
		until(t, "the part is written", func() bool { s, _ := os.ReadFile(path); return bytes.HasSuffix(s, []byte(last)) })
		settled(t, path, content(t, path))
	}
	app.Close()
	finish(t, r)
	if got := history(t, path); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("all files together have %d bytes, want %d", len(got), want.Len())
	}
	files := append(old(t, dir), path)
	if len(files) < want.Len()/50_000 {
		t.Errorf("only %d files for %d bytes", len(files), want.Len())
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		text := content(t, f)
		if !strings.HasSuffix(text, "\n") || !strings.HasPrefix(text, "line ") || len(text) > 50_000 {
			t.Errorf("%q does not have whole lines only, or too many: %d bytes", f, len(text))
		}
		if info.Mode().Perm()&0o137 != 0 {
			t.Errorf("%q has mode %v", f, info.Mode())
		}
	}
}

// A flood through small files: whatever happens to their sizes, every line is in
// one of them, and no rotation overwrites an older file.
func TestRotationOfAFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	r, app := start(t, newBook(t), src, File{Path: path, Rotation: Rotation{MaxSize: 1000}})
	var want bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	write(t, app, want.String())
	app.Close()
	finish(t, r)
	if got := history(t, path); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("all files together have %d bytes, want %d", len(got), want.Len())
	}
}

func TestRotationKeepsACount(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	r, app := start(t, newBook(t), src, File{Path: path, Rotation: Rotation{MaxSize: 10, MaxFiles: 3}})
	for i := range 8 {
		line := fmt.Sprintf("line %d...\n", i)
		write(t, app, line)
		settled(t, path, line)
	}
	until(t, "3 rotated files are left", func() bool { return len(old(t, dir)) == 3 })
	for i, f := range old(t, dir) {
		if got, want := content(t, f), fmt.Sprintf("line %d...\n", 4+i); got != want {
			t.Errorf("%q has %q, want %q", f, got, want)
		}
	}
	app.Close()
	finish(t, r)
}

func TestRotationCompresses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	r, app := start(t, newBook(t), src, File{Path: path, Rotation: Rotation{MaxSize: 10, Compress: true}})
	for _, line := range []string{"first line\n", "second line\n", "third line\n"} {
		write(t, app, line)
		settled(t, path, line)
	}
	until(t, "2 compressed files", func() bool {
		files := old(t, dir)
		return len(files) == 2 && strings.HasSuffix(files[0], ".log.gz") && strings.HasSuffix(files[1], ".log.gz")
	})
	f, err := os.Open(old(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != "first line\n" {
		t.Errorf("compressed file has %q, %v", text, err)
	}
	app.Close()
	finish(t, r)
}

func TestRotationByAge(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	stamp := func(age time.Duration) string {
		return filepath.Join(dir, "out-"+time.Now().UTC().Add(-age).Format("2006-01-02T15-04-05.000")+".log")
	}
	gone, kept := stamp(49*time.Hour), stamp(47*time.Hour)
	foreign := filepath.Join(dir, "out-2.log") // another instance's
	for _, p := range []string{gone, kept, foreign} {
		if err := os.WriteFile(p, []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// 25 hours are 2 days.
	r, app := start(t, newBook(t), src, File{Path: path, Rotation: Rotation{MaxSize: 10, MaxAge: 25 * time.Hour}})
	write(t, app, "first line\n")
	settled(t, path, "first line\n")
	write(t, app, "second line\n")
	until(t, "the oldest file is gone", func() bool { _, err := os.Stat(gone); return os.IsNotExist(err) })
	for _, p := range []string{kept, foreign} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	app.Close()
	finish(t, r)
}

func TestFileThatSomebodyTookAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	r, app := start(t, b, src, File{Path: path})
	write(t, app, "one\n")
	has(t, path, "one\n")
	if err := os.Rename(path, path+".1"); err != nil { // logrotate
		t.Fatal(err)
	}
	write(t, app, "two\n")
	has(t, path, "two\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, app, "three\n")
	has(t, path, "three\n")
	if err := os.Truncate(path, 0); err != nil { // copytruncate
		t.Fatal(err)
	}
	write(t, app, "four\n")
	has(t, path, "four\n")
	b.Reopen()
	write(t, app, "five\n")
	has(t, path, "four\nfive\n")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	write(t, app, "six\n")
	has(t, path, "six\n")
	app.Close()
	finish(t, r)
}

func TestFlushUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	b := newBook(t)
	r, app := start(t, b, src, File{Path: path, Format: Format{Date: "[D]"}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(app, "line %d\n", i); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 30 {
		until(t, "there are lines", func() bool { info, err := os.Stat(path); return err == nil && info.Size() > 0 })
		if err := b.Flush(path); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	write(t, app, "end\n")
	app.Close()
	finish(t, r)
	var first, n int
	lines := strings.Split(content(t, path), "\n")
	for i, l := range lines[:len(lines)-2] {
		if _, err := fmt.Sscanf(l, "D: line %d", &n); err != nil {
			t.Fatalf("line %d is %q", i, l)
		}
		if i == 0 {
			first = n
		}
		if n != first+i {
			t.Fatalf("line %d follows line %d", n, first+i-1)
		}
	}
	if lines[len(lines)-2] != "D: end" {
		t.Errorf("last line is %q", lines[len(lines)-2])
	}
	if err := b.Flush(path + ".not"); err != nil {
		t.Errorf("flush of no file: %v", err)
	}
	if _, err := os.Stat(path + ".not"); !os.IsNotExist(err) {
		t.Errorf("flush has made a file: %v", err)
	}
}

// Another rotation for a file in use; both of its readers stay.
func TestRotationChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	b := newBook(t)
	r1, app1 := start(t, b, src, File{Path: path})
	write(t, app1, "one one one\n")
	settled(t, path, "one one one\n")
	r2, app2 := start(t, b, src, File{Path: path, Rotation: Rotation{MaxSize: 10}})
	write(t, app2, "two two two\n")
	settled(t, path, "two two two\n")
	write(t, app1, "three\n")
	settled(t, path, "three\n")
	if n := len(old(t, dir)); n != 2 {
		t.Errorf("%d rotated files, want 2", n)
	}
	app1.Close()
	app2.Close()
	finish(t, r1)
	finish(t, r2)
}
