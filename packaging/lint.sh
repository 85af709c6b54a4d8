#!/bin/sh
# Everything a machine can say about the code without running it.
set -eu
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
    echo "gofmt would change:" $unformatted
    exit 1
fi
go vet ./...
GOOS=darwin go vet ./...
GOOS=linux GOARCH=arm64 go vet ./...
if [ ! -x .tools/staticcheck ]; then
    GOBIN="$PWD/.tools" CGO_ENABLED=0 go install honnef.co/go/tools/cmd/staticcheck@v0.8.2 ||
        { echo "skipped: staticcheck cannot be installed here"; [ -z "${CI:-}" ]; exit; }
fi
.tools/staticcheck ./...
echo "lint: clean"
