//! What a run found: for programs as JSON, for people as a table, for scripts as an exit code.

mod sections;

pub use sections::{Drift, Hold, PhaseReport, Presence, Returns, Stall, Storm, WorkerReport};

use crate::floor::FloorReport;
use crate::net::Handshakes;
use crate::objective::Checked;
use crate::protocol::Protocol;
use crate::run::Outcome;
use crate::series::Series;
use crate::server_probe::KernelGrowth;
use crate::stats::{Percentiles, Spectrum};
use crate::usage::Usage;
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Exit code of a valid run that lost, repeated or damaged something.
pub const EXIT_MISSED: u8 = 99;
/// Exit code of a run that says nothing, or that could not start.
pub const EXIT_INVALID: u8 = 2;

/// The result of a run. Totals are of the whole run; rates and latencies of its steady phase.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `idle`, `latency`, ...
    pub scenario: &'static str,
    /// What was spoken.
    pub protocol: Spoken,
    /// What an answer to a message promises.
    pub guarantee: &'static str,
    /// Whether the figures mean what they say.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// What `--slo` asked for, beside what was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<Checked>,
    /// As asked for by `--connections`.
    pub connections: u32,
    /// Connections that were made, receivers too.
    pub connections_open: u32,
    /// Messages sent.
    pub sent: u64,
    /// Messages accepted; 0 where the protocol has no answers.
    pub accepted: u64,
    /// Messages delivered, each counted once.
    pub delivered: u64,
    /// Messages accepted, or sent where the protocol has no answers, and not delivered.
    pub lost: u64,
    /// Messages delivered again.
    pub duplicates: u64,
    /// Messages delivered after a later one of the same sender.
    pub reordered: u64,
    /// Messages that were damaged.
    pub corrupted: u64,
    /// Messages accepted a second, delivered where the protocol has no answers; logins a second in `idle`.
    pub rate_per_s: f64,
    /// Messages delivered a second.
    pub delivered_per_s: f64,
    /// Intended send to ACCEPTED, microseconds. Without `--rate` a message is intended when it is sent.
    pub latency_us: Option<Percentiles>,
    /// Real send to ACCEPTED, microseconds: raw, not corrected for coordinated omission.
    pub service_latency_us: Option<Percentiles>,
    /// Intended send to delivery, microseconds.
    pub delivered_latency_us: Option<Percentiles>,
    /// Messages due in an open loop that were never sent.
    pub not_sent: u64,
    /// Messages the generator itself started too late.
    pub late_starts: u64,
    /// Refused messages by code.
    pub rejected: BTreeMap<String, u64>,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
    /// Logging in.
    pub login: Rate,
    /// Handshakes, with `--tls` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshakes: Option<Handshakes>,
    /// Connections that send and receive, `composite` only: the others are idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_active: Option<u32>,
    /// The time in which all connections were silent, `composite` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Recipients of a SEND, `fanout` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_per_send: Option<u32>,
    /// Connections that were cut or ended and came back, where they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returns: Option<Returns>,
    /// Each time that all connections were cut, `storm` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub storms: Vec<Storm>,
    /// The phases of a scenario file, `run` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseReport>,
    /// The time in which some did not read, `slow` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// As `delivered_latency_us`, to those who did not read, `slow` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_stalled_latency_us: Option<Percentiles>,
    /// What watchers were told, `presence` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// The last tenth of the steady phase beside the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Draining full inboxes, `offline` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Rate>,
    /// The floor, `latency` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_us: Option<FloorReport>,
    /// `latency_us.p50 / floor_us.sum_p50`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p50: Option<f64>,
    /// The server, with `--pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// The load generator.
    pub generator: Generator,
    /// Its processes, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerReport>,
    /// Where and how.
    pub environment: Environment,
    /// The run second by second.
    pub series: Series,
    /// The latencies at all percentiles.
    #[serde(skip)]
    pub spectra: Spectra,
}

