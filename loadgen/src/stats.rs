//! Counts and latencies: one set per thread, merged at the end, never averaged.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Latencies above this are counted as this, nanoseconds: one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// A histogram of nanoseconds with three significant digits. Equal values in a row, as one answer to many messages
/// gives, are recorded together.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    last_ns: u64,
    repeats: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("bounds and precision are within what the histogram allows");
        Self { histogram, last_ns: 0, repeats: 0 }
    }
}

impl Latencies {
    /// Records one latency.
    pub fn record(&mut self, ns: u64) {
        if ns != self.last_ns {
            self.flush();
            self.last_ns = ns;
        }
        self.repeats += 1;
    }

    fn flush(&mut self) {
        if self.repeats > 0 {
            self.histogram.saturating_record_n(self.last_ns, self.repeats);
            self.repeats = 0;
        }
    }

    /// Adds all of another thread's.
    pub fn merge(&mut self, mut other: Self) {
        other.flush();
        self.flush();
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// The percentiles, or `None` if nothing was recorded.
    pub fn percentiles(&mut self) -> Option<Percentiles> {
        self.flush();
        if self.histogram.is_empty() {
            return None;
        }
        let at = |quantile: f64| microseconds(self.histogram.value_at_quantile(quantile));
        Some(Percentiles {
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p999: at(0.999),
            max: microseconds(self.histogram.max()),
            mean: (self.histogram.mean() / 100.0).round() / 10.0,
            count: self.histogram.len(),
        })
    }
}

fn microseconds(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
    /// How many were recorded.
    pub count: u64,
}

/// What one thread measured in the steady phase, and what it counted in the whole run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Intended send to ACCEPTED. Without a rate, a message is intended when it is sent.
    pub accepted: Latencies,
    /// Real send to ACCEPTED: the service time.
    pub service: Latencies,
    /// Intended send to MESSAGE.
    pub delivered: Latencies,
    /// Answers ACCEPTED in the steady phase.
    pub accepted_steady: u64,
    /// MESSAGEs in the steady phase.
    pub delivered_steady: u64,
    /// Messages sent later than intended by the generator's own fault: the window was open, the thread was late.
    pub late_starts: u64,
    /// Messages that fell due in an open-loop run and were not sent by its end.
    pub not_sent: u64,
    /// Refused SENDs by code.
    pub rejected: BTreeMap<u16, u64>,
    /// Failures by reason: connections that ended, answers nobody asked for.
    pub errors: BTreeMap<String, u64>,
}

impl Measured {
    /// Counts a failure.
    pub fn error(&mut self, reason: &str) {
        *self.errors.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds all of another thread's.
    pub fn merge(&mut self, other: Self) {
        self.accepted.merge(other.accepted);
        self.service.merge(other.service);
        self.delivered.merge(other.delivered);
        self.accepted_steady += other.accepted_steady;
        self.delivered_steady += other.delivered_steady;
        self.late_starts += other.late_starts;
        self.not_sent += other.not_sent;
        for (code, count) in other.rejected {
            *self.rejected.entry(code).or_default() += count;
        }
        for (reason, count) in other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_merged_threads_are_those_of_all_values() {
        let (mut a, mut b) = (Latencies::default(), Latencies::default());
        (1..=500u64).for_each(|i| a.record(i * 1000));
        (501..=1000u64).for_each(|i| b.record(i * 1000));
        a.merge(b);
        let found = a.percentiles().unwrap();
        assert!((found.p50 - 500.0).abs() <= 1.0, "{found:?}");
        assert!((found.p99 - 990.0).abs() <= 1.0, "{found:?}");
        assert!((found.max - 1000.0).abs() <= 1.0 && found.count == 1000, "{found:?}");
        assert!((found.mean - 500.5).abs() <= 1.0, "{found:?}");
    }

    #[test]
    fn equal_values_in_a_row_count_each() {
        let mut latencies = Latencies::default();
        (0..99).for_each(|_| latencies.record(5_000));
        latencies.record(9_000_000);
        let found = latencies.percentiles().unwrap();
        assert_eq!(found.count, 100);
        assert!((found.p50 - 5.0).abs() < 0.1 && found.p999 > 8_900.0, "{found:?}");
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Latencies::default().percentiles(), None);
    }

    #[test]
    fn a_value_beyond_the_range_is_the_largest() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        assert_eq!(latencies.percentiles().unwrap().count, 1);
    }
}
