#!/bin/sh
# Boots Debian's kernels in qemu, emulated, and runs the tests that need only
# gpm's own programs there, as root and as an ordinary user. Prints a table, and
# what gpm doctor says on each; fails if a test does.
#
#   GPM_KERNELS=folder   downloads and results        (~/.cache/gpm-kernels)
#   KERNELS="5.10 6.12"  only these                   (all)
#   RUN=regexp           only these tests             (a chosen set)
#   UNITS="a b"          only these packages' own     (those that talk to the kernel)
#   MINUTES=n            how long one kernel may take (30)
#
# A machine is one process without a network; nothing is written outside of the
# folder and a temporary one.
set -eu
cd "$(dirname "$0")/.."
cache=${GPM_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/gpm-kernels}
minutes=${MINUTES:-30}
mirror=http://deb.debian.org
who="root user"

# release, suite and the archive that has its newest kernel; the last one is the
# oldest that the mirror still has: there a user has no steering.
table="5.10 bullseye debian-security
6.1 bookworm debian-security
6.12 trixie debian-security
5.10old bullseye debian"

# The packages that know kernels, with all their own tests. Those of the keeper
# and of logs take very long when emulated (UNITS="supervisor/internal/keeper logs").
units="supervisor/internal/trap supervisor/internal/steer supervisor/internal/sock supervisor/internal/proc supervisor/internal/streams"

# And what a user does. Not here: what does not depend on the kernel (config,
# targets, names, watching, views of logs), what needs a program of its own
# (Python, Java, nginx, systemd, a full disk), and loads that an emulated machine
# cannot make. WHO is root or user: root's gpm is tested as root, and a user's as
# that user, in each mode of steering that there is.
tests='TestNobodyIsLeftBehind TestKilledBySomebodyElse TestTheDaemonMayDie TestTheKeeperMayDie TestNoLineIsLostWhileTheDaemonDies
TestUpdateIsTheSamePath TestAllOfALongOutputBeforeTheEnd TestDrainVerb TestStreamsAreCounted TestReadyProbe TestAHungInstanceIsReplaced
TestHealthOverIPv6 TestAnEndThatNobodySaw TestStandby TestReloadBreaksNothing/^(sse-app|go)$/WHO TestCrashBreaksOnlyItsOwn/^(sse-app|go)$/WHO
TestListeners TestTwoServersOfOneAppOnOnePort TestAStrangerHasThePort TestDependsOnOrder TestDependencyFails'

say() { echo "$*" >&2; }

