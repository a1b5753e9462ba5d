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
//! costs nothing. Nor is a CPU kept awake that is busy anyway: it halts rarely, and a scheduler that never sees it idle
//! moves threads that are not pinned there too late.

use crate::cgroup;
use crate::rt::Waker;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looks at the clock once per so many pauses of the CPU.
const PAUSES: u32 = 16;
/// Between two looks at the clock so long, somebody else had the CPU. Nanoseconds.
const GAP_NS: u64 = 10_000;
/// Time over which it is told how much of the CPU others had, and how much is too much for keeping it awake.
const WINDOW_NS: u64 = 20_000_000;
const BUSY_PERCENT_MAX: u64 = 75;
/// How long a busy CPU is left alone.
const REST_NS: u64 = 500_000_000;
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
    /// Until when the CPU is too busy to be kept awake, since `epoch`.
    rests_until_ns: AtomicU64,
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
            rests_until_ns: AtomicU64::new(0),
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
        if self.short.load(Ordering::Relaxed)
            && begun >= self.rests_until_ns.load(Ordering::Relaxed)
        {
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
        let mut load = Load::since(self.now_ns());
        loop {
            let now = self.now_ns();
            if load.is_too_high(now) {
                self.rests_until_ns.store(now + REST_NS, Ordering::Relaxed);
            }
            if self.is_over(now) {
                self.waker.park(SLEEP_MAX, || self.is_over(self.now_ns()));
                load = Load::since(self.now_ns());
            }
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
    }

    /// Whether the CPU may halt: it was quiet for the limit, or is too busy.
    fn is_over(&self, now: u64) -> bool {
        let since = self.quiet_since_ns.load(Ordering::Relaxed);
        now.saturating_sub(since) >= self.limit_ns
            || now < self.rests_until_ns.load(Ordering::Relaxed)
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// How much of the CPU others had while it was kept awake.
struct Load {
    window_start: u64,
    looked: u64,
    busy: u64,
}

impl Load {
    fn since(now: u64) -> Self {
        Self { window_start: now, looked: now, busy: 0 }
    }

    /// Looks at the clock; tells, once a window, whether others had too much.
    fn is_too_high(&mut self, now: u64) -> bool {
        let gap = now - self.looked;
        self.looked = now;
        if gap >= GAP_NS {
            self.busy += gap;
        }
        if now - self.window_start < WINDOW_NS {
            return false;
        }
        // The window may have ended with a long gap: its share counts, not its length.
        let too_high = self.busy * 100 > BUSY_PERCENT_MAX * (now - self.window_start);
        *self = Self::since(now);
        too_high
    }
}

/// The CPU quota of this process as its control group has it ("50000 100000": us of us), if there is one: its own or one of
/// a group above (`Documentation/admin-guide/cgroup-v2.rst`, `cpu.max`). `root` is where `proc` and `sys` are.
pub fn cpu_quota(root: &Path) -> Option<String> {
    let groups = cgroup::groups(root).into_iter();
    let mut quotas = groups.filter_map(|group| cgroup::read(&group, "cpu.max"));
    quotas.find(|max| !max.is_empty() && !max.starts_with("max"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(limit_ns: u64) -> HaltPoll {
        HaltPoll {
            limit_ns,
            epoch: Instant::now(),
            quiet_since_ns: AtomicU64::new(0),
            short: AtomicBool::new(false),
            rests_until_ns: AtomicU64::new(0),
            waker: Waker::of_parking(),
        }
    }

    #[test]
    fn a_short_sleep_asks_for_the_next_one_to_be_kept_and_a_long_one_does_not() {
        let hour = poll(3_600_000_000_000);
        assert_eq!(hour.around(|| 7), 7);
        assert!(hour.short.load(Ordering::Relaxed));
        let none = poll(0);
        none.around(|| ());
        assert!(!none.short.load(Ordering::Relaxed));
    }

    #[test]
    fn a_cpu_may_halt_once_it_was_quiet_for_the_limit_or_is_too_busy() {
        let poll = poll(100);
        poll.quiet_since_ns.store(1000, Ordering::Relaxed);
        assert!(!poll.is_over(1099));
        assert!(poll.is_over(1100));
        poll.rests_until_ns.store(1060, Ordering::Relaxed);
        assert!(poll.is_over(1059));
        assert!(!poll.is_over(1060));
    }

    #[test]
    fn a_window_that_others_had_four_fifths_of_is_too_much_and_half_is_not() {
        for (others, too_high) in [(0, false), (50, false), (74, false), (80, true), (99, true)] {
            let mut load = Load::since(0);
            let mut now = 0;
            let mut told = Vec::new();
            // A hundredth of a window at a time: one gap, or many looks at the clock.
            for part in 0..100 {
                let end = (part + 1) * WINDOW_NS / 100;
                while part >= others && now + GAP_NS / 2 < end {
                    now += GAP_NS / 2;
                    told.push(load.is_too_high(now));
                }
                now = end;
                told.push(load.is_too_high(now));
            }
            assert_eq!(told.pop(), Some(too_high), "{others} %");
            assert!(!told.contains(&true));
        }
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
