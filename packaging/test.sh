#!/bin/sh
# Runs all tests and says plainly which ones were skipped. With CI set, a
# skipped test is a failure.
set -eu
cd "$(dirname "$0")/.."
race=-race
export CGO_ENABLED=1 GORACE="atexit_sleep_ms=0" # many tests run the test binary as a program
if ! command -v gcc >/dev/null 2>&1; then
    echo "no C compiler: tests run without the race detector"
    race="" CGO_ENABLED=0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
go test $race -count=1 -timeout 15m -v ./... >"$log" 2>&1 || status=$?
grep -E '^(ok|FAIL|panic|---? FAIL|\?)' "$log" | grep -v 'no test files' || true
if [ $status -ne 0 ]; then
    echo "--- output of failed tests"
    # What a failed test said, wherever parallel ones have left it, and what stands around a crash.
    awk 'NR == FNR { if (match($0, /--- FAIL: [^ ]+/)) bad[substr($0, RSTART + 10, RLENGTH - 10)] = 1; next }
        /^=== / { show = ($3 in bad) } /^panic|DATA RACE/ { crash = 60 }
        show || crash-- > 0 || /--- FAIL/' "$log" "$log" | head -n 3000
    exit $status
fi
passed=$(grep -cE '^ *--- PASS' "$log" || true)
skipped=$(grep -cE '^ *--- SKIP' "$log" || true)
if [ "$skipped" -gt 0 ]; then
    echo "skipped tests:"
    grep -E -A2 '^ *--- SKIP' "$log" | grep -vE '^--$|^=== '
fi
echo "$passed passed, 0 failed, $skipped skipped"
if [ "$skipped" -gt 0 ] && [ -n "${CI:-}" ]; then
    echo "a skipped test is a failure in CI"
    exit 1
fi
