package probe

import (
	"bytes"
	"strings"
)

// eventScanner finds complete events in the bytes of an event stream, in
// whatever pieces they come (WHATWG HTML 9.2.6). Lines end with CRLF, LF or CR.
// The zero value is at the begin of a stream.
type eventScanner struct {
	line    []byte // of which the end has not come yet
	afterCR bool   // an LF that comes now belongs to the CR before it
	begun   bool   // the first line is over: no byte order mark can come any more

	name string // of the event that is being read
	data bool   // it has a line of data; without one it is none
}

// scan takes the next bytes and returns the names of the events that are
// complete with them; one without a name is a "message".
func (s *eventScanner) scan(chunk []byte) (complete []string) {
	for _, c := range chunk {
		afterCR := s.afterCR
		s.afterCR = c == '\r'
		switch {
		case c == '\n' && afterCR:
		case c == '\n' || c == '\r':
			if name, ok := s.endLine(); ok {
				complete = append(complete, name)
			}
		default:
			s.line = append(s.line, c)
		}
	}
	return complete
}

// endLine takes the line that is over now; an empty one ends an event.
func (s *eventScanner) endLine() (name string, complete bool) {
	line := s.line
	s.line = s.line[:0]
	if !s.begun {
		line, s.begun = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), true
	}
	if len(line) == 0 {
		name, complete = s.name, s.data
		if name == "" {
			name = "message"
		}
		s.name, s.data = "", false
		return name, complete
	}
	field, value, _ := strings.Cut(string(line), ":") // a comment has an empty field
	switch field {
	case "data":
		s.data = true
	case "event":
		s.name = strings.TrimPrefix(value, " ")
	}
	return "", false
}
