#!/bin/sh
# Installs the programs that the tests supervise or are driven by, where that
# is possible without asking: Debian packages as root, npm packages for anybody.
# What cannot be had is said, and the tests that need it say it again when they
# skip.
set -u
cd "$(dirname "$0")/.."

# The npm packages are those of the lock file, without any script of theirs. A
# copy of it beside them says which ones are there.
npm_clients() {
    cd examples/sse-app/testdata/clients
    cmp -s package-lock.json node_modules/.installed && return
    echo "installing the npm packages of examples/sse-app/testdata/clients"
    said=$(npm ci --ignore-scripts --no-audit --no-fund --loglevel=error 2>&1) &&
        cp package-lock.json node_modules/.installed && return
    echo "cannot install them: $said"
}

missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need gcc gcc
need node nodejs
need npm npm
need python3 python3
need nginx nginx-light
need caddy caddy
need redis-server redis-server
need chromium-headless-shell chromium-headless-shell
need curl curl
need gunicorn gunicorn
need javac default-jdk-headless
need systemd-analyze systemd
need nsenter util-linux
need ps procps
[ -f /usr/lib/python3/dist-packages/uvicorn/__init__.py ] || missing="$missing python3-uvicorn"
if [ -z "$missing" ]; then
    : # all there
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    # A package must not start its own service and take a port. With an init
    # system at work only this file keeps it from that.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    for p in $missing; do
        apt-get install -y -qq --no-install-recommends "$p" >/dev/null 2>&1 || echo "cannot install $p"
    done
else
    echo "not installed (run as root on Debian, or install by hand):$missing"
fi
npm_clients
exit 0
