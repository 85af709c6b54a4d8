package bus

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// BenchmarkLatency: from the call of Publish to what Next gives, at 500 a second.
func BenchmarkLatency(b *testing.B) {
	for _, kind := range []string{"sse-bus", "redis"} {
		b.Run(kind, func(b *testing.B) {
			s := serverOf(b, kind)
			from, to := s.open(b, Options{}), s.open(b, Options{})
			f := at(b, follow(b, to, "news", Now))
			var took []time.Duration
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for b.Loop() {
				<-pace.C
				began := time.Now()
				publish(b, from, "news", "", "120 bytes or so, as a token of an answer in its JSON has them, with its name and time and all that comes along with it")
				take(b, f)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
		})
	}
}

// BenchmarkPublish: as fast as eight can.
func BenchmarkPublish(b *testing.B) {
	for _, kind := range []string{"sse-bus", "redis"} {
		b.Run(kind, func(b *testing.B) {
			bus := serverOf(b, kind).open(b, Options{})
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, _, err := bus.Publish(b.Context(), "news", Entry{Data: "word"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkIdle: what 10,000 followers of one log, and of one each, cost while
// nothing happens, and what one entry costs that all of them get.
func BenchmarkIdle(b *testing.B) {
	const followers = 10_000
	for name, log := range map[string]func(int) string{
		"one log":  func(int) string { return "news" },
		"one each": func(i int) string { return fmt.Sprint("user:", i) },
	} {
		for _, kind := range []string{"sse-bus", "redis"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				bus := serverOf(b, kind).open(b, Options{})
				for b.Loop() {
					before := heap()
					began := time.Now()
					fs := make([]*Follower, followers)
					for i := range fs {
						fs[i], _ = bus.Follow(log(i), Now)
					}
					for _, f := range fs {
						at(b, f)
					}
					b.ReportMetric(time.Since(began).Seconds()*1000, "ms-to-join")
					b.ReportMetric(float64(heap()-before)/followers, "B/follower")
					began = time.Now()
					publish(b, bus, log(0), "", strconv.Itoa(0))
					take(b, fs[0])
					b.ReportMetric(time.Since(began).Seconds()*1000, "ms-first-entry")
					for _, f := range fs {
						f.Close()
					}
				}
			})
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
