//! A run second by second: what was done, how long it took, and what it cost.
//!
//! A [`Row`] is the difference between two looks of the main thread, a second apart unless it was busy itself; `span_s`
//! says how long. Its latencies are a histogram of what all threads recorded in that time. At most [`ROWS_MAX`] rows are
//! kept: then pairs of them become one, and from there on each row has twice as many seconds. Histograms are merged,
//! percentiles never. A file of `--csv` has each second, however long the run.

pub mod intervals;
pub mod recorder;

use crate::stats::Latencies;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Rows that are kept: two hours of seconds, some megabytes.
pub const ROWS_MAX: usize = 7200;

/// What one look found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Row {
    /// Seconds since the first login, at the row's end.
    pub at_s: f64,
    /// Seconds of the row.
    pub span_s: f64,
    /// What the run did at the end of it: `log in`, `send`, ...
    pub phase: &'static str,
    /// What was counted.
    pub counted: Counted,
    /// Connections that are logged in and open.
    pub connections: u64,
    /// Intended send to ACCEPTED of what was accepted in this row.
    pub latency: Option<Latency>,
    /// Resident memory of the server.
    pub server_rss_bytes: Option<u64>,
    /// CPU of the server; 100 is one core.
    pub server_cpu_percent: Option<f64>,
    /// CPU of this process; 100 is one core.
    pub generator_cpu_percent: Option<f64>,
    /// Figures of the server, as [`Series::metrics`] names them.
    pub metrics: Vec<Option<f64>>,
    /// All of its latencies, so that rows can be joined.
    pub(crate) packed: Box<[u8]>,
    /// How many looks were joined.
    pub(crate) looks: u32,
}

/// Counts of one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counted {
    /// Users who logged in.
    pub logins: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages delivered, each counted once.
    pub delivered: u64,
    /// Messages refused.
    pub refused: u64,
    /// Connections that failed or ended.
    pub failed: u64,
}

/// Latency of one row, microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// Of everything in a histogram; `None` if that is nothing.
    pub fn of(latencies: &mut Latencies) -> Option<Self> {
        let found = latencies.percentiles()?;
        Some(Self { p50_us: found.p50, p99_us: found.p99, max_us: found.max })
    }
}

impl Row {
    /// A row of one look, with what the threads recorded in it.
    pub fn new(mut latencies: Latencies) -> Self {
        let latency = Latency::of(&mut latencies);
        Self { latency, packed: latencies.packed(), looks: 1, ..Self::default() }
    }

    /// How often something of this row happened a second.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.span_s.max(1e-9)
    }

    /// Takes the row after this one into it.
    fn join(&mut self, next: Self) {
        let shares = (self.span_s, next.span_s);
        let mean = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some((a * shares.0 + b * shares.1) / (shares.0 + shares.1)),
            (one, other) => one.or(other),
        };
        let (latency, packed) = self.joined_latencies(&next);
        let metrics = self.metrics.iter().zip(&next.metrics).map(|(a, b)| mean(*a, *b)).collect();
        *self = Self {
            at_s: next.at_s,
            span_s: self.span_s + next.span_s,
            phase: next.phase,
            counted: self.counted.plus(next.counted),
            connections: next.connections,
            latency,
            server_rss_bytes: next.server_rss_bytes.or(self.server_rss_bytes),
            server_cpu_percent: mean(self.server_cpu_percent, next.server_cpu_percent),
            generator_cpu_percent: mean(self.generator_cpu_percent, next.generator_cpu_percent),
            metrics,
            packed,
            looks: self.looks + next.looks,
        };
    }

    fn joined_latencies(&self, next: &Self) -> (Option<Latency>, Box<[u8]>) {
        if self.packed.is_empty() || next.packed.is_empty() {
            let has_any = if self.packed.is_empty() { next } else { self };
            return (has_any.latency, has_any.packed.clone());
        }
        let mut latencies = Latencies::unpacked(&self.packed);
        latencies.merge(Latencies::unpacked(&next.packed));
        (Latency::of(&mut latencies), latencies.packed())
    }
}

impl Counted {
    fn plus(self, other: Self) -> Self {
        Self {
            logins: self.logins + other.logins,
            sent: self.sent + other.sent,
            accepted: self.accepted + other.accepted,
            delivered: self.delivered + other.delivered,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
        }
    }
}