need() {
    missing=""
    command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
    [ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || missing="$missing busybox-static"
    command -v curl >/dev/null || missing="$missing curl"
    command -v xz >/dev/null || missing="$missing xz-utils"
    command -v dpkg-deb >/dev/null || missing="$missing dpkg"
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "this needs:$missing (run as root on Debian, or install them by hand)"
        exit 1
    fi
    say "installing:$missing"
    apt-get update -qq >/dev/null
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# kernel release suite archive: has the newest kernel of that kind unpacked in
# $cache and prints its version as uname says it.
kernel() {
    release=${1%old} dist=$2
    [ "$3" = debian ] || dist=$2-security
    index=$cache/$dist.Packages.xz
    if [ -z "$(find "$index" -mtime -1 2>/dev/null)" ]; then
        curl -fsS --max-time 120 -o "$index.tmp" "$mirror/$3/dists/$dist/main/binary-amd64/Packages.xz" && mv "$index.tmp" "$index"
    fi
    order=
    [ "$1" != "$release" ] || order=-r
    found=$(xzcat "$index" | awk -v want="^linux-image-$release[.][0-9][^ ]*-cloud-amd64$" '
        /^Package: /  { name = $2 } /^Version: / { version = $2 } /^Filename: / { file = $2 } /^SHA256: / { sum = $2 }
        /^$/          { if (name ~ want && name !~ /deb11/) print version, name, file, sum }' | sort -V $order | head -n 1)
    [ -n "$found" ] || { say "$dist has no kernel $release"; return 1; }
    # shellcheck disable=SC2086 # four words
    set -- $found "$3"
    if [ ! -d "$cache/$2" ]; then
        say "getting $2 ($1)"
        curl -fsS --max-time 600 -o "$cache/$2.deb" "$mirror/$5/$3"
        echo "$4  $cache/$2.deb" | sha256sum -c --quiet >&2
        rm -rf "$cache/$2.tmp"
        dpkg-deb -x "$cache/$2.deb" "$cache/$2.tmp"
        rm "$cache/$2.deb"
        mv "$cache/$2.tmp" "$cache/$2"
    fi
    echo "${2#linux-image-}"
}

# pack folder: an archive that the kernel unpacks as its first root.
pack() {
    (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null)
}

# modules version: what the tests need of the kernel that is not built in.
modules() {
    from=$(find "$cache/linux-image-$1" -type d -path "*/lib/modules/$1")
    to=$tmp/modules.$1/lib/modules/$1
    mkdir -p "$to"
    find "$from" \( -name 'inet_diag.ko*' -o -name 'tcp_diag.ko*' -o -name 'udp_diag.ko*' \) -exec cp {} "$to" \;
    if [ -n "$(find "$to" -name '*.xz')" ]; then
        unxz "$to"/*.xz
    fi
    busybox depmod -b "$tmp/modules.$1" "$1"
    pack "$tmp/modules.$1"
}

# with program...: a program of this machine and its libraries, if it is here.
with() {
    for p in "$@"; do
        path=$(command -v "$p") || { say "$p is not installed: tests that need it skip themselves"; continue; }
        path=$(readlink -f "$path")
        for f in $path $(ldd "$path" 2>/dev/null | grep -o '/[^ ]*'); do
            mkdir -p "$root$(dirname "$f")"
            cp -L "$f" "$root$f"
        done
        [ "$root$path" = "$root/usr/bin/$p" ] || ln -sf "$path" "$root/usr/bin/$p"
    done
}

build() {
    root=$tmp/root
    mkdir -p "$root/bin" "$root/usr/bin" "$root/usr/sbin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" \
        "$root/root" "$root/home/user" "$root/gpm/bin" "$root/gpm/src/examples/sse-app" "$root/gpm/src/e2e"
    export CGO_ENABLED=0
    go build -trimpath -o "$root/gpm/bin/gpm" ./cmd/gpm
    go build -trimpath -ldflags "-X gpm/supervisor/api.Version=99.1.0" -o "$root/gpm/bin/gpm-next" ./cmd/gpm
    go build -trimpath -ldflags "-s -w" -o "$root/gpm/bin/sse-app" ./examples/sse-app
    go build -trimpath -ldflags "-s -w" -o "$root/gpm/bin/sse-bus" ./examples/sse-app/bus
    go build -trimpath -ldflags "-s -w" -o "$root/gpm/bin/gosrv" ./e2e/testdata/gosrv
    go build -trimpath -ldflags "-s -w" -o "$root/gpm/bin/ears" ./e2e/testdata/ears
    go test -trimpath -ldflags "-s -w" -c -o "$root/gpm/bin/e2e.test" ./e2e
    for p in ${UNITS-$units}; do
        mkdir -p "$root/gpm/src/$p"
        go test -trimpath -ldflags "-s -w" -c -o "$root/gpm/src/$p/unit-${p##*/}" "./$p"
    done
    cp -r e2e/testdata "$root/gpm/src/e2e/"
    cp examples/sse-app/gpm.conf.json "$root/gpm/src/examples/sse-app/"
    cp README.md "$root/gpm/src/"
    cp "$(command -v busybox)" "$root/bin/busybox"
    with sh date node # busybox's sh ignores SIGQUIT, its date knows no nanoseconds
    ln -s "$(readlink -f "$(command -v sh)")" "$root/bin/sh"
    cp packaging/kernels-init.sh "$root/init"
    chmod 755 "$root/init"
    echo "$who" >"$root/gpm/who"
    # shellcheck disable=SC2086 # a list of words
    printf '%s\n' "${RUN-$(printf '|^%s' $tests | sed 's/^|//; s/\(Test[A-Za-z]*\)/\1$/g')}" >"$root/gpm/run"
    [ -n "$(cat "$root/gpm/run")" ] || rm "$root/gpm/bin/e2e.test"
    pack "$root" >"$tmp/root.cpio"
}

# boot release version: runs everything on one kernel; its report is a file.
boot() {
    report=$cache/$1.report
    cat "$tmp/root.cpio" >"$tmp/initrd"
    modules "$2" >>"$tmp/initrd"
    : >"$report"
    nice -n 10 timeout --foreground -k 10 "${minutes}m" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nic none -no-reboot -display none \
        -kernel "$(echo "$cache/linux-image-$2/boot/vmlinuz-"*)" -initrd "$tmp/initrd" \
        -append "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off tsc=unstable random.trust_cpu=on" \
        -serial "file:$cache/$1.console" -serial "file:$report" </dev/null >"$cache/$1.qemu" 2>&1 ||
        say "$1: qemu ended with $?"
}

# table: a row for each test, a column for each kernel and user.
results() {
    # shellcheck disable=SC2086 # a list of words
    awk -v kernels="$ran" '
        BEGIN { n = split(kernels, k, " ") }
        FNR == 1 { file = FILENAME; sub(/.*\//, "", file); sub(/[.]report$/, "", file); who = "" }
        { sub(/\r$/, "") }
        /^=== as / { who = $3; seen[file, who] = 1; if (!(who in users)) { users[who]; u[++m] = who } }
        /^=== package / { unit = $3; code = "" }
        /^=== exit / && $3 != 0 { result(unit ": exit code", "FAIL", $3) }
        /^=== done/ { over[file, $3] = 1 }
        /^--- (PASS|FAIL|SKIP): / { sub(/:/, "", $2); result(unit "." $3, $2, $4) }
        # Of a package of its own: only what fails or is skipped, and how many passed.
        function result(test, said, time) {
            if (said == "PASS" && unit != "e2e") { test = unit ".*"; time = "(" ++passed[file, who, unit] ")" }
            if (!(test in known)) { known[test]; name[++rows] = test }
            got[test, file, who] = tolower(said) (said == "SKIP" ? "" : " " time)
            if (said == "FAIL") bad++
        }
        END {
            printf "%-54s", "test"
            for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) printf " %-16s", k[i] " " u[j]
            print ""
            for (r = 1; r <= rows; r++) {
                printf "%-54s", name[r]
                for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) printf " %-16s", ((name[r], k[i], u[j]) in got) ? got[name[r], k[i], u[j]] : "-"
                print ""
            }
            for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) if (!((k[i], u[j]) in over)) { print k[i] " " u[j] ": did not come to the end"; bad++ }
            for (i = 1; i <= n; i++) if (!((k[i], "units") in over)) { print k[i] " packages: did not come to the end"; bad++ }
            exit bad > 0 || m == 0
        }' $(for r in $ran; do echo "$cache/$r.report"; done)
}

need
mkdir -p "$cache"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
say "building"
build
ran=""
while read -r release suite archive; do
    case " ${KERNELS:-$release} " in *" $release "*) ;; *) continue ;; esac
    version=$(kernel "$release" "$suite" "$archive")
    say "$release: booting $version"
    boot "$release" "$version"
    ran="$ran $release"
done <<EOF
$table
EOF
for r in $ran; do
    echo "=== $r"
    tr -d '\r' <"$cache/$r.report" | sed -n '/^=== kernel/,/^=== tests/p' | grep -v '^=== tests' || true
done
status=0
results || status=1
echo "reports: $cache"
exit $status
