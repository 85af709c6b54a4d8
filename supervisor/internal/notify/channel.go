package notify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	// maxLine bounds one message of an app; longer ones are skipped.
	maxLine = 1 << 20
	// sendWait is how long an app may leave its channel full before a message
	// to it fails. It has about 200 KiB of room.
	sendWait = time.Second
)

// Env is what makes a Node process (or bun) use descriptor fd as its channel.
func Env(fd int) []string {
	return []string{"NODE_CHANNEL_FD=" + strconv.Itoa(fd), "NODE_CHANNEL_SERIALIZATION_MODE=json"}
}

// IsReady tells whether a message is process.send('ready').
func IsReady(msg json.RawMessage) bool {
	var s string
	return json.Unmarshal(msg, &s) == nil && s == "ready"
}

// Read calls hear for each message that a process writes to its channel, on the
// caller's goroutine, until the process closes it or the caller closes ours:
// both are no error. hear may keep the message. Node's own messages
// ({"cmd":"NODE_..."}), lines that are not JSON and lines beyond 1 MiB are left
// out. Descriptors sent along are closed by the kernel.
func Read(ours *os.File, hear func(msg json.RawMessage)) error {
	r := bufio.NewReaderSize(ours, 4096)
	var line []byte
	skip := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			line, skip = nil, true
		}
		if !skip {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		// ECONNRESET: it ended with messages of ours unread.
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return nil
		case err != nil:
			return fmt.Errorf("read node channel: %w", err)
		}
		if !skip && json.Valid(line) && !internal(line) {
			hear(json.RawMessage(line[:len(line)-1]))
		}
		line, skip = nil, false
	}
}

// internal tells whether Node talks to Node: cluster, handles, acknowledgements.
func internal(line []byte) bool {
	var msg struct {
		Cmd string `json:"cmd"`
	}
	return json.Unmarshal(line, &msg) == nil && len(msg.Cmd) >= 5 && msg.Cmd[:5] == "NODE_"
}

// Send writes a message, which process.on('message') receives. If it fails the
// process does not read or is gone, and part of the message may be written: the
// channel is of no use any more. It waits a second at most.
func Send(ours *os.File, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send to node channel: %w", err)
	}
	if err := ours.SetWriteDeadline(time.Now().Add(sendWait)); err != nil {
		return fmt.Errorf("send to node channel: %w", err)
	}
	if _, err := ours.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("send to node channel: %w", err)
	}
	return nil
}
