#!/bin/sh
# Boots systemd as PID 1 of namespaces of its own, on a copy-on-write view of this machine's files. Root.
#
#   machine.sh boot DIR NAME [--net]   DIR has the folders layer and disk; NAME is that of a cgroup; --net: a network of its own
#   machine.sh clean DIR NAME          once nothing runs in it
#
# What it writes is in memory and gone with it. /var/lib is on DIR/disk: an overlay on tmpfs is no place for a log.
set -e
stage=$1 dir=$2 name=$3 net=${4-}

cgroups() {
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 layer "$dir/layer"
    mkdir "$dir/layer/cgroup"
    mount -t cgroup2 cgroup2 "$dir/layer/cgroup"
}

case $stage in
boot)
    exec unshare --mount sh "$0" enter "$dir" "$name" $net
    ;;
enter)
    cgroups
    mkdir -p "$dir/layer/cgroup/$name"
    echo $$ > "$dir/layer/cgroup/$name/cgroup.procs"
    exec unshare --cgroup --pid --uts --ipc --mount $net --fork --kill-child sh "$0" init "$dir" "$name" $net
    ;;
init)
    root=$dir/layer/root
    mkdir "$dir/layer/upper" "$dir/layer/work" "$root"
    mount -t overlay -o "lowerdir=/,upperdir=$dir/layer/upper,workdir=$dir/layer/work" overlay "$root"
    [ -z "$net" ] || ip link set lo up
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    # What this machine has of Iris is not under test.
    rm -rf "$root/etc/iris" "$root"/etc/systemd/system/iris* "$root"/lib/systemd/system/iris* "$root/usr/bin/iris"
    rm -rf "$root/var/lib/iris"
    mkdir "$root/var/lib/iris" "$root/oldroot"
    mount --bind "$dir/disk" "$root/var/lib/iris"
    hostname iris-test
    cd "$root"
    pivot_root . oldroot
    umount -l /oldroot
    # systemd hands credentials over by mounts that it makes elsewhere; in a container it leaves this to others.
    mount --make-rshared /
    printf '[Unit]\nDefaultDependencies=no\n' > /etc/systemd/system/test.target
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target
    ;;
clean)
    exec unshare --mount sh "$0" remove "$dir" "$name"
    ;;
remove)
    cgroups
    find "$dir/layer/cgroup/$name" -depth -type d -exec rmdir {} \;
    ;;
esac
