//! Parts of a report that only some scenarios have.

use super::{grouped, round};
use crate::control::Counts;
use crate::fleet::clock;
use crate::payload::Verdicts;
use crate::stats::{Measured, Percentiles};
use crate::usage::Usage;
use serde::Serialize;

/// A time in which nothing was sent but heartbeats.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Hold {
    pub seconds: f64,
    /// CPU time of the server in it, with `--pid`.
    pub server_cpu_seconds: Option<f64>,
    /// CPU time of the generator in it.
    pub generator_cpu_seconds: f64,
}

impl Hold {
    /// As a meter saw it.
    pub fn new(usage: Usage) -> Self {
        Self {
            seconds: round(usage.wall.as_secs_f64(), 1),
            server_cpu_seconds: usage.server.map(|time| round(time.as_secs_f64(), 2)),
            generator_cpu_seconds: round(usage.generator.as_secs_f64(), 2),
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        let cpu = self.server_cpu_seconds.map_or("?".to_owned(), |s| s.to_string());
        format!("{} s without a message; CPU of the server {cpu} s", self.seconds)
    }
}

/// Connections that were cut or ended and came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Returns {
    /// Connections that the generator cut.
    pub cut: u64,
    /// Connections that ended by themselves.
    pub dropped: u64,
    /// Connections that failed before their login, and were tried again.
    pub failed_logins: u64,
    /// Messages sent again, with their ids, because an ended connection left them without an answer.
    pub resent: u64,
    /// Messages that came again, as they may, because their acknowledgement was not known to be read.
    pub redelivered: u64,
}

impl Returns {
    /// `None` where nothing came back.
    pub fn new(counts: &Counts, verdicts: &Verdicts) -> Option<Self> {
        let any = counts.cut + counts.dropped + counts.retried > 0;
        any.then_some(Self {
            cut: counts.cut,
            dropped: counts.dropped,
            failed_logins: counts.retried,
            resent: counts.resent,
            redelivered: verdicts.redelivered,
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        format!(
            "{} cut  {} dropped by the server  {} failed logins; {} messages sent again, {} redelivered",
            grouped(self.cut),
            grouped(self.dropped),
            grouped(self.failed_logins),
            grouped(self.resent),
            grouped(self.redelivered),
        )
    }
}

/// All connections cut at once: how long until so many users were logged in again, seconds from the cut.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Storm {
    /// Users cut.
    pub users: u32,
    /// Until half of them were back.
    pub half_s: Option<f64>,
    /// Until 99 % of them were back.
    pub most_s: Option<f64>,
    /// Until all were back.
    pub all_s: Option<f64>,
    /// Logins a second until all were back.
    pub logins_per_s: f64,
    /// Connections that failed and were tried again.
    pub failed: u64,
}

impl Storm {
    /// For people.
    pub fn line(&self) -> String {
        let seconds = |at: Option<f64>| at.map_or("never".to_owned(), |s| format!("{s} s"));
        format!(
            "{} cut; half back after {}, 99 % {}, all {} = {} logins/s; {} failed and tried again",
            grouped(self.users.into()),
            seconds(self.half_s),
            seconds(self.most_s),
            seconds(self.all_s),
            grouped(self.logins_per_s as u64),
            grouped(self.failed),
        )
    }
}

/// The time in which some receivers did not read.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Stall {
    /// Receivers that did not.
    pub users: u32,
    /// For how long.
    pub seconds: f64,
    /// How the server's resident memory grew in it, with `--pid`.
    pub server_rss_growth_bytes: Option<i64>,
}

impl Stall {
    /// For people.
    pub fn line(&self) -> String {
        let grown = self
            .server_rss_growth_bytes
            .map_or("?".to_owned(), |bytes| round(bytes as f64 / 1e6, 1).to_string());
        let users = grouped(self.users.into());
        format!("{users} receivers for {} s; the server grew by {grown} MB", self.seconds)
    }
}

/// What watchers of presence were told.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Presence {
    /// Changes times those who watched them.
    pub changes: u64,
    /// Of these, told as themselves.
    pub told: u64,
    /// Told a second in the steady phase.
    pub told_per_s: f64,
    /// The others: a later one was told instead, or nothing.
    pub missed: u64,
}

impl Presence {
    /// `None` where nobody watched.
    pub fn new(counts: &Counts, measured: &Measured, wall_s: f64) -> Option<Self> {
        (counts.watches > 0).then(|| Self {
            changes: counts.owed,
            told: measured.told,
            told_per_s: round(measured.told_steady as f64 / wall_s, 1),
            missed: counts.owed.saturating_sub(measured.told),
        })
    }

    /// For people.
    pub fn line(&self) -> String {
        format!(
            "{} changes to be told, {} told = {}/s, {} missed",
            grouped(self.changes),
            grouped(self.told),
            grouped(self.told_per_s as u64),
            grouped(self.missed),
        )
    }
}

