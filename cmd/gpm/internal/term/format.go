package term

import (
	"fmt"
	"strconv"
	"time"
)

// Bytes is a size as PM2 writes it: 1024-based, one decimal, "51.4mb".
func Bytes(n uint64) string {
	const units = "kmgt"
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + "b"
	}
	v := float64(n) / 1024
	i := 0
	// 1023.95 and more would print as "1024.0".
	for v >= 1023.95 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f%cb", v, units[i])
}

// Uptime is a duration as PM2 writes it: the largest unit of which there are
// at least two, so "119s", then "2m", "119m", "2h", "47h", "2D".
func Uptime(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{365 * day, "Y"}, {30 * day, "M"}, {day, "D"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / u.of; n > 1 {
			return strconv.FormatInt(int64(n), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(max(d, 0)/time.Second), 10) + "s"
}

// Wait is a short duration in words that count down: "next in 8 s".
func Wait(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d, 0).Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d.Round(time.Minute)/time.Minute)
	}
	return fmt.Sprintf("%d h", d.Round(time.Hour)/time.Hour)
}

// Age is a duration in at most six characters, its two largest units: "9s",
// "4m10s", "3h05m", "12d04h".
func Age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d < 100*day:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// Percent is a share as PM2 writes it: "0%", "3.4%", "120%".
func Percent(v float64) string {
	if v >= 10 || v < 0.05 {
		return fmt.Sprintf("%.0f%%", v)
	}
	return strconv.FormatFloat(float64(int(v*10+0.5))/10, 'f', -1, 64) + "%"
}
