#!/bin/sh
# Becomes a real systemd: PID 1 of the namespaces (pid, mount, uts, ipc, net)
# that it is started in. Its root is the machine's own, read through an overlay:
# what it writes is in a tmpfs, and that goes with the last process.
#   boot.sh <folder> <folder with gpm and sse-app>
set -eu
if [ "${3-}" = "" ]; then # cgroup.procs of our own folder, which is to be the root, is where we are now
    exec unshare --cgroup /bin/sh "$0" "$1" "$2" booted
fi
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir -p "$1/up/usr/local/bin" "$1/work" "$1/m"
cp "$2/gpm" "$2/sse-app" "$1/up/usr/local/bin/"
m=$1/m
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$m"
mount -t proc proc "$m/proc"
mount -t sysfs -o ro sysfs "$m/sys"
mount -t cgroup2 cgroup2 "$m/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$m/dev"
for n in null zero full random urandom tty; do
    : >"$m/dev/$n"
    mount --bind "/dev/$n" "$m/dev/$n"
done
mkdir "$m/dev/pts" "$m/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$m/dev/pts"
ln -s pts/ptmx "$m/dev/ptmx"
ln -s /proc/self/fd "$m/dev/fd"
: >"$m/dev/console"
for d in dev/shm run tmp var/log root; do
    mkdir -p "$m/$d"
    mount -t tmpfs tmpfs "$m/$d"
done
# Nothing of the machine's own services, only what basic.target needs.
units=$m/etc/systemd/system
mkdir -p "$units"
rm -rf "$units"/*.wants "$units"/gpm-*.service
cat >"$units/gpm-test.target" <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
UNIT
for u in systemd-udevd systemd-udev-trigger systemd-timesyncd systemd-logind systemd-resolved systemd-networkd systemd-random-seed \
    systemd-modules-load systemd-sysctl console-getty; do
    ln -sf /dev/null "$units/$u.service"
done
for u in getty.target dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount; do
    ln -sf /dev/null "$units/$u"
done
rm -f "$m/etc/machine-id"
echo 11112222333344445555666677778888 >"$m/etc/machine-id"
init=/lib/systemd/systemd
cd "$m"
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
exec env -i container=gpm-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$init" --unit=gpm-test.target --log-target=journal --show-status=no
