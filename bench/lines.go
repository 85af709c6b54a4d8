package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

const (
	lineLength   = 100 // of bench/app, with the newline
	digits       = 10
	timestampMax = 64
)

// tally is what a log file holds of the lines that were written.
type tally struct {
	missing int // not in the file as a whole line
	doubled int
	broken  int // lines of the file that are none of those written
}

// countLines reads a log in which each of the lines 0..n-1 should be once, after
// a prefix of any length.
func countLines(r io.Reader, n int) (tally, error) {
	var t tally
	seen := make([]bool, n)
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			switch i, ok := lineNumber(line); {
			case !ok || i >= n:
				t.broken++
			case seen[i]:
				t.doubled++
			default:
				seen[i] = true
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return t, err
		}
	}
	for _, s := range seen {
		if !s {
			t.missing++
		}
	}
	return t, nil
}

// lineNumber reads the number at the start of a whole line.
func lineNumber(line []byte) (int, bool) {
	if len(line) < lineLength || len(line) > lineLength+timestampMax || line[len(line)-1] != '\n' {
		return 0, false
	}
	line = line[len(line)-lineLength:]
	if !bytes.HasSuffix(line, []byte(" 0123456\n")) || line[digits] != ' ' {
		return 0, false
	}
	n, err := strconv.Atoi(string(line[:digits]))
	return n, err == nil && n >= 0
}

// prefixLength is how long the timestamp is that a supervisor puts before each
// line, from the first line of its file; false if there is none yet.
func prefixLength(path string) (int, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make([]byte, lineLength+timestampMax)
	n, _ := io.ReadFull(f, head)
	end := bytes.IndexByte(head[:n], '\n')
	return end + 1 - lineLength, end+1 >= lineLength
}

func (t tally) String() string {
	s := fmt.Sprint(t.missing)
	if t.doubled > 0 {
		s += fmt.Sprintf(", %d doubled", t.doubled)
	}
	if t.broken > 0 {
		s += fmt.Sprintf(", %d torn", t.broken)
	}
	return s
}

func (t tally) plus(o tally) tally {
	return tally{t.missing + o.missing, t.doubled + o.doubled, t.broken + o.broken}
}
