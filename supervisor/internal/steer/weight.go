package steer

// perListener is how many connections are expected at least, for each listener,
// before the weights are looked at again.
const perListener = 8

// fill shares out the connections to come so that the emptiest listeners are
// filled first, as water would; the result is each one's weight. It expects as
// many as there are: the weights stay for seconds and the counts may be of the
// process before this one, so with fewer a crowd would all go to one listener.
func fill(counts []int) []int {
	expect := max(sum(counts), perListener*len(counts))
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
