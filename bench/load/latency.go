package load

import (
	"math/bits"
	"time"
)

// Latency is a distribution of durations in constant memory: 16 buckets per
// power of two, so a quantile is at most 6 percent too high. The worst value
// is exact. The zero value is empty.
type Latency struct {
	buckets [64 * 16]uint32
	count   int
	worst   time.Duration
}

// add enters d; zero and less mean that there is nothing to enter.
func (l *Latency) add(d time.Duration) {
	if d <= 0 {
		return
	}
	l.buckets[bucket(uint64(d))]++
	l.count++
	l.worst = max(l.worst, d)
}

// bucket numbers the range that v is in: its highest bit, then the four bits
// below it.
func bucket(v uint64) int {
	if v < 16 {
		return int(v)
	}
	shift := bits.Len64(v) - 5
	return (shift+1)*16 + int(v>>shift)&15
}

// top is the highest value in bucket i.
func top(i int) uint64 {
	if i < 16 {
		return uint64(i)
	}
	shift := i/16 - 1
	return (uint64(16+i%16)+1)<<shift - 1
}

// Count is the number of durations entered.
func (l *Latency) Count() int { return l.count }

// Worst is the longest; zero if there is none.
func (l *Latency) Worst() time.Duration { return l.worst }

// Quantile is the duration that a share q (0 to 1) of all do not exceed.
func (l *Latency) Quantile(q float64) time.Duration {
	left := max(1, int(q*float64(l.count)+0.5))
	for i, n := range l.buckets {
		if left -= int(n); left <= 0 {
			return min(time.Duration(top(i)), l.worst)
		}
	}
	return l.worst
}
