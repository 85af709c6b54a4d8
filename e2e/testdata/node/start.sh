#!/bin/sh
# As npm start does: a wrapper that starts the server as its child and waits.
cd "$(dirname "$0")" || exit 1
node server.js
