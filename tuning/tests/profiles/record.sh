#!/bin/sh
# Records what iris-tune reads of this machine into a folder, for `iris-tune plan --root DIR` elsewhere: record.sh DIR
# Values of the kernel and limits only; files of /etc are those of sysctl.d(5) and of the units of Iris.
set -eu
to=$1
mkdir -p "$to"
for pattern in \
  /proc/meminfo /proc/1/comm /proc/self/limits /proc/self/mountinfo /proc/sys/kernel/osrelease \
  /proc/sys/kernel/io_uring_disabled /proc/sys/kernel/io_uring_group \
  /proc/sys/net/core/somaxconn /proc/sys/net/core/netdev_max_backlog /proc/sys/net/core/wmem_max \
  /proc/sys/net/ipv4/tcp_max_syn_backlog /proc/sys/net/ipv4/tcp_syncookies /proc/sys/net/ipv4/tcp_mem \
  /proc/sys/net/ipv4/tcp_rmem /proc/sys/net/ipv4/tcp_wmem /proc/sys/net/ipv4/tcp_max_orphans \
  /proc/sys/net/ipv4/tcp_max_tw_buckets /proc/sys/net/ipv4/tcp_ehash_entries /proc/sys/net/ipv4/tcp_tw_reuse \
  /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/netfilter/nf_conntrack_max /proc/sys/fs/nr_open \
  /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpuset.cpus.effective \
  /sys/devices/system/cpu/online /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor \
  /sys/devices/system/clocksource/clocksource0/current_clocksource /sys/kernel/mm/transparent_hugepage/enabled \
  '/sys/class/net/*/device/uevent' '/sys/class/net/*/queues/rx-*/rps_cpus' \
  /.dockerenv /run/.containerenv /run/systemd/container \
  /etc/sysctl.conf '/etc/sysctl.d/*.conf' '/run/sysctl.d/*.conf' '/usr/lib/sysctl.d/*.conf' \
  '/etc/systemd/system/iris*.service' '/etc/systemd/system/iris*.service.d/*.conf' '/usr/lib/systemd/system/iris*.service'
do
  for file in $pattern; do
    [ -r "$file" ] || continue
    case $file in
      /proc/meminfo) lines='^(MemTotal|SwapTotal):' ;;
      /proc/self/limits) lines='^(Limit|Max open files|Max locked memory) ' ;;
      /proc/self/mountinfo) lines='^[^ ]+ [^ ]+ [^ ]+ [^ ]+ (/|/proc/sys) ' ;;
      /etc/sysctl* | /run/sysctl* | /usr/lib/sysctl*) lines='^ *-?(net|fs|kernel|vm)[./].*=' ;;
      /sys/class/net/*/device/uevent) lines='^DRIVER=' ;;
      *) lines='' ;;
    esac
    mkdir -p "$to${file%/*}"
    grep -E "$lines" "$file" > "$to$file" || : # a file without such lines is recorded as an empty one
  done
done
