//! Counters that one thread writes and any thread reads.
//!
//! Each cell has one writer, the thread whose block it stands in, so an addition is a relaxed load and a relaxed store:
//! no locked instruction, no cache line that two writers fight over. A second writer would lose counts; blocks are
//! therefore per thread ([`super::Registry`]). Readers see each cell's recent value; two cells need not be of one moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets the total, for a thread that keeps the count elsewhere.
    #[inline]
    pub fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    /// The total.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n`. Only the owning thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.value().wrapping_add(n));
    }

    /// Subtracts `n`, of which no more than its value. Only the owning thread may call it.
    #[inline]
    pub fn sub(&self, n: u64) {
        let value = self.value();
        debug_assert!(value >= n, "a gauge below zero: {value} - {n}");
        self.set(value.saturating_sub(n));
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number with a fraction that goes up and down.
#[derive(Debug, Default)]
pub struct Real(AtomicU64);

impl Real {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Values sorted into buckets whose bounds double: `FIRST`, `2 FIRST`, ..., `2^(N-1) FIRST`, and one above all.
///
/// Fixed bounds let histograms of several threads and nodes be added up.
#[derive(Debug)]
pub struct Histogram<const FIRST: u64, const N: usize> {
    buckets: [Counter; N],
    above: Counter,
    sum: Counter,
}

impl<const FIRST: u64, const N: usize> Default for Histogram<FIRST, N> {
    fn default() -> Self {
        const { assert!(FIRST > 0 && N > 0 && N < 64) };
        let buckets = std::array::from_fn(|_| Counter::default());
        Self { buckets, above: Counter::default(), sum: Counter::default() }
    }
}

impl<const FIRST: u64, const N: usize> Histogram<FIRST, N> {
    /// Counts one value. Only the owning thread may call it.
    #[inline]
    pub fn record(&self, value: u64) {
        let index = if value <= FIRST { 0 } else { ((value - 1) / FIRST).ilog2() as usize + 1 };
        self.buckets.get(index).unwrap_or(&self.above).add(1);
        self.sum.add(value);
    }

    /// Bound and count of each bucket, then the count above the last bound, then the sum of all values.
    pub fn snapshot(&self) -> Snapshot {
        let bucket = |(i, count): (usize, &Counter)| (FIRST << i, count.value());
        Snapshot {
            buckets: self.buckets.iter().enumerate().map(bucket).collect(),
            above: self.above.value(),
            sum: self.sum.value(),
        }
    }
}

/// What a histogram held when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Upper bound (inclusive) and count of each bucket, not cumulative.
    pub buckets: Vec<(u64, u64)>,
    /// Count of the values above the last bound.
    pub above: u64,
    /// Sum of the values.
    pub sum: u64,
}

/// An enum whose variants are values of a Prometheus label.
pub trait Label: Copy + 'static {
    /// Every variant, in order of [`Label::index`].
    const ALL: &'static [Self];

    /// The variant's place in [`Label::ALL`].
    fn index(self) -> usize;

    /// The label's value. It is stable: dashboards and alerts name it.
    fn name(self) -> &'static str;
}

/// A counter per variant of a label. `N` is the number of variants.
#[derive(Debug)]
pub struct CounterBy<L: Label, const N: usize> {
    counters: [Counter; N],
    label: std::marker::PhantomData<L>,
}

impl<L: Label, const N: usize> Default for CounterBy<L, N> {
    fn default() -> Self {
        const { assert!(L::ALL.len() == N) };
        let counters = std::array::from_fn(|_| Counter::default());
        Self { counters, label: std::marker::PhantomData }
    }
}

impl<L: Label, const N: usize> CounterBy<L, N> {
    /// Adds `n` to the counter of that variant. Only the owning thread may call it.
    #[inline]
    pub fn add(&self, label: L, n: u64) {
        self.counters[label.index()].add(n);
    }

    /// The counter of that variant.
    #[inline]
    pub fn at(&self, label: L) -> &Counter {
        &self.counters[label.index()]
    }

    /// The sum over all variants.
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::value).sum()
    }
}

/// Defines an enum that is a [`Label`], with its stable names.
macro_rules! label {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Number of variants.
            pub const COUNT: usize = <Self as $crate::metrics::Label>::ALL.len();
        }

        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}
pub(crate) use label;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_counts_in_that_bucket() {
        let histogram = Histogram::<16, 4>::default();
        for value in [0, 1, 16, 17, 32, 33, 64, 65, 128, 129, u64::MAX / 2] {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets, [(16, 3), (32, 2), (64, 2), (128, 2)]);
        assert_eq!(snapshot.above, 2);
    }

    #[test]
    fn one_writer_loses_no_count_while_another_thread_reads() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < 100_000 {
                    let value = counter.value();
                    assert!(value >= last, "a counter went back from {last} to {value}");
                    last = value;
                }
            });
            for _ in 0..100_000 {
                counter.add(1);
            }
            assert!(reader.join().is_ok());
        });
        assert_eq!(counter.value(), 100_000);
    }
}
