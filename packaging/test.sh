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
    awk '{ l[NR] = $0 } /--- FAIL|^panic|DATA RACE/ { f[++n] = NR }
        END { for (k = 1; k <= n; k++) for (i = f[k] - 60; i <= f[k] + 30; i++) if (i in l && !(i in d)) { print l[i]; d[i] = 1 } }' "$log" | head -n 2000
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
