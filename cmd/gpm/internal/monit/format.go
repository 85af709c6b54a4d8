package monit

import (
	"fmt"
	"strings"
	"time"

	"gpm/cmd/gpm/internal/term"
	"gpm/supervisor/api"
)

// glyphs are the few signs beyond ASCII.
type glyphs struct {
	online, stopped, busy, waiting, errored string
	point, line, bar, arrows                string
}

var (
	unicodeGlyphs = glyphs{"●", "○", "◐", "↻", "✗", "▸", "─", "│", "↑↓"}
	asciiGlyphs   = glyphs{"*", "-", "~", "@", "x", ">", "-", "|", "jk"}
)

// chooseGlyphs asks the locale as the C library does. Without one (a bare
// container) UTF-8 is what terminals speak.
func chooseGlyphs(getenv func(string) string) glyphs {
	for _, key := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(key)); v != "" {
			if strings.Contains(v, "utf-8") || strings.Contains(v, "utf8") {
				return unicodeGlyphs
			}
			return asciiGlyphs
		}
	}
	return unicodeGlyphs
}

// sign is a status as a sign and a style; the word is always beside it.
func (g glyphs) sign(s api.Status) (string, style) {
	switch s {
	case api.Online:
		return g.online, good
	case api.Stopped:
		return g.stopped, faint
	case api.Launching, api.Stopping:
		return g.busy, busy
	case api.Waiting, api.Pending:
		return g.waiting, busy
	case api.Errored:
		return g.errored, bad
	}
	return " ", normal
}

func shortStatus(s api.Status) string {
	if s == api.Waiting {
		return "waiting"
	}
	return clean(string(s), false)
}

// duration is d in at most six characters.
func duration(d time.Duration) string { return term.Age(d) }

// until is the time that is left, rounded up: a countdown ends with "1s".
func until(d time.Duration) string { return duration(d + time.Second - 1) }

// size is bytes in at most five characters: "512B", "51.4M", "1023M", "1.2G".
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.5 && unit < 4 {
		value /= 1024
		unit++
	}
	if value >= 99.95 {
		return fmt.Sprintf("%.0f%c", value, "KMGTP"[unit])
	}
	return fmt.Sprintf("%.1f%c", value, "KMGTP"[unit])
}

func percent(p float64) string {
	if p >= 99.95 {
		return fmt.Sprintf("%.0f%%", p)
	}
	return fmt.Sprintf("%.1f%%", p)
}

// plural is "1 line", "2 lines".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
