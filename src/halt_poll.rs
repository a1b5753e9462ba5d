//! Keeps a CPU from halting while its data threads sleep only for moments.
//!
//! To wake a thread on a halted CPU takes an interrupt between CPUs and, on a virtual machine, two exits to the host: 20 us
//! where a message waits for a sync of 75 us. So beside the data threads of each CPU stands one that does nothing, under
//! `SCHED_IDLE` (`sched(7)`): it runs when nobody else wants the CPU, loses it at once to whoever does, and looks at the
//! clock until its CPU was quiet for the limit; then it sleeps. It is what guest halt polling of the kernel does
//! (`Documentation/virt/guest-halt-polling.rst`), for hosts where that is off. `docs/decisions/0010-halt-polling.md` has
//! the figures.
//!
//! It adapts as that does: only a CPU whose data threads were last woken within the limit is kept awake, so a quiet node
//! costs nothing.

use crate::rt::Waker;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looks at the clock once per so many pauses of the CPU.
const PAUSES: u32 = 16;
/// How long the thread sleeps at most: it has no work of its own.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// The keeper of one CPU. It lives as long as the process.
#[derive(Debug)]
pub struct HaltPoll {
    limit_ns: u64,
    epoch: Instant,
    /// When a data thread of this CPU went to sleep last, since `epoch`.
    quiet_since_ns: AtomicU64,
    /// Whether a data thread of this CPU was last woken within the limit.
    short: AtomicBool,
    waker: Waker,
}

impl HaltPoll {
    /// Starts the thread that keeps `cpu` awake for `limit` at most.
    pub fn start(cpu: usize, limit: Duration) -> io::Result<Arc<Self>> {
        let poll = Arc::new(Self {
            limit_ns: limit.as_nanos() as u64,
            epoch: Instant::now(),
            quiet_since_ns: AtomicU64::new(0),
            short: AtomicBool::new(false),
            waker: Waker::of_parking(),
        });
        let of_thread = Arc::clone(&poll);
        std::thread::Builder::new().name(format!("iris-halt{cpu}")).spawn(move || {
            if core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
                && crate::rt::become_idle_class()
            {
                of_thread.keep_awake();
            }
        })?;
        Ok(poll)
    }

    /// Runs a data thread's `sleep`, and keeps its CPU awake meanwhile if the last one was short.
    pub fn around<T>(&self, sleep: impl FnOnce() -> T) -> T {
        let begun = self.now_ns();
        self.quiet_since_ns.store(begun, Ordering::Relaxed);
        if self.short.load(Ordering::Relaxed) {
            self.waker.wake();
        }
        let slept = sleep();
        let short = self.now_ns() - begun < self.limit_ns;
        if self.short.load(Ordering::Relaxed) != short {
            self.short.store(short, Ordering::Relaxed);
        }
        slept
    }

    fn keep_awake(&self) -> ! {
        loop {
            if self.is_quiet() {
                self.waker.park(SLEEP_MAX, || self.is_quiet());
            }
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
    }

    fn is_quiet(&self) -> bool {
        let since = self.quiet_since_ns.load(Ordering::Relaxed);
        self.now_ns().saturating_sub(since) >= self.limit_ns
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// The CPU quota of this process as its control group has it ("50000 100000": us of us), if there is one: its own or one of
/// a group above (`Documentation/admin-guide/cgroup-v2.rst`, `cpu.max`). `root` is where `proc` and `sys` are.
pub fn cpu_quota(root: &Path) -> Option<String> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounted = root.join("sys/fs/cgroup");
    let group = mounted.join(group);
    group.ancestors().take_while(|group| group.starts_with(&mounted)).find_map(|group| {
        let max = std::fs::read_to_string(group.join("cpu.max")).ok()?;
        let max = max.trim();
        (!max.is_empty() && !max.starts_with("max")).then(|| max.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_sleep_wakes_the_keeper_and_a_long_one_lets_it_sleep() {
        let poll = HaltPoll {
            limit_ns: 1_000_000_000,
            epoch: Instant::now(),
            quiet_since_ns: AtomicU64::new(0),
            short: AtomicBool::new(false),
            waker: Waker::of_parking(),
        };
        assert!(!poll.is_quiet(), "it has just begun");
        assert_eq!(poll.around(|| 7), 7);
        assert!(poll.short.load(Ordering::Relaxed));
        let poll = HaltPoll { limit_ns: 0, ..poll };
        poll.around(|| ());
        assert!(!poll.short.load(Ordering::Relaxed));
        assert!(poll.is_quiet());
    }

    #[test]
    fn a_quota_of_the_group_or_of_one_above_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(cpu_quota(root.path()), None);
        at("proc/self/cgroup", "0::/a.slice/iris.service\n");
        assert_eq!(cpu_quota(root.path()), None);
        at("sys/fs/cgroup/a.slice/iris.service/cpu.max", "max 100000\n");
        assert_eq!(cpu_quota(root.path()), None);
        at("sys/fs/cgroup/a.slice/cpu.max", "50000 100000\n");
        assert_eq!(cpu_quota(root.path()).as_deref(), Some("50000 100000"));
    }
}