/// What the three latencies of a report are the percentiles of.
#[derive(Clone, Debug, Default)]
pub struct Spectra {
    pub accepted: Spectrum,
    pub service: Spectrum,
    pub delivered: Spectrum,
}

/// The protocol of a run as JSON has it: its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spoken(pub Protocol);

impl Serialize for Spoken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

/// How many in what time.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Rate {
    pub count: u64,
    pub seconds: f64,
    pub per_s: f64,
}

impl Rate {
    /// `count` in `time`.
    pub fn new(count: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            count,
            seconds: round(seconds, 3),
            per_s: round(count as f64 / seconds.max(1e-9), 1),
        }
    }
}

/// What was seen of the server's process.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Growth of resident memory since before the first connection, by connection.
    pub rss_bytes_per_connection: f64,
    /// CPU time of the whole run.
    pub cpu_seconds: f64,
    /// CPU time of the steady phase.
    pub cpu_seconds_steady: f64,
    /// The server's part of the kernel's memory, by connection; only where both ends are on this machine.
    pub kernel_bytes_per_connection: Option<f64>,
    /// Resident before the first connection.
    pub rss_before_bytes: u64,
    /// Resident with all connections.
    pub rss_bytes: u64,
    /// How the kernel's memory grew.
    pub kernel: Option<KernelGrowth>,
}

/// What the generator itself used.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Generator {
    /// Processes, those that send.
    pub processes: u32,
    /// Threads of all of them.
    pub threads: u32,
    /// CPU time of the whole run.
    pub cpu_seconds: f64,
    /// CPU time of the steady phase.
    pub cpu_seconds_steady: f64,
    /// Busy share of the busiest thread in the steady phase, 0 to 1.
    pub busiest_thread: f64,
    /// Growth of its resident memory, by connection; not for fewer than 1,000, where other growth would drown it.
    pub rss_bytes_per_connection: Option<f64>,
    /// CPU time per message of `rate_per_s`, nanoseconds.
    pub cpu_ns_per_message: Option<f64>,
}

/// Where and how a run was made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Environment {
    pub version: &'static str,
    pub date: String,
    pub kernel: String,
    pub cores: usize,
    pub cpu: String,
    pub command: String,
    pub target: String,
    /// Of MQTT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    pub payload_bytes: usize,
    pub rate: u64,
    pub window: u32,
    pub burst: u32,
    pub duration_seconds: f64,
    pub warmup_seconds: f64,
}

impl Environment {
    /// Fills in what the machine knows.
    pub fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            date: utc(since_epoch.as_secs()),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: model.unwrap_or_default().trim_start_matches([':', '\t', ' ']).to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            ..Self::default()
        }
    }
}