/// The rows of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// Names of the server's figures in each row.
    pub metrics: Vec<String>,
    rows: Vec<Row>,
    looks_per_row: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Series {
    /// No rows yet; each will have these figures of the server.
    pub fn new(metrics: Vec<String>) -> Self {
        Self { metrics, rows: Vec::new(), looks_per_row: 1 }
    }

    /// All rows, in the order of time.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Adds a row after all others.
    pub fn push(&mut self, row: Row) {
        match self.rows.last_mut() {
            Some(last) if last.looks < self.looks_per_row => last.join(row),
            _ => self.rows.push(row),
        }
        if self.rows.len() > ROWS_MAX {
            self.coarsen();
        }
    }

    /// Makes one row of each two.
    fn coarsen(&mut self) {
        self.looks_per_row *= 2;
        let mut rows = std::mem::take(&mut self.rows).into_iter();
        while let Some(mut row) = rows.next() {
            if let Some(next) = rows.next() {
                row.join(next);
            }
            self.rows.push(row);
        }
    }

    /// At most so many rows, for a drawing that has no room for more.
    pub fn thinned(&self, rows_max: usize) -> Self {
        let mut thinned = self.clone();
        while thinned.rows.len() > rows_max.max(1) {
            thinned.coarsen();
        }
        thinned
    }

    /// The first line of a `--csv` file.
    pub fn csv_head(&self) -> String {
        let mut line = CSV_HEAD.to_owned();
        for name in &self.metrics {
            line.push(',');
            line += name;
        }
        line + "\n"
    }
}

const CSV_HEAD: &str = "at_s,span_s,phase,logins,sent,accepted,delivered,refused,failed,connections,p50_us,p99_us,\
                        max_us,server_rss_bytes,server_cpu_percent,generator_cpu_percent";

impl Row {
    /// A line of a `--csv` file. What was not measured is empty.
    pub fn csv_line(&self) -> String {
        fn cell(line: &mut String, value: Option<impl std::fmt::Display>) {
            line.push(',');
            *line += &value.map_or(String::new(), |value| value.to_string());
        }
        let Counted { logins, sent, accepted, delivered, refused, failed } = self.counted;
        let mut line = format!(
            "{:.3},{:.3},{},{logins},{sent},{accepted},{delivered},{refused},{failed},{}",
            self.at_s, self.span_s, self.phase, self.connections
        );
        cell(&mut line, self.latency.map(|latency| latency.p50_us));
        cell(&mut line, self.latency.map(|latency| latency.p99_us));
        cell(&mut line, self.latency.map(|latency| latency.max_us));
        cell(&mut line, self.server_rss_bytes);
        cell(&mut line, self.server_cpu_percent);
        cell(&mut line, self.generator_cpu_percent);
        self.metrics.iter().for_each(|value| cell(&mut line, *value));
        line + "\n"
    }
}

/// A row in JSON: names as in the head of a `--csv` file, and the server's figures by name.
#[derive(Serialize)]
struct JsonRow<'a> {
    at_s: f64,
    span_s: f64,
    phase: &'static str,
    #[serde(flatten)]
    counted: Counted,
    connections: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    server_rss_bytes: Option<u64>,
    server_cpu_percent: Option<f64>,
    generator_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    metrics: std::collections::BTreeMap<&'a str, Option<f64>>,
}

impl Serialize for Series {
    /// A line for each row, also in a file that is indented otherwise: nobody reads a number a line.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::from("[");
        for (index, row) in self.rows.iter().enumerate() {
            let round = |value: f64| crate::report::round(value, 3);
            let row = JsonRow {
                at_s: round(row.at_s),
                span_s: round(row.span_s),
                phase: row.phase,
                counted: row.counted,
                connections: row.connections,
                p50_us: row.latency.map(|latency| latency.p50_us),
                p99_us: row.latency.map(|latency| latency.p99_us),
                max_us: row.latency.map(|latency| latency.max_us),
                server_rss_bytes: row.server_rss_bytes,
                server_cpu_percent: row.server_cpu_percent,
                generator_cpu_percent: row.generator_cpu_percent,
                metrics: self
                    .metrics
                    .iter()
                    .map(String::as_str)
                    .zip(row.metrics.iter().copied())
                    .collect(),
            };
            text += if index == 0 { "\n    " } else { ",\n    " };
            text += &serde_json::to_string(&row).map_err(serde::ser::Error::custom)?;
        }
        text += if self.rows.is_empty() { "]" } else { "\n  ]" };
        let raw = RawValue::from_string(text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
