//! What the kernel says of this process and of the machine's sockets, read from /proc (proc(5)) when asked.

use std::fs;

/// Bytes of a page. x86-64 and the usual AArch64 kernels have 4 KiB; where it is not, /proc counts in KiB are used.
const PAGE_BYTES: u64 = 4096;

/// A look at this process. A field is 0 when /proc does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// CPU time, user and system, milliseconds.
    pub cpu_ms: u64,
    /// Entries of /proc/self/fd. Direct descriptors of a ring are not among them.
    pub open_fds: u64,
    /// Soft limit of open files.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Memory of TCP buffers of the whole network namespace, bytes.
    pub tcp_memory_bytes: u64,
    /// TCP sockets of the whole network namespace.
    pub tcp_sockets: u64,
}

impl Process {
    /// Looks now. Costs some tens of microseconds and a walk of /proc/self/fd.
    pub fn now() -> Self {
        let status = read("/proc/self/status");
        let sockstat = read("/proc/net/sockstat");
        Self {
            resident_bytes: resident_bytes(&status),
            cpu_ms: cpu_ms(&read("/proc/self/stat")),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_fds: crate::preflight::limits::nofile().soft,
            threads: field(&status, "Threads:"),
            tcp_memory_bytes: sockstat_field(&sockstat, "mem") * PAGE_BYTES,
            tcp_sockets: sockstat_field(&sockstat, "alloc"),
        }
    }
}

/// Resident memory of this process, bytes.
pub fn resident_bytes_now() -> u64 {
    resident_bytes(&read("/proc/self/status"))
}

fn resident_bytes(status: &str) -> u64 {
    field(status, "VmRSS:") * 1024
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The number after a word in the line `TCP:` of /proc/net/sockstat.
fn sockstat_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let mut words = line.split_whitespace();
    words.find(|word| *word == name).and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

/// utime and stime of /proc/self/stat, fields 14 and 15, in ticks of 1/100 s (USER_HZ). The name in field 2 may hold
/// spaces and parentheses, so counting starts after the last one.
fn cpu_ms(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    let ticks = rest.split_whitespace().skip(11).take(2).map(|word| word.parse().unwrap_or(0));
    ticks.sum::<u64>() * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let process = Process::now();
        assert!(process.resident_bytes > 100_000, "{process:?}");
        assert!(process.threads >= 1 && process.open_fds >= 3, "{process:?}");
        assert!(process.max_fds >= process.open_fds, "{process:?}");
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c)) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ms(stat), 420);
        assert_eq!(cpu_ms(""), 0);
    }

    #[test]
    fn sockstat_fields_are_found_by_name() {
        let text =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 8 mem 3\nUDP: inuse 1 mem 7\n";
        assert_eq!((sockstat_field(text, "alloc"), sockstat_field(text, "mem")), (8, 3));
        assert_eq!(sockstat_field("", "mem"), 0);
    }
}
