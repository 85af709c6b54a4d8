package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	tailBlock = 64 << 10
	tailLine  = 64 << 10 // of a line that is shown
	tailTotal = 32 << 20 // of all of them
)

// Tail is the last n lines of the log file at path, without newlines; what is
// behind the last newline is a line too. A line is shown up to 64 KiB, all
// together up to 32 MiB: of longer ones come fewer. The file is read backwards in
// blocks. Older, rotated files are not read.
func Tail(path string, n int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tail log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("tail log: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("tail log: %q is not a regular file", path)
	}
	return tailOf(f, info.Size(), n)
}

// tailOf is the last n lines of the first size bytes of f.
func tailOf(f io.ReaderAt, size int64, n int) ([]string, error) {
	var lines []string
	if n <= 0 || size == 0 {
		return nil, nil
	}
	block := make([]byte, tailBlock)
	last, err := read(f, block[:1], size-1)
	if err != nil || len(last) == 0 { // emptied meanwhile
		return nil, err
	}
	end := size // of the line whose start is looked for, without its newline
	if last[0] == '\n' {
		end--
	}
	var window []byte // the file from base on
	base := size
	for at, total := end, 0; len(lines) < n && total < tailTotal; { // no newline in [at, end)
		if at <= base && base > 0 {
			base = max(0, at-tailBlock)
			if window, err = read(f, block[:at-base], base); err != nil {
				return nil, err
			}
		}
		i := bytes.LastIndexByte(window[:min(int(at-base), len(window))], '\n')
		if i < 0 && base > 0 {
			at = base
			continue
		}
		start := base + int64(i) + 1 // i is -1 where the file starts
		line, err := read(f, make([]byte, min(end-start, tailLine)), start)
		if err != nil {
			return nil, err
		}
		total += len(line)
		lines = append(lines, string(line))
		if start == 0 {
			break
		}
		end = start - 1
		at = end
	}
	slices.Reverse(lines)
	return lines, nil
}

// read reads p at off, or what is left of it in a file that was cut meanwhile.
func read(f io.ReaderAt, p []byte, off int64) ([]byte, error) {
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("tail log: %w", err)
	}
	return p[:n], nil
}
