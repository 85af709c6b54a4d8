package logs

import (
	"strings"
	"time"
)

// isoLayout is what JavaScript's toISOString writes: the timestamp of a JSON
// line without a date format.
const isoLayout = "2006-01-02T15:04:05.000Z"

// piece is one token of a date format, or literal text.
type piece struct {
	layout  string                // of package time
	number  func(t time.Time) int // not negative, with at least width digits
	width   int
	text    func(t time.Time) string
	literal string
}

// dateFormat is a compiled log_date_format. The zero value writes nothing.
type dateFormat []piece

// dayToken is a token of day.js.
func dayToken(s string) (p piece, ok bool) {
	switch s {
	case "dd":
		return piece{text: func(t time.Time) string { return t.Weekday().String()[:2] }}, true
	case "d":
		return piece{number: func(t time.Time) int { return int(t.Weekday()) }, width: 1}, true
	case "SSS":
		return piece{number: millis, width: 3}, true
	case "H":
		return piece{number: time.Time.Hour, width: 1}, true
	}
	return layout(s, "YYYY 2006 YY 06 MMMM January MMM Jan MM 01 M 1 DD 02 D 2 dddd Monday ddd Mon "+
		"HH 15 hh 03 h 3 mm 04 m 4 ss 05 s 5 A PM a pm Z -07:00 ZZ -0700")
}

// javaToken is a token of Java's DateTimeFormatter, as far as a log needs them.
// YYYY (week year) and DD (day of the year) are taken as what was surely meant.
func javaToken(s string) (p piece, ok bool) {
	switch s {
	case "D":
		return piece{number: time.Time.YearDay, width: 1}, true
	case "DDD":
		return piece{number: time.Time.YearDay, width: 3}, true
	case "H":
		return piece{number: time.Time.Hour, width: 1}, true
	case "S":
		return piece{number: func(t time.Time) int { return millis(t) / 100 }, width: 1}, true
	case "SS":
		return piece{number: func(t time.Time) int { return millis(t) / 10 }, width: 2}, true
	case "SSS":
		return piece{number: millis, width: 3}, true
	case "SSSSSS":
		return piece{number: func(t time.Time) int { return t.Nanosecond() / 1e3 }, width: 6}, true
	}
	return layout(s, "yyyy 2006 yy 06 y 2006 uuuu 2006 YYYY 2006 MMMM January MMM Jan MM 01 M 1 dd 02 d 2 DD 02 "+
		"EEEE Monday EEE Mon EE Mon E Mon HH 15 hh 03 h 3 mm 04 m 4 ss 05 s 5 a PM A PM "+
		"z MST Z -0700 ZZ -0700 XXX Z07:00 XX Z0700 X Z07")
}

// layout finds token in a list of tokens, each with its layout of package time.
func layout(token, list string) (piece, bool) {
	f := strings.Fields(list)
	for i := 0; i < len(f); i += 2 {
		if f[i] == token {
			return piece{layout: f[i+1]}, true
		}
	}
	return piece{}, false
}

func millis(t time.Time) int { return t.Nanosecond() / 1e6 }

// compileDate reads a log_date_format: day.js's tokens with [literal] text, or,
// where a lower-case year says so (no token of day.js), Java's, with 'literal'
// text too. What is no token stands for itself.
func compileDate(format string) dateFormat {
	java := isJava(format)
	token := dayToken
	if java {
		token = javaToken
	}
	var d dateFormat
	for i := 0; i < len(format); {
		if text, n := quoted(format[i:], java); n > 0 {
			d = d.literal(text)
			i += n
			continue
		}
		run := i + 1
		for run < len(format) && format[run] == format[i] {
			run++
		}
		end := run
		for ; end > i && end <= i+8; end-- { // "MMMMM" is MMMM and M
			if p, ok := token(format[i:end]); ok {
				d = append(d, p)
				break
			}
		}
		if end == i || end > i+8 {
			d, end = d.literal(format[i:run]), run
		}
		i = end
	}
	return d
}

// quoted is the literal text that starts s, and its length with the quotes; 0:
// none starts here. Two quotes of Java are one that is meant.
func quoted(s string, java bool) (string, int) {
	switch {
	case s[0] == '[':
		if end := strings.IndexByte(s, ']'); end > 0 {
			return s[1:end], end + 1
		}
	case s[0] == '\'' && java:
		if strings.HasPrefix(s, "''") {
			return "'", 2
		}
		for end := 1; end < len(s); end++ {
			switch {
			case s[end] != '\'':
			case strings.HasPrefix(s[end:], "''"):
				end++
			default:
				return strings.ReplaceAll(s[1:end], "''", "'"), end + 1
			}
		}
	}
	return "", 0
}

// isJava tells whether a year is written "yy" or "uuuu" outside [literal] text.
func isJava(format string) bool {
	for format != "" {
		before, rest, opened := strings.Cut(format, "[")
		if strings.Contains(before, "yy") || strings.Contains(before, "uuuu") {
			return true
		}
		_, after, closed := strings.Cut(rest, "]")
		if !closed {
			return opened && (strings.Contains(rest, "yy") || strings.Contains(rest, "uuuu"))
		}
		format = after
	}
	return false
}

func (d dateFormat) literal(text string) dateFormat {
	// A line stays one line, whatever stands in a config.
	text = strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
	if text == "" {
		return d
	}
	return append(d, piece{literal: text})
}

// append adds t in this format to dst.
func (d dateFormat) append(dst []byte, t time.Time) []byte {
	for _, p := range d {
		switch {
		case p.layout != "":
			dst = t.AppendFormat(dst, p.layout)
		case p.number != nil:
			dst = appendInt(dst, p.number(t), p.width)
		case p.text != nil:
			dst = append(dst, p.text(t)...)
		default:
			dst = append(dst, p.literal...)
		}
	}
	return dst
}

// appendInt adds n, not negative, with at least width digits.
func appendInt(dst []byte, n, width int) []byte {
	var b [20]byte
	i := len(b)
	for n > 0 || width > 0 {
		i--
		b[i] = byte('0' + n%10)
		n /= 10
		width--
	}
	return append(dst, b[i:]...)
}
