package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ear is the FIFO on which the supervised programs say that they began and
// ended.
type ear struct {
	path  string
	heard chan word // closed by listen, at close

	fifo *os.File
}

// word is what a program said: "start" or "end", at a time of its own reading.
type word struct {
	what string
	pid  int
	at   int64
}

// openEar makes the FIFO in dir. The caller closes the ear.
func openEar(dir string) (*ear, error) {
	e := &ear{path: filepath.Join(dir, "ear"), heard: make(chan word, 4096)}
	if err := unix.Mkfifo(e.path, 0o600); err != nil {
		return nil, fmt.Errorf("make fifo %q: %w", e.path, err)
	}
	// Read and write: there is always a reader and a writer, so nobody's
	// open() waits and no read ends.
	f, err := os.OpenFile(e.path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	e.fifo = f
	go e.listen() // ends when close closes the fifo
	return e, nil
}

func (e *ear) listen() {
	defer close(e.heard)
	lines := bufio.NewScanner(e.fifo)
	for lines.Scan() {
		var w word
		if _, err := fmt.Sscan(lines.Text(), &w.what, &w.pid, &w.at); err != nil {
			continue
		}
		e.heard <- w
	}
}

// starts waits for n programs to begin.
func (e *ear) starts(ctx context.Context, n int) ([]word, error) {
	var all []word
	for len(all) < n {
		w, err := e.next(ctx)
		if err != nil {
			return all, fmt.Errorf("%d of %d processes began: %w", len(all), n, err)
		}
		if w.what == "start" {
			all = append(all, w)
		}
	}
	return all, nil
}

func (e *ear) next(ctx context.Context) (word, error) {
	select {
	case w := <-e.heard:
		return w, nil
	case <-ctx.Done():
		return word{}, ctx.Err()
	}
}

// forget drops what was said and not asked for, and returns how many began.
func (e *ear) forget() (began int) {
	for {
		select {
		case w := <-e.heard:
			if w.what == "start" {
				began++
			}
		default:
			return began
		}
	}
}

func (e *ear) close() { e.fifo.Close() }
