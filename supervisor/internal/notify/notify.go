// Package notify hears what apps say of themselves: READY=1 and STATUS= by
// systemd's sd_notify(3), and messages over Node's IPC channel, which is what
// process.send('ready') writes to. It decides nothing.
package notify

import (
	"errors"
	"strings"
)

// ErrUnsupported says that the system has no such sockets.
var ErrUnsupported = errors.New("readiness messages are only supported on linux")

// maxDatagram bounds one sd_notify message; systemd itself takes 4096 bytes.
const maxDatagram = 8 << 10

// parseState reads the lines KEY=VALUE of an sd_notify message. Lines without
// '=' are left out; the last of two equal keys counts.
func parseState(b string) map[string]string {
	state := map[string]string{}
	for line := range strings.Lines(b) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\n\x00"), "="); ok && k != "" {
			state[k] = v
		}
	}
	return state
}
