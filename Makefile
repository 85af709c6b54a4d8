# Everything a person needs by name. Go is enough for run and build; test
# installs what its scenarios need where it can, and says what it skipped.
export CGO_ENABLED ?= 0
GOFLAGS += -trimpath
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X gpm/supervisor/api.Version=$(VERSION)

.PHONY: run build test check lint bench soak kernels fuzz clean docs

run: build
	@sh packaging/run.sh

build: bin/gpm bin/sse-app bin/sse-bus

bin/gpm: FORCE
	@go build $(GOFLAGS) -ldflags "$(LDFLAGS)" -o bin/gpm ./cmd/gpm

bin/sse-app: FORCE
	@go build $(GOFLAGS) -ldflags "-s -w" -o bin/sse-app ./examples/sse-app

bin/sse-bus: FORCE
	@go build $(GOFLAGS) -ldflags "-s -w" -o bin/sse-bus ./examples/sse-app/bus

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

# The proof that nothing breaks, in its long form, on a machine that does nothing
# else: 80 replacements or kills of each server. About an hour; a part of it with
# make soak RUN=TestReloadBreaksNothing/sse-app, every server in every mode with
# SOAK=-everywhere, another load with SOAK='-rate 500'.
RUN ?= BreaksNothing|BreaksOnlyItsOwn|Balance
soak: build
	@sh packaging/test-tools.sh
	go test ./e2e -count=1 -run '$(RUN)' -soak $(SOAK) -timeout 5h -v

# gpm on Debian's kernels in emulated machines: what touches the kernel, as root
# and as a user. Ten minutes or more each; KERNELS, RUN, UNITS and MINUTES take a
# part of it (packaging/kernels.sh).
kernels:
	@sh packaging/kernels.sh

fuzz:
	go test ./config -run '^$$' -fuzz FuzzParse -fuzztime 60s

clean:
	rm -rf bin
