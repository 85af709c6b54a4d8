// Package notify hears from processes that they are ready: by sd_notify
// datagrams, and by the IPC channel that Node's process.send uses.
package notify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxMessage bounds a message of the IPC channel; a longer one ends Read.
const maxMessage = 1 << 20

// Read calls got for each message of a Node IPC channel in "json"
// serialization, on the caller's goroutine, until the other side closes it; then
// it returns nil. got must not keep msg.
func Read(ours *os.File, got func(msg []byte)) error {
	lines := bufio.NewScanner(ours)
	lines.Buffer(make([]byte, 0, 1024), maxMessage)
	for lines.Scan() {
		if json.Valid(lines.Bytes()) {
			got(lines.Bytes())
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read ipc channel: %w", err)
	}
	return nil
}

// Send writes one message.
func Send(ours io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode ipc message: %w", err)
	}
	if _, err := ours.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("send ipc message: %w", err)
	}
	return nil
}

// Pollable is a duplicate of a channel's end that the runtime poller watches,
// for one that came from another process. f is closed.
func Pollable(f *os.File) (*os.File, error) { return pollable(f) }
