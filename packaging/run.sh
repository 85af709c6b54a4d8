#!/bin/sh
# The main job in one command: four instances of a streaming server on one port,
# and the bus that they share.
set -eu
cd "$(dirname "$0")/.."
bin/gpm start examples/sse-app/gpm.conf.json
cat <<'END'

The page:            http://localhost:8080/
A stream:            curl -N http://localhost:8080/stream

Three things to try
  kill one           ask on the page, then kill -9 the pid beside the answer: it goes on elsewhere
  read the logs      bin/gpm logs sse-app
  change it          edit examples/sse-app/model.go; make build     (gpm sees the new binary and reloads all four)

bin/gpm monit shows it live; bin/gpm kill ends everything.
END