impl Report {
    /// Takes over what the threads found.
    pub fn fill(&mut self, outcome: Outcome, usage: Usage) {
        let Outcome { mut measured, verdicts, counts, lost, series, workers, handshakes } = outcome;
        self.tls_handshakes = (handshakes != Handshakes::default()).then_some(handshakes);
        let wall = usage.wall.as_secs_f64().max(1e-9);
        (self.sent, self.accepted, self.lost) = (counts.sent, counts.accepted, lost);
        (self.delivered, self.duplicates) = (verdicts.delivered, verdicts.duplicates);
        (self.reordered, self.corrupted) = (verdicts.reordered, verdicts.corrupted);
        let through = measured.through_steady(self.protocol.0);
        self.rate_per_s = round(through as f64 / wall, 1);
        self.delivered_per_s = round(measured.delivered_steady as f64 / wall, 1);
        self.latency_us = measured.accepted.percentiles();
        self.service_latency_us = measured.service.percentiles();
        self.delivered_latency_us = measured.delivered.percentiles();
        (self.series, self.workers) = (series, workers);
        self.spectra = Spectra {
            accepted: measured.accepted.spectrum(),
            service: measured.service.spectrum(),
            delivered: measured.delivered.spectrum(),
        };
        self.delivered_stalled_latency_us = measured.delivered_stalled.percentiles();
        self.returns = Returns::new(&counts, &verdicts);
        self.presence = Presence::new(&counts, &measured, wall);
        if usage.stretches == 1
            && let (Some(first), Some(last)) =
                (measured.first_tenth.percentiles(), measured.last_tenth.percentiles())
        {
            self.drift = Some(Drift::new(first, last, usage));
        }
        (self.not_sent, self.late_starts) = (measured.not_sent, measured.late_starts);
        let code_name = |code: u16| self.protocol.0.code_name(code).into_owned();
        self.rejected = measured.rejected.iter().map(|(code, n)| (code_name(*code), *n)).collect();
        self.errors = measured.errors;
        self.generator.cpu_seconds_steady = round(usage.generator.as_secs_f64(), 3);
        self.generator.busiest_thread = round(usage.busiest, 3);
        self.generator.cpu_ns_per_message =
            (through > 0).then(|| round(usage.generator.as_nanos() as f64 / through as f64, 1));
        if counts.failed + counts.ended > 0 {
            let failed = grouped(counts.failed + counts.ended);
            self.invalid(format!("{failed} connections failed or ended during the run"));
        }
        if counts.unanswered() > 0 && counts.ended == 0 {
            let unanswered = grouped(counts.unanswered());
            self.invalid(format!("{unanswered} messages got no answer within --drain-wait"));
        }
        if self.errors.contains_key("answer_to_nothing") {
            self.invalid("the server answered messages that waited for no answer".to_owned());
        }
    }

    /// Marks the run as saying nothing.
    pub fn invalid(&mut self, reason: String) {
        self.invalid_reasons.push(reason);
    }

