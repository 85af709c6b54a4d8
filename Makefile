# Everything a person needs by name. Go is enough for run and build; test
# installs what its scenarios need where it can, and says what it skipped.
export CGO_ENABLED ?= 0
GOFLAGS += -trimpath
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X gpm/supervisor/api.Version=$(VERSION)

.PHONY: run build test check lint bench soak fuzz clean docs

run: build
	@sh packaging/run.sh

build: bin/gpm bin/sse-app

bin/gpm: FORCE
	@go build $(GOFLAGS) -ldflags "$(LDFLAGS)" -o bin/gpm ./cmd/gpm

bin/sse-app: FORCE
	@go build $(GOFLAGS) -ldflags "-s -w" -o bin/sse-app ./examples/sse-app

FORCE:

test: build
	@sh packaging/test-tools.sh
	@sh packaging/test.sh

check: lint test

lint:
	@sh packaging/lint.sh

docs:
	go test ./config ./cmd/gpm/internal/cli -run 'Reference|Docs' -update

bench: build
	@go run ./bench

soak: build
	go test ./e2e -run Soak -soak -timeout 30m -v

fuzz:
	go test ./config -run '^$$' -fuzz FuzzParse -fuzztime 60s

clean:
	rm -rf bin
