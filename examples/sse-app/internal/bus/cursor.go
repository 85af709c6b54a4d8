package bus

import (
	"strconv"
	"strings"
)

// A position in a log is the number of the last entry before it. Its text is
// short, as it travels with every event, and has a letter in front, so that no
// plain number (a "0" or "-1" that a client made up) and no word is taken for one.

func cursor(n uint64) string { return "n" + digits(n) }

func digits(n uint64) string { return strconv.FormatUint(n, 10) }

// number is strict: whoever got "from the start" for a cursor that is none would
// see everything twice.
func number(c string) (uint64, error) {
	text, marked := strings.CutPrefix(c, "n")
	n, err := strconv.ParseUint(text, 10, 53) // Lua's numbers have 53 bits
	if !marked || err != nil || cursor(n) != c {
		return 0, ErrCursor
	}
	return n, nil
}

// After is the cursor behind entry index of a log that is written with a Claim;
// After(-1) is before the first.
func After(index int) string { return cursor(uint64(max(index, -1) + 1)) }
