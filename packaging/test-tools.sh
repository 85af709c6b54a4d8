#!/bin/sh
# Installs the programs that the tests supervise or are driven by, where that
# is possible without asking: Debian packages as root. What cannot be had is
# said, and the tests that need it say it again when they skip.
set -u
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need gcc gcc
need node nodejs
need python3 python3
need nginx nginx-light
need gunicorn gunicorn
need javac default-jdk-headless
need systemd-analyze systemd
need nsenter util-linux
need ps procps
[ -f /usr/lib/python3/dist-packages/uvicorn/__init__.py ] || missing="$missing python3-uvicorn"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    # RUNLEVEL: a package must not start its own service and take a port.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq >/dev/null 2>&1
    for p in $missing; do
        apt-get install -y -qq --no-install-recommends "$p" >/dev/null 2>&1 || echo "cannot install $p"
    done
else
    echo "not installed (run as root on Debian, or install by hand):$missing"
fi
exit 0
