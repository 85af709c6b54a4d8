// Command app is what the benchmarks supervise: a tiny static program that says
// when it began, and then does nothing, or writes numbered lines.
//
//	app idle   FIFO
//	app blocks FIFO LINES   in writes of 64 KiB, which cut lines anywhere
//	app lines  FIFO LINES   one write for each line
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lineLength  = 100 // with the newline
	blockLength = 64 << 10
)

func main() {
	// The first statement of main: what a supervisor's respawn is timed to.
	began := monotonic()
	if err := run(os.Args[1:], began); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string, began int64) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: app idle|blocks|lines FIFO [LINES]")
	}
	fifo, err := os.OpenFile(args[1], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	say(fifo, "start", began)
	if args[0] == "idle" {
		for {
			time.Sleep(time.Hour)
		}
	}
	if len(args) < 3 {
		return fmt.Errorf("%s: how many lines?", args[0])
	}
	lines, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	block := blockLength
	if args[0] == "lines" {
		block = lineLength
	}
	if err := pour(lines, block); err != nil {
		return err
	}
	say(fifo, "end", monotonic())
	return nil
}

// say writes one message; below PIPE_BUF a write to a FIFO is whole.
func say(fifo *os.File, what string, at int64) {
	fmt.Fprintf(fifo, "%s %d %d\n", what, os.Getpid(), at)
}

// pour writes the lines 0..lines-1 to stdout, block bytes at a time.
func pour(lines, block int) error {
	buf := make([]byte, 0, block+lineLength)
	for i := range lines {
		buf = appendLine(buf, i)
		if len(buf) < block {
			continue
		}
		if _, err := os.Stdout.Write(buf[:block]); err != nil {
			return err
		}
		buf = buf[:copy(buf, buf[block:])]
	}
	_, err := os.Stdout.Write(buf)
	return err
}

const filler = " abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz 0123456\n"

// appendLine is ten digits and the filler.
func appendLine(buf []byte, n int) []byte {
	var digits [lineLength - len(filler)]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return append(append(buf, digits[:]...), filler...)
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the same clock in all processes.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return t.Nano()
}
