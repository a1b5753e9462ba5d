//! What the kernel says of the server's process and of itself: `proc_pid_status(5)`, `proc_pid_stat(5)`,
//! `proc_meminfo(5)`, `slabinfo(5)`.
//!
//! **Kernel bytes per connection.** Client and server are on one machine, so the growth of the kernel's slabs holds
//! both ends of each connection. The ends are alike (`TCP`, `sock_inode_cache`, `filp`, `dentry`) but for the armed
//! operations (`io_kiocb`): there the generator knows its own, one per connection, and the rest is the server's. So
//! the server's part is (growth - growth of `io_kiocb`) / 2 + server's operations * 256 B. This is rather too much
//! than too little: half of the client's port bookkeeping (about 128 B per connection) is counted as the server's.
//! A server that waits by epoll has an entry for each connection instead, which the generator has not: the kernel says
//! how many (`tfd:` in `/proc/PID/fdinfo`), and they count whole. Their caches have other names by merging.
//! Other growth on the machine counts as well, so nothing is reported for fewer than 1,000 connections, nor when the
//! server is elsewhere.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Ticks a second in `/proc/PID/stat`: USER_HZ, 100 on every architecture that Iris runs on (`times(2)`).
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4096;
/// An entry of epoll with its place in the socket's wait queue: `eventpoll_epi` and `eventpoll_pwq`, 64-bit.
const EPOLL_ENTRY_BYTES: u64 = 128 + 64;

/// Connections below which the growth of the kernel's memory says nothing.
pub const CONNECTIONS_MIN: u32 = 1000;

/// A process's memory and CPU time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Resident bytes.
    pub rss_bytes: u64,
    /// User and system time of all threads, also of ended ones.
    pub cpu: Duration,
}

impl Process {
    /// Reads process `pid`; `None` if it is gone or cannot be read.
    pub fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        let rss_kib = exact
            .and_then(|rollup| kib_field(&rollup, "Rss:"))
            .or_else(|| kib_field(&status, "VmRSS:"))?;
        Some(Self { rss_bytes: rss_kib * 1024, cpu: cpu_time(&stat)? })
    }

    /// As [`Process::read`], cheap enough for each second of a run: the kernel's running count of resident pages may be
    /// off by some pages a thread, where `smaps_rollup` walks all of them.
    pub fn glance(pid: u32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self { rss_bytes: pages * PAGE_BYTES, cpu: cpu_time(&stat)? })
    }
}

/// Descriptors that process `pid` waits for by epoll; 0 where that cannot be read.
pub fn epoll_entries(pid: u32) -> u64 {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let is_epoll = |path: &std::path::Path| {
        fs::read_link(path).is_ok_and(|name| name.as_os_str() == "anon_inode:[eventpoll]")
    };
    let epolls = descriptors.flatten().filter(|descriptor| is_epoll(&descriptor.path()));
    epolls
        .map(|epoll| {
            let info = format!("/proc/{pid}/fdinfo/{}", epoll.file_name().display());
            let info = fs::read_to_string(info).unwrap_or_default();
            info.lines().filter(|line| line.starts_with("tfd:")).count() as u64
        })
        .sum()
}

fn cpu_time(stat: &str) -> Option<Duration> {
    // The command's name may hold anything, also spaces and brackets: fields count from its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let total = ticks()? + ticks()?;
    Some(Duration::from_millis(total * (1000 / TICKS_PER_SECOND)))
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory that can still be used without swapping, bytes.
pub fn memory_available_bytes() -> Option<u64> {
    Some(kib_field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? * 1024)
}

/// One slab cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// Objects in use.
    pub objects: u64,
    /// Bytes of its pages, with slack.
    pub bytes: u64,
}

/// The kernel's slabs and sockets at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slabs {
    /// All slabs, bytes.
    pub total_bytes: u64,
    /// By cache; empty where `/proc/slabinfo` is not readable (only root may).
    pub caches: BTreeMap<String, Cache>,
    /// TCP sockets in use, both ends.
    pub tcp_sockets: u64,
    /// Descriptors that the server waits for by epoll.
    pub epoll_entries: u64,
}

impl Slabs {
    /// Reads them now, and what the server `pid` waits for; zeros where a file cannot be read.
    pub fn read(pid: Option<u32>) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            total_bytes: kib_field(&text("/proc/meminfo"), "Slab:").unwrap_or(0) * 1024,
            caches: text("/proc/slabinfo").lines().filter_map(cache_line).collect(),
            tcp_sockets: sockstat_tcp(&text("/proc/net/sockstat")).unwrap_or(0),
            epoll_entries: pid.map_or(0, epoll_entries),
        }
    }
}

fn cache_line(line: &str) -> Option<(String, Cache)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let (objects, pages_per_slab, slabs) = (number(1)?, number(5)?, number(14)?);
    Some((
        (*fields.first()?).to_owned(),
        Cache { objects, bytes: slabs * pages_per_slab * PAGE_BYTES },
    ))
}

fn sockstat_tcp(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How the kernel's memory grew with the connections.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct KernelGrowth {
    /// The server's part, bytes per connection, as this module's documentation says.
    pub server_bytes_per_connection: f64,
    /// Both ends, bytes per connection.
    pub both_ends_bytes_per_connection: f64,
    /// TCP sockets that came, both ends.
    pub tcp_sockets: u64,
    /// Armed io_uring operations that came: of both ends, and of the generator.
    pub armed_operations: u64,
    /// Of these, the generator's.
    pub own_operations: u64,
    /// Descriptors that the server came to wait for by epoll.
    pub epoll_entries: u64,
    /// The caches that grew by at least 8 bytes a connection, bytes per connection of both ends.
    pub caches: BTreeMap<String, f64>,
    /// How the server's part was found.
    pub method: &'static str,
}

