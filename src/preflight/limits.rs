//! Resource limits of this process, from /proc/self/limits (proc(5)).

/// A soft and a hard limit; `u64::MAX` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What applies.
    pub soft: u64,
    /// What the process may raise `soft` to.
    pub hard: u64,
}

/// Open files (RLIMIT_NOFILE), a count.
pub fn nofile() -> Limit {
    find(&read(), "Max open files")
}

/// Locked memory (RLIMIT_MEMLOCK), bytes.
pub fn memlock() -> Limit {
    find(&read(), "Max locked memory")
}

fn read() -> String {
    std::fs::read_to_string("/proc/self/limits").unwrap_or_default()
}

/// The limits in the line that starts with `name`. Without such a line nothing is known to be limited.
fn find(limits: &str, name: &str) -> Limit {
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let mut words = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    let mut next = || words.next().unwrap_or(u64::MAX);
    Limit { soft: next(), hard: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         8388608              unlimited            bytes
";

    #[test]
    fn limits_are_read_by_name_and_unlimited_is_the_largest_number() {
        assert_eq!(find(SAMPLE, "Max open files"), Limit { soft: 1024, hard: 524_288 });
        assert_eq!(find(SAMPLE, "Max locked memory"), Limit { soft: 8_388_608, hard: u64::MAX });
        assert_eq!(find("", "Max open files"), Limit { soft: u64::MAX, hard: u64::MAX });
        assert!(nofile().soft <= nofile().hard && nofile().soft >= 3);
    }
}
