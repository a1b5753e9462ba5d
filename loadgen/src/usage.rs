//! CPU time of the generator's threads and of the server while something is measured.

use crate::server_probe::Process;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Sums CPU time over one or several measured stretches.
#[derive(Debug)]
pub struct Meter {
    server: Option<u32>,
    began: Option<Reading>,
    used: Usage,
    threads: BTreeMap<u32, Duration>,
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
    threads: BTreeMap<u32, Duration>,
}

impl Reading {
    fn now(server: Option<u32>) -> Self {
        Self {
            at: Instant::now(),
            generator: Process::read(std::process::id()).map(|process| process.cpu),
            server: server.and_then(Process::read).map(|process| process.cpu),
            threads: own_threads(),
        }
    }
}

impl Meter {
    /// Watches this process, and the server if it is named.
    pub fn new(server: Option<u32>) -> Self {
        Self { server, began: None, used: Usage::default(), threads: BTreeMap::new() }
    }

    /// A measured stretch begins.
    pub fn start(&mut self) {
        self.began = Some(Reading::now(self.server));
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
        let now = Reading::now(self.server);
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
        let busiest = self.threads.values().max().copied().unwrap_or_default();
        self.used.rss_last_bytes = self.server_rss_bytes();
        self.used.busiest = busiest.as_secs_f64() / self.used.wall.as_secs_f64().max(1e-9);
    }

    /// The sums so far.
    pub fn usage(&self) -> Usage {
        self.used
    }
}

/// CPU time of each thread of this process, by thread id: the first number of `schedstat`, nanoseconds.
fn own_threads() -> BTreeMap<u32, Duration> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ns = stat.split_whitespace().next()?.parse().ok()?;
            Some((id, Duration::from_nanos(ns)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen_as_busy_and_stretches_add_up() {
        let mut meter = Meter::new(Some(std::process::id()));
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
    }
}
