//! Counts and latencies: one set per thread, merged at the end, never averaged.

use crate::control::Window;
use crate::protocol::Protocol;
use crate::sender::Times;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as HistogramReader, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Latencies above this are counted as this, nanoseconds: one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of what a whole run measured, and of one second of it.
const DIGITS: u8 = 3;
const DIGITS_OF_INTERVAL: u8 = 2;

/// A histogram of nanoseconds with three significant digits, or two for an interval. Equal values in a row, as one
/// answer to many messages gives, are recorded together.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    last_ns: u64,
    repeats: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::with_digits(DIGITS)
    }
}

impl Latencies {
    fn with_digits(digits: u8) -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits)
            .expect("bounds and precision are within what the histogram allows");
        Self { histogram, last_ns: 0, repeats: 0 }
    }

    /// For one interval of a run: two digits in 36 kB, so that a thread can hand one over each second.
    pub fn of_interval() -> Self {
        Self::with_digits(DIGITS_OF_INTERVAL)
    }

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

    /// Adds all of another thread's, or of another interval's.
    pub fn merge(&mut self, mut other: Self) {
        other.flush();
        self.flush();
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len() + self.repeats
    }

    /// The counts in few bytes: HdrHistogram's V2 format. Nothing recorded is no bytes.
    pub fn packed(&mut self) -> Box<[u8]> {
        self.flush();
        let mut bytes = Vec::new();
        if !self.histogram.is_empty() {
            V2Serializer::new()
                .serialize(&self.histogram, &mut bytes)
                .expect("a Vec takes all that is written to it");
        }
        bytes.into()
    }

    /// An interval's, from [`Latencies::packed`].
    pub fn unpacked(mut bytes: &[u8]) -> Self {
        let mut all = Self::of_interval();
        if !bytes.is_empty() {
            let one: Histogram<u64> =
                HistogramReader::new().deserialize(&mut bytes).expect("it was packed here");
            all.histogram.add(&one).expect("all intervals have the same bounds");
        }
        all
    }

    /// From another process's [`Latencies::packed`].
    fn received(mut bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let one: Histogram<u64> =
            HistogramReader::new().deserialize(&mut bytes).map_err(|error| error.to_string())?;
        let digits = one.sigfig();
        if !(DIGITS_OF_INTERVAL..=DIGITS).contains(&digits) {
            return Err(format!("a histogram of {digits} digits"));
        }
        let mut all = Self::with_digits(digits);
        all.histogram.add(&one).map_err(|error| error.to_string())?;
        Ok(all)
    }

    /// The percentiles at ever finer steps, as HdrHistogram prints them; empty if nothing was recorded.
    pub fn spectrum(&mut self) -> Spectrum {
        self.flush();
        let histogram = &self.histogram;
        let mut total = 0;
        let steps = histogram.iter_quantiles(SPECTRUM_STEPS).map(|step| {
            total += step.count_since_last_iteration();
            Step {
                value_us: step.value_iterated_to() as f64 / 1000.0,
                quantile: step.quantile_iterated_to(),
                total,
            }
        });
        Spectrum {
            steps: if histogram.is_empty() { Vec::new() } else { steps.collect() },
            mean_us: histogram.mean() / 1000.0,
            deviation_us: histogram.stdev() / 1000.0,
            max_us: histogram.max() as f64 / 1000.0,
            count: histogram.len(),
            buckets: histogram.buckets(),
            digits: histogram.sigfig(),
        }
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

impl Serialize for Latencies {
    /// All counts, in HdrHistogram's V2 format: histograms of processes are merged, never their percentiles.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.clone().packed().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::received(&Vec::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Steps of a spectrum each time that the distance to 100 % halves: as many as HdrHistogram's own tools take.
const SPECTRUM_STEPS: u32 = 5;

/// Percentiles at ever finer steps.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Spectrum {
    /// From the lowest value to the highest.
    pub steps: Vec<Step>,
    pub mean_us: f64,
    /// Standard deviation.
    pub deviation_us: f64,
    pub max_us: f64,
    /// How many were recorded.
    pub count: u64,
    /// Powers of two that the histogram tells apart.
    pub buckets: u8,
    /// Significant digits.
    pub digits: u8,
}

/// One step of a spectrum.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    pub value_us: f64,
    /// The share of all values that is not above this one, 0 to 1.
    pub quantile: f64,
    /// Values up to this one.
    pub total: u64,
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

impl Percentiles {
    /// For people.
    pub fn line(&self) -> String {
        let Self { p50, p90, p99, p999, max, .. } = self;
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")
    }
}

/// What one thread measured in the steady phase, and what it counted in the whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Intended send to ACCEPTED. Without a rate, a message is intended when it is sent.
    pub accepted: Latencies,
    /// Real send to ACCEPTED: the service time.
    pub service: Latencies,
    /// Intended send to MESSAGE.
    pub delivered: Latencies,
    /// Intended send to ACCEPTED since the last interval was handed over, in every phase.
    pub interval: Latencies,
    /// The same to users that stall.
    pub delivered_stalled: Latencies,
    /// Intended send to ACCEPTED of messages of the first tenth of the steady phase, and of the last.
    pub first_tenth: Latencies,
    /// See there.
    pub last_tenth: Latencies,
    /// Answers ACCEPTED in the steady phase.
    pub accepted_steady: u64,
    /// MESSAGEs in the steady phase.
    pub delivered_steady: u64,
    /// Changes of presence that were told, and those told in the steady phase.
    pub told: u64,
    /// See there.
    pub told_steady: u64,
    /// Messages sent later than intended by the generator's own fault: the window was open, the thread was late.
    pub late_starts: u64,
    /// Messages that fell due in an open-loop run and were not sent by its end.
    pub not_sent: u64,
    /// Refused SENDs by code.
    pub rejected: BTreeMap<u16, u64>,
    /// Failures by reason: connections that ended, answers nobody asked for.
    pub errors: BTreeMap<String, u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            accepted: Latencies::default(),
            service: Latencies::default(),
            delivered: Latencies::default(),
            interval: Latencies::of_interval(),
            delivered_stalled: Latencies::default(),
            first_tenth: Latencies::default(),
            last_tenth: Latencies::default(),
            accepted_steady: 0,
            delivered_steady: 0,
            told: 0,
            told_steady: 0,
            late_starts: 0,
            not_sent: 0,
            rejected: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }
}

