#!/bin/busybox sh
# The first process of a machine of packaging/kernels.sh. Its report goes to the
# second serial line; when it ends, so does the machine.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin NO_COLOR=1
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /bin/busybox /sbin/modprobe
echo 'root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >/etc/passwd
echo 'root:x:0:
user:x:1000:
nogroup:x:65534:' >/etc/group
echo '127.0.0.1 localhost
::1 localhost' >/etc/hosts
chown 1000:1000 /home/user
chmod -R a+rX /gpm
chmod 700 /root
hostname gpm
ip link set lo up
ulimit -n 65536
stty -F /dev/ttyS1 -opost 2>/dev/null
exec >/dev/ttyS1 2>&1 </dev/null

as() {
    if [ "$1" = root ]; then
        HOME=/root sh -c "$2"
    else
        su "$1" -c "export PATH=$PATH HOME=/home/$1; $2"
    fi
}

echo "=== kernel $(uname -rv)"
grep -c ' sk_reuseport_prog_free_rcu' /proc/kallsyms
for who in $(cat /gpm/who); do
    echo "--- gpm doctor as $who"
    as "$who" "/gpm/bin/gpm doctor"
done
echo "=== tests"
for who in $(cat /gpm/who); do
    [ -e /gpm/bin/e2e.test ] || break
    echo "=== as $who"
    echo "=== package e2e"
    # One at a time, and a load that an emulated processor can carry.
    as "$who" "cd /gpm/src/e2e && /gpm/bin/e2e.test -test.v -test.run '$(sed "s/WHO/$who/g" /gpm/run)' -test.parallel 1 -test.timeout 0 -bin /gpm/bin -patience 4m -rate 10"
    echo "=== exit $?"
    echo "=== done $who"
done
# What these need of an ordinary user they become themselves.
echo "=== as root"
for t in $(find /gpm/src -name 'unit-*'); do
    echo "=== package ${t##*/unit-}"
    as root "cd ${t%/*} && $t -test.v -test.timeout 5m"
    echo "=== exit $?"
done
echo "=== done units"
echo "=== end"
poweroff -f