    /// Whether nothing was lost, repeated or damaged.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.corrupted + self.reordered == 0
    }

    /// 0, [`EXIT_MISSED`] or [`EXIT_INVALID`].
    pub fn exit_code(&self) -> u8 {
        match (self.valid, self.is_clean() && self.is_met()) {
            (false, _) => EXIT_INVALID,
            (true, false) => EXIT_MISSED,
            (true, true) => 0,
        }
    }

    /// Whether each objective was reached.
    pub fn is_met(&self) -> bool {
        self.objectives.iter().all(|objective| objective.met)
    }

    /// The latencies of what was accepted, or delivered where nothing is.
    pub fn spectrum(&self) -> &Spectrum {
        match self.protocol.0.answers() {
            true => &self.spectra.accepted,
            false => &self.spectra.delivered,
        }
    }

    /// Writes the JSON file.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("cannot make JSON")?;
        text.push('\n');
        std::fs::write(path, text)
            .with_context(|| format!("cannot write --json {}", path.display()))
    }

    /// The table for people.
    pub fn table(&self) -> String {
        self.rows().iter().fold(format!("{}\n", self.scenario), |mut table, (name, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(table, "  {name:<12} {value}");
            table
        })
    }

    /// What the table has: names and values.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        let rate = |rate: &Rate| {
            format!(
                "{} in {} s = {}/s",
                grouped(rate.count),
                rate.seconds,
                grouped(rate.per_s as u64)
            )
        };
        let active = self
            .connections_active
            .map_or(String::new(), |active| format!(", {} active", grouped(active.into())));
        let open = grouped(self.connections_open.into());
        row("connections", format!("{open} open{active}; logins {}", rate(&self.login)));
        if let Some(hold) = &self.hold {
            row("hold", hold.line());
        }
        self.phases.iter().for_each(|phase| row("phase", phase.line()));
        self.storms.iter().for_each(|storm| row("storm", storm.line()));
        if self.sent > 0 {
            row("answers", self.guarantee.to_owned());
            self.message_rows(&mut row);
        }
        if let Some(presence) = &self.presence {
            row("presence", presence.line());
            let told = self.delivered_latency_us.as_ref();
            told.into_iter().for_each(|told| row("told us", told.line()));
        }
        if let Some(returns) = &self.returns {
            row("came back", returns.line());
        }
        if let Some(stall) = &self.stall {
            row("stall", stall.line());
        }
        if let Some(late) = &self.delivered_stalled_latency_us {
            row("stalled us", late.line());
        }
        if let Some(drift) = &self.drift {
            row("drift", drift.line());
        }
        if let Some(drain) = &self.drain {
            row("drain", rate(drain));
        }
        if let (Some(floor), Some(ratio)) = (&self.floor_us, self.ratio_p50) {
            row(
                "floor p50",
                format!(
                    "echo {} us + sync {} us = {} us; latency is {ratio} x",
                    floor.echo_p50, floor.sync_p50, floor.sum_p50
                ),
            );
        }
        if let Some(server) = &self.server {
            let kernel =
                server.kernel_bytes_per_connection.map_or("?".to_owned(), |b| b.to_string());
            row(
                "server",
                format!(
                    "{} B rss and {kernel} B kernel a connection; CPU {} s, steady {} s",
                    server.rss_bytes_per_connection, server.cpu_seconds, server.cpu_seconds_steady
                ),
            );
        }
        let own = &self.generator;
        let each =
            own.cpu_ns_per_message.map_or(String::new(), |ns| format!(", {ns} ns a message"));
        row(
            "generator",
            format!(
                "CPU {} s, steady {} s{each}; busiest thread {:.0} %",
                own.cpu_seconds,
                own.cpu_seconds_steady,
                own.busiest_thread * 100.0
            ),
        );
        self.workers.iter().for_each(|worker| row("", worker.line()));
        if let Some(Handshakes { full, resumed }) = self.tls_handshakes {
            row("tls", format!("{} full handshakes, {} resumed", grouped(full), grouped(resumed)));
        }
        self.rejected
            .iter()
            .for_each(|(code, n)| row("refused", format!("{} {code}", grouped(*n))));
        self.errors
            .iter()
            .for_each(|(reason, n)| row("failed", format!("{} {reason}", grouped(*n))));
        self.objectives.iter().for_each(|objective| row("objective", objective.line()));
        let verdict = match (self.valid, self.is_clean()) {
            (true, true) => "valid; nothing lost, repeated, reordered or damaged",
            (true, false) => "valid; messages were lost, repeated, reordered or damaged",
            (false, _) => "INVALID",
        };
        row("verdict", verdict.to_owned());
        self.invalid_reasons.iter().for_each(|reason| row("", reason.clone()));
        rows
    }

    fn message_rows(&self, row: &mut impl FnMut(&str, String)) {
        row(
            "messages",
            format!(
                "sent {}  accepted {}  delivered {}",
                grouped(self.sent),
                grouped(self.accepted),
                grouped(self.delivered)
            ),
        );
        row(
            "content",
            format!(
                "lost {}  repeated {}  reordered {}  damaged {}",
                self.lost, self.duplicates, self.reordered, self.corrupted
            ),
        );
        row(
            "rate",
            format!(
                "accepted {}/s  delivered {}/s",
                grouped(self.rate_per_s as u64),
                grouped(self.delivered_per_s as u64)
            ),
        );
        if self.environment.rate > 0 {
            row(
                "open loop",
                format!("not sent {}  late starts {}", self.not_sent, self.late_starts),
            );
        }
        let latencies = [
            ("accepted us", &self.latency_us),
            ("service us", &self.service_latency_us),
            ("delivered us", &self.delivered_latency_us),
        ];
        for (name, found) in latencies {
            let open_loop = self.environment.rate > 0;
            if let Some(p) = found.as_ref().filter(|_| open_loop || name != "service us") {
                row(name, p.line());
            }
        }
    }
}

/// Rounds to so many decimal places.
pub fn round(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// ISO 8601 of Unix seconds, UTC. The calendar is Howard Hinnant's `civil_from_days`.
fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests;