impl Measured {
    /// A message was accepted now.
    pub fn note_accepted(&mut self, times: Times, now_ns: u64, window: Window) {
        self.note_through(times.intended_ns, now_ns, window);
        self.accepted_steady += u64::from(window.is_steady(now_ns));
        if window.is_steady(times.intended_ns) {
            self.accepted.record(now_ns.saturating_sub(times.intended_ns));
            self.service.record(now_ns.saturating_sub(times.sent_ns));
        }
    }

    /// A message was accepted now, or delivered where nothing answers. The run counts what was intended in its steady
    /// phase, the interval all.
    pub fn note_through(&mut self, intended_ns: u64, now_ns: u64, window: Window) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        self.interval.record(latency_ns);
        if window.is_steady(intended_ns) {
            match window.tenth(intended_ns) {
                0 => self.first_tenth.record(latency_ns),
                9 => self.last_tenth.record(latency_ns),
                _ => {}
            }
        }
    }

    /// Counts a failure.
    pub fn error(&mut self, reason: &str) {
        *self.errors.entry(reason.to_owned()).or_default() += 1;
    }

    /// Messages that the steady phase counts as done: accepted, or delivered where nothing answers.
    pub fn through_steady(&self, protocol: Protocol) -> u64 {
        if protocol.answers() { self.accepted_steady } else { self.delivered_steady }
    }

    /// Adds all of another thread's.
    pub fn merge(&mut self, other: Self) {
        self.accepted.merge(other.accepted);
        self.service.merge(other.service);
        self.delivered.merge(other.delivered);
        self.interval.merge(other.interval);
        self.delivered_stalled.merge(other.delivered_stalled);
        self.first_tenth.merge(other.first_tenth);
        self.last_tenth.merge(other.last_tenth);
        self.accepted_steady += other.accepted_steady;
        self.delivered_steady += other.delivered_steady;
        self.told += other.told;
        self.told_steady += other.told_steady;
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
    fn packed_intervals_merge_to_what_all_values_give() {
        let (mut a, mut b, mut all) =
            (Latencies::of_interval(), Latencies::of_interval(), Latencies::of_interval());
        for i in 1..=1000u64 {
            if i % 3 == 0 { &mut a } else { &mut b }.record(i * 7_000);
            all.record(i * 7_000);
        }
        let mut merged = Latencies::unpacked(&a.packed());
        merged.merge(Latencies::unpacked(&b.packed()));
        assert_eq!(merged.percentiles(), all.percentiles());
        let packed = all.packed();
        assert!(packed.len() < 1500, "{} bytes", packed.len());
        assert_eq!(Latencies::unpacked(&Latencies::of_interval().packed()).count(), 0);
    }

    #[test]
    fn what_another_process_measured_merges_to_what_all_values_give() {
        let (mut a, mut b, mut all) =
            (Measured::default(), Measured::default(), Measured::default());
        for i in 1..=1000u64 {
            let part = if i % 3 == 0 { &mut a } else { &mut b };
            for measured in [part, &mut all] {
                measured.accepted.record(i * 7_001);
                measured.interval.record(i * 7_001);
                measured.late_starts += 1;
                measured.error(if i % 2 == 0 { "even" } else { "odd" });
            }
        }
        for part in [a, b] {
            let text = serde_json::to_string(&part).unwrap();
            let received: Measured = serde_json::from_str(&text).unwrap();
            assert_eq!(received.accepted.clone().spectrum(), part.accepted.clone().spectrum());
            all.merge(received);
        }
        assert_eq!((all.late_starts, all.errors["even"], all.accepted.count()), (2000, 1000, 2000));
        assert_eq!(all.interval.count(), 2000);
        let damaged = serde_json::to_string(&[1, 2, 3]).unwrap();
        assert!(serde_json::from_str::<Latencies>(&damaged).is_err());
    }

    #[test]
    fn an_interval_has_messages_of_every_phase_and_the_run_those_of_the_steady_one() {
        let window =
            Window { send_from_ns: 0, steady_from_ns: 1000, until_ns: 2000, ..Window::default() };
        let mut measured = Measured::default();
        for intended_ns in [500, 1500] {
            let times = Times { intended_ns, sent_ns: intended_ns + 100 };
            measured.note_accepted(times, intended_ns + 1000, window);
        }
        assert_eq!((measured.interval.count(), measured.accepted.count()), (2, 1));
        assert_eq!((measured.service.count(), measured.accepted_steady), (1, 1));
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Latencies::default().percentiles(), None);
        assert_eq!(Latencies::default().spectrum().steps, []);
    }

    #[test]
    fn a_value_beyond_the_range_is_the_largest() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        assert_eq!(latencies.percentiles().unwrap().count, 1);
    }
}
