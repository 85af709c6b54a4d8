package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkPipe is from the app's write to the log file, through the journal.
func BenchmarkPipe(b *testing.B) {
	line := []byte(strings.Repeat("x", 99) + "\n")
	block := bytes.Repeat(line, 655)
	for _, c := range []struct {
		name  string
		write []byte
		file  File
		path  bool
	}{
		{"blocks/raw", block, File{}, true},
		{"blocks/dated", block, File{Format: Format{Date: "YYYY-MM-DDTHH:mm:ss.SSSZ"}}, true},
		{"blocks/json", block, File{Format: Format{JSON: true}}, true},
		{"blocks/dated/nowhere", block, File{Format: Format{Date: "YYYY-MM-DDTHH:mm:ss.SSSZ"}}, false},
		{"lines/dated", line, File{Format: Format{Date: "YYYY-MM-DDTHH:mm:ss.SSSZ"}}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.path {
				c.file.Path = filepath.Join(b.TempDir(), "out.log")
				c.file.Rotation = Rotation{MaxSize: 100 << 20, MaxFiles: 1}
			}
			book := newBook(b)
			r, app := start(b, book, src, c.file)
			b.SetBytes(int64(len(c.write)))
			for b.Loop() {
				if _, err := app.Write(c.write); err != nil {
					b.Fatal(err)
				}
			}
			app.Close()
			finish(b, r)
		})
	}
}

// BenchmarkReaders is one line on each of many pipes in turn: wakeups.
func BenchmarkReaders(b *testing.B) {
	dir := b.TempDir() // goes after the book, which still writes
	book := newBook(b)
	var apps []*os.File
	for i := range 50 {
		_, app := start(b, book, src, File{Path: filepath.Join(dir, strings.Repeat("a", i+1))})
		apps = append(apps, app)
	}
	for i := 0; b.Loop(); i++ {
		write(b, apps[i%len(apps)], "one line of ordinary length, as a web server writes for a request\n")
	}
}