/// The growth between two moments for `connections` connections, each with one operation of the generator armed.
pub fn kernel_growth(before: &Slabs, after: &Slabs, connections: u32) -> KernelGrowth {
    let each = |bytes: u64| bytes as f64 / f64::from(connections.max(1));
    let cache = |slabs: &Slabs, name: &str| slabs.caches.get(name).copied().unwrap_or_default();
    let grown = |name: &str| {
        let (old, new) = (cache(before, name), cache(after, name));
        Cache {
            objects: new.objects.saturating_sub(old.objects),
            bytes: new.bytes.saturating_sub(old.bytes),
        }
    };
    let total = after.total_bytes.saturating_sub(before.total_bytes);
    let armed = grown("io_kiocb");
    let own = u64::from(connections);
    let epoll_entries = after.epoll_entries.saturating_sub(before.epoll_entries);
    let epoll_bytes = epoll_entries * EPOLL_ENTRY_BYTES;
    let (server_bytes, method) = if after.caches.contains_key("io_kiocb") {
        let bytes_per_operation = armed.bytes.checked_div(armed.objects).unwrap_or(0);
        let servers = armed.objects.saturating_sub(own) * bytes_per_operation;
        let alike = total.saturating_sub(armed.bytes + epoll_bytes) / 2;
        let method = "slab growth without io_kiocb and epoll / 2 + io_kiocb and epoll of the server by count";
        (alike + servers + epoll_bytes, method)
    } else {
        let alike = total.saturating_sub(epoll_bytes) / 2;
        let method = "slab growth without epoll / 2 + epoll of the server by count (/proc/slabinfo is not readable: \
                      run as root for more)";
        (alike + epoll_bytes, method)
    };
    let caches = after.caches.keys().map(|name| (name.clone(), each(grown(name).bytes)));
    KernelGrowth {
        server_bytes_per_connection: each(server_bytes).round(),
        both_ends_bytes_per_connection: each(total).round(),
        tcp_sockets: after.tcp_sockets.saturating_sub(before.tcp_sockets),
        armed_operations: armed.objects,
        own_operations: own,
        epoll_entries,
        caches: caches.filter(|(_, bytes)| *bytes >= 8.0).collect(),
        method,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read(std::process::id()).unwrap();
        assert!(process.rss_bytes > 100_000);
        let glance = Process::glance(std::process::id()).unwrap();
        assert!(glance.rss_bytes > 100_000 && glance.cpu >= process.cpu);
        assert!(memory_available_bytes().unwrap() > 0);
        assert!(Slabs::read(None).total_bytes > 0);
        assert!(Slabs::read(Some(std::process::id())).total_bytes > 0);
        assert_eq!(epoll_entries(u32::MAX), 0);
    }

    #[test]
    fn a_process_that_is_gone_is_none() {
        assert_eq!(Process::read(u32::MAX), None);
    }

    #[test]
    fn cpu_time_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 4 0 100 1 2";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(4)));
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }

    #[test]
    fn slabinfo_lines_give_objects_and_bytes_and_headers_nothing() {
        let line = "TCP 26 26 2368 13 8 : tunables 0 0 0 : slabdata 2 2 0";
        let expected = Cache { objects: 26, bytes: 2 * 8 * 4096 };
        assert_eq!(cache_line(line), Some(("TCP".to_owned(), expected)));
        assert_eq!(cache_line("slabinfo - version: 2.1"), None);
        assert_eq!(cache_line("# name <active_objs>"), None);
    }

    #[test]
    fn the_servers_part_is_half_of_what_is_alike_and_its_own_operations() {
        let slabs = |total_bytes, objects, bytes| Slabs {
            total_bytes,
            caches: [("io_kiocb".to_owned(), Cache { objects, bytes })].into(),
            tcp_sockets: 0,
            epoll_entries: 0,
        };
        // 1,000 connections: 7,600 bytes alike on both ends, 1,500 operations of 256 bytes, 1,000 of them ours.
        let before = slabs(1_000_000, 100, 25_600);
        let after = slabs(1_000_000 + 7_600_000 + 384_000, 1_600, 25_600 + 384_000);
        let growth = kernel_growth(&before, &after, 1000);
        assert_eq!(growth.server_bytes_per_connection, 3_800.0 + 128.0);
        assert_eq!(growth.both_ends_bytes_per_connection, 7_984.0);
        assert_eq!((growth.armed_operations, growth.own_operations), (1500, 1000));
    }

    #[test]
    fn what_a_server_waits_for_by_epoll_is_its_own() {
        let slabs = |total_bytes, objects, epoll_entries| Slabs {
            total_bytes,
            caches: [("io_kiocb".to_owned(), Cache { objects, bytes: objects * 256 })].into(),
            tcp_sockets: 0,
            epoll_entries,
        };
        // 1,000 connections: 7,600 bytes alike on both ends, an operation of ours and an entry of the server's each.
        let before = slabs(1_000_000, 100, 5);
        let after = slabs(1_000_000 + 7_600_000 + 256_000 + 192_000, 1_100, 1_005);
        let growth = kernel_growth(&before, &after, 1000);
        assert_eq!(growth.server_bytes_per_connection, 3_800.0 + 192.0);
        assert_eq!(growth.epoll_entries, 1000);
    }
}
