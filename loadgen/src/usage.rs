//! CPU time of the generator's threads and of the server while something is measured.

use crate::fleet::Board;
use crate::server_probe::Process;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The processes that make the load: this one, and those of a fleet, of which [`Board`] has what they said last.
#[derive(Clone, Debug, Default)]
pub struct Generator {
    /// The others.
    pub fleet: Option<Arc<Board>>,
}

impl Generator {
    /// Memory and CPU time of all.
    pub fn read(&self) -> Option<Process> {
        self.add(Process::read(std::process::id())?)
    }

    /// As [`Self::read`], cheap enough for each second.
    pub fn glance(&self) -> Option<Process> {
        self.add(Process::glance(std::process::id())?)
    }

    fn add(&self, own: Process) -> Option<Process> {
        let fleet = self.fleet.iter().flat_map(|board| board.processes());
        Some(fleet.fold(own, |sum, one| Process {
            rss_bytes: sum.rss_bytes + one.rss_bytes,
            cpu: sum.cpu + one.cpu,
        }))
    }

    /// CPU time of each thread, by process and thread.
    fn threads(&self) -> BTreeMap<(usize, u32), Duration> {
        match &self.fleet {
            Some(board) => board.threads().collect(),
            None => own_threads(),
        }
    }
}

/// The CPU time of one thread, asked for by itself: the first number of `schedstat`, nanoseconds.
#[derive(Debug)]
pub struct ThreadClock(Option<File>);

impl ThreadClock {
    /// Of the calling thread.
    pub fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// What it has used; nothing where the kernel does not say.
    pub fn used(&self) -> Duration {
        let mut bytes = [0; 64];
        let length = self.0.as_ref().and_then(|file| file.read_at(&mut bytes, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&bytes[..length]).unwrap_or_default();
        Duration::from_nanos(first_number(text).unwrap_or(0))
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Sums CPU time over one or several measured stretches.
#[derive(Debug)]
pub struct Meter {
    server: Option<u32>,
    generator: Generator,
    began: Option<Reading>,
    used: Usage,
    /// By process and thread.
    threads: BTreeMap<(usize, u32), Duration>,
}

/// CPU time over the measured stretches.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// Measured stretches.
    pub stretches: u32,
    /// Wall time.
    pub wall: Duration,
    /// All threads of the generator.
    pub generator: Duration,
    /// All threads of the server, if it is watched and there.
    pub server: Option<Duration>,
    /// Busy share of the busiest generator thread, 0 to 1.
    pub busiest: f64,
    /// Resident memory of the server after the first tenth of the first stretch, and at the end of the last one.
    pub rss_first_bytes: Option<u64>,
    /// See there.
    pub rss_last_bytes: Option<u64>,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    generator: Option<Duration>,
    server: Option<Duration>,
    threads: BTreeMap<(usize, u32), Duration>,
}

impl Reading {
    fn now(server: Option<u32>, generator: &Generator) -> Self {
        Self {
            at: Instant::now(),
            generator: generator.read().map(|process| process.cpu),
            server: server.and_then(Process::read).map(|process| process.cpu),
            threads: generator.threads(),
        }
    }
}

impl Meter {
    /// Watches the generator, and the server if it is named.
    pub fn new(server: Option<u32>, generator: Generator) -> Self {
        let (used, threads) = (Usage::default(), BTreeMap::new());
        Self { server, generator, began: None, used, threads }
    }

    /// A measured stretch begins.
    pub fn start(&mut self) {
        self.began = Some(Reading::now(self.server, &self.generator));
    }

    /// The first tenth of a stretch is over.
    pub fn first_tenth(&mut self) {
        if self.used.rss_first_bytes.is_none() {
            self.used.rss_first_bytes = self.server_rss_bytes();
        }
    }

    fn server_rss_bytes(&self) -> Option<u64> {
        self.server.and_then(Process::read).map(|process| process.rss_bytes)
    }

    /// It ends; without a beginning nothing happens.
    pub fn stop(&mut self) {
        let Some(began) = self.began.take() else { return };
        let now = Reading::now(self.server, &self.generator);
        let since = |new: Option<Duration>, old: Option<Duration>| {
            Some(new?.saturating_sub(old.unwrap_or_default()))
        };
        self.used.stretches += 1;
        self.used.wall += now.at - began.at;
        self.used.generator += since(now.generator, began.generator).unwrap_or_default();
        let server = since(now.server, began.server);
        self.used.server = server.map(|time| time + self.used.server.unwrap_or_default());
        for (thread, time) in now.threads {
            let old = began.threads.get(&thread).copied().unwrap_or_default();
            *self.threads.entry(thread).or_default() += time.saturating_sub(old);
        }
        self.used.rss_last_bytes = self.server_rss_bytes();
        self.used.busiest = self.share(self.threads.values().max());
    }

    /// Busy share of the busiest thread of this process of the generator, 0 to 1.
    pub fn busiest(&self, process: usize) -> f64 {
        let its = self.threads.range((process, 0)..=(process, u32::MAX));
        self.share(its.map(|(_, time)| time).max())
    }

    fn share(&self, time: Option<&Duration>) -> f64 {
        let wall_s = self.used.wall.as_secs_f64().max(1e-9);
        time.map_or(0.0, |time| time.as_secs_f64() / wall_s)
    }

    /// The sums so far.
    pub fn usage(&self) -> Usage {
        self.used
    }
}

/// CPU time of each thread of this process, by thread id.
fn own_threads() -> BTreeMap<(usize, u32), Duration> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some(((0, id), Duration::from_nanos(first_number(&stat)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen_as_busy_and_stretches_add_up() {
        let mut meter = Meter::new(Some(std::process::id()), Generator::default());
        meter.stop();
        assert_eq!(meter.usage(), Usage::default());
        for _ in 0..2 {
            meter.start();
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(60) {
                std::hint::spin_loop();
            }
            meter.stop();
        }
        let usage = meter.usage();
        assert!(usage.wall >= Duration::from_millis(120));
        assert!(usage.busiest > 0.0 && usage.server.is_some(), "{usage:?}");
        assert_eq!((meter.busiest(0), meter.busiest(1)), (usage.busiest, 0.0));
    }

    #[test]
    fn a_thread_knows_what_it_used() {
        let clock = ThreadClock::of_this_thread();
        let before = clock.used();
        let began = Instant::now();
        while clock.used() <= before {
            assert!(began.elapsed() < Duration::from_secs(60), "it works, so time passes");
        }
    }
}
