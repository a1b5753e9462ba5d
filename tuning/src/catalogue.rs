//! Every condition that is looked at: what `list` and `explain` print, and what rows of the table begin with.

use serde::Serialize;

use crate::sizing::Profile;
use Profile::{Core, Edge, Latency, Loadgen, Node};

/// Who can change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A kernel setting of the whole machine: a container cannot change it.
    Host,
    /// A kernel setting of a network namespace: a container has its own.
    Namespace,
    /// A limit that the service's unit gives.
    Unit,
    /// A parameter of the kernel's command line.
    Boot,
    /// Something that only a person can change: hardware, another kernel, another file.
    Hand,
}

/// How bad it is when a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, worse or with fewer connections.
    Warning,
    /// It does not work.
    Fatal,
}

/// A condition.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its name for scripts; it stays.
    pub id: &'static str,
    /// What is looked at.
    pub condition: &'static str,
    /// Where it counts.
    pub profiles: &'static [Profile],
    /// Who can change it.
    pub scope: Scope,
    /// In a few words.
    pub why: &'static str,
    /// In full: what happens without it, how the value is computed, how to change it by hand.
    pub explanation: &'static str,
}

const ALL: &[Profile] = &[Node, Edge, Core, Loadgen, Latency];
const SERVERS: &[Profile] = &[Node, Edge, Core, Latency];
const HOLDERS: &[Profile] = &[Node, Edge, Latency];
const SOCKETS: &[Profile] = &[Node, Edge, Latency, Loadgen];
const MAKERS: &[Profile] = &[Loadgen];

const fn entry(
    (id, condition): (&'static str, &'static str),
    profiles: &'static [Profile],
    scope: Scope,
    why: &'static str,
    explanation: &'static str,
) -> Entry {
    Entry { id, condition, profiles, scope, why, explanation }
}

