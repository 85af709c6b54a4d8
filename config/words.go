package config

import (
	"fmt"
	"hash/fnv"
	"path"
	"strings"
	"unicode"
)

// splitWords cuts a line into words at blanks. Single and double quotes keep
// blanks together; a backslash takes away the meaning of a following quote,
// blank or backslash, and stays itself before anything else (a regular
// expression as an argument keeps its "\d"). It reports false if a quote is
// never closed.
func splitWords(line string) ([]string, bool) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			if !strings.ContainsRune(`"'\`, r) && (quote != 0 || !unicode.IsSpace(r)) {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord = r, true
		case quote == 0 && unicode.IsSpace(r):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	if escaped {
		word.WriteByte('\\')
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, quote == 0
}

// maxName leaves room for "-error-12.log.gz" within the 255 bytes of a file name.
const maxName = 128

// nameProblem says what is wrong with the name of an app or namespace; "" if
// nothing is.
func nameProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return "is too long"
	case name == "all":
		return `would be confused with the target "all"`
	case isDigits(name):
		return "would be confused with an id"
	case name == "." || name == "..":
		return "is not a name"
	case strings.HasPrefix(name, "-"):
		return "would be confused with a flag"
	case name != strings.TrimSpace(name):
		return "starts or ends with a blank"
	case strings.Contains(name, "/"):
		return `contains "/"`
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return "contains a character that cannot be shown"
	}
	return ""
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// shellName is a name for a command line: that of the first word that looks
// like a script ("node server.js --x": "server"), else of the first word that
// is not an assignment ("A=1 npm start": "npm").
func shellName(line string) string {
	words, _ := splitWords(line)
	first := ""
	for _, w := range words {
		base := path.Base(w)
		if knownExtension(path.Ext(base)) {
			return scriptName(base)
		}
		if name, _, ok := strings.Cut(w, "="); first == "" && (!ok || strings.ContainsAny(name, "/.-")) {
			first = base
		}
	}
	return first
}

// scriptName is the base name without its last extension.
func scriptName(script string) string {
	base := path.Base(script)
	if name := strings.TrimSuffix(base, path.Ext(base)); name != "" {
		return name
	}
	return base
}

// logBase is the name of an app as part of a file name.
func logBase(name string) string {
	base := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, name)
	if base == name {
		return base
	}
	// Other names become the same text: two apps must not share a file by accident.
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name))
	return fmt.Sprintf("%s-%04x", base, sum.Sum32()&0xffff)
}

// nearest is the candidate that s is most likely a slip of, or "".
func nearest(s string, candidates []string) string {
	if len(s) > 64 {
		return ""
	}
	best, least := "", 1+max(1, min(3, len(s)/3))
	for _, c := range candidates {
		if bare(c) == bare(s) {
			return c
		}
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

func bare(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

// distance counts the slips between a and b: a letter too much, too few,
// wrong, or two neighbours swapped.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
