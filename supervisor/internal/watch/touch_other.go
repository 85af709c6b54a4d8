//go:build !linux

package watch

// touched: what the attributes were before is not known, so they do not count.
func touched(string) bool { return false }
