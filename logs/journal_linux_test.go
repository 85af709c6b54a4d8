package logs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// interrupted is a journal with "one\ntwo\n" in it, whose daemon died while it
// wrote that behind "old\n"; written is how much of it came into the file.
func interrupted(t *testing.T, path string, phase uint64, written int) (Pipe, *os.File) {
	t.Helper()
	p, app := newPipe(t)
	write(t, app, "one\ntwo\n")
	j, err := openJournal(p.Journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := control(p.Read, func(fd int) error { _, err := j.take(fd, batchSize); return err }); err != nil {
		t.Fatal(err)
	}
	b := newBook(t)
	f := newFile(b, path)
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.ready(); err != nil {
		t.Fatal(err)
	}
	j.begin(phase, f, 8, 8, false)
	if _, err := f.append([]byte("one\ntwo\n")[:written]); err != nil {
		t.Fatal(err)
	}
	f.close()
	if err := j.unmap(); err != nil {
		t.Fatal(err)
	}
	return p, app
}

func TestRecoverEveryPhase(t *testing.T) {
	for _, c := range []struct {
		name    string
		phase   uint64
		written int
		between func(path string) error
		want    string
	}{
		{"not begun", idle, 0, nil, "old\none\ntwo\n"},
		{"nothing written", writing, 0, nil, "old\none\ntwo\n"},
		{"torn in a line", writing, 6, nil, "old\none\ntwo\n"},
		{"torn between lines", writing, 4, nil, "old\none\ntwo\n"},
		{"all written", writing, 8, nil, "old\none\ntwo\n"},
		{"given up", applying, 4, nil, "old\none\n"},
		{"file removed", writing, 6, os.Remove, "one\ntwo\n"},
		{"file emptied", writing, 6, func(p string) error { return os.Truncate(p, 0) }, "one\ntwo\n"},
		{"moved, all written", writing, 8, func(p string) error { return os.Rename(p, p+".1") }, ""},
		{"moved, torn", writing, 6, func(p string) error { return os.Rename(p, p+".1") }, "one\ntwo\n"},
		{"somebody else wrote", writing, 8, func(p string) error {
			f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("x\n")
				err = errors.Join(err, f.Close())
			}
			return err
		}, "old\none\ntwo\nx\none\ntwo\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.log")
			p, app := interrupted(t, path, c.phase, c.written)
			if c.between != nil {
				if err := c.between(path); err != nil {
					t.Fatal(err)
				}
			}
			b := newBook(t)
			if err := b.Recover(p); err != nil {
				t.Fatal(err)
			}
			r, err := b.Read(src, p, File{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			write(t, app, "new\n")
			app.Close()
			finish(t, r)
			if got := content(t, path); got != c.want+"new\n" {
				t.Errorf("file has %q, want %q", got, c.want+"new\n")
			}
			if c.name == "moved, torn" {
				if got := content(t, path+".1"); got != "old\n" {
					t.Errorf("moved file has %q", got)
				}
			}
		})
	}
}

// An unfinished write must be taken back before a sibling writes behind it.
func TestRecoverBeforeSiblingsWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	p1, app1 := interrupted(t, path, writing, 6)
	p2, app2 := newPipe(t)
	b := newBook(t)
	if err := b.Recover(p2, p1); err != nil {
		t.Fatal(err)
	}
	r2, err := b.Read(src, p2, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	write(t, app2, "sibling\n")
	has(t, path, "old\nsibling\n")
	r1, err := b.Read(src, p1, File{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	app1.Close()
	app2.Close()
	finish(t, r1)
	finish(t, r2)
	has(t, path, "old\nsibling\none\ntwo\n")
}

func TestJournalOfAnotherVersion(t *testing.T) {
	p, _ := newPipe(t)
	defer p.Close()
	if _, err := p.Journal.WriteAt([]byte("whatever"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(p.Journal); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("error is %v", err)
	}
}

// The journal gives its memory back, also while a line is never finished at the
// end of a batch.
func TestJournalMemory(t *testing.T) {
	p, app := newPipe(t)
	defer p.Close()
	j, err := openJournal(p.Journal)
	if err != nil {
		t.Fatal(err)
	}
	defer j.unmap()
	f := newFile(nil, "")
	for range 100 {
		write(t, app, strings.Repeat("x", 60000))
		if err := control(p.Read, func(fd int) error { _, err := j.take(fd, batchSize); return err }); err != nil {
			t.Fatal(err)
		}
		j.begin(applying, f, j.waiting()-7, 1, false)
		j.apply()
		if err := j.free(); err != nil {
			t.Fatal(err)
		}
	}
	if used := blocks(t, p.Journal); used > 300<<10 || j.end < 5<<20 {
		t.Errorf("journal of %d bytes uses %d bytes of memory", j.end, used)
	}
	j.begin(applying, f, j.waiting(), 1, false)
	j.apply()
	if err := j.free(); err != nil {
		t.Fatal(err)
	}
	if used := blocks(t, p.Journal); used > 64<<10 || j.end != pageSize {
		t.Errorf("empty journal of %d bytes uses %d bytes of memory", j.end, used)
	}
	if _, err := j.take(-1, 1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("take from no pipe: %v", err)
	}
}