/// The last tenth of the steady phase beside the first: what hours do to a server.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Drift {
    /// Latency to ACCEPTED of messages of the first tenth.
    pub first_tenth_us: Percentiles,
    /// And of the last.
    pub last_tenth_us: Percentiles,
    /// Resident memory of the server when the first tenth was over, with `--pid`.
    pub first_tenth_rss_bytes: Option<u64>,
    /// And at the end.
    pub last_tenth_rss_bytes: Option<u64>,
}

impl Drift {
    /// Of these latencies, and of the memory that a meter saw.
    pub fn new(first: Percentiles, last: Percentiles, usage: Usage) -> Self {
        Self {
            first_tenth_us: first,
            last_tenth_us: last,
            first_tenth_rss_bytes: usage.rss_first_bytes,
            last_tenth_rss_bytes: usage.rss_last_bytes,
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        let (first, last) = (&self.first_tenth_us, &self.last_tenth_us);
        let memory = self.first_tenth_rss_bytes.zip(self.last_tenth_rss_bytes);
        let memory = memory.map_or(String::new(), |(first, last)| {
            let mb = |bytes: u64| round(bytes as f64 / 1e6, 1);
            format!("; memory of the server {} to {} MB", mb(first), mb(last))
        });
        let (from, to) = ((first.p50, first.p99), (last.p50, last.p99));
        format!(
            "first to last tenth: p50 {} to {}, p99 {} to {} us{memory}",
            from.0, to.0, from.1, to.1
        )
    }
}

/// A phase of a scenario file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PhaseReport {
    /// What was done.
    pub phase: String,
    /// How long it took, waits for answers and logins at its end included.
    pub seconds: f64,
    /// Users logged in at its end.
    pub online: u64,
    /// Messages sent in it.
    pub sent: u64,
    /// Messages accepted in it.
    pub accepted: u64,
    /// Messages that arrived in it.
    pub arrived: u64,
    /// Connections cut in it.
    pub cut: u64,
}

impl PhaseReport {
    /// What the counts say between two moments.
    pub fn new(phase: String, seconds: f64, before: &Counts, after: &Counts) -> Self {
        Self {
            phase,
            seconds: round(seconds, 3),
            online: after.online,
            sent: after.sent - before.sent,
            accepted: after.accepted - before.accepted,
            arrived: after.arrived - before.arrived,
            cut: after.cut - before.cut,
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        format!(
            "{}: {} s, {} online, sent {}  accepted {}  arrived {}  cut {}",
            self.phase,
            self.seconds,
            grouped(self.online),
            grouped(self.sent),
            grouped(self.accepted),
            grouped(self.arrived),
            grouped(self.cut),
        )
    }
}

/// One process of a fleet.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct WorkerReport {
    /// Which one, and its address or process.
    pub name: String,
    /// The name of its machine.
    pub host: String,
    /// Threads.
    pub threads: u32,
    /// Messages that its users sent.
    pub sent: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// Messages that came to its users, each counted once.
    pub delivered: u64,
    /// Messages that it started too late.
    pub late_starts: u64,
    /// Busy share of its busiest thread in the steady phase, 0 to 1.
    pub busiest_thread: f64,
    /// Its machine's time of day less that of the controller's.
    pub clock_offset_us: f64,
    /// How exactly the run's time is known there, at the beginning.
    pub clock_error_us: f64,
    /// How far its clock went from the controller's by the end.
    pub clock_drift_us: Option<f64>,
    /// Why it was not there any more at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
}

impl WorkerReport {
    /// With a clock as it was measured before and after; nothing else is known yet.
    pub fn new(
        name: String,
        host: String,
        before: clock::Measured,
        after: Option<clock::Measured>,
    ) -> Self {
        let us = |ns: i64| round(ns as f64 / 1000.0, 1);
        Self {
            name,
            host,
            clock_offset_us: us(before.unix_offset_ns),
            clock_error_us: round(before.error_ns as f64 / 1000.0, 1),
            clock_drift_us: after
                .map(|after| us(after.own_offset_ns.wrapping_sub(before.own_offset_ns))),
            ..Self::default()
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        if self.gone.is_some() {
            return format!("{}: gone", self.name);
        }
        let drift = self.clock_drift_us.map_or("?".to_owned(), |us| us.to_string());
        format!(
            "{} on {}: sent {}  delivered {}; busiest thread {:.0} %; clock {:+} us, known to {} us, drifted by {drift} us",
            self.name,
            self.host,
            grouped(self.sent),
            grouped(self.delivered),
            self.busiest_thread * 100.0,
            self.clock_offset_us,
            self.clock_error_us,
        )
    }
}
