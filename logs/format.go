package logs

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxLine is how long a line may be, in bytes as the app wrote it. A longer one
// becomes several; nothing of it is lost.
const MaxLine = 256 << 10

// Format is how lines are written.
type Format struct {
	Date string // log_date_format, day.js's or Java's tokens; empty: no date in text, ISO 8601 in JSON
	JSON bool   // one object per line: message, timestamp, type, process_id, app_name; message is always a string
}

// ending says what becomes of the bytes behind the last newline.
type ending int

const (
	keep  ending = iota // they wait for their newline
	show                // they are written as they are; the line goes on later
	final               // nothing follows: they get a newline
)

// formatter turns output into lines of a log file.
type formatter struct {
	json    bool
	date    dateFormat
	source  Source
	maxLine int
	app     []byte // app_name as JSON

	head, tail []byte // around each line of the current batch
}

func newFormatter(s Source, f Format) *formatter {
	return &formatter{
		json: f.JSON, date: compileDate(f.Date), source: s, maxLine: MaxLine,
		app: append(appendJSON([]byte{'"'}, []byte(s.Name)), '"'),
	}
}

// stamp sets head and tail for lines read at t.
func (f *formatter) stamp(t time.Time) {
	f.head, f.tail = f.head[:0], f.tail[:0]
	if !f.json {
		if len(f.date) > 0 {
			f.head = append(f.date.append(f.head, t), ": "...)
		}
		f.tail = append(f.tail, '\n')
		return
	}
	f.head = append(f.head, `{"message":"`...)
	f.tail = append(f.tail, `","timestamp":"`...)
	if len(f.date) > 0 {
		f.tail = appendJSON(f.tail, f.date.append(nil, t))
	} else {
		f.tail = t.UTC().AppendFormat(f.tail, isoLayout)
	}
	f.tail = append(append(append(f.tail, `","type":"`...), f.source.Stream...), `","process_id":`...)
	f.tail = strconv.AppendInt(f.tail, int64(f.source.ID), 10)
	f.tail = append(append(append(f.tail, `,"app_name":`...), f.app...), "}\n"...)
}

// body is formatted output without the head of its first line: whether that one
// goes on with a line in the file is known only where the file is.
type body struct {
	text  []byte // with what was in dst before
	used  int    // bytes of the output that became text
	lines int    // newlines in text
	open  bool   // the last line has no newline
}

// lines appends to dst what src becomes, as far as limit bytes go, but at
// least one line. goesOn tells that a line was shown and has no newline yet.
func (f *formatter) lines(dst, src []byte, end ending, goesOn bool, limit int) body {
	b := body{text: dst}
	limit += len(dst)
	for b.used < len(src) && len(b.text) < limit {
		line, used, whole := f.next(src[b.used:], end)
		if used == 0 {
			return b
		}
		before := len(b.text)
		if b.used > 0 {
			b.text = append(b.text, f.head...)
		}
		if f.json {
			b.text = appendJSON(b.text, line)
		} else {
			b.text = append(b.text, line...)
		}
		if whole {
			b.text = append(b.text, f.tail...)
		}
		if len(b.text) > limit && b.lines > 0 {
			b.text = b.text[:before] // it belongs to the next batch
			return b
		}
		b.used += used
		if !whole {
			b.open = true
			return b
		}
		b.lines++
	}
	if end == final && goesOn && len(src) == 0 {
		b.text = append(b.text, '\n')
		b.lines++
	}
	return b
}

// next is the first line of rest, how many bytes it takes, and whether it ends
// there. 0 bytes: there is none yet.
func (f *formatter) next(rest []byte, end ending) (line []byte, used int, whole bool) {
	if i := bytes.IndexByte(rest[:min(len(rest), f.maxLine+1)], '\n'); i >= 0 {
		return rest[:i], i + 1, true
	}
	switch {
	case len(rest) > f.maxLine:
		n := runeCut(rest[:f.maxLine])
		return rest[:n], n, true
	case end == final:
		return rest, len(rest), true
	case end == show && !f.json: // half an object would be no JSON: it waits
		n := runeCut(rest)
		return rest[:n], n, false
	}
	return nil, 0, false
}

// runeCut is the length of b without the beginning of a rune at its end. It is
// 0 only where b is nothing else.
func runeCut(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				break
			}
			return i
		}
	}
	return len(b)
}

const hex = "0123456789abcdef"

// appendJSON adds s as the inside of a JSON string. What is not UTF-8 becomes
// U+FFFD.
func appendJSON(dst, s []byte) []byte {
	from := 0 // s[from:i] is plain
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(append(dst, s[from:i]...), "\uFFFD"...)
		case c == '"' || c == '\\':
			dst = append(append(dst, s[from:i]...), '\\', c)
		case c < ' ':
			dst = append(append(dst, s[from:i]...), '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			i++
			continue
		}
		i++
		from = i
	}
	return append(dst, s[from:]...)
}
