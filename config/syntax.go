package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// maxDepth bounds nesting. The JSON parser is recursive: without a bound four
// million "[" would end the process with a stack overflow, which Go cannot recover.
const maxDepth = 64

// read parses text as JSON with comments and trailing commas.
func (l *loader) read(name string, text []byte) (node, bool) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	src := newSource(name, text)
	fail := func(offset int, message, hint string) (node, bool) {
		p := place{src: src, offset: min(max(offset, 0), len(text))}.problem()
		p.Message, p.Hint = message, hint
		l.report.add(p)
		return node{}, false
	}
	if len(text) > maxText {
		return fail(0, fmt.Sprintf("the config is larger than %d MiB", maxText>>20), "")
	}
	if at := invalidUTF8(text); at >= 0 {
		return fail(at, "a byte that is not UTF-8", "save the file as UTF-8")
	}
	if at := tooDeep(text); at >= 0 {
		return fail(at, fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return fail(0, "the config is empty", `write at least {"apps": [{"script": "app.js"}]}`)
	}
	// hujson wants a newline after a line comment, also at the end of the text.
	v, err := hujson.Parse(append(text[:len(text):len(text)], '\n'))
	if err != nil {
		at := errorOffset(src, err)
		return fail(at, "not JSON: "+syntaxMessage(err), syntaxHint(name, text[min(at, len(text)):]))
	}
	return fromJSON(v, src), true
}

// errorOffset is where hujson stopped. Its errors tell the place only in their
// text ("hujson: line 3, column 7: ..."), with columns in bytes.
func errorOffset(src *source, err error) int {
	var line, column int
	if n, _ := fmt.Sscanf(err.Error(), "hujson: line %d, column %d:", &line, &column); n != 2 || line < 1 || line > len(src.lines) {
		return len(src.text)
	}
	return min(src.lines[line-1]+column-1, len(src.text))
}

func syntaxMessage(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the text ends too early"
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	if rest, ok := strings.CutPrefix(err.Error(), "invalid literal: "); ok {
		return "cannot read " + excerpt(rest)
	}
	return err.Error()
}

// syntaxHint knows the usual reasons: PM2 evaluates its .json files as
// JavaScript, so theirs may have bare keys and single quotes.
func syntaxHint(name string, rest []byte) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".js", ".cjs", ".mjs":
		return fmt.Sprintf(`gpm reads JSON, not JavaScript: node -p "JSON.stringify(require('./%s'))" writes it as JSON`, filepath.Base(name))
	case ".yml", ".yaml":
		return "gpm reads JSON, not YAML"
	}
	if len(rest) == 0 {
		return "a closing bracket or quote is missing"
	}
	switch c := rest[0]; {
	case c == '\'':
		return "text stands in double quotes"
	case c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		return "keys and text stand in double quotes"
	case c == '"':
		return "a comma may be missing before it, or a quote or newline inside the text"
	case c == ';':
		return "remove it"
	}
	return ""
}

func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// tooDeep is the offset of the bracket that goes beyond maxDepth, or -1.
func tooDeep(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = endOfText(text, i+1)
		case '/':
			i = endOfComment(text, i)
		case '{', '[':
			if depth++; depth > maxDepth {
				return i
			}
		case '}', ']':
			depth--
		}
	}
	return -1
}

func endOfText(text []byte, i int) int {
	for ; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

func endOfComment(text []byte, i int) int {
	end := "\n"
	switch {
	case bytes.HasPrefix(text[i:], []byte("//")):
	case bytes.HasPrefix(text[i:], []byte("/*")):
		end = "*/"
	default:
		return i
	}
	n := bytes.Index(text[i+2:], []byte(end))
	if n < 0 {
		return len(text)
	}
	return i + 2 + n + len(end) - 1
}
