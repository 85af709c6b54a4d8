package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// signals are the ones that ask a process to end. Not among them are those
// that stop, continue or only inform it.
var signals = []string{"SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGWINCH", "SIGPWR"}

// signalName is "SIGINT" for "int", "INT", "sigint"; "" if there is no such signal.
func signalName(s string) string {
	s = "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if slices.Contains(signals, s) {
		return s
	}
	return ""
}

// cronReference is a fixed date, so that a pattern is as valid tomorrow as it
// is today.
var cronReference = time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)

// cronFields are the fields of a six-field pattern; five fields start at the second.
var cronFields = []string{"second", "minute", "hour", "day of the month", "month", "day of the week"}

// cronProblem says what is wrong with a cron pattern; "" if nothing is.
// gronx.IsValid alone looks at the clock: it stops at the first part of a list
// that is due now, so "0,99" would be valid in the first minute of an hour.
func cronProblem(pattern string) string {
	fields := strings.Fields(pattern)
	if strings.HasPrefix(pattern, "@") {
		if !slices.Contains([]string{"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"}, strings.ToLower(pattern)) {
			return "no such shorthand"
		}
	} else if len(fields) != 5 && len(fields) != 6 {
		return strconv.Itoa(len(fields)) + " fields"
	} else {
		for i, field := range fields {
			if !cronField(field, i+6-len(fields)) {
				return "bad " + cronFields[i+6-len(fields)] + " " + excerpt(field)
			}
		}
	}
	if _, err := gronx.NextTickAfter(pattern, cronReference, false); err != nil {
		return "never due"
	}
	return ""
}

// cronField tells whether each part of a field is valid at its position.
func cronField(field string, position int) bool {
	segments, err := gronx.Segments("* * * * " + field) // spells out SUN and JAN
	if err != nil || len(segments) != 6 {
		return false
	}
	checker := &gronx.SegmentChecker{}
	checker.SetRef(cronReference)
	for part := range strings.SplitSeq(segments[5], ",") {
		if len(part) > 16 || strings.Count(part, "-") > 1 || strings.Count(part, "/") > 1 {
			return false
		}
		if _, err := checker.CheckDue(part, position); err != nil {
			return false
		}
	}
	return true
}

// listenAddress is s as "host:port"; a bare port is any host. It reports false
// for what no TCP socket can be bound to.
func listenAddress(s string) (string, bool) {
	if isDigits(s) {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isDigits(port) {
		return "", false
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || !isHost(host) {
		return "", false
	}
	if host == "*" {
		host = ""
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), true
}

func isHost(host string) bool {
	if host == "" || host == "*" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return !strings.ContainsAny(host, "[]")
	}
	return len(host) <= 253 && strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// maxDuration bounds every duration of a config.
const maxDuration = 10 * 365 * 24 * time.Hour

// parseDuration reads "5s", "1.6s", "1h30m", "7d".
func parseDuration(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil && n <= uint64(maxDuration/(24*time.Hour))
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0 && d <= maxDuration
}

// maxSize bounds every size of a config: 1 PiB.
const maxSize = 1 << 50

// parseSize reads "100M", "1G", "512k", "100MB", 1024-based, and plain bytes.
func parseSize(s string) (uint64, bool) {
	digits := strings.TrimRight(s, "KMGBkmgb")
	var factor uint64
	switch strings.ToUpper(s[len(digits):]) {
	case "", "B":
		factor = 1
	case "K", "KB":
		factor = 1 << 10
	case "M", "MB":
		factor = 1 << 20
	case "G", "GB":
		factor = 1 << 30
	}
	if factor == 0 || !isDigits(digits) {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > maxSize/factor {
		return 0, false
	}
	return n * factor, true
}