/// All conditions, in the order of the table.
pub const ENTRIES: &[Entry] = &[
    entry(
        ("kernel.version", "Linux"),
        ALL,
        Scope::Hand,
        "older kernels lack what Iris uses of io_uring",
        "Iris uses multishot accept and receive, provided buffer rings and deferred task work of io_uring, which \
         are complete in Linux 6.1. `iris serve` does not start on an older kernel. Change: install a newer \
         kernel.",
    ),
    entry(
        ("kernel.io_uring", "io_uring"),
        ALL,
        Scope::Hand,
        "all of Iris's sockets are used through io_uring",
        "kernel.io_uring_disabled is 0 (everybody), 1 (root and the members of kernel.io_uring_group) or 2 \
         (nobody), since Linux 6.6. Container runtimes forbid io_uring besides by their seccomp profile. On the \
         machine itself a small ring is made and dropped, too. It is a decision about security, so `apply` never \
         changes it. Change: sysctl -w kernel.io_uring_disabled=0, or add the service's user to the group; in \
         containers allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker run \
         --security-opt seccomp=FILE).",
    ),
    entry(
        ("cpu.quota", "CPU quota"),
        ALL,
        Scope::Hand,
        "a quota stops a whole reactor, with all its clients, until the next period",
        "One reactor per CPU holds many connections. Under a quota (cpu.max of cgroup v2, CPUQuota= of systemd, \
         --cpus of docker) the kernel halts threads for the rest of a period, 100 ms as a rule, once the time is \
         used up: p99 becomes that. As many reactors are planned as whole CPUs fit into the quota. Change: give \
         CPUs instead of time (AllowedCPUs= of systemd, --cpuset-cpus of docker, static CPU manager of \
         Kubernetes).",
    ),
    entry(
        ("cpu.clocksource", "clock source"),
        ALL,
        Scope::Hand,
        "a slow clock source makes each look at the clock a system call",
        "Each turn of a reactor reads the clock once. tsc, kvm-clock, hyperv_clocksource_tsc_page and \
         arch_sys_counter are read without a system call, hpet and acpi_pm cost about a microsecond and a bus. \
         Change: echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource; ask why the kernel \
         gave it up (dmesg).",
    ),
    entry(
        ("cpu.governor", "CPU frequency governor"),
        &[Latency],
        Scope::Hand,
        "a CPU that must speed up first adds to the time of a lone message",
        "With powersave or schedutil a CPU that slept begins slowly. It costs power, so only the profile latency \
         asks for it, and `apply` does not set it. Change: cpupower frequency-set -g performance. \
         node.halt_poll_us in the written configuration is the other half: it keeps busy CPUs from halting.",
    ),
    entry(
        ("memory.fits", "memory"),
        ALL,
        Scope::Hand,
        "what does not fit ends with the OOM killer",
        "An idle connection takes 415 B in the server (4,100 B by TLS) and 4,264 B in the kernel, measured at \
         1,000,000; the kernel's part is charged to the service's cgroup, too. To this come per reactor: a ring's \
         table and 1 MiB of receive buffers, and reactor.out_total_max; per partition: 20 MiB of log; for the \
         system 128 MiB and 2 %. In a core: 104 B for each user online. What is there is the least of the memory, \
         the cgroup's memory.max and the unit's MemoryMax=. Waiting messages (28 B each in a core) and bytes in \
         TCP buffers (net.tcp_mem) are not in it: above 85 % is a warning. Change: fewer connections, or more \
         memory.",
    ),
    entry(
        ("memory.swap", "swap for the service"),
        SERVERS,
        Scope::Unit,
        "a page of a reactor that comes back from disk stops all its clients",
        "Pages of idle clients are cold, so the kernel swaps them first; a message to all then reads them back \
         one by one. The drop-in says MemorySwapMax=0, which keeps the service out of swap and leaves it to \
         others. It is not needed where there is no swap. Change by hand: MemorySwapMax=0 in the unit.",
    ),
    entry(
        ("memory.huge_pages", "transparent huge pages"),
        SERVERS,
        Scope::Hand,
        "always: khugepaged makes 2 MiB of a few live pages, and stalls while it does",
        "Iris asks for no huge pages. madvise and never are the same for it. Change: echo madvise > \
         /sys/kernel/mm/transparent_hugepage/enabled, and transparent_hugepage=madvise on the kernel's command \
         line.",
    ),
    entry(
        ("limit.nofile", "open files (RLIMIT_NOFILE)"),
        ALL,
        Scope::Unit,
        "a ring's table has at most so many slots, and more rings cost memory and time",
        "Client connections are direct descriptors: places in tables of io_urings and no open files of the \
         process, so it does not need one for each. But the kernel bounds a table by the hard limit \
         (io_register_files, io_uring/rsrc.c), so a low limit means more rings, each with 1 MiB of buffers. \
         Required is one ring per reactor, 1,048,576 at most. The server refuses to start below 128 + 24 per \
         reactor + 2 per ring + 64 per partition. systemd clamps LimitNOFILE= silently to what it can give; the \
         server reads back what it got. Never lowered. Change by hand: LimitNOFILE= in the unit, ulimit -Hn, \
         docker run --ulimit nofile=N.",
    ),
    entry(
        ("limit.memlock", "locked memory (RLIMIT_MEMLOCK)"),
        ALL,
        Scope::Unit,
        "rings are locked memory, counted over all processes of the user",
        "io_uring_setup fails with ENOMEM beyond it. It is counted per user over all processes, so two services \
         of one user share it, and root is not bound, so trying it as root shows nothing. The server does not \
         start below 512 KiB. Change by hand: LimitMEMLOCK=infinity in the unit, ulimit -l unlimited, docker run \
         --ulimit memlock=-1.",
    ),
    entry(
        ("net.somaxconn", "net.core.somaxconn"),
        HOLDERS,
        Scope::Namespace,
        "bounds listen.backlog: who waits for accept while everybody reconnects",
        "listen(2) cuts the backlog to it without a word. A queue that is full drops SYNs, which come again after \
         1 s. 65535 from 10,000 connections on, 4096 (the kernel's own) below; the written configuration sets \
         listen.backlog alike.",
    ),
    entry(
        ("net.syn_backlog", "net.ipv4.tcp_max_syn_backlog"),
        HOLDERS,
        Scope::Namespace,
        "the same, one step earlier: handshakes under way",
        "Beyond it the kernel answers with SYN cookies, which lose options of TCP. 65535 from 10,000 connections \
         on.",
    ),
    entry(
        ("net.syncookies", "net.ipv4.tcp_syncookies"),
        HOLDERS,
        Scope::Namespace,
        "without it a full queue of handshakes, or a flood, keeps everybody out",
        "At 1 cookies are used when the queue is full.",
    ),
    entry(
        ("net.netdev_backlog", "net.core.netdev_max_backlog"),
        SOCKETS,
        Scope::Host,
        "packets per CPU that wait for the kernel, on loopback, veth and with RPS",
        "The second column of /proc/net/softnet_stat counts what was dropped. 16384 from 10,000 connections on, \
         else 1000.",
    ),
    entry(
        ("net.tcp_mem", "net.ipv4.tcp_mem"),
        SOCKETS,
        Scope::Host,
        "bytes in flight over all sockets: idle ones need none, a message to all does",
        "Pages: below the first all is well, above the second the kernel is sparing, above the third it drops. \
         The third is 9 % of the memory (the kernel's own) and a page for each connection, a quarter of the \
         memory at most; the others are a half and two thirds of it, the kernel's ratio. It is a bound and no \
         reservation. It bounds what slow clients can take of the kernel all together, so widely copied values \
         such as 10000000 (38 GiB) are worse than none.",
    ),
    entry(
        ("net.tcp_rmem", "net.ipv4.tcp_rmem"),
        ALL,
        Scope::Namespace,
        "the most that the kernel receives ahead for one socket",
        "Least, first and most bytes. The most is 256 KiB for clients and 4 MiB on links between nodes (100 ms x \
         40 MB/s). Idle sockets take none of it. A larger most is left alone; net.tcp_mem bounds all together.",
    ),
    entry(
        ("net.tcp_wmem", "net.ipv4.tcp_wmem"),
        ALL,
        Scope::Namespace,
        "the most that the kernel sends ahead for one socket that does not choose",
        "As net.tcp_rmem. Clients' sockets are bounded by reactor.send_buffer instead.",
    ),
    entry(
        ("net.wmem_max", "net.core.wmem_max"),
        HOLDERS,
        Scope::Host,
        "bounds reactor.send_buffer, 256 KiB by default, without a word",
        "setsockopt(SO_SNDBUF) cuts at it (sock_setsockopt, net/core/sock.c); the kernel's own is 212,992 in many \
         builds.",
    ),
    entry(
        ("net.orphans", "net.ipv4.tcp_max_orphans"),
        HOLDERS,
        Scope::Host,
        "a server that drains closes first; sockets beyond it are reset",
        "Sockets that were closed with something unsent. A quarter of the connections, 16384 at least. Each may \
         hold 64 KiB until its client took it or is given up (tcp(7)).",
    ),
    entry(
        ("net.time_wait", "net.ipv4.tcp_max_tw_buckets"),
        SOCKETS,
        Scope::Namespace,
        "who closes first keeps the connection's place for 60 s",
        "Beyond it TIME_WAIT is cut short and the log fills. A quarter of the connections, 16384 at least, some \
         250 B each.",
    ),
    entry(
        ("net.conntrack", "net.netfilter.nf_conntrack_max"),
        SOCKETS,
        Scope::Host,
        "a full table of the stateful firewall drops connections without a word",
        "Only where connection tracking is loaded. Twice the connections and 65,536: entries outlive their \
         connections by minutes. 300 B and more each; to leave the service's port out of it (NOTRACK) costs none.",
    ),
    entry(
        ("net.ehash", "TCP hash table (thash_entries=)"),
        SOCKETS,
        Scope::Boot,
        "long chains in the kernel's table of sockets slow every packet",
        "Sized by the kernel at boot, 524,288 buckets at most (tcp_init, net/ipv4/tcp.c), whatever the memory. \
         Required is a bucket for 16 sockets; above 5,000,000 connections one for two. Only a boot parameter \
         changes it: thash_entries=N.",
    ),
    entry(
        ("net.ports", "net.ipv4.ip_local_port_range"),
        MAKERS,
        Scope::Namespace,
        "one source address has so many connections to one address and port",
        "1024 to 65535 are 64,512; the kernel's own range 28,232. On a machine that serves, too, keep the \
         service's ports out of it: net.ipv4.ip_local_reserved_ports = 7400,7410,7443,7480.",
    ),
    entry(
        ("net.tw_reuse", "net.ipv4.tcp_tw_reuse"),
        MAKERS,
        Scope::Namespace,
        "ports of connections that ended are free for new ones after 1 s, not 60",
        "0 is never, 2 on loopback only (the kernel's own), 1 everywhere. For the side that connects; a server \
         gains nothing.",
    ),
    entry(
        ("fs.nr_open", "fs.nr_open"),
        ALL,
        Scope::Host,
        "no process can have a higher limit of open files",
        "Not one per connection: see limit.nofile, which is 1,048,576 at most, the kernel's own value of this. It \
         matters where something has lowered it. fs.file-max does not matter.",
    ),
    entry(
        ("nic.queues", "receive queues of the network interface"),
        HOLDERS,
        Scope::Hand,
        "packets of one queue are handled by one CPU",
        "With fewer queues than reactors some CPUs handle packets for all. Change: ethtool -L NIC combined N, or \
         spread them afterwards: echo MASK > /sys/class/net/NIC/queues/rx-0/rps_cpus. Below 4 reactors it is not \
         asked for.",
    ),
    entry(
        ("sysctl.order", "files that are read after 90-iris.conf"),
        ALL,
        Scope::Hand,
        "the last file wins at boot",
        "Files of sysctl.d are read in the order of their names, /etc/sysctl.conf last (sysctl.d(5)). One that \
         sets less than required takes back at the next boot what was set. Change: remove the line there.",
    ),
    entry(
        ("unit.order", "drop-ins that are read after 50-iris-tune.conf"),
        SERVERS,
        Scope::Hand,
        "the last drop-in wins",
        "Drop-ins are read in the order of their names (systemd.unit(5)). One that sets less than required takes \
         it back. Change: remove the line there.",
    ),
];

/// The condition of that id.
pub fn entry_of(id: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart_and_every_condition_counts_somewhere() {
        for (index, entry) in ENTRIES.iter().enumerate() {
            assert!(!ENTRIES[..index].iter().any(|other| other.id == entry.id), "{}", entry.id);
            assert!(!entry.profiles.is_empty() && entry.explanation.len() > 40, "{}", entry.id);
            assert!(!entry.explanation.contains("  "), "{}: two spaces", entry.id);
        }
    }
}
