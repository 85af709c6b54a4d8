package probe

import "fmt"

// tail keeps the last bytes that are written to it, for errors.
type tail struct{ kept []byte }

const maxTail = 256

// Write keeps the end of b. It never fails.
func (t *tail) Write(b []byte) (int, error) {
	n := len(b)
	if len(b) > maxTail {
		b = b[len(b)-maxTail:]
	}
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - maxTail; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return n, nil
}

// quote is what was written last, to follow a sentence.
func (t *tail) quote() string {
	if s := brief(string(t.kept)); s != "" {
		return fmt.Sprintf(": %s", s)
	}
	return ""
}
