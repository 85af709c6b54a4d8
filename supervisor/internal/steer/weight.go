package steer

// perListener is how many connections are expected at least, for each listener,
// before the weights are looked at again.
const perListener = 8

// fill shares out the next expect connections so that the emptiest listeners
// are filled first, as water would; the result is each one's weight.
func fill(counts []int, expect int) []int {
	expect = max(expect, perListener*len(counts))
	low, high := 0, 0
	for _, c := range counts {
		high = max(high, c+expect)
	}
	for low < high { // the lowest level with room for all
		level, room := (low+high)/2, 0
		for _, c := range counts {
			room += max(0, level-c)
		}
		if room < expect {
			low = level + 1
		} else {
			high = level
		}
	}
	weights := make([]int, len(counts))
	for i, c := range counts {
		weights[i] = max(0, low-c)
	}
	return weights
}

// differ tells whether two sets of weights share connections out noticeably
// differently: by a tenth of a fair share for any listener.
func differ(a, b []int) bool {
	if len(a) != len(b) {
		return true
	}
	sumA, sumB := sum(a), sum(b)
	if sumA == 0 || sumB == 0 {
		return sumA != sumB
	}
	limit := 0.1 / float64(len(a))
	for i := range a {
		d := float64(a[i])/float64(sumA) - float64(b[i])/float64(sumB)
		if d > limit || d < -limit {
			return true
		}
	}
	return false
}

func sum(n []int) (s int) {
	for _, x := range n {
		s += x
	}
	return s
}

// tide guesses how many connections come before the next count: twice what came
// since the last one, and those who have left lately, as clients that were cut
// off come back at once.
type tide struct {
	total int
	back  int
	next  int
}

func (t *tide) count(total int) {
	came, left := max(0, total-t.total), max(0, t.total-total)
	t.back = max(left, t.back/2)
	t.total, t.next = total, max(2*came, t.back)
}
