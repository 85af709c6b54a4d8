package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"gpm/bench/load"
)

// pidServer answers with a number, as all servers do that are measured here.
func pidServer(t *testing.T, answer func() string) (port int) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, answer()) }))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestWhoAnswers(t *testing.T) {
	b := &bench{}
	n := 0
	port := pidServer(t, func() string { n++; return strconv.Itoa(100 + n%3) })
	if err := b.answering(deadline(t), port, 3); err != nil {
		t.Error(err)
	}
	if who := b.askPIDs(port, 6); len(who) != 3 || !who[100] || !who[101] || !who[102] {
		t.Errorf("%v answered", who)
	}
	if _, err := askPID(pidServer(t, func() string { return "no pid" })); err == nil {
		t.Error("an answer without a pid is one")
	}
}

// The dead of before are waited for, each time.
func TestReplaceAllWaitsForTheEndOfAll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	took, err := replaceAll(ctx, func(context.Context) error { return nil }, func() []int { return []int{os.Getpid()} })
	if err == nil || len(took) != 0 {
		t.Errorf("we still run: %v, %v", took, err)
	}
	if _, err := replaceAll(deadline(t), func(context.Context) error { return nil }, func() []int { return nil }); err == nil {
		t.Error("nobody was there to be replaced, and nobody says so")
	}
}

func TestBreakRow(t *testing.T) {
	l := &load.Ledger{Kinds: map[load.Kind]*load.Tally{
		load.Request: {Sent: 100, Classes: map[load.Class]int{load.Complete: 90, load.Refused: 6, load.Reset: 3, load.Timeout: 1}},
		load.Stream:  {Sent: 20, Classes: map[load.Class]int{load.Complete: 15, load.Cut: 4, load.Empty: 1}},
		load.Held:    {Sent: 10, Classes: map[load.Class]int{load.Complete: 8, load.Told: 1, load.Cut: 1}},
	}}
	b := &bench{sheet: &sheet{}}
	took := []time.Duration{time.Second, 3 * time.Second, 2 * time.Second}
	if got, want := b.breakRow("peer", l, took), []string{"peer", "16 of 130", "6 of 30", "6 / 3 / 1 / 5 / 1", "2.0", ""}; !slices.Equal(got, want) {
		t.Errorf("row %q, want %q", got, want)
	}
	if missed, marks := b.sheet.missed(); missed != 0 || marks != 0 {
		t.Errorf("a peer has a mark: %d of %d missed", missed, marks)
	}
	if got := b.breakRow("gpm reload", l, took)[5]; got != "0 broken: **missed**" {
		t.Errorf("verdict %q", got)
	}
	if missed, marks := b.sheet.missed(); missed != 1 || marks != 1 {
		t.Errorf("%d of %d missed", missed, marks)
	}
}

func TestCostRows(t *testing.T) {
	variantOf := func(took, cpu time.Duration, rates ...float64) *variant {
		return &variant{rate: rates, took: []time.Duration{took, took}, cpu: cpu}
	}
	b := &bench{sheet: &sheet{}}
	rows := b.costRows("Go", []*variant{
		variantOf(time.Millisecond, 200*time.Microsecond, 1000, 500, 2000), // a machine whose speed changes
		variantOf(2*time.Millisecond, 204*time.Microsecond, 980, 490, 1960),
		variantOf(time.Millisecond, 200*time.Microsecond, 1000, 500, 2000),
	})
	want := [][]string{
		{"Go, requests per second", "1000", "980", "1000", "-2.0 % (hold: false +0.0 %)", "within 5 %: met"},
		{"Go, p50 / p99 of a request, ms", "1.00 / 1.00", "2.00 / 2.00", "1.00 / 1.00", "p99 +100.0 %", ""},
		{"Go, CPU of the server per request, µs", "100.0", "102.0", "100.0", "+2.0 % (hold: false +0.0 %)", "within 5 %: met"},
	}
	for i, row := range rows {
		if !slices.Equal(row, want[i]) {
			t.Errorf("row %q, want %q", row, want[i])
		}
	}
}
